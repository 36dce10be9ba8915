"""The fake clock must be right where real clocks are: everything else is tested by it."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiolimiter import AsyncLimiter

from agentd.testing import FakeClock

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def test_timers_fire_in_their_order_at_their_time() -> None:
    """Both clocks stand at a timer's own moment while it runs, not at the end of the advance."""
    clock = FakeClock()
    seen: list[tuple[str, float]] = []

    async def story() -> None:
        def note(name: str) -> None:
            seen.append((name, (clock.now() - START).total_seconds()))

        loop = asyncio.get_running_loop()
        for name, delay_s in (("late", 2.5), ("early", 1.25), ("never", 10.0)):
            loop.call_later(delay_s, note, name)
        await clock.advance(5)

    clock.run(story())

    assert seen == [("early", 1.25), ("late", 2.5)]
    assert clock.now() == START + timedelta(seconds=5)
    assert clock.monotonic() == 1005.0


def test_a_timer_made_by_a_timer_fires_in_the_same_advance() -> None:
    """A retry that schedules its own retry must not need one advance each."""
    clock = FakeClock()

    async def story() -> list[float]:
        laps = []

        async def runner() -> None:
            while True:
                await asyncio.sleep(1)
                laps.append(clock.monotonic() - 1000)

        task = asyncio.create_task(runner())
        await clock.advance(3)
        task.cancel()
        return laps

    assert clock.run(story()) == [1.0, 2.0, 3.0]


def test_a_cancelled_timer_neither_fires_nor_stops_the_clock() -> None:
    """Timeouts that were not needed are the most common timers of all."""
    clock = FakeClock()
    fired: list[str] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        first = loop.call_later(1, fired.append, "cancelled before")
        first.cancel()
        victim = loop.call_later(3, fired.append, "cancelled meanwhile")
        loop.call_later(2, victim.cancel)
        for _ in range(300):
            loop.call_later(1.5, fired.append, "x").cancel()
        loop.call_later(4, fired.append, "kept")
        await clock.advance(5)

    clock.run(story())

    assert fired == ["kept"]


def test_a_timeout_strikes_after_fake_seconds() -> None:
    """Deadlines follow the same clock as sleeps."""
    clock = FakeClock()

    async def story() -> float:
        async def slow() -> float:
            try:
                async with asyncio.timeout(30):
                    await asyncio.Event().wait()
            except TimeoutError:
                pass
            return clock.monotonic() - 1000

        task = asyncio.create_task(slow())
        await clock.advance(60)
        return task.result()

    assert clock.run(story()) == 30.0


def test_work_on_a_thread_is_done_before_time_goes_on() -> None:
    """A write that takes three real milliseconds takes no fake time."""
    clock = FakeClock()

    async def story() -> list[tuple[str, float]]:
        seen = []

        async def writer() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.03)
                seen.append(("written", clock.monotonic() - 1000))

        task = asyncio.create_task(writer())
        await clock.advance(10)
        await task
        return seen

    assert clock.run(story()) == [("written", 1.0), ("written", 2.0), ("written", 3.0)]


def test_work_that_the_loop_cannot_see_is_waited_for_when_told() -> None:
    """A writer thread of its own, or a child process, shows itself through `busy`."""
    clock = FakeClock()

    async def story() -> float | None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        pending = [True]
        finished_at: list[float] = []

        def work() -> None:
            time.sleep(0.05)
            loop.call_soon_threadsafe(done.set)
            pending.clear()

        async def wait() -> None:
            await done.wait()
            finished_at.append(clock.monotonic() - 1000)

        clock.busy.append(lambda: bool(pending))
        waiting = asyncio.create_task(wait())
        thread = threading.Thread(target=work)
        thread.start()
        await clock.advance(10)
        thread.join()
        await waiting
        return finished_at[0]

    assert clock.run(story()) == 0.0


def test_a_conversation_over_loopback_takes_no_fake_time() -> None:
    """Real servers in tests answer within the moment in which they are asked."""
    clock = FakeClock()

    async def story() -> list[tuple[bytes, float]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answers = []

        async def ask() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(5):
                await asyncio.sleep(60)
                writer.write(b"ping\n" * 2000)
                answer = b"".join([await reader.readline() for _ in range(2000)])
                answers.append((answer[:5], clock.monotonic() - 1000))
            writer.close()
            await writer.wait_closed()

        asking = asyncio.create_task(ask())
        await clock.advance(timedelta(minutes=10))
        await asking
        server.close()
        await server.wait_closed()
        return answers

    assert clock.run(story()) == [(b"PING\n", 60.0 * number) for number in range(1, 6)]


def test_aiolimiter_follows_the_clock() -> None:
    """A rate of one a second over an hour is tested without waiting for it."""
    clock = FakeClock()

    async def story() -> list[float]:
        limiter = AsyncLimiter(2, 2.0)
        taken = []

        async def take() -> None:
            async with limiter:
                taken.append(round(clock.monotonic() - 1000, 3))

        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(take())
            await clock.advance(3600)
        return taken

    assert clock.run(story()) == [0.0, 0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_two_clocks_do_not_drift_apart_in_a_year() -> None:
    """Sums of rounded fractions would put a cron line a little beside the minute."""
    clock = FakeClock()

    async def story() -> None:
        async def pulse() -> None:
            while True:
                await asyncio.sleep(3600.1)

        task = asyncio.create_task(pulse())
        await clock.advance(timedelta(days=365))
        task.cancel()

    clock.run(story())

    assert clock.now() == START + timedelta(days=365)
    assert clock.monotonic() == 1000 + 365 * 86400


def test_odd_fractions_fire_after_years_too() -> None:
    """A float of seconds loses its nanoseconds after a year; a timer must still be found due."""
    clock = FakeClock()

    async def story() -> int:
        laps = 0

        async def pulse() -> None:
            nonlocal laps
            while True:
                await asyncio.sleep(100 / 3)
                laps += 1

        await clock.advance(timedelta(days=3650))
        task = asyncio.create_task(pulse())
        await clock.advance(timedelta(hours=10, seconds=1))
        task.cancel()
        return laps

    assert clock.run(story()) == 1080


def test_a_jump_moves_the_wall_alone() -> None:
    """NTP and operators set the wall clock; timers do not see it."""
    clock = FakeClock()

    clock.jump(timedelta(minutes=-10))

    assert clock.now() == START - timedelta(minutes=10)
    assert clock.monotonic() == 1000.0


def test_clean_up_after_the_story_can_still_wait() -> None:
    """A task that is cancelled at the end and says good-bye with a pause must not hang the test."""
    clock = FakeClock()
    parted: list[float] = []

    async def story() -> None:
        async def worker() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(30)
                parted.append(clock.monotonic())

        story.task = asyncio.create_task(worker())  # type: ignore[attr-defined]
        await clock.settle()

    clock.run(story())

    assert parted == [pytest.approx(1030.0)]


def test_an_error_of_the_story_comes_out() -> None:
    """A failing assertion inside must fail the test outside."""

    async def story() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        FakeClock().run(story())
