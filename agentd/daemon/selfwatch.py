"""
The daemon's eye on itself: memory, store, webhooks, and the stamp that says "I was alive then".

In: what the process and the store say every `SWEEP_S`. Out: alerts of the watch `agentd`, a request to restart
when memory stays above its limit, the `alive_at` stamp by which the next start knows how long we were away.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from agentd.clock import Clock
from agentd.deliver.outlet import OutletHealth
from agentd.records import Severity
from agentd.settings import show_duration

log = logging.getLogger("agentd.selfwatch")

SWEEP_S = 15.0
WEBHOOK_RULE = "webhook:"
"""Begins the rule of the alert that tells of a webhook; its name follows."""
MEMORY_PATIENCE = timedelta(minutes=5)
WEBHOOK_PATIENCE = timedelta(minutes=15)


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


@dataclass(slots=True)
class Receivers:
    """
    Says which webhooks people must be told of by way of the others.

    failing_since_s: monotonic, by webhook: a wall clock that is set must accuse nobody.
    """

    failing_since_s: dict[str, float] = field(default_factory=dict)

    def judge(
        self, health: Mapping[str, OutletHealth], disabled: Mapping[str, str], now_s: float
    ) -> dict[str, str | None]:
        """What is wrong with each webhook, None for nothing. disabled: reasons by name. now_s: monotonic."""
        self.failing_since_s = {
            name: self.failing_since_s.get(name, now_s) for name, found in health.items() if found.failures
        }
        return {name: self._wrong(name, found, disabled.get(name), now_s) for name, found in health.items()}

    def _wrong(self, name: str, found: OutletHealth, disabled: str | None, now_s: float) -> str | None:
        if disabled is not None:
            return f"webhook {name} is disabled: {disabled}; mend it, then `agentd webhook enable {name}`"
        since_s = self.failing_since_s.get(name, now_s)
        if now_s - since_s < WEBHOOK_PATIENCE.total_seconds():
            return None
        return f"webhook {name} takes no message: {found.last_error}"


class SelfWatch:
    """
    report: advances one of our own alerts (`Pipeline.report_self`). full: whether the disk holds no more.
    trouble: what the store found wrong with its own file, or None.
    receivers: what is wrong with each webhook that there is or that we have told of, None for nothing.
    restart: asks the daemon to drain, save and exit for a clean start. stamp: stores that we are alive.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        memory_limit: int,
        full: Callable[[], bool],
        trouble: Callable[[], str | None],
        receivers: Callable[[], Awaitable[Mapping[str, str | None]]],
        report: Callable[[str, str | None, Severity], Awaitable[None]],
        stamp: Callable[[], Awaitable[None]],
        restart: Callable[[str], None],
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self._clock = clock
        self.memory = MemoryLimit(memory_limit)
        self._full = full
        self._trouble = trouble
        self._receivers = receivers
        self._report = report
        self._stamp = stamp
        self._restart = restart
        self._resident = resident

    async def sweep(self) -> None:
        full = "the disk is full: history is not kept, alerts live on the ballast" if self._full() else None
        await self._report("disk_full", full, Severity.CRITICAL)
        await self._report("store", self._trouble(), Severity.CRITICAL)
        resident = self._resident()
        if self.memory.exceeded(resident, self._clock.monotonic()):
            text = (
                f"{resident // 2**20} MiB in use, more than memory_limit ({self.memory.limit // 2**20} MiB) "
                f"for {show_duration(MEMORY_PATIENCE)}"
            )
            log.error("memory_limit", extra={"resident_bytes": resident, "limit_bytes": self.memory.limit})
            await self._report("memory", text, Severity.WARNING)
            self._restart(text)
        elif self.memory.above_since_s is None:
            await self._report("memory", None, Severity.WARNING)
        await self._stamp()
        for name, wrong in (await self._receivers()).items():
            await self._report(WEBHOOK_RULE + name, wrong, Severity.CRITICAL)
