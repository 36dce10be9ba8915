"""
The audit trail: what operators did, by CLI, API or page.

Promise: append only, and bounded: the newest hundred thousand, as long as events are kept. Whatever a caller calls what
it wants done something to, a deed is a few lines at most, and each of its texts is one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import text, to_json

MAX_ROWS = 100_000
MAX_TARGET = 200
"""Characters."""

_MAX_WHO = 200
_MAX_ACTION = 60
_MAX_DETAIL = 2000
_LOOK_BACK = 20_000

_APPEND = "INSERT INTO audit (at, who, action, target, detail) VALUES (?, ?, ?, ?, ?)"
_BOUND = "DELETE FROM audit WHERE number <= ?"
_ROWS = """
    SELECT number, at, who, action, target, detail FROM audit WHERE (?1 IS NULL OR number < ?1)
    ORDER BY number DESC LIMIT ?2"""
_ABOUT = f"""
    SELECT number, at, who, action, target, detail FROM
        (SELECT * FROM audit WHERE number > (SELECT coalesce(max(number), 0) FROM audit) - {_LOOK_BACK})
    WHERE target = ?1 AND action IN (SELECT value FROM json_each(?2)) ORDER BY number DESC LIMIT ?3"""
_TRIM = """
    DELETE FROM audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT ?2) AND at < ?1"""


@dataclass(frozen=True, slots=True)
class Deed:
    """who: a name such as `uid:0` or `key:ops`. action: `pause`, `webhook.enable`, … on `target`."""

    number: int
    at: datetime
    who: str
    action: str
    target: str
    detail: str


def append(c: apsw.Connection, who: str, action: str, target: str, detail: str, now: datetime) -> None:
    said = _line(who, _MAX_WHO), _line(action, _MAX_ACTION), _line(target, MAX_TARGET), _line(detail, _MAX_DETAIL)
    c.execute(_APPEND, (to_us(now), *said))
    c.execute(_BOUND, (c.last_insert_rowid() - MAX_ROWS,))


def rows(c: apsw.Connection, *, limit: int = 100, before: int | None = None) -> list[Deed]:
    """Newest first. before: the number of the last row of the page before."""
    found: list[Any] = c.execute(_ROWS, (before, limit)).fetchall()
    return [Deed(number, from_us(at), *rest) for number, at, *rest in found]


def about(c: apsw.Connection, target: str, actions: Collection[str], *, limit: int = 100) -> list[Deed]:
    """The newest of these actions on the target, newest first; looks through the last twenty thousand deeds."""
    found: list[Any] = c.execute(_ABOUT, (_line(target, MAX_TARGET), to_json(list(actions)), limit)).fetchall()
    return [Deed(number, from_us(at), *rest) for number, at, *rest in found]


def trim(c: apsw.Connection, before: datetime, *, limit: int = 500) -> int:
    """Delete up to `limit` of the oldest rows that are older than `before`."""
    c.execute(_TRIM, (to_us(before), limit))
    return c.changes()


def _line(said: str, most: int) -> str:
    return text("".join(each if each.isprintable() else " " for each in said[:most]))
