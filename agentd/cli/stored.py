"""
What the daemon would say of its watches, read from its store while it is down.

In: the store, the configuration (None: it is broken). Out: views as the daemon gives them; what only it knows is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from agentd.api.tasks import run_view
from agentd.api.views import (
    alert_view,
    delivery_view,
    in_order_of_need,
    is_current,
    moment,
    pause_view,
    unplanned_watch_view,
    worst,
)
from agentd.config.complaints import did_you_mean
from agentd.config.models import Config
from agentd.config.watches import Watch
from agentd.errors import AgentdError
from agentd.memory import alerts as alert_rows
from agentd.memory import ledger, letters, pauses
from agentd.memory.store import Store
from agentd.records import Alert

_RUNS = 20


async def stored_watches(store: Store, config: Config | None) -> list[dict[str, Any]]:
    """A view of each watch, as in the daemon's list."""
    return await _views(store, config.watches if config else ())


async def _views(store: Store, watches: Iterable[Watch]) -> list[dict[str, Any]]:
    probes = await store.state.read(ledger.load_probes)
    paused = await store.state.read(pauses.load)
    found: dict[str, list[Alert]] = {}
    for alert in await store.state.read(alert_rows.load_all):
        found.setdefault(alert.watch, []).append(alert)
    views = []
    for watch in watches:
        if watch.shown_kind is None:
            continue
        view = unplanned_watch_view(watch)
        views.append(view)
        if not watch.enabled:
            continue
        if probe := probes.get(watch.name):
            view |= {"verdict": probe.verdict, "checked_at": moment(probe.last_done)}
        if watch.name in found:
            alert = worst(found[watch.name])
            view |= {"alert": alert.status.value, "summary": alert.summary if is_current(alert) else ""}
        if pause := paused.get(watch.name):
            view |= {"paused": True, "paused_until": moment(pause.until), "pause": pause_view(pause)}
    return views


async def stored_watch(store: Store, config: Config | None, name: str) -> dict[str, Any]:
    """As `GET /api/v1/watches/{name}`. Raises AgentdError."""
    from agentd.daemon import measured
    from agentd.daemon.details import findings_of
    from agentd.daemon.written import as_written

    watches = [watch for watch in (config.watches if config else ()) if watch.shown_kind is not None]
    watch = next((each for each in watches if each.name == name), None)
    if watch is None:
        raise AgentdError(f"no watch {name[:100]!r}; {did_you_mean(name, [each.name for each in watches])}")
    (view,) = await _views(store, [watch])
    runs = await store.state.read(lambda c: ledger.runs(c, watch=name, limit=_RUNS))
    alerts = [each for each in await store.state.read(alert_rows.load_all) if each.watch == name and is_current(each)]
    now = datetime.now(UTC)
    return view | {
        "blind_since": None,
        "check": None,
        "rules": None,
        "description": watch.description,
        "public": watch.public,
        "settings": as_written(watch),
        "uptime": await store.history.read(lambda c: measured.uptimes(c, name, watch.shown_kind, now)),
        "alerts": [alert_view(alert) for alert in in_order_of_need(alerts)],
        "more_alerts": 0,
        "silences": None,
        "runs": [run_view(run) for run in runs],
        "findings": findings_of(runs),
    }


async def stored_alert(store: Store, begin: str) -> dict[str, Any]:
    """As `GET /api/v1/alerts/{fingerprint}`. Raises AgentdError."""
    from agentd.daemon.details import event_page
    from agentd.deliver.payload import evidence_data

    alert = await _meant(store, begin.lower())
    identity = alert.fingerprint
    began = alert.pending_since or alert.started_at
    history = await store.history.read(lambda c: event_page(c, watch=None, fingerprint=identity, before=None, limit=50))
    deliveries = await store.state.read(
        lambda c: letters.about(c, identity, webhooks=alert.told, lane=alert.watch, since=began)
    )
    runs = await store.state.read(lambda c: ledger.runs(c, fingerprint=identity, limit=_RUNS))
    return alert_view(alert) | {
        "last_at": moment(alert.last_at),
        "escalated": alert.escalated,
        "evidence": [evidence_data(each) for each in alert.evidence],
        "history": history["events"],
        "history_next": history["next"],
        "deliveries": [delivery_view(row) for row in deliveries],
        "runs": [run_view(run) for run in runs],
        "silences": None,
        "watch_view": None,
    }


async def _meant(store: Store, begin: str) -> Alert:
    """The alert of which so much is written; one that is gone as history knows it."""
    from agentd.api.service import NotFound
    from agentd.daemon.details import find_past, last_known, meant_alert

    alerts = {alert.fingerprint: alert for alert in await store.state.read(alert_rows.load_all)}
    try:
        meant = meant_alert(alerts, begin)
        past = meant or await store.history.read(lambda c: find_past(c, begin))
    except NotFound as error:
        raise AgentdError(str(error)) from error
    alert = alerts.get(meant) if meant else None
    if alert is None and past is not None:
        instance = next((each.instance for each in alerts.values()), "")
        alert = await store.history.read(lambda c: last_known(c, past, instance))
    if alert is None:
        raise AgentdError(f"no alert {begin[:100]!r}; `agentd alerts --all` shows them")
    return alert
