"""
Take the numbers by which agentd judges itself.

In: the daemon's parts. Out: by rule, what is wrong, None for nothing; what is undecided is left out.
Promise: cheap enough for every sweep: one short read of the store, one statvfs, and counters that are kept anyway.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import apsw

from agentd.alert.routing import WEBHOOK_RULE
from agentd.clock import Clock
from agentd.daemon import vitals
from agentd.daemon.receivers import Receivers
from agentd.daemon.vitals import LOG_BEHIND_RULE
from agentd.deliver.courier import Courier
from agentd.memory import outbox, webhooks
from agentd.memory.store import Store
from agentd.memory.webhooks import Health
from agentd.pipeline.keeper import SELF
from agentd.pipeline.tending import Tending
from agentd.pipeline.watches import LogWatch
from agentd.records import AlertStatus
from agentd.schedule.scheduler import Scheduler

_SWEEPS_A_MINUTE = 4
_FULL = "the disk is full: history is not kept, alerts live on the ballast"


@dataclass(slots=True)
class Measures:
    """held: why messages are held back since a restore, or None."""

    clock: Clock
    scheduler: Scheduler
    store: Store
    courier: Courier
    keeper: Tending
    held: Callable[[], str | None]
    receivers: Receivers = field(default_factory=Receivers)
    _begun: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_SWEEPS_A_MINUTE + 1))
    _jump: timedelta = timedelta(0)

    def jumped(self, by: timedelta) -> None:
        """The wall clock moved by itself; the widest jump since the last look is told."""
        self._jump = max(self._jump, by, key=abs)

    def told(self) -> set[str]:
        """The rules of our own alerts that fire, maybe since before the last start."""
        ours = (alert for alert in self.keeper.alerts.values() if alert.watch == SELF)
        return {alert.rule or "" for alert in ours if alert.status is AlertStatus.FIRING}

    async def take(self) -> dict[str, str | None]:
        """Look at everything once. Raises StoreError."""
        # An alert about what the configuration no longer names is over.
        told = self.told()
        gone = [rule for rule in told if rule.startswith(LOG_BEHIND_RULE)]
        gone += [WEBHOOK_RULE + name for name in _webhooks_in(told) - self.courier.health().keys()]
        return {
            **dict.fromkeys(gone),
            "disk_full": _FULL if self.store.full else None,
            "store": self.store.trouble,
            # One clear message: of a disk that is full nobody need hear that little is left.
            **({} if self.store.full else {"disk_low": self._disk()}),
            "scheduler_late": self._lateness(),
            "clock": self._clock_jump(),
            **self._logs(),
            **await self._webhooks(),
        }

    async def look_at_webhooks(self) -> bool:
        """Whether messages can reach anybody: false when no webhook works. Raises StoreError."""
        await self._webhooks()
        return not self.receivers.none_works(_webhooks_in(self.told()))

    def _disk(self) -> str | None:
        room = os.statvfs(self.store.path)
        return vitals.disk_low(room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)

    def _lateness(self) -> str | None:
        stats = self.scheduler.stats()
        self._begun.append((stats.runs, stats.late))
        runs, late = self._begun[0]
        return vitals.scheduler_late(stats.runs - runs, stats.late - late, self.scheduler.overdue_s())

    def _clock_jump(self) -> str | None:
        jump, self._jump = self._jump, timedelta(0)
        return vitals.clock(jump)

    def _logs(self) -> dict[str, str | None]:
        unread = {}
        for watch in self.keeper.watches.values():
            if isinstance(watch, LogWatch):
                seen = watch.last.observation.values if watch.last is not None and watch.work is not None else {}
                unread[LOG_BEHIND_RULE + watch.name] = vitals.log_behind(int(seen.get("behind_bytes", 0)))
        return unread

    async def _webhooks(self) -> dict[str, str | None]:
        health = self.courier.health()
        # Of one that fails we tell anyway, and while the outbox is held everything waits.
        well = [name for name, found in health.items() if found.state == "ok"] if self.held() is None else []

        # From the store: while the outbox is held, the courier has not read yet who is disabled.
        def read(c: apsw.Connection) -> tuple[Mapping[str, Health], Mapping[str, datetime]]:
            return webhooks.health(c), outbox.waiting_since(c, well)

        stored, waiting = await self.store.state.read(read)
        wrong = self.receivers.judge(health, stored, self.clock.monotonic())
        now = self.clock.now()
        working = {name: now - since for name, since in waiting.items() if name in wrong and wrong[name] is None}
        found = {WEBHOOK_RULE + name: what for name, what in wrong.items()}
        return found | {"outbox_old": vitals.outbox_old(working)}


def _webhooks_in(rules: Collection[str]) -> set[str]:
    """The names in rules such as `webhook:ops`."""
    return {rule.removeprefix(WEBHOOK_RULE) for rule in rules if rule.startswith(WEBHOOK_RULE)}
