"""
A fake for time.

`FakeClock.run(story)` runs a coroutine on an event loop whose time is the fake clock's: `asyncio.sleep`,
timeouts, aiolimiter and APScheduler all follow it, while sockets, files and threads stay real.
Nothing moves until `advance` is awaited; it goes from timer to timer and lets everything that each one
starts come to rest before it goes on, so a year passes in the time that its work takes. Once the story has
ended, time runs by itself, so that what is cancelled then can still wait for its own clean-up.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.001
_MICROSECOND_S = 1e-6
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
        # Whole microseconds: sums of floats would let the two clocks drift apart over a year.
        self._monotonic_us = 1_000_000_000
        self.busy: list[Callable[[], bool]] = []
        self._loop: _FakeTimeLoop | None = None

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic_us / 1e6

    def jump(self, by: timedelta) -> None:
        """Move the wall clock alone, as NTP or an operator does."""
        self._wall += by

    def tick(self, by: timedelta | float) -> None:
        """Move both clocks without running anything: for code that has no loop."""
        self._tick(_microseconds(by))

    async def advance(self, by: timedelta | float) -> None:
        """Let `by` pass: every timer due by then fires in its order, and what it starts comes to rest."""
        loop = self._loop
        assert loop is not None, "advance() works inside FakeClock.run()"
        target = self._monotonic_us + _microseconds(by)
        await self.settle()
        while (when := loop.next_timer()) is not None and (due := _ceil_us(when)) <= target:
            self._tick(max(0, due - self._monotonic_us))
            await self.settle()
        self._tick(target - self._monotonic_us)
        await self.settle()

    async def settle(self) -> None:
        """Wait, in real time, until nothing runs any more; fake time stands still."""
        loop = self._loop
        assert loop is not None, "settle() works inside FakeClock.run()"
        await loop.quiet()

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run `story` to its end on a loop that lives by this clock."""
        try:
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                return runner.run(self._tell(story))
        finally:
            self._loop = None

    async def _tell(self, story: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        try:
            return await story
        finally:
            self._loop.ended = True

    def _tick(self, microseconds: int) -> None:
        self._monotonic_us += microseconds
        self._wall += timedelta(microseconds=microseconds)

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = _FakeTimeLoop(self)
        return self._loop


def _microseconds(by: timedelta | float) -> int:
    return by // timedelta(microseconds=1) if isinstance(by, timedelta) else round(by * 1e6)


def _ceil_us(seconds: float) -> int:
    # A hundredth is more than a float of seconds is off after a century; rounding that up would be a microsecond late.
    return math.ceil(seconds * 1e6 - 1e-2)


class _Selector(selectors.DefaultSelector):
    """Counts the polls in which nothing happened."""

    loop: _FakeTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        if loop is None:
            return super().select(timeout)
        if timeout is not None and timeout < _MICROSECOND_S:
            loop.quiet_polls = 0
            return super().select(0)
        if loop.ended:
            events = super().select(_POLL_S)
            if not events:
                loop.let_pass(timeout)
            return events
        if loop.waiter is None:
            return super().select(timeout)
        # Nothing but the loop's own pipe is open and no new thread could write to it: there is nothing to wait for.
        if len(self.get_map()) <= 1 and loop.alone() and not loop.busy():
            loop.be_quiet()
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
        self.ended = False
        self._threads = 0
        # The loop's own tolerance, a nanosecond, is less than a float's error after a year of fake time: a timer would
        # be due and yet not fire, for ever.
        self._clock_resolution = _MICROSECOND_S
        self._bystanders = threading.active_count()

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

    def busy(self) -> bool:
        return self._threads > 0 or any(busy() for busy in self._clock.busy)

    def alone(self) -> bool:
        """No thread was started since this loop was made."""
        return threading.active_count() <= self._bystanders

    def maybe_quiet(self) -> None:
        if self.quiet_polls >= (_BUSY_POLLS if self.busy() else _QUIET_POLLS):
            self.be_quiet()

    def be_quiet(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def let_pass(self, seconds: float | None) -> None:
        """Go to the next timer, if the loop sleeps for one and no thread is at work."""
        if seconds is not None and not self.busy():
            self._clock.tick(seconds)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # the stub is generic over TypeVarTuple
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._threads -= 1
