"""
How things look from outside: records as plain JSON values, the same over HTTP, on the page and in the CLI.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from agentd.clock import iso
from agentd.memory.outbox import OutboxRow
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
        "reminders": alert.reminders,
        "acked_by": alert.acked_by,
        "muted_by": alert.muted_by,
        "flapping": alert.flapping,
        "told": list(alert.told),
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
