"""
The last heartbeat of every watch that waits for one: a row of the state store each.

In and out: `Beat`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_optional_us, from_us, optional_us, to_us
from agentd.memory.columns import text

_SAVE = """
    INSERT OR REPLACE INTO heartbeats (watch, at, ok, message, count, since, pardons) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_LOAD = "SELECT watch, at, ok, message, count, since, pardons FROM heartbeats"
_DELETE = "DELETE FROM heartbeats WHERE watch = ?"


@dataclass(frozen=True, slots=True)
class Beat:
    """
    The last heartbeat of one watch: a row of the state store, its key the watch.

    at: when it came, or, while `count` is 0, when the watch was first known. All moments are wall clock, UTC.
    ok, message: what the job said of itself. count: beats ever received.
    since: from when the silence counts: `at`, or the later start of the daemon that pardoned it.
    pardons: how often in a row a beat may have been lost in our own downtime.
    """

    watch: str
    at: datetime
    ok: bool = True
    message: str = ""
    count: int = 0
    since: datetime | None = None
    pardons: int = 0


def save(c: apsw.Connection, rows: Iterable[Beat]) -> None:
    c.executemany(
        _SAVE,
        [
            (
                text(row.watch),
                to_us(row.at),
                int(row.ok),
                text(row.message),
                row.count,
                optional_us(row.since),
                row.pardons,
            )
            for row in rows
        ],
    )


def load(c: apsw.Connection) -> list[Beat]:
    found: list[Any] = c.execute(_LOAD).fetchall()
    return [
        Beat(watch, from_us(at), bool(ok), message, count, from_optional_us(since), pardons)
        for watch, at, ok, message, count, since, pardons in found
    ]


def delete(c: apsw.Connection, watch: str) -> None:
    """The config no longer names it."""
    c.execute(_DELETE, (watch,))
