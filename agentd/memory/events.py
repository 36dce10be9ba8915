"""
What happened, in order: transitions, deliveries, reloads. Append only; read by pages, streams and people.

Promise: numbers only grow, so that a reader who names the last one it saw misses nothing that is still kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import from_json, optional_text, text, to_json

_COLUMNS = "number, at, kind, watch, fingerprint, data"
_APPEND = "INSERT INTO events (at, kind, watch, fingerprint, data) VALUES (?, ?, ?, ?, ?)"
_AFTER = f"SELECT {_COLUMNS} FROM events WHERE number > ? ORDER BY number LIMIT ?"
_LAST = f"SELECT {_COLUMNS} FROM events WHERE number < ? ORDER BY number DESC LIMIT ?"
_OF_WATCH = f"SELECT {_COLUMNS} FROM events WHERE watch = ? AND number < ? ORDER BY number DESC LIMIT ?"
_OF_ALERT = f"SELECT {_COLUMNS} FROM events WHERE fingerprint = ? AND number < ? ORDER BY number DESC LIMIT ?"
_BEGIN = "SELECT DISTINCT fingerprint FROM events WHERE fingerprint >= ? AND fingerprint < ? ORDER BY 1 LIMIT ?"
_ANY = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Event:
    """kind: such as `alert.firing`, `delivery.done`, `config.reloaded`. data: plain JSON values."""

    number: int
    at: datetime
    kind: str
    watch: str | None
    fingerprint: str | None
    data: Mapping[str, Any]


def append(
    c: apsw.Connection,
    kind: str,
    at: datetime,
    *,
    watch: str | None = None,
    fingerprint: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Returns the event's number."""
    c.execute(_APPEND, (to_us(at), text(kind), optional_text(watch), fingerprint, to_json(data or {})))
    return c.last_insert_rowid()


def after(c: apsw.Connection, number: int, limit: int = 500) -> list[Event]:
    """The events after `number`, oldest first."""
    return [_event(row) for row in c.execute(_AFTER, (number, limit))]


def last(
    c: apsw.Connection,
    *,
    watch: str | None = None,
    fingerprint: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Event]:
    """Newest first: of an alert, of a watch, or of all. before: the number of the last one of the page before."""
    page = (_ANY if before is None else before, limit)
    if fingerprint is not None:
        return [_event(row) for row in c.execute(_OF_ALERT, (fingerprint, *page))]
    if watch is not None:
        return [_event(row) for row in c.execute(_OF_WATCH, (watch, *page))]
    return [_event(row) for row in c.execute(_LAST, page)]


def fingerprints(c: apsw.Connection, begin: str, limit: int = 2) -> list[str]:
    """Of the alerts that something happened to and whose fingerprints begin so, at most `limit`. begin: not empty."""
    # What follows all that begin so: digits are below "g".
    return [row[0] for row in c.execute(_BEGIN, (text(begin), f"{text(begin)}g", limit))]


def _event(row: tuple[Any, ...]) -> Event:
    number, at, kind, watch, fingerprint, data = row
    return Event(number, from_us(at), kind, watch, fingerprint, from_json(data))
