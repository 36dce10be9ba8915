"""
Whole outputs of tools, by the id of the evidence that they are: what a model saw shortened is kept in full.

Promise: an output that is kept comes back as the tool gave it, up to `MAX_OUTPUT` characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import clipped, first
from agentd.memory.packed import pack_bytes, unpack

MAX_OUTPUT = 2**20
_MAX_NAME = 200

_SAVE = "INSERT OR REPLACE INTO outputs (run, id, at, bytes, data) VALUES (?, ?, ?, ?, ?)"
_GET = "SELECT data FROM outputs WHERE run = ? AND id = ?"
_OF = "SELECT id, at, bytes FROM outputs WHERE run = ? ORDER BY number LIMIT ?"


@dataclass(frozen=True, slots=True)
class OutputRow:
    """bytes: of the text."""

    id: str
    at: datetime
    bytes: int


def save(c: apsw.Connection, run: str, id: str, at: datetime, output: str) -> None:
    """id: unique within the run, such as `e3`."""
    kept = clipped(output, MAX_OUTPUT)
    size = len(kept) if kept.isascii() else len(kept.encode())
    c.execute(_SAVE, (clipped(run, _MAX_NAME), clipped(id, _MAX_NAME), to_us(at), size, pack_bytes(kept)))


def get(c: apsw.Connection, run: str, id: str) -> str | None:
    """None when it is not kept (any more)."""
    row = first(c.execute(_GET, (run, id)))
    return unpack(row[0]) if row else None


def of(c: apsw.Connection, run: str, limit: int = 1000) -> list[OutputRow]:
    """In the order they came."""
    return [OutputRow(id, from_us(at), size) for id, at, size in c.execute(_OF, (run, limit))]
