"""
Traces of the last runs: all spans of one run in a row, as JSON.

In: the spans of a finished trace, root last.  Out: a trace by its id, the last ones of a watch.
Promise: the newest fifty failed and the newest fifty healthy traces of each watch stay; neither pushes out the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import from_json, text, to_json

KEEP_PER_WATCH = 50
_MAX_BYTES = 256 * 1024
_WATCH = "agentd.watch"

_INSERT = "INSERT INTO spans (trace_id, watch, started_at, failed, data) VALUES (?, ?, ?, ?, ?)"
_QUOTA = """
    DELETE FROM spans WHERE watch = ?1 AND failed = ?2 AND number <=
        (SELECT number FROM spans WHERE watch = ?1 AND failed = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)"""
_TRACE = "SELECT data FROM spans WHERE trace_id = ? ORDER BY number"
_LAST = """
    SELECT trace_id, watch, started_at, failed FROM spans WHERE (?1 IS NULL OR watch = ?1)
    ORDER BY number DESC LIMIT ?2"""


@dataclass(frozen=True, slots=True)
class TraceRow:
    trace_id: str
    watch: str
    started_at: datetime
    failed: bool


def save(c: apsw.Connection, trace: Sequence[Mapping[str, Any]]) -> None:
    """
    Keep one trace. trace: its spans as plain JSON mappings (`trace_id`, `name`, `start_us`, `status`, `attributes`, …),
    root last. A trace larger than 256 KiB keeps only its root.
    """
    root = trace[-1]
    data = to_json(trace)
    if len(data) > _MAX_BYTES:
        data = to_json([root])[:_MAX_BYTES] if len(to_json([root])) <= _MAX_BYTES else "[]"
    watch = text(str(root.get("attributes", {}).get(_WATCH, root["name"])))
    failed = int(any(span.get("status") == "error" for span in trace))
    c.execute(_INSERT, (root["trace_id"], watch, root["start_us"], failed, data))
    c.execute(_QUOTA, (watch, failed, KEEP_PER_WATCH))


def trace(c: apsw.Connection, trace_id: str) -> list[dict[str, Any]]:
    """The spans of a trace, [] when it is not kept (any more)."""
    return [span for (data,) in c.execute(_TRACE, (trace_id,)).fetchall() for span in from_json(str(data))]


def last(c: apsw.Connection, *, watch: str | None = None, limit: int = 50) -> list[TraceRow]:
    """Newest first."""
    found: list[Any] = c.execute(_LAST, (watch, limit)).fetchall()
    return [TraceRow(trace_id, of, from_us(started), bool(failed)) for trace_id, of, started, failed in found]


def trim(c: apsw.Connection, before: datetime, limit: int = 500) -> int:
    """Delete up to `limit` of the oldest traces that began before `before`; returns how many went."""
    c.execute(
        "DELETE FROM spans WHERE number IN (SELECT number FROM spans ORDER BY number LIMIT ?2) AND started_at < ?1",
        (to_us(before), limit),
    )
    return c.changes()
