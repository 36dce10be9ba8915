"""
What outlives a restart beside the alerts: pauses, heartbeats, and each alert's history.

In: what people and jobs say. Out: rows in the stores.
Promise: memory follows the store. What the store refuses now is either told to who asked (a pause) or kept to be
stored later (a heartbeat).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from datetime import timedelta

import apsw

from agentd.clock import Clock
from agentd.errors import StoreError
from agentd.memory import audit, events, heartbeats, ledger, meta, pauses
from agentd.memory.database import Database
from agentd.memory.pauses import Pause
from agentd.records import Transition
from agentd.watch.heartbeat import Beats

AGENTD = "agentd"
"""Who did it, in the audit trail, when nobody asked for it."""


class Keeping:
    """paused: by watch. beats: the heartbeats that came in, or are awaited."""

    def __init__(self, state: Database, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self.paused: dict[str, Pause] = {}
        self.beats = Beats(clock)

    async def restore(self) -> None:
        """Take up what the last process left; call it once. Raises StoreError."""
        self.paused = await self._state.read(pauses.load)
        alive_at = await self._state.read(meta.alive_at)
        self.beats.restore(await self._state.read(heartbeats.load), alive_at)

    async def pause(self, watch: str, *, by: str, lasting: timedelta | None, reason: str) -> Pause | None:
        """
        Write down that the watch is paused, or paused otherwise; returns the pause that this one replaces.

        Raises StoreError, and nothing is changed.
        """
        now = self._clock.now()
        pause = Pause(watch, by, now, None if lasting is None else now + lasting, reason)

        def change(connection: apsw.Connection) -> None:
            pauses.save(connection, pause)
            audit.append(connection, by, "pause", watch, reason, now)

        await self._state.write(change)
        before = self.paused.get(watch)
        self.paused[watch] = pause
        return before

    async def resume(self, watch: str, *, by: str) -> None:
        """Write down that the pause is over. Raises StoreError, and nothing is changed."""
        now = self._clock.now()

        def change(connection: apsw.Connection) -> None:
            pauses.delete(connection, watch)
            audit.append(connection, by, "resume", watch, "", now)

        await self._state.write(change)
        self.paused.pop(watch, None)

    def over(self) -> list[str]:
        """The paused watches whose time has come."""
        now = self._clock.now()
        return [name for name, pause in self.paused.items() if pause.until is not None and pause.until <= now]

    async def save_beats(self) -> None:
        """Store the heartbeats that came in; raises StoreError, and they stay to be stored."""
        rows = self.beats.take_changed()
        if not rows:
            return
        try:
            await self._state.write(lambda connection: heartbeats.save(connection, rows))
        except BaseException:
            self.beats.keep_changed(rows)
            raise

    async def forget_others(self, watches: Collection[str]) -> list[str]:
        """
        Drop what is kept of watches that are not among these; returns whose ledger rows went.

        What the store refuses, as on a full disk, it keeps until the next reload or start.
        """
        beats = self.beats.forget_others(watches)
        paused = [name for name in self.paused if name not in watches]
        for name in paused:
            del self.paused[name]
        with contextlib.suppress(StoreError):
            ran = [name for name in await self._state.read(ledger.load_probes) if name not in watches]

            def change(connection: apsw.Connection) -> None:
                for name in beats:
                    heartbeats.delete(connection, name)
                for name in paused:
                    pauses.delete(connection, name)
                for name in ran:
                    ledger.forget_probe(connection, name)

            if beats or paused or ran:
                await self._state.write(change)
            return ran
        return []


def remember(history: Database, transition: Transition) -> None:
    """Keep the transition in the alert's history; losing it loses no message."""
    alert = transition.alert
    data = {
        "before": transition.before.value,
        "after": transition.after.value,
        "reason": transition.reason.value,
        "reason_text": transition.reason_text,
        "summary": alert.summary,
        "rule": alert.rule,
        "severity": alert.severity.value,
        "by": dict(alert.by),
        "occurrences": alert.occurrences,
        "trace_id": alert.trace_id,
    }
    kind = transition.event.value if transition.event else f"alert.{transition.after.value}"
    history.post(
        lambda connection: events.append(
            connection, kind, transition.at, watch=alert.watch, fingerprint=alert.fingerprint, data=data
        )
    )
