"""
Single facts about the daemon itself, by key: when it was last alive, whether a restored state is held.
"""

from __future__ import annotations

from datetime import datetime

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import first

ALIVE_AT = "alive_at"
BOOT_ID = "boot_id"
HELD = "held"
"""Set by a restore: outbox and log positions wait until a person says `agentd doctor resume`."""

_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
_DELETE = "DELETE FROM meta WHERE key = ?"


def get(c: apsw.Connection, key: str) -> str | None:
    row = first(c.execute(_GET, (key,)))
    return row[0] if row else None


def put(c: apsw.Connection, key: str, value: str) -> None:
    c.execute(_PUT, (key, value))


def delete(c: apsw.Connection, key: str) -> bool:
    """False when it was not there."""
    c.execute(_DELETE, (key,))
    return c.changes() > 0


def stamp_alive(c: apsw.Connection, now: datetime) -> None:
    """We live: the next start tells from this how long nobody watched."""
    put(c, ALIVE_AT, str(to_us(now)))


def alive_at(c: apsw.Connection) -> datetime | None:
    """When the daemon last said that it lives; None on the very first start."""
    found = get(c, ALIVE_AT)
    return from_us(int(found)) if found is not None else None


def held(c: apsw.Connection) -> str | None:
    """Why nothing may be sent for now, or None."""
    return get(c, HELD)
