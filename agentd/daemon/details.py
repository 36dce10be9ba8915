"""
One thing whole: a check, an event, a run as a timeline, a note; what the page shows beyond the lists.

In: records. Out: plain JSON values, in the shapes that the port `agentd.api.reading` tells. Bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import apsw

from agentd.alert.silence import Silence
from agentd.api.service import Json, NotFound
from agentd.api.tasks import run_with_record
from agentd.api.views import moment
from agentd.clock import iso
from agentd.condition.shown import preview
from agentd.daemon.runs.lanes import KINDS, Lanes, span_views
from agentd.daemon.standing import check_view
from agentd.errors import ConfigError
from agentd.memory import events, run_records, spans
from agentd.memory.events import Event
from agentd.memory.ledger import Run
from agentd.memory.notes import Note
from agentd.memory.silences import SilenceRow
from agentd.memory.worked import Worked
from agentd.pipeline import Check, ProbeWatch, Watch
from agentd.pipeline.watches import LogWatch
from agentd.records import Alert, AlertStatus, Reason, Severity, Verdict
from agentd.telemetry.redact import redact_all, without_secrets

MOST_ROWS = 500
"""Of one page of events, notes or deeds, whatever is asked for."""
_FINDINGS = 5
_MOST_VALUES = 50
_NOTE_CHARS = 500
_MOST_LINES = 5000
_MOST_BYTES = 8 * 2**20
_LONGEST_NUMBER = 18
_EVENTS_BACK = 50
_LEAST_DIGITS = 4
_OF_RECORD = ("record", "whole", "next")


def whole_check(watch: Watch, check: Check) -> Json:
    """The last check whole. Not for the loop: an answer of a target may be a megabyte."""
    judgement = check.judgement
    values = dict(list(check.observation.values.items())[:_MOST_VALUES])
    conditions = watch.conditions if isinstance(watch, ProbeWatch) else ()
    asked = judgement.verdict is Verdict.OK or bool(judgement.failed)
    return check_view(check) | {
        # Whole first: half a secret would not be found.
        "values": redact_all({name: preview(value) for name, value in without_secrets(values).items()}),
        "conditions": [
            {"text": each.source, "ok": each.source not in judgement.failed if asked else None} for each in conditions
        ],
    }


def blind_since(watch: Watch, alerts: Mapping[str, Alert]) -> datetime | None:
    own = alerts.get(watch.calm.fingerprint)
    return own.blind_since if own is not None else None


def rules_of(watch: LogWatch, alerts: Iterable[Alert]) -> list[Json]:
    firing = [alert.rule for alert in alerts if alert.status is AlertStatus.FIRING]
    return [
        {
            "name": name,
            "severity": rule.policy.severity.value,
            "resolve_after_s": rule.resolve_after.total_seconds(),
            "firing": firing.count(name),
        }
        for name, rule in watch.rules.items()
    ]


def findings_of(runs: Iterable[Run]) -> list[Json]:
    found = [run for run in runs if run.outcome.finding is not None]
    return [
        {"run": run.id, "at": moment(run.ended_at), "finding": dict(run.outcome.finding or {})}
        for run in found[:_FINDINGS]
    ]


def row_of(silence: Silence) -> SilenceRow:
    return SilenceRow(
        silence.id,
        tuple(map(str, silence.matchers)),
        silence.starts_at,
        silence.ends_at,
        silence.author,
        silence.reason,
        silence.ended_by,
    )


def event_page(
    c: apsw.Connection, *, watch: str | None, fingerprint: str | None, before: int | None, limit: int
) -> Json:
    most = within(limit)
    rows = events.last(c, watch=watch, fingerprint=fingerprint, before=before, limit=most + 1)
    shown = [_event_view(row) for row in rows[:most]]
    return {"events": shown, "next": shown[-1]["id"] if len(rows) > most else None}


_OF_EVENT = ("rule", "severity", "before", "after", "reason", "reason_text", "summary", "trace_id", "run")


def _event_view(event: Event) -> Json:
    about: Json = {"id": str(event.number), "at": iso(event.at), "kind": event.kind}
    about |= {"watch": event.watch, "fingerprint": event.fingerprint}
    return {**about, **{name: event.data.get(name) for name in _OF_EVENT}}


def meant_alert(alerts: Iterable[str], begin: str) -> str | None:
    """The one of these fingerprints that begins so, or is so. Raises NotFound where several do."""
    found = [each for each in alerts if each.startswith(begin)] if len(begin) >= _LEAST_DIGITS else []
    if begin in found:
        return begin
    if len(found) > 1:
        raise NotFound(f"{begin[:100]!r} begins the fingerprints of several alerts; write more of it")
    return found[0] if found else None


def find_past(c: apsw.Connection, begin: str) -> str | None:
    """The fingerprint of the one alert of history that begins so. Raises NotFound where several do."""
    return meant_alert(events.fingerprints(c, begin), begin) if len(begin) >= _LEAST_DIGITS else None


def last_known(c: apsw.Connection, fingerprint: str, instance: str) -> Alert | None:
    """
    An alert that is over and gone, as far as history tells: those of a log rule that are told apart by a key are
    forgotten when they resolve, and messages lead to their page for long.
    """
    rows = [each for each in events.last(c, fingerprint=fingerprint, limit=_EVENTS_BACK) if "after" in each.data]
    if not rows:
        return None
    newest = rows[0]
    fired = next((each.at for each in rows if each.data["after"] == AlertStatus.FIRING), None)
    return Alert(
        fingerprint,
        instance,
        newest.watch or "",
        Severity(newest.data.get("severity", Severity.INFO)),
        rule=newest.data.get("rule"),
        by=newest.data.get("by") or {},
        occurrences=newest.data.get("occurrences") or 0,
        status=AlertStatus(newest.data["after"]),
        started_at=fired,
        ended_at=None if newest.data["after"] == AlertStatus.FIRING else newest.at,
        reason=Reason(newest.data["reason"]),
        reason_text=newest.data["reason_text"],
        summary=newest.data["summary"],
        trace_id=newest.data["trace_id"],
    )


def cursor(before: str | None) -> int | None:
    if before is None:
        return None
    if not (before.isascii() and before.isdigit() and len(before) <= _LONGEST_NUMBER):
        raise ConfigError(f"before: {before[:40]!r} is no `next` of an answer; write what the last answer had there")
    return int(before)


def within(limit: int) -> int:
    return min(max(limit, 1), MOST_ROWS)


def run_page(c: apsw.Connection, run: Run, took_s: float | None) -> Json:
    outcome, lanes = run.outcome, Lanes()
    lanes.take(run_records.read(c, run.id, kinds=KINDS, limit=_MOST_LINES, most_bytes=_MOST_BYTES))
    total_s = max(took_s or 0.0, lanes.last_s)
    alone = run_with_record(run, ())
    return {
        "run": {name: value for name, value in alone.items() if name not in _OF_RECORD}
        | {
            "trace_id": run.trace_id,
            "tool_calls": outcome.tool_calls,
            "input_tokens": outcome.input_tokens,
            "output_tokens": outcome.output_tokens,
            "cached_tokens": outcome.cached_tokens,
            "artifacts": list(outcome.artifacts),
            "took_s": took_s,
        },
        "total_s": total_s,
        "lanes": lanes.shown(total_s, under_way=run.ended_at is None),
        "more_lanes": lanes.left_out,
        "spans": span_views(spans.trace(c, run.trace_id)) if run.trace_id else [],
        "whole": run_records.has_all(c, run.id) and lanes.lines == run_records.count(c, run.id, kinds=KINDS),
    }


def note_view(note: Note, snippet: str | None) -> Json:
    text = note.text if len(note.text) <= _NOTE_CHARS else note.text[: _NOTE_CHARS - 1] + "…"
    return {
        "id": note.number,
        "type": note.type,
        "at": iso(note.at),
        "run": note.run,
        "watch": note.watch,
        "fingerprint": note.fingerprint,
        "tool": note.tool,
        "step": note.step,
        "text": text,
        "snippet": snippet,
        "finding": note.data.get("finding"),
    }


def worked_view(row: Worked) -> Json:
    """Of one run, on average."""
    return {
        "kind": row.kind,
        "worker": row.worker,
        "shape": row.shape,
        "model": row.model,
        "runs": row.runs,
        "successes": row.successes,
        "latency_s": round(row.latency_s, 3),
        "tokens": row.tokens // row.runs,
        "usd": row.usd,
        "last_at": iso(row.last_at),
    }
