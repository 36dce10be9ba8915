"""
What people say about alerts: that they are on one, or do not want to hear of some for a time.

In: requests that were let in. Out: rows of the state store with the audit trail in the same transaction, the muting
told, plain JSON values. Promise: memory follows the store; what the store refuses is told to who asked.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import apsw

from agentd.alert.escalation import ack, unack
from agentd.alert.muting import Muting
from agentd.alert.routing import NOBODY
from agentd.alert.silence import OWN_NAMES, Matcher, Silence, parse_matchers, silence_labels
from agentd.api.service import Conflict, Json, NotFound
from agentd.api.silence import LONGEST, SilenceAsked
from agentd.api.views import alert_view, is_current, silence_view
from agentd.clock import Clock, iso
from agentd.errors import ConfigError, StoreError
from agentd.memory import audit, silences
from agentd.memory.database import Database
from agentd.memory.pauses import Pause
from agentd.memory.silences import SilenceRow
from agentd.pipeline.tending import Tending
from agentd.records import Alert, AlertStatus
from agentd.telemetry.traces import WATCH

log = logging.getLogger("agentd.daemon")

_LEAST_DIGITS = 4
_SWEPT_AT_ONCE = 200


class People:
    """
    keeper: of the alerts. muting: that of the present configuration; `go_over_to` another one after a reload.
    """

    def __init__(self, keeper: Tending, state: Database, clock: Clock, muting: Muting) -> None:
        self.muting = muting
        self._keeper = keeper
        self._state = state
        self._clock = clock
        self._changing = asyncio.Lock()  # or the older of two lists could be the last to be taken

    async def restore(self) -> None:
        """Take up the silences that the last process left. Raises StoreError."""
        now = self._clock.now()
        self._take(await self._state.read(lambda c: silences.open_ones(c, now)))

    def go_over_to(self, muting: Muting) -> None:
        """The configuration is another one; the silences stay."""
        muting.take_silences(self.muting.silences)
        self.muting = muting

    # Silences.

    async def silences(self, *, everything: bool) -> list[Json]:
        now = self._clock.now()
        rows = await self._state.read(lambda c: silences.all_of(c) if everything else silences.open_ones(c, now))
        return [silence_view(row, now) for row in rows]

    async def silence(self, asked: SilenceAsked, *, by: str) -> Json:
        """Raises ConfigError, Conflict, StoreError."""
        now = self._clock.now()
        matchers = parse_matchers(asked.matchers, everything=asked.everything)
        starts_at = asked.starts_at or now
        if abs(starts_at - now) > LONGEST:
            raise ConfigError(f"it would begin at {iso(starts_at)}; name a day within ten years")
        ends_at = starts_at + asked.lasting
        if ends_at <= now:
            raise ConfigError(f"it would have ended at {iso(ends_at)}; let it begin later, or last longer")
        texts = tuple(map(str, matchers))

        def change(c: apsw.Connection) -> tuple[SilenceRow, list[SilenceRow]] | None:
            if silences.count_open(c, now) >= silences.MAX_OPEN:
                return None
            identity = secrets.token_hex(4)
            while silences.find(c, identity):
                identity = secrets.token_hex(4)
            row = SilenceRow(identity, texts, starts_at, ends_at, by, asked.reason)
            silences.add(c, row)
            detail = f"{' '.join(texts) or 'everything'} from {iso(starts_at)} until {iso(ends_at)}: {asked.reason}"
            audit.append(c, by, "silence", identity, detail, now)
            return row, silences.open_ones(c, now)

        async with self._changing:
            done = await self._state.write(change)
            if done is None:
                raise Conflict(f"{silences.MAX_OPEN} silences are open already; end some with `agentd silence end`")
            row, rows = done
            self._take(rows)
        taken = self._taken_by(Silence(row.id, matchers, starts_at, ends_at, by))
        await self._sweep(taken)
        return {"silence": silence_view(row, now), "alerts": len(taken), "note": self._note(matchers)}

    async def end_silence(self, identity: str, *, by: str) -> Json:
        """Raises NotFound, Conflict, StoreError."""
        now = self._clock.now()
        found = await self._state.read(lambda c: silences.find(c, identity)) if identity else []
        exact = [row for row in found if row.id == identity] or found
        still = [row for row in exact if row.ended_by is None and row.ends_at > now]
        if not exact:
            raise NotFound(f"no silence {identity!r}; `agentd silence list` shows them")
        if not still:
            raise Conflict(f"silence {exact[0].id} ended at {iso(exact[0].ends_at)}")
        if len(still) > 1:
            raise Conflict(f"{identity!r} begins the ids of {len(still)} silences; write more of it")
        (row,) = still

        def change(c: apsw.Connection) -> tuple[bool, list[SilenceRow]]:
            ended = silences.end(c, row.id, by, now)
            if ended:
                audit.append(c, by, "end silence", row.id, row.reason, now)
            return ended, silences.open_ones(c, now)

        async with self._changing:
            ended, rows = await self._state.write(change)
            if not ended:
                raise Conflict(f"silence {row.id} has ended meanwhile")
            self._take(rows)
        taken = self._taken_by(silence) if (silence := _silence(row)) is not None else []
        await self._sweep(taken)
        after = replace(row, starts_at=min(row.starts_at, now), ends_at=now, ended_by=by)
        return {"silence": silence_view(after, now), "alerts": len(taken)}

    def _take(self, rows: Iterable[SilenceRow]) -> None:
        self.muting.take_silences(silence for row in rows if (silence := _silence(row)) is not None)

    def _taken_by(self, silence: Silence) -> list[Alert]:
        """The pending and firing alerts that it is about."""
        return [
            alert
            for alert in self._keeper.alerts.values()
            if is_current(alert) and silence.takes(silence_labels(alert))
        ]

    async def _sweep(self, alerts: Sequence[Alert]) -> None:
        """Let it be seen at once what changed; of very many alerts, within some seconds as by itself."""
        if 0 < len(alerts) <= _SWEPT_AT_ONCE:
            await self._keeper.sweep()

    def _note(self, matchers: Iterable[Matcher]) -> str:
        """What of it looks as if it were spelled wrong."""
        known, told = self._keeper.watches, []
        asked = list(matchers)
        labels = self._labels() if any(each.name not in OWN_NAMES for each in asked) else {}
        for each in asked:
            if each.name == "watch" and each.operator == "=" and each.value not in known:
                told.append(f"no watch is called {each.value}")
            elif each.name not in OWN_NAMES and each.name not in labels:
                told.append(f"no watch has a label {each.name}")
            elif each.name in labels and each.operator == "=" and each.value not in labels[each.name] | {""}:
                told.append(f"no watch has the label {each.name}={each.value}")
        return "; ".join(told)

    def _labels(self) -> dict[str, set[str]]:
        """The labels of all watches and alerts, by name."""
        found: dict[str, set[str]] = {}
        for watch in self._keeper.watches.values():
            for name, value in watch.policy.labels.items():
                found.setdefault(name, set()).add(value)
        for alert in self._keeper.alerts.values():
            for name, value in (*alert.labels.items(), *alert.by.items()):
                found.setdefault(name, set()).add(value)
        return found

    # Acknowledging.

    async def ack(self, alerts: Sequence[str], *, by: str, comment: str, undo: bool) -> Json:
        """Raises NotFound, Conflict, and before anything is changed; or StoreError."""
        chosen: dict[str, list[str]] = {}
        for alert in {each.fingerprint: each for name in alerts for each in self._named(name, undo=undo)}.values():
            chosen.setdefault(alert.watch, []).append(alert.fingerprint)
        done: list[Alert] = []
        for watch, fingerprints in chosen.items():
            done += await self._ack_of(watch, fingerprints, by=by, comment=comment, undo=undo)
        return {"alerts": [alert_view(alert) for alert in done]}

    async def _ack_of(
        self, watch: str, fingerprints: Sequence[str], *, by: str, comment: str, undo: bool
    ) -> list[Alert]:
        """Those of one watch, in one transaction; what has ended meanwhile is left out."""
        keeper, now = self._keeper, self._clock.now()
        async with keeper.alone(watch):
            current = [alert for each in fingerprints if (alert := keeper.alerts.get(each)) is not None]
            steps = [unack(alert) if undo else ack(alert, by, comment) for alert in current if _fires(alert)]
            if not steps:
                return []

            def also(c: apsw.Connection) -> None:
                for taken in steps:
                    if taken.changed:
                        name = f"{watch} {taken.alert.fingerprint}"
                        audit.append(c, by, "unack" if undo else "ack", name, comment, now)

            run = keeper.tracer.start_span("ack", attributes={WATCH: watch})
            try:
                if not await keeper.commit(steps, NOBODY, run, also=also):
                    raise StoreError(f"the store refuses to keep it for {watch}; `agentd status` says more")
            finally:
                run.end()
            return [taken.alert for taken in steps]

    def _named(self, name: str, *, undo: bool) -> list[Alert]:
        """The firing alerts that a person means."""
        current = [alert for alert in self._keeper.alerts.values() if is_current(alert)]
        meant = [alert for alert in current if name in (alert.watch, f"{alert.watch}/{alert.rule}")]
        if not meant and len(name) >= _LEAST_DIGITS:
            meant = [alert for alert in current if alert.fingerprint.startswith(name.lower())]
            if len(meant) > 1:
                raise Conflict(f"{name!r} begins the fingerprints of {len(meant)} alerts; write more of it")
        if not meant:
            raise NotFound(f"no alert {name!r} is firing; `agentd alerts` shows them")
        firing = [alert for alert in meant if _fires(alert)]
        if not firing:
            raise Conflict(f"{name} is pending: it can be acknowledged when it fires")
        if undo and all(alert.acked_by is None for alert in firing):
            raise Conflict(f"{name} is not acknowledged")
        return firing


def paused_texts(paused: Mapping[str, Pause]) -> dict[str, str]:
    """What `muted_by` says of the alerts of paused watches, by watch."""
    return {watch: _paused_text(pause) for watch, pause in paused.items()}


def _paused_text(pause: Pause) -> str:
    until = f" until {iso(pause.until)}" if pause.until is not None else ""
    why = f": {pause.reason}" if pause.reason else ""
    return f"paused by {pause.by}{until}{why}"


def _fires(alert: Alert) -> bool:
    return alert.status is AlertStatus.FIRING


def _silence(row: SilenceRow) -> Silence | None:
    try:
        matchers = parse_matchers(row.matchers, everything=True)
    except ConfigError as error:
        # Of another version, or damaged: what cannot be read mutes nothing.
        log.warning("silence_unreadable", extra={"silence": row.id, "error": str(error)})
        return None
    return Silence(row.id, matchers, row.starts_at, row.ends_at, row.author, row.reason, row.ended_by)
