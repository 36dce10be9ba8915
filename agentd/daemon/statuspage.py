"""
What anybody may see: the watches with `public: true`, their names, their states and how they were.

In: the watches and alerts of the daemon, roll-ups. Out: plain JSON values.
Promise: nothing that a target said, and no word of what is private. However many ask, the store is read once in some
seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import apsw

from agentd.api.service import Json, NotFound
from agentd.clock import iso
from agentd.daemon.measured import month, uptimes
from agentd.pipeline import Watch
from agentd.pipeline.watches import LogWatch
from agentd.records import AlertStatus, Verdict

if TYPE_CHECKING:
    from agentd.config.models import Config
    from agentd.daemon.app import Daemon

MOST_WATCHES = 200
STALE_S = 10.0


class StatusPage:
    """The public part of `Reading`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._names: tuple[str, ...] = ()
        self._of: Config | None = None
        self._months: dict[str, Json] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    def names(self) -> tuple[str, ...]:
        """Of the watches that are public and enabled, in the order of the file."""
        config = self._daemon.plan.config
        if self._of is not config:
            self._names = tuple(watch.name for watch in config.watches if watch.public and watch.enabled)
            self._of, self._read_at = config, None
        return self._names

    async def page(self) -> Json:
        """What `Reading.public` gives."""
        names = [name for name in self.names() if name in self._daemon.pipeline.watches]
        months = await self._months_of(names[:MOST_WATCHES])
        # After the wait: the state is that of this moment, only the history is some seconds old.
        states = {name: self._state(watch) for name in names if (watch := self._watch(name)) is not None}
        listed = [
            {"name": name, "state": states[name], **months[name]} for name in names if name in months and name in states
        ]
        return {
            "instance": self._daemon.instance,
            "at": iso(self._daemon.clock.now()),
            "state": _overall(states.values()),
            "watches": listed,
            "more_watches": max(0, len(names) - MOST_WATCHES),
        }

    async def watch(self, name: str) -> Json:
        """What `Reading.public_watch` gives. Raises NotFound."""
        watch = self._watch(name)
        if watch is None or name not in self.names():
            raise NotFound("no such watch on the status page")
        now = self._daemon.clock.now()

        def look(c: apsw.Connection) -> Json:
            return _month(c, name, watch.kind, now) | {"uptime": uptimes(c, name, watch.kind, now)}

        found = await self._daemon.store.history.read(look)
        return {"name": name, "state": self._state(watch), **found}

    async def _months_of(self, names: list[str]) -> dict[str, Json]:
        async with self._reading:
            passed = self._daemon.clock.monotonic()
            if self._read_at is None or passed - self._read_at >= STALE_S:
                now = self._daemon.clock.now()
                kinds = {name: watch.kind for name in names if (watch := self._watch(name)) is not None}
                self._months = await self._daemon.store.history.read(
                    lambda c: {name: _month(c, name, kind, now) for name, kind in kinds.items()}
                )
                self._read_at = passed
            return self._months

    def _watch(self, name: str) -> Watch | None:
        return self._daemon.pipeline.watches.get(name)

    def _state(self, watch: Watch) -> str:
        """By its alerts, not by its last check: one failing check is no outage."""
        if watch.name in self._daemon.keeping.paused:
            return "paused"
        own = [self._daemon.pipeline.alerts.get(watch.calm.fingerprint)]
        if isinstance(watch, LogWatch) and watch.last is not None:
            own.append(watch.last.step.alert)  # the worst of its rules
        if any(alert is not None and alert.status is AlertStatus.FIRING for alert in own):
            return "failing"
        if watch.verdict in (None, Verdict.BLIND):
            return "unknown"
        return "ok"


def _month(c: apsw.Connection, name: str, kind: str | None, now: datetime) -> Json:
    share, bars = month(c, name, kind, now)
    return {"uptime_30d": share, "bars": bars}


def _overall(states: Iterable[str]) -> str:
    found = set(states)
    return next(
        (state for state in ("failing", "ok") if state in found), "paused" if found == {"paused"} else "unknown"
    )
