"""
The record of a run, line by line: enough to show it, and to run it again offline.

In: lines as the agent leaves them.  Out: the same, in order.
Promise: a line that was kept comes back as it was; what is missing is seen by `is_whole`, never glossed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import apsw

from agentd.clock import to_us
from agentd.memory.columns import bounded_json, clipped, from_json, value
from agentd.memory.packed import pack, unpack

MAX_LINES = 20_000
MAX_LINE = 2**20
_MAX_NAME = 200

_ADD = "INSERT OR IGNORE INTO run_records (run, seq, at, at_s, kind, data) VALUES (?, ?, ?, ?, ?, ?)"
_OF = "SELECT seq, at_s, kind, data FROM run_records WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
_KINDS = """
    SELECT seq, at_s, kind, data FROM run_records
    WHERE run = ?1 AND seq > ?2 AND kind IN (SELECT value FROM json_each(?4)) ORDER BY seq LIMIT ?3"""
_COUNT = """
    SELECT count(*) FROM run_records
    WHERE run = ?1 AND (?2 = '[]' OR kind IN (SELECT value FROM json_each(?2)))"""
_EXTENT = "SELECT count(*), min(seq), max(seq) FROM run_records WHERE run = ?"


class Line(Protocol):
    """What `RunLine` has: the agent's own records fit."""

    @property
    def seq(self) -> int: ...
    @property
    def at_s(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RunLine:
    """seq: from 0 or 1 on, without gaps. at_s: seconds since the run's begin, monotonic. data: plain JSON."""

    seq: int
    at_s: float
    kind: str
    data: Mapping[str, Any]


def save(c: apsw.Connection, run: str, at: datetime, lines: Iterable[Line]) -> None:
    """
    Keep these lines of the run. at: about when they were written.

    A line that is kept already stays as it is. A line of more than 1 MiB is cut; of a run, 20,000 lines are kept.
    """
    c.executemany(
        _ADD,
        [
            (
                clipped(run, _MAX_NAME),
                line.seq,
                to_us(at),
                float(line.at_s),
                clipped(line.kind, _MAX_NAME),
                pack(bounded_json(line.data, MAX_LINE)),
            )
            for line in lines
            if 0 <= line.seq < MAX_LINES
        ],
    )


def read(
    c: apsw.Connection,
    run: str,
    *,
    after: int = -1,
    kinds: Sequence[str] = (),
    limit: int = MAX_LINES,
    most_bytes: int | None = None,
) -> Iterator[RunLine]:
    """
    The lines of the run behind `after`, in order, one at a time: all of them may be gigabytes. kinds: only these.

    most_bytes: it ends before the lines as they are stored, packed, take more than that.
    """
    if kinds:
        found = c.execute(_KINDS, (run, after, limit, bounded_json(kinds, MAX_LINE)))
    else:
        found = c.execute(_OF, (run, after, limit))
    read_bytes = 0
    for seq, at_s, kind, data in found:
        read_bytes += len(data)
        if most_bytes is not None and read_bytes > most_bytes:
            return
        yield RunLine(seq, at_s, kind, from_json(unpack(data)))


def of(
    c: apsw.Connection, run: str, *, after: int = -1, kinds: Sequence[str] = (), limit: int = MAX_LINES
) -> list[RunLine]:
    """The same, all at once."""
    return list(read(c, run, after=after, kinds=kinds, limit=limit))


def count(c: apsw.Connection, run: str, *, kinds: Sequence[str] = ()) -> int:
    """kinds: of these alone."""
    return int(value(c.execute(_COUNT, (run, bounded_json(kinds, MAX_LINE)))))


def has_all(c: apsw.Connection, run: str) -> bool:
    """Whether all lines of the run from its begin on are kept, as `is_whole` of them would say."""
    found: list[Any] = c.execute(_EXTENT, (run,)).fetchall()
    number, begin, end = found[0]
    return bool(number) and begin <= 1 and end - begin + 1 == number


def is_whole(lines: Sequence[Line]) -> bool:
    """Whether these are all lines of a run from its begin on: retention lets go of the oldest ones first."""
    return bool(lines) and lines[0].seq <= 1 and lines[-1].seq - lines[0].seq + 1 == len(lines)
