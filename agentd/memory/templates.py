"""
The kinds of lines that logs consist of: counts, when first and last, samples. History: losing it loses no alert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import from_json, text, to_json

_PUT = (
    "INSERT INTO templates (watch, id, pattern, count, first_at, last_at, samples) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (watch, id) DO UPDATE SET pattern = excluded.pattern, count = excluded.count, "
    "first_at = excluded.first_at, last_at = excluded.last_at, samples = excluded.samples"
)
_OF = (
    "SELECT watch, id, pattern, count, first_at, last_at, samples FROM templates WHERE watch = ? "
    "ORDER BY count DESC, id LIMIT ?"
)
_DELETE = "DELETE FROM templates WHERE watch = ? AND id = ?"


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """count: lines since first_at, without those skipped to catch up with a source. samples: when, and the line."""

    watch: str
    id: str
    pattern: str
    count: int
    first_at: datetime
    last_at: datetime
    samples: tuple[tuple[datetime, str], ...] = ()


def save(c: apsw.Connection, rows: Iterable[TemplateRow], gone: Iterable[tuple[str, str]] = ()) -> None:
    """Write rows as they are now, and drop those given by (watch, id)."""
    for watch, id in gone:
        c.execute(_DELETE, (watch, id))
    for row in rows:
        c.execute(
            _PUT,
            (
                text(row.watch),
                text(row.id),
                text(row.pattern),
                row.count,
                to_us(row.first_at),
                to_us(row.last_at),
                text(to_json([(to_us(at), line) for at, line in row.samples])),
            ),
        )


def of(c: apsw.Connection, watch: str, limit: int = 1000) -> list[TemplateRow]:
    """The templates of a watch, the most frequent first."""
    return [
        TemplateRow(watch, id, pattern, count, from_us(first), from_us(last), _samples(samples))
        for watch, id, pattern, count, first, last, samples in c.execute(_OF, (watch, limit))
    ]


def forget_others(c: apsw.Connection, watches: Iterable[str]) -> None:
    """Drop the templates of any other watch."""
    known = {str(watch) for (watch,) in c.execute("SELECT DISTINCT watch FROM templates")}
    for watch in known - set(watches):
        c.execute("DELETE FROM templates WHERE watch = ?", (watch,))


def _samples(stored: str) -> tuple[tuple[datetime, str], ...]:
    return tuple((from_us(at), line) for at, line in from_json(stored))
