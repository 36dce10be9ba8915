"""
The alerts and their streaks: one row of the state store each.

In and out: `agentd.records.Alert`, inside the caller's transaction.
Promise: what `save` was given, `get` and `load_all` give back.
"""

from __future__ import annotations

from typing import Any

import apsw

from agentd.clock import from_optional_us, optional_us
from agentd.memory.columns import first, from_json, optional_text, text, to_json
from agentd.records import Alert, AlertStatus, Evidence, Place, Reason, Severity

_COLUMNS = (
    'fingerprint, instance, watch, rule, severity, status, by, labels, "window", oks, blind_since, pending_since, '
    'started_at, ended_at, reason, reason_text, summary, "values", failed, occurrences, '
    "acked_by, muted_by, flapping, told, trace_id, evidence, last_at, escalated, outcomes, finding, cost"
)
_LOAD_ALL = f"SELECT {_COLUMNS} FROM alerts"
_GET = f"SELECT {_COLUMNS} FROM alerts WHERE fingerprint = ?"
_SAVE = f"INSERT OR REPLACE INTO alerts ({_COLUMNS}) VALUES ({', '.join('?' * 31)})"
_DELETE = "DELETE FROM alerts WHERE fingerprint = ?"


def load_all(c: apsw.Connection) -> list[Alert]:
    """Every alert, in the order of fingerprints."""
    return [_alert(row) for row in c.execute(_LOAD_ALL)]


def get(c: apsw.Connection, fingerprint: str) -> Alert | None:
    row = first(c.execute(_GET, (fingerprint,)))
    return _alert(row) if row else None


def save(c: apsw.Connection, alert: Alert) -> None:
    """Write the alert as it is now, whether it was there or not."""
    c.execute(
        _SAVE,
        (
            alert.fingerprint,
            text(alert.instance),
            text(alert.watch),
            optional_text(alert.rule),
            alert.severity.value,
            alert.status.value,
            to_json(alert.by),
            to_json(alert.labels),
            alert.window,
            alert.oks,
            optional_us(alert.blind_since),
            optional_us(alert.pending_since),
            optional_us(alert.started_at),
            optional_us(alert.ended_at),
            alert.reason.value if alert.reason is not None else None,
            text(alert.reason_text),
            text(alert.summary),
            to_json(alert.values),
            to_json(alert.failed),
            alert.occurrences,
            optional_text(alert.acked_by),
            optional_text(alert.muted_by),
            int(alert.flapping),
            to_json(alert.told),
            alert.trace_id,
            text(to_json([_evidence_row(each) for each in alert.evidence])),
            optional_us(alert.last_at),
            alert.escalated,
            alert.outcomes,
            None if alert.finding is None else text(to_json(alert.finding)),
            None if alert.cost is None else to_json(alert.cost),
        ),
    )


def delete(c: apsw.Connection, fingerprint: str) -> bool:
    """True when it was there."""
    c.execute(_DELETE, (fingerprint,))
    return c.changes() > 0


def _alert(row: tuple[Any, ...]) -> Alert:
    return Alert(
        fingerprint=row[0],
        instance=row[1],
        watch=row[2],
        rule=row[3],
        severity=Severity(row[4]),
        status=AlertStatus(row[5]),
        by=from_json(row[6]),
        labels=from_json(row[7]),
        window=row[8],
        oks=row[9],
        blind_since=from_optional_us(row[10]),
        pending_since=from_optional_us(row[11]),
        started_at=from_optional_us(row[12]),
        ended_at=from_optional_us(row[13]),
        reason=Reason(row[14]) if row[14] is not None else None,
        reason_text=row[15],
        summary=row[16],
        values=from_json(row[17]),
        failed=tuple(from_json(row[18])),
        occurrences=row[19],
        acked_by=row[20],
        muted_by=row[21],
        flapping=bool(row[22]),
        told=tuple(from_json(row[23])),
        trace_id=row[24],
        evidence=tuple(Evidence(Place(*place), line) for line, *place in from_json(row[25])),
        last_at=from_optional_us(row[26]),
        escalated=row[27],
        outcomes=row[28],
        finding=None if row[29] is None else from_json(row[29]),
        cost=None if row[30] is None else from_json(row[30]),
    )


def _evidence_row(evidence: Evidence) -> tuple[str, str, int | None, str | None]:
    return evidence.line, evidence.place.file, evidence.place.offset, evidence.place.cursor
