"""
What an alert and its log are to a model: kinds of lines with counts and samples, never the flood itself.

In: an alert, templates of its watch, what history has. Out: exhibits, text within a number of bytes.
Promise: pure functions; whatever size comes in, what goes out is bounded; secrets are taken out. What is written here
is data, delimited where it is shown (`evidence`).
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from agentd.agent.evidence import one_line, visible
from agentd.agent.excerpt import alike, counted, head_and_tail, shares, size_of
from agentd.agent.job import Exhibit
from agentd.agent.prompts.inference import LOGS_TITLE
from agentd.clock import from_us, iso
from agentd.records import Alert, Evidence
from agentd.telemetry.redact import redact, redact_all

LIMIT_BYTES = 16 * 1024
_PATTERN_CHARS = 400
_SAMPLE_CHARS = 300
_VALUE_CHARS = 300
_MOST_SAMPLES = 2
_MOST_LISTED = 200
_MOST_READ = 5000
_TROUBLE = re.compile(
    r"error|fail|exception|fatal|panic|critical|emerg|alert|denied|refused|timed?[ _-]?out|unreachable|killed|oom|warn"
    r"|traceback|corrupt|错误|失败|异常|超时|拒绝",
    re.IGNORECASE,
)


def alert_exhibits(
    alert: Alert,
    templates: Sequence[Mapping[str, Any]] = (),
    history: Mapping[str, Any] | None = None,
    *,
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[Exhibit, ...]:
    """
    What is there when an alert is to be investigated, as `e1`, `e2` …: the alert, its lines, its log, its history.

    templates: of its watch, as `log_digest` takes them. history: lists of rows by name, such as `results` (checks),
    `incidents` (earlier ones of this alert, newest first), `counts` (of rules); each becomes an exhibit.
    limit_bytes: of all together; what is short comes whole, the rest shares the room.
    """
    parts: list[tuple[str, str]] = [("Alert", _alert_text(alert))]
    if alert.evidence:
        parts.append((f"{LOGS_TITLE}lines of the alert", evidence_lines(alert.evidence)))
    if templates:
        said = log_digest(templates, since=alert.started_at, limit_bytes=limit_bytes // 2)
        parts.append((f"{LOGS_TITLE}of {alert.watch}: kinds of lines", said))
    for name, rows in list((history or {}).items())[:_MOST_LISTED]:
        if rows:
            title = one_line(str(name), 60).replace("_", " ")
            parts.append((f"History: {title}", rows_text(rows, limit_bytes=limit_bytes // 4)))
    given = shares([size_of(text) for _, text in parts], limit_bytes)
    return tuple(
        Exhibit(id=f"e{number}", title=one_line(title, 200), text=head_and_tail(text, share))
        for number, ((title, text), share) in enumerate(zip(parts, given, strict=True), 1)
        if share
    )


def log_digest(
    templates: Sequence[Mapping[str, Any]],
    *,
    counts: Mapping[str, int] | None = None,
    lines: Iterable[Evidence] = (),
    since: datetime | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> str:
    """
    A log as kinds of lines, what looks like trouble and what is new first, then by number.

    templates: `pattern` or `template`, `count`, `first_at` or `first_seen`, `last_at` or `last_seen` (datetime, text,
    or microseconds since the epoch), `samples` (lines, or pairs of time and line), `per_minute`; all else optional.
    counts: lines that rules matched. since: what was first seen from then on is new.
    """
    read = templates[:_MOST_READ]
    total = sum(_number(each.get("count")) for each in read)
    head = f"{len(templates)} kinds of lines, {total} lines in all; `*` or `<*>` stands for what varies."
    if counts:
        head += "\nMatched by rule: " + ", ".join(
            f"{one_line(str(rule), 60)} {_number(count)}" for rule, count in list(counts.items())[:_MOST_LISTED]
        )
    single = evidence_lines(lines)
    if single:
        single = "\nSingle lines:\n" + head_and_tail(single, limit_bytes // 4)
    room = limit_bytes - size_of(head) - size_of(single) - 80
    said: list[str] = []
    for template in heapq.nsmallest(_MOST_LISTED, read, key=lambda each: _rank(each, since)):
        text = _template_text(template, since)
        if (size := size_of(text) + 1) > room:
            break
        room -= size
        said.append(text)
    if len(said) < len(templates):
        said.append(f"[… {len(templates) - len(said)} more kinds left out …]")
    return head_and_tail("\n".join([head, *said]) + single, limit_bytes)


def evidence_lines(lines: Iterable[Evidence]) -> str:
    """Single log lines and the files they are from; those that differ in numbers alone once, with their number."""
    kept = list(islice(lines, _MOST_LISTED))
    files = dict.fromkeys(one_line(each.place.file, 200) for each in kept)
    told = alike(counted("\n".join(visible(redact(each.line)).replace("\n", " ") for each in kept)))
    return f"From {', '.join(list(files)[:5])}:\n{told}" if kept else ""


def rows_text(rows: Any, *, limit_bytes: int) -> str:
    """Rows of a table of history as JSON, one a line, as many of the first as there is room for."""
    items = list(rows)[:_MOST_READ] if isinstance(rows, list | tuple) else [rows]
    said: list[str] = []
    room = limit_bytes - 64
    for item in items:
        text = _row_text(item)
        if (size := size_of(text) + 1) > room:
            break
        room -= size
        said.append(text)
    if len(said) < len(items):
        said.append(f"[… {len(items) - len(said)} more left out …]")
    return head_and_tail("\n".join(said), limit_bytes)


def _alert_text(alert: Alert) -> str:
    facts: dict[str, Any] = {
        "watch": alert.watch,
        "rule": alert.rule,
        "by": dict(alert.by),
        "instance": alert.instance,
        "severity": alert.severity,
        "state": alert.status,
        "reason": alert.reason,
        "reason_text": alert.reason_text,
        "summary": alert.summary,
        "failed conditions": list(alert.failed),
        "values": dict(alert.values),
        "labels": dict(alert.labels),
        "started": alert.started_at,
        "last": alert.last_at,
        "occurrences": alert.occurrences,
        "flapping": alert.flapping or None,
        "last checks, newest last, 1 failing": alert.outcomes,
    }
    kept = ((name, value) for name, value in facts.items() if value not in (None, "", [], {}))
    return "\n".join(f"{name}: {_value_text(value)}" for name, value in kept)


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value, 2 * _VALUE_CHARS)
    if isinstance(value, datetime):
        return iso(value)
    return _row_text(value)


def _row_text(row: Any) -> str:
    try:
        text = json.dumps(redact_all(_cut(row, 4)), ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (ValueError, TypeError, RecursionError):
        return f"({type(row).__name__} that cannot be shown)"
    return one_line(text, 4000)


def _cut(value: Any, depth: int) -> Any:
    """`value` with its texts, lists and levels bounded."""
    if isinstance(value, str):
        return value[:_VALUE_CHARS] + "…" if len(value) > _VALUE_CHARS else value
    if isinstance(value, Mapping):
        return {str(key): _cut(item, depth - 1) for key, item in list(value.items())[:50]} if depth else "…"
    if isinstance(value, list | tuple):
        return [_cut(item, depth - 1) for item in value[:50]] if depth else "…"
    return value


def _plain(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) and value.tzinfo else str(value)[:_VALUE_CHARS]


def _rank(template: Mapping[str, Any], since: datetime | None) -> tuple[bool, bool, int, str]:
    pattern = _pattern(template)[:_PATTERN_CHARS]
    trouble = bool(_TROUBLE.search(pattern))
    return not _is_new(template, since), not trouble, -_number(template.get("count")), pattern


def _is_new(template: Mapping[str, Any], since: datetime | None) -> bool:
    first = _moment(template.get("first_at", template.get("first_seen")))
    return since is not None and isinstance(first, datetime) and first.tzinfo is not None and first >= since


def _template_text(template: Mapping[str, Any], since: datetime | None) -> str:
    first = _time_text(template.get("first_at", template.get("first_seen")))
    last = _time_text(template.get("last_at", template.get("last_seen")))
    when = f", {first} to {last}" if first and last and first != last else f", {last or first}" if first or last else ""
    rate = template.get("per_minute")
    pace = f", {rate:.3g} a minute" if isinstance(rate, int | float) and not isinstance(rate, bool) else ""
    new = ", new" if _is_new(template, since) else ""
    pattern = one_line(_pattern(template), _PATTERN_CHARS)
    text = f"{_number(template.get('count'))} times{when}{pace}{new}: {pattern}"
    for sample in _samples(template.get("samples")):
        line = one_line(sample, _SAMPLE_CHARS)
        if line and line != pattern:
            text += f"\n  e.g. {line}"
    return text


def _pattern(template: Mapping[str, Any]) -> str:
    return str(template.get("pattern") or template.get("template") or "")


def _samples(samples: Any) -> list[str]:
    """The first and the last sample's line."""
    if not isinstance(samples, list | tuple) or not samples:
        return []
    chosen = [samples[0], samples[-1]] if len(samples) > 1 else [samples[0]]
    lines = []
    for each in chosen[:_MOST_SAMPLES]:
        if isinstance(each, Mapping):
            each = each.get("line", "")
        elif isinstance(each, list | tuple) and each:
            each = each[-1]
        lines.append(str(each))
    return list(dict.fromkeys(lines))


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return from_us(value)
    except (ValueError, OverflowError):
        return None
    return None


def _time_text(value: Any) -> str:
    moment = _moment(value)
    if moment is not None and moment.tzinfo is not None:
        return iso(moment).split(".")[0] + "Z"
    return one_line(str(value), 40) if isinstance(value, str | datetime) else ""
