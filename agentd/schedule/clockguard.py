"""
Notice that time did not pass as it should: the wall clock was set, the machine slept, the process stood still.

In: the wall clock and the monotonic one, looked at every second and before each turn of the scheduler.
Out: `on_jump` with how far the wall moved by itself; `on_stall` with how long nothing ran.
Promise: the scheduler never acts on a moment that the guard has not looked at first. Slewing is no jump:
each look is compared with the one before, so half a millisecond a second never adds up to one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from agentd.clock import Clock, SystemClock
from agentd.telemetry.tally import FAST_S, Spread

log = logging.getLogger("agentd.schedule")

JUMP = timedelta(seconds=1.5)
STALL_S = 5.0
STILL_S = 1.0


def _nothing(_: timedelta) -> None:
    pass


class ClockGuard:
    """
    on_jump: called with the wall clock's own movement, negative when it was set back; after a suspend with its length.
    on_stall: called with the time in which nothing looked, though no clock jumped (SIGSTOP, a starved machine).
    every_s: seconds between looks. lag_s: how late the loop came to each of them.
    """

    def __init__(
        self,
        clock: Clock,
        on_jump: Callable[[timedelta], None],
        on_stall: Callable[[timedelta], None] = _nothing,
        *,
        every_s: float = 1.0,
    ) -> None:
        self._clock = clock
        self._on_jump = on_jump
        self._on_stall = on_stall
        self._every_s = every_s
        self.lag_s = Spread(FAST_S)
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._moved_on_s = float("-inf")
        self._boottime = _boottime if isinstance(clock, SystemClock) else None
        self._wall, self._monotonic, self._sleep_s = clock.now(), clock.monotonic(), 0.0

    def start(self) -> None:
        """Look every second from now on. Needs a running loop."""
        self._remember()
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stood_still_since(self, moment_s: float) -> bool:
        """
        Whether this process stood still (stopped, suspended, starved) at any time after `moment_s`, monotonic seconds.

        A look at a target that falls into such a time says nothing of the target.
        """
        self.look()
        return self._moved_on_s >= moment_s

    def look(self) -> None:
        """Compare the clocks now; calls `on_jump` or `on_stall` at most once."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        passed_s = monotonic - self._monotonic
        jump = wall - self._wall - timedelta(seconds=passed_s)
        self._wall, self._monotonic = wall, monotonic
        slept_s = self._slept_s()
        if passed_s > self._every_s + STILL_S or slept_s > STILL_S:
            self._moved_on_s = monotonic
        if -JUMP <= jump <= JUMP:
            if passed_s > self._every_s + STALL_S:
                log.warning("loop_stalled", extra={"for_s": round(passed_s, 3)})
                self._on_stall(timedelta(seconds=passed_s))
            return
        log.warning(
            "clock_jumped",
            extra={"by_s": round(jump.total_seconds(), 3), "suspended_s": round(slept_s, 3)},
        )
        self._on_jump(jump)

    def _remember(self) -> None:
        self._wall, self._monotonic = self._clock.now(), self._clock.monotonic()
        self._sleep_s = self._boottime() - time.monotonic() if self._boottime else 0.0

    def _slept_s(self) -> float:
        """Seconds of suspend since last asked: CLOCK_BOOTTIME runs on meanwhile, CLOCK_MONOTONIC does not."""
        if self._boottime is None:
            return 0.0
        before, self._sleep_s = self._sleep_s, self._boottime() - time.monotonic()
        return max(0.0, self._sleep_s - before)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + self._every_s
        self._timer = loop.call_at(self._due_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lag_s.add(loop.time() - self._due_s)
        self._arm(loop)
        self.look()


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
