"""
Silences: what people asked not to be told of, and for how long.

In and out: plain rows, inside the caller's transaction; what a matcher means is known in `alert.silence`.
Promise: what was silenced, by whom and why, can be looked up for thirty days after its end. Bounded: so many may be
open at once, and of those that are over the newest are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import from_json, optional_text, text, to_json, value

MAX_OPEN = 1000
"""So many may be active or planned at once; each is asked about each alert."""
MAX_ENDED = 10_000
KEPT_AFTER_END = timedelta(days=30)

_COLUMNS = "id, matchers, starts_at, ends_at, author, reason, ended_by"
_ADD = f"INSERT INTO silences ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
# By name, too: a clock that is set back must not begin anew what somebody has ended.
_OPEN = f"SELECT {_COLUMNS} FROM silences WHERE ends_at > ? AND ended_by IS NULL ORDER BY ends_at, id"
_COUNT_OPEN = "SELECT count(*) FROM silences WHERE ends_at > ? AND ended_by IS NULL"
_ALL = f"SELECT {_COLUMNS} FROM silences ORDER BY ends_at DESC, id LIMIT ?"
_FIND = f"SELECT {_COLUMNS} FROM silences WHERE substr(id, 1, length(?1)) = ?1 ORDER BY ends_at DESC, id LIMIT ?2"
_END = """
    UPDATE silences SET ends_at = ?2, starts_at = min(starts_at, ?2), ended_by = ?3
    WHERE id = ?1 AND ends_at > ?2 AND ended_by IS NULL"""
_TRIM = """
    DELETE FROM silences WHERE id IN
    (SELECT id FROM silences WHERE ends_at <= ?1 ORDER BY ends_at LIMIT ?2)"""
_BOUND = """
    DELETE FROM silences WHERE id IN
    (SELECT id FROM silences WHERE ends_at <= ?1 ORDER BY ends_at DESC LIMIT -1 OFFSET ?2)"""


@dataclass(frozen=True, slots=True)
class SilenceRow:
    """matchers: as `str` of an `alert.silence.Matcher` gives them. ended_by: who ended it before its time."""

    id: str
    matchers: tuple[str, ...]
    starts_at: datetime
    ends_at: datetime
    author: str
    reason: str = ""
    ended_by: str | None = None


def add(c: apsw.Connection, row: SilenceRow) -> None:
    """Raises apsw.ConstraintError when there is one of that id."""
    matchers = text(to_json(list(row.matchers)))
    times = to_us(row.starts_at), to_us(row.ends_at)
    c.execute(_ADD, (row.id, matchers, *times, text(row.author), text(row.reason), optional_text(row.ended_by)))


def open_ones(c: apsw.Connection, now: datetime) -> list[SilenceRow]:
    """Those that hold now or will, what ends first first."""
    return [_row(row) for row in c.execute(_OPEN, (to_us(now),))]


def count_open(c: apsw.Connection, now: datetime) -> int:
    return int(value(c.execute(_COUNT_OPEN, (to_us(now),))))


def all_of(c: apsw.Connection, limit: int = 1000) -> list[SilenceRow]:
    """Ended ones too, what ends or ended last first."""
    return [_row(row) for row in c.execute(_ALL, (limit,))]


def find(c: apsw.Connection, begin: str, limit: int = 10) -> list[SilenceRow]:
    """Those whose id begins so."""
    return [_row(row) for row in c.execute(_FIND, (text(begin), limit))]


def end(c: apsw.Connection, identity: str, by: str, now: datetime) -> bool:
    """End it now; one that was to begin later never begins. False when it is over already or was never there."""
    c.execute(_END, (text(identity), to_us(now), text(by)))
    return c.changes() > 0


def trim(c: apsw.Connection, before: datetime, *, limit: int = 500) -> int:
    """Delete up to `limit` of those that ended before that, the oldest first, and what is beyond MAX_ENDED."""
    c.execute(_TRIM, (to_us(before), limit))
    trimmed = c.changes()
    if trimmed < limit:
        c.execute(_BOUND, (to_us(before + KEPT_AFTER_END), MAX_ENDED))
    return trimmed


def _row(row: tuple[Any, ...]) -> SilenceRow:
    identity, matchers, starts_at, ends_at, author, reason, ended_by = row
    return SilenceRow(
        identity, tuple(from_json(matchers)), from_us(starts_at), from_us(ends_at), author, reason, ended_by
    )
