"""
How things look from outside: records as plain JSON values, the same over HTTP, on the page and in the CLI.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from agentd.clock import iso
from agentd.config.watches import Watch
from agentd.memory.outbox import OutboxRow
from agentd.memory.pauses import Pause
from agentd.memory.silences import SilenceRow
from agentd.memory.templates import TemplateRow
from agentd.records import Alert, AlertStatus


def alert_view(alert: Alert) -> dict[str, Any]:
    return {
        "fingerprint": alert.fingerprint,
        "watch": alert.watch,
        "rule": alert.rule,
        "by": dict(alert.by),
        "state": alert.status.value,
        "severity": alert.severity.value,
        "instance": alert.instance,
        "summary": alert.summary,
        "reason": alert.reason.value if alert.reason else None,
        "reason_text": alert.reason_text,
        "labels": dict(alert.labels),
        "values": dict(alert.values),
        "failed": list(alert.failed),
        "pending_since": moment(alert.pending_since),
        "started_at": moment(alert.started_at),
        "ended_at": moment(alert.ended_at),
        "blind_since": moment(alert.blind_since),
        "occurrences": alert.occurrences,
        "acked_by": alert.acked_by,
        "muted_by": alert.muted_by,
        "flapping": alert.flapping,
        "told": list(alert.told),
        "finding": alert.finding,
        "cost": alert.cost,
        "trace_id": alert.trace_id,
    }


def is_current(alert: Alert) -> bool:
    """Whether a person should see the alert without asking for all of them."""
    return alert.status in (AlertStatus.PENDING, AlertStatus.FIRING)


def in_order_of_need(alerts: list[Alert]) -> list[Alert]:
    """Firing before pending before the rest, worse before better, then by name."""
    states = [AlertStatus.FIRING, AlertStatus.PENDING, AlertStatus.RESOLVED, AlertStatus.OK]
    severities = ["critical", "warning", "info"]
    return sorted(
        alerts,
        key=lambda alert: (states.index(alert.status), severities.index(alert.severity), alert.watch, alert.rule or ""),
    )


def worst(alerts: Collection[Alert]) -> Alert:
    """Of the alerts of one watch, the one that says how it is: at least one."""
    return in_order_of_need(list(alerts))[0]


def pause_view(pause: Pause) -> dict[str, Any]:
    return {"by": pause.by, "at": iso(pause.at), "until": moment(pause.until), "reason": pause.reason}


def silence_view(row: SilenceRow, now: datetime) -> dict[str, Any]:
    """state: planned, active or ended."""
    over = row.ended_by is not None or row.ends_at <= now
    return {
        "id": row.id,
        "state": "ended" if over else "active" if row.starts_at <= now else "planned",
        "matchers": list(row.matchers),
        "starts_at": iso(row.starts_at),
        "ends_at": iso(row.ends_at),
        "author": row.author,
        "reason": row.reason,
        "ended_by": row.ended_by,
    }


def unplanned_watch_view(watch: Watch) -> dict[str, Any]:
    """A watch that the configuration names and that is not run, in the shape of the others."""
    return {
        "name": watch.name,
        "kind": watch.shown_kind,
        "enabled": watch.enabled,
        "verdict": None,
        "summary": "",
        "alert": AlertStatus.OK.value,
        "severity": watch.severity.value,
        "labels": dict(watch.labels),
        "latency_ms": None,
        "log": None,
        "checked_at": None,
        "next_at": None,
        "paused": False,
        "paused_until": None,
        "pause": None,
        "notify": [],
    }


def template_view(row: TemplateRow) -> dict[str, Any]:
    """rate: lines an hour between the first and the last, None when that is less than a minute."""
    hours = (row.last_at - row.first_at) / timedelta(hours=1)
    return {
        "id": row.id,
        "template": row.pattern,
        "count": row.count,
        "rate_per_hour": round(row.count / hours, 2) if hours >= 1 / 60 else None,
        "first_at": iso(row.first_at),
        "last_at": iso(row.last_at),
        "samples": [line for _, line in row.samples],
    }


def shown_state(view: Mapping[str, Any]) -> str:
    """In one word, what a person should know first of a watch's view."""
    if not view.get("enabled", True):
        return "disabled"
    return "paused" if view.get("paused") else str(view["verdict"] or "waiting")


def shown_detail(view: Mapping[str, Any]) -> str:
    """What was seen last, and, of a paused watch, who paused it, until when, and why."""
    pause = view.get("pause")
    if pause is None:
        # Quiet, and for another reason than one would think.
        waits = not view["summary"] and (view.get("log") or {}).get("files") == 0
        return "no file yet" if waits else str(view["summary"])
    until = pause["until"] or "somebody resumes it"
    why = f": {pause['reason']}" if pause["reason"] else ""
    text = f"paused by {pause['by']} until {until}{why}"
    return f"{text}; before that: {view['summary']}" if view["summary"] else text


def delivery_view(row: OutboxRow, *, whole: bool = False, note: str | None = None) -> dict[str, Any]:
    """whole: with the payload's data. note: what hinders messages for this webhook, if anything does."""
    delivery = row.delivery
    view: dict[str, Any] = {
        "id": delivery.id,
        "webhook": delivery.webhook,
        "lane": delivery.lane,
        "type": delivery.type.value,
        "state": row.state,
        "note": note if row.state in ("waiting", "claimed") else None,
        "fingerprint": delivery.fingerprint,
        "created_at": iso(delivery.created_at),
        "due_at": iso(delivery.due_at),
        "attempts": delivery.attempts,
        "last_error": delivery.last_error,
        "last_status": delivery.last_status,
        "ended_at": moment(row.ended_at),
        "superseded": row.superseded,
    }
    if whole:
        view["data"] = json.loads(delivery.data) if delivery.data else None
    return view


def moment(at: datetime | None) -> str | None:
    return None if at is None else iso(at)
