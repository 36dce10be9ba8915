"""One deadline for many steps, and cancellations that stay what they are."""

from __future__ import annotations

import asyncio

import pytest

from agentd.llm.deadline import Deadline
from agentd.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_steps_share_one_deadline(clock: FakeClock) -> None:
    """A stream that trickles keeps every timeout of a single read and never ends."""
    steps: list[float] = []

    async def trickle() -> None:
        with Deadline(10) as deadline:
            while True:
                await deadline.wait(asyncio.sleep(3))
                steps.append(clock.monotonic())

    async def told() -> None:
        began = clock.monotonic()
        going = asyncio.create_task(trickle())
        await clock.advance(9.9)
        assert not going.done()
        await clock.advance(0.1)
        with pytest.raises(TimeoutError):
            await going
        assert steps == [began + 3, began + 6, began + 9]
        assert going.cancelling() == 0

    clock.run(told())


def test_what_takes_no_time_between_steps_is_not_cut(clock: FakeClock) -> None:
    """The reader's own work is not the provider's delay: a cancellation there would hit somebody else."""

    async def told() -> None:
        with Deadline(1) as deadline:
            await deadline.wait(asyncio.sleep(0))
            sleeping = asyncio.create_task(asyncio.sleep(5))
            await clock.settle()
            clock.tick(5)
            await sleeping
            with pytest.raises(TimeoutError):
                await deadline.wait(asyncio.Event().wait())
        await asyncio.sleep(0)

    clock.run(told())


def test_after_the_deadline_what_need_not_wait_is_still_had(clock: FakeClock) -> None:
    """What has come already was paid for, and nothing of the deadline may stay behind in the task."""

    async def ready() -> str:
        return "here"

    async def told() -> None:
        with Deadline(0) as deadline:
            await clock.advance(1)
            assert await deadline.wait(ready()) == "here"
        await asyncio.sleep(0)
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    clock.run(told())


def test_a_cancellation_from_elsewhere_stays_one(clock: FakeClock) -> None:
    """A cancelled run that looked like a timeout would fall back to another model instead of ending."""

    async def wait() -> None:
        with Deadline(10) as deadline:
            await deadline.wait(asyncio.Event().wait())

    async def told() -> None:
        going = asyncio.create_task(wait())
        await clock.advance(1)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

        both = asyncio.create_task(wait())
        await clock.settle()
        both.cancel()
        clock.tick(10)
        with pytest.raises(asyncio.CancelledError):
            await both

    clock.run(told())


def test_an_outer_timeout_is_not_taken_for_ours(clock: FakeClock) -> None:
    """Runs have deadlines of their own around it."""

    async def wait() -> str:
        try:
            async with asyncio.timeout(5):
                with Deadline(10) as deadline:
                    try:
                        await deadline.wait(asyncio.Event().wait())
                    except TimeoutError:
                        return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    async def told() -> None:
        going = asyncio.create_task(wait())
        await clock.advance(5)
        assert await going == "outer"

    clock.run(told())
