"""
Fakes for time, shipped so that users can test their own configurations and plugins.

`FakeClock.run(story)` runs a coroutine on an event loop whose time is the fake clock's: `asyncio.sleep`,
timeouts, aiolimiter and APScheduler all follow it, while sockets, files and threads stay real.
Nothing moves until `advance` is awaited; it goes from timer to timer and lets everything that each one
starts come to rest before it goes on, so a year passes in the time that its work takes.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.001
_QUIET_POLLS = 3
_BUSY_POLLS = 5000


class FakeClock:
    """
    A clock that stands still until it is told to move.

    busy: callables that say "work is under way where the loop cannot see it" (a writer thread, another
    process); `advance` gives such work up to five real seconds before it moves on.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)) -> None:
        self._wall = start
        self._monotonic = 1000.0
        self.busy: list[Callable[[], bool]] = []
        self._loop: _FakeTimeLoop | None = None

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def jump(self, by: timedelta) -> None:
        """Move the wall clock alone, as NTP or an operator does."""
        self._wall += by

    def tick(self, by: timedelta | float) -> None:
        """Move both clocks without running anything: for code that has no loop."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self._monotonic += seconds
        self._wall += timedelta(seconds=seconds)

    async def advance(self, by: timedelta | float) -> None:
        """Let `by` pass: every timer due by then fires in its order, and what it starts comes to rest."""
        loop = self._loop
        assert loop is not None, "advance() works inside FakeClock.run()"
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        target = self._monotonic + seconds
        await self.settle()
        while (when := loop.next_timer()) is not None and when <= target:
            self.tick(max(0.0, when - self._monotonic))
            await self.settle()
        self.tick(target - self._monotonic)
        await self.settle()

    async def settle(self) -> None:
        """Wait, in real time, until nothing runs any more; fake time stands still."""
        loop = self._loop
        assert loop is not None, "settle() works inside FakeClock.run()"
        await loop.quiet()

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run `story` to its end on a loop that lives by this clock."""
        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            try:
                return runner.run(story)
            finally:
                self._loop = None

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = _FakeTimeLoop(self)
        return self._loop


class _Selector(selectors.DefaultSelector):
    """Counts the polls in which nothing happened."""

    loop: _FakeTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        if loop is None or loop.waiter is None:
            return super().select(timeout)
        if timeout == 0:
            loop.quiet_polls = 0
            return super().select(0)
        events = super().select(_POLL_S)
        loop.quiet_polls = 0 if events else loop.quiet_polls + 1
        loop.maybe_quiet()
        return events


class _FakeTimeLoop(asyncio.SelectorEventLoop):
    _scheduled: list[asyncio.TimerHandle]  # CPython's own names: the heap of timers
    _timer_cancelled_count: int

    def __init__(self, clock: FakeClock) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self._clock = clock
        self.waiter: asyncio.Future[None] | None = None
        self.quiet_polls = 0
        self._threads = 0

    def time(self) -> float:
        return self._clock.monotonic()

    def next_timer(self) -> float | None:
        while self._scheduled and self._scheduled[0].cancelled():
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]  # what the loop itself does when it drops one
            self._timer_cancelled_count = max(0, self._timer_cancelled_count - 1)
        return self._scheduled[0].when() if self._scheduled else None

    async def quiet(self) -> None:
        assert self.waiter is None, "somebody settles already"
        self.quiet_polls = 0
        self.waiter = self.create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def maybe_quiet(self) -> None:
        busy = self._threads > 0 or any(busy() for busy in self._clock.busy)
        needed = _BUSY_POLLS if busy else _QUIET_POLLS
        if self.quiet_polls >= needed and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # the stub is generic over TypeVarTuple
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._threads -= 1
