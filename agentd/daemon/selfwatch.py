"""
The daemon's eye on itself, and the stamp that says "I was alive then".

In: what is measured every `SWEEP_S`. Out: alerts of the watch `agentd`, a request to restart when memory stays above
its limit, the `alive_at` stamp by which the next start knows how long we were away.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from agentd.clock import Clock
from agentd.daemon import vitals
from agentd.daemon.vitals import Settling, vital_of
from agentd.records import Severity
from agentd.settings import show_duration

log = logging.getLogger("agentd.selfwatch")

SWEEP_S = 15.0
MEMORY_PATIENCE = timedelta(minutes=5)


def resident_bytes() -> int:
    """RSS of this process; 0 where /proc is not there."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


@dataclass(slots=True)
class MemoryLimit:
    """Says when the limit has been exceeded for too long. limit: bytes, 0 for none."""

    limit: int
    above_since_s: float | None = None

    def exceeded(self, resident: int, now_s: float) -> bool:
        """now_s: monotonic."""
        if not self.limit or resident <= self.limit:
            self.above_since_s = None
            return False
        if self.above_since_s is None:
            self.above_since_s = now_s
        return now_s - self.above_since_s >= MEMORY_PATIENCE.total_seconds()


class SelfWatch:
    """
    measure: what is wrong by rule, None for nothing (`Measures.take`); what it leaves out keeps its alert as it is.
    report: advances one of our own alerts (`Pipeline.report_self`).
    restart: asks the daemon to drain, save and exit for a clean start. stamp: stores that we are alive.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        memory_limit: int,
        measure: Callable[[], Awaitable[Mapping[str, str | None]]],
        report: Callable[[str, str | None, Severity], Awaitable[None]],
        stamp: Callable[[], Awaitable[None]],
        restart: Callable[[str], None],
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._clock = clock
        self.memory = MemoryLimit(memory_limit)
        self._measure = measure
        self._report = report
        self._stamp = stamp
        self._restart = restart
        self._resident = resident
        self._settling = Settling()
        self._writes_s: deque[float] = deque(maxlen=vitals.SLOW_SAMPLES)

    async def sweep(self) -> None:
        """Measure, tell what has lasted, stamp. Raises StoreError."""
        found = dict(await self._measure())
        found["store_slow"] = vitals.store_slow(self._writes_s)
        restart = self._look_at_memory(found)
        for rule, wrong in self._settling.settle(found, self._clock.monotonic()).items():
            await self._report(rule, wrong, vital_of(rule).severity)
        if restart is not None:
            self._restart(restart)
        began_s = self._clock.monotonic()
        await self._stamp()
        self._writes_s.append(self._clock.monotonic() - began_s)

    def _look_at_memory(self, found: dict[str, str | None]) -> str | None:
        """Why we must restart, or None."""
        resident, limit = self._resident(), self.memory.limit
        found["memory_high"] = vitals.memory_high(resident, limit)
        if not self.memory.exceeded(resident, self._clock.monotonic()):
            if self.memory.above_since_s is None:
                found["memory"] = None
            return None
        text = (
            f"{resident // 2**20} MiB in use, more than memory_limit ({limit // 2**20} MiB) "
            f"for {show_duration(MEMORY_PATIENCE)}"
        )
        log.error("memory_limit", extra={"resident_bytes": resident, "limit_bytes": limit})
        found["memory"] = text
        return text
