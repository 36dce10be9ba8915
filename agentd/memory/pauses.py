"""
Paused watches: they are not checked until somebody resumes them or the time is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_optional_us, from_us, optional_us, to_us
from agentd.memory.columns import text

_SAVE = "INSERT OR REPLACE INTO pauses (watch, by, at, until, reason) VALUES (?, ?, ?, ?, ?)"
_LOAD = "SELECT watch, by, at, until, reason FROM pauses ORDER BY watch"
_DELETE = "DELETE FROM pauses WHERE watch = ?"
_EXPIRE = "DELETE FROM pauses WHERE until <= ? RETURNING watch"


@dataclass(frozen=True, slots=True)
class Pause:
    """until: None for "until somebody resumes it"."""

    watch: str
    by: str
    at: datetime
    until: datetime | None = None
    reason: str = ""


def save(c: apsw.Connection, pause: Pause) -> None:
    """Pause the watch, or change its pause."""
    until = optional_us(pause.until)
    c.execute(_SAVE, (text(pause.watch), text(pause.by), to_us(pause.at), until, text(pause.reason)))


def load(c: apsw.Connection) -> dict[str, Pause]:
    """By watch; those whose time is over too, until `expire` takes them."""
    found: list[Any] = c.execute(_LOAD).fetchall()
    return {
        watch: Pause(watch, by, from_us(at), from_optional_us(until), reason) for watch, by, at, until, reason in found
    }


def delete(c: apsw.Connection, watch: str) -> bool:
    """Resume. False when it was not paused."""
    c.execute(_DELETE, (watch,))
    return c.changes() > 0


def expire(c: apsw.Connection, now: datetime) -> list[str]:
    """End the pauses whose time is over; returns their watches."""
    return sorted(str(row[0]) for row in c.execute(_EXPIRE, (to_us(now),)))
