"""systemd hears from us only while everything that must work does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agentd.daemon.notify import ServiceManager
from agentd.daemon.watchdog import Watchdog
from agentd.errors import StoreFull
from agentd.testing import FakeClock

INTERVAL_S = 30.0


class Ears(ServiceManager):
    """Keeps what systemd would have heard, with its time."""

    def __init__(self, clock: FakeClock, watchdog_s: float | None = INTERVAL_S) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.clock = clock
        self.pings: list[float] = []
        self.said: list[str] = []
        self.start = clock.monotonic()

    def _send(self, message: str, *, urgent: bool = False) -> bool:
        if message == "WATCHDOG=1":
            self.pings.append(self.clock.monotonic() - self.start)
        else:
            self.said.append(message)
        return True


class Part:
    """Answers, or not, as told."""

    def __init__(self) -> None:
        self.alive = asyncio.Event()
        self.alive.set()
        self.fails: Exception | None = None
        self.asked = 0

    async def answer(self) -> None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        await self.alive.wait()


async def watched(clock: FakeClock, ears: Ears, parts: dict[str, Part]) -> asyncio.Task[None]:
    task = asyncio.create_task(Watchdog(ears, clock, {name: part.answer for name, part in parts.items()}).run())
    await clock.settle()
    return task


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_pings_come_at_half_of_the_interval() -> None:
    """sd_watchdog_enabled(3) recommends it."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        task = await watched(clock, ears, {"store": Part(), "courier": Part()})
        await clock.advance(60)
        await ended(task)

        assert ears.pings == [0.0, 15.0, 30.0, 45.0, 60.0]
        assert ears.said == []

    clock.run(story())


def test_one_silent_part_stops_the_pings_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A daemon that checks but cannot store is dead, and whoever reads the log must see why it was ended."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        store = Part()
        task = await watched(clock, ears, {"store": store, "courier": Part()})
        store.alive.clear()
        await clock.advance(15 + INTERVAL_S)
        await ended(task)

        assert ears.pings == [0.0]
        assert ears.said == ["STATUS=watchdog: no answer from store | "]

    with caplog.at_level(logging.ERROR):
        clock.run(story())
    [record] = caplog.records
    assert record.message == "watchdog_silent"
    assert record.__dict__["parts"] == "store"


def test_the_silent_part_is_named_before_systemd_ends_us() -> None:
    """Afterwards there is nobody left to say it."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        store = Part()
        task = await watched(clock, ears, {"store": store})
        store.alive.clear()
        await clock.advance(INTERVAL_S - 1)
        await ended(task)

        assert ears.said

    clock.run(story())


def test_a_part_that_answers_late_is_pinged_for_at_once() -> None:
    """A slow disk for twenty seconds is no reason to be restarted."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        store = Part()
        task = await watched(clock, ears, {"store": store})
        store.alive.clear()
        await clock.advance(25)
        store.alive.set()
        await clock.settle()

        assert ears.pings == [0.0, 25.0]
        assert ears.said[-1] == "STATUS="
        await clock.advance(5)
        assert ears.pings == [0.0, 25.0, 30.0]
        await ended(task)

    clock.run(story())


def test_a_silent_part_is_asked_once_not_anew_each_round() -> None:
    """Questions must not pile up before a part that hangs."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        store = Part()
        store.alive.clear()
        task = await watched(clock, ears, {"store": store})
        await clock.advance(600)
        await ended(task)

        assert store.asked == 1

    clock.run(story())


def test_a_full_disk_is_alive() -> None:
    """Being restarted frees no space, and would lose what is in memory."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        store = Part()
        store.fails = StoreFull("full")
        task = await watched(clock, ears, {"store": store})
        await clock.advance(15)
        await ended(task)

        assert ears.pings == [0.0, 15.0]

    clock.run(story())


def test_a_part_that_raises_has_not_answered_but_may_yet(caplog: pytest.LogCaptureFixture) -> None:
    """A defect in one part must neither be taken for life nor end the watchdog itself."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock)
        scheduler = Part()
        scheduler.fails = RuntimeError("stopped")
        task = await watched(clock, ears, {"scheduler": scheduler})
        await clock.advance(10)
        assert ears.pings == []
        scheduler.fails = None
        await clock.advance(5)
        await ended(task)

        assert ears.pings

    clock.run(story())
    assert "watchdog_part_failed" in caplog.text


def test_unwatched_it_ends_at_once() -> None:
    """Without systemd there is nobody to ping."""
    clock = FakeClock()

    async def story() -> None:
        ears = Ears(clock, watchdog_s=None)
        part = Part()
        await Watchdog(ears, clock, {"store": part.answer}).run()

        assert part.asked == 0

    clock.run(story())
