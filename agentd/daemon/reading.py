"""
What people read of one thing: a watch, an alert, a run, what is remembered, what was done. `Reading` over the daemon.

In: names that were asked for. Out: plain JSON values, in the shapes that the port tells.
Promise: what is slow is read on the store's threads, and all of it is bounded, however much there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw

from agentd.alert.routing import NOBODY
from agentd.alert.silence import silence_labels
from agentd.api.reading import Span
from agentd.api.service import Json, NotFound
from agentd.api.tasks import run_view
from agentd.api.views import (
    alert_view,
    delivery_view,
    in_order_of_need,
    is_current,
    moment,
    silence_view,
    unplanned_watch_view,
)
from agentd.clock import iso
from agentd.config.watches import Watch as WatchSettings
from agentd.daemon import measured
from agentd.daemon.details import (
    blind_since,
    cursor,
    event_page,
    find_past,
    findings_of,
    last_known,
    meant_alert,
    note_view,
    row_of,
    rules_of,
    run_page,
    whole_check,
    within,
    worked_view,
)
from agentd.daemon.standing import Standing
from agentd.daemon.statuspage import StatusPage
from agentd.daemon.written import as_written
from agentd.deliver.payload import evidence_data
from agentd.errors import ConfigError
from agentd.memory import audit, ledger, letters, notes, retention, spend, worked
from agentd.memory.ledger import Run
from agentd.pipeline.telling import lane_of
from agentd.pipeline.watches import LogWatch
from agentd.records import Alert

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

MOST_ALERTS = 200
_RUNS = 20
_EVENTS = 50
_DELIVERIES = 50


class Reader:
    """Implements `agentd.api.reading.Reading` over the parts of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._standing = Standing(daemon)
        self._status_page = StatusPage(daemon)

    # Watches.

    async def watch(self, name: str) -> Json:
        daemon, now = self._daemon, self._daemon.clock.now()
        settings = self._settings(name)
        uptime = await daemon.store.history.read(lambda c: measured.uptimes(c, name, settings.shown_kind, now))
        runs = await daemon.store.state.read(lambda c: ledger.runs(c, watch=name, limit=_RUNS))
        watch = daemon.pipeline.watches.get(name)
        if watch is None:
            view = {**unplanned_watch_view(settings), "blind_since": None, "check": None, "rules": []}
            alerts: list[Alert] = []
        else:
            view = self._standing.view(watch)
            alerts = [alert for alert in daemon.pipeline.alerts.values() if alert.watch == name and is_current(alert)]
            view |= {
                "blind_since": moment(blind_since(watch, daemon.pipeline.alerts)),
                "check": await asyncio.to_thread(whole_check, watch, watch.last) if watch.last else None,
                "rules": rules_of(watch, alerts) if isinstance(watch, LogWatch) else [],
            }
        shown = in_order_of_need(alerts)[:MOST_ALERTS]
        about = [*shown, *([watch.calm] if watch is not None else [])]
        return view | {
            "description": settings.description,
            "public": settings.public,
            "settings": as_written(settings),
            "uptime": uptime,
            "alerts": [alert_view(alert) for alert in shown],
            "more_alerts": len(alerts) - len(shown),
            "silences": self._silences(about),
            "runs": [run_view(run) for run in runs],
            "findings": findings_of(runs),
        }

    async def series(self, name: str, span: Span) -> Json:
        daemon, now = self._daemon, self._daemon.clock.now()
        if span not in measured.SPANS:
            raise ConfigError(f"span: {str(span)[:20]!r} is none; write {', '.join(measured.SPANS)}")
        kind = self._settings(name).shown_kind
        found = await daemon.store.history.read(lambda c: measured.series(c, name, span, now))
        deeds = await daemon.store.state.read(lambda c: measured.pauses_of(c, name))
        return {"kind": kind} | measured.with_pauses(found, deeds, daemon.keeping.paused.get(name), now)

    # What happened.

    async def history(self, *, watch: str | None, fingerprint: str | None, before: str | None, limit: int) -> Json:
        number = cursor(before)
        return await self._daemon.store.history.read(
            lambda c: event_page(c, watch=watch, fingerprint=fingerprint, before=number, limit=limit)
        )

    async def alert(self, fingerprint: str) -> Json:
        daemon = self._daemon
        identity = await self._identity(fingerprint)
        history, last = await daemon.store.history.read(
            lambda c: (
                event_page(c, watch=None, fingerprint=identity, before=None, limit=_EVENTS),
                last_known(c, identity, daemon.instance),
            )
        )
        alert = daemon.pipeline.alerts.get(identity, last)
        if alert is None:
            raise NotFound(f"no alert {fingerprint[:100]!r}; `agentd alerts` shows them")
        watch, since = daemon.pipeline.watches.get(alert.watch), alert.pending_since or alert.started_at
        reach = daemon.pipeline.routing.of(alert, watch.wish if watch is not None else NOBODY)
        webhooks, lane = {*alert.told, *reach.notify}, lane_of(alert, reach)

        def look(c: apsw.Connection) -> tuple[list[Json], list[Json]]:
            rows = letters.about(
                c,
                identity,
                webhooks=webhooks,
                lane=lane,
                since=since,
                limit=_DELIVERIES,
            )
            runs = ledger.runs(c, fingerprint=identity, limit=_RUNS)
            return [delivery_view(row) for row in rows], [run_view(run) for run in runs]

        deliveries, runs = await daemon.store.state.read(look)
        alert = daemon.pipeline.alerts.get(identity, alert)
        return alert_view(alert) | {
            "last_at": moment(alert.last_at),
            "escalated": alert.escalated,
            "evidence": [evidence_data(each) for each in alert.evidence],
            "history": history["events"],
            "history_next": history["next"],
            "deliveries": deliveries,
            "runs": runs,
            "silences": self._silences([alert]),
            "watch_view": self._standing.view(watch) if watch is not None else None,
        }

    async def audit(self, before: str | None, limit: int) -> Json:
        number, most = cursor(before), within(limit)
        rows = await self._daemon.store.state.read(lambda c: audit.rows(c, limit=most + 1, before=number))
        deeds = [
            {
                "id": str(row.number),
                "at": iso(row.at),
                "who": row.who,
                "action": row.action,
                "target": row.target,
                "detail": row.detail,
            }
            for row in rows[:most]
        ]
        return {"deeds": deeds, "next": deeds[-1]["id"] if len(rows) > most else None}

    # What agents did.

    async def run_page(self, id: str) -> Json:
        daemon = self._daemon
        run = await daemon.store.state.read(lambda c: ledger.get(c, id))
        if run is None:
            raise NotFound(f"no task or run {id[:100]!r}; `agentd runs` shows them")
        return await daemon.store.history.read(lambda c: run_page(c, run, self._seconds_of(run)))

    def _seconds_of(self, run: Run) -> float | None:
        if run.started_at is None:
            return None
        return max(0.0, ((run.ended_at or self._daemon.clock.now()) - run.started_at).total_seconds())

    async def memory(self, query: str | None, limit: int) -> Json:
        daemon, most = self._daemon, within(limit)
        day = spend.day_of(daemon.clock.now())
        words = (query or "").strip() or None

        def of_history(c: apsw.Connection) -> tuple[list[Json], list[Json], Json]:
            if words is None:
                found = [note_view(note, None) for note in notes.last(c, limit=most)]
            else:
                found = [note_view(hit.note, hit.snippet) for hit in notes.search(c, words, limit=most)]
            ways = [worked_view(row) for row in worked.rows(c, limit=most)]
            return found, ways, {"notes": notes.counts(c), "history_bytes": retention.used_bytes(c)}

        def of_state(c: apsw.Connection) -> Json:
            spent = spend.today(c, day)
            return {
                "runs": {state.value: count for state, count in ledger.counts(c).items()},
                "state_bytes": retention.used_bytes(c),
                "spent_today": {
                    "usd": spent.usd,
                    "tokens": spent.tokens,
                    "calls": spent.calls,
                    "unknown_calls": spent.unknown_calls,
                },
            }

        found, ways, sizes = await daemon.store.history.read(of_history)
        return {
            "query": words,
            "notes": found,
            "worked": ways,
            "sizes": sizes | await daemon.store.state.read(of_state),
        }

    # What is public.

    async def public(self) -> Json:
        return await self._status_page.page()

    async def public_watch(self, name: str) -> Json:
        return await self._status_page.watch(name)

    # Finding what is meant.

    def _settings(self, name: str) -> WatchSettings:
        found = next((watch for watch in self._daemon.plan.config.watches if watch.name == name), None)
        if found is None or found.shown_kind is None:
            raise NotFound(f"no watch {name[:100]!r}; `agentd watches` shows them")
        return found

    async def _identity(self, begin: str) -> str:
        """The fingerprint of the one alert that begins so; of none that is there, one that history knows."""
        alerts, begin = self._daemon.pipeline.alerts, begin.lower()
        if begin in alerts:
            return begin
        meant = meant_alert(alerts, begin)
        return meant or await self._daemon.store.history.read(lambda c: find_past(c, begin)) or begin

    def _silences(self, alerts: Iterable[Alert]) -> list[Json]:
        """Those that hold now and take one of these alerts."""
        now = self._daemon.clock.now()
        labels = [silence_labels(alert) for alert in alerts]
        active = [each for each in self._daemon.people.muting.silences if each.is_active(now)]
        return [silence_view(row_of(silence), now) for silence in active if any(silence.takes(each) for each in labels)]
