"""
The ledger: what ran, what is to run, what was due and not done.

Runs (goals, tasks) have a row each; probes have one row per watch, written now and then, never per check.
Promise: a run that was queued is never forgotten, and after a crash none is still called running.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import apsw

from agentd.clock import from_optional_us, from_us, optional_us, to_us
from agentd.memory.columns import first, optional_text, text, value
from agentd.records import Verdict


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Run:
    """
    One execution of a goal or task.

    trigger: what started it (`schedule`, `cron`, `startup`, `api`, `alert:NAME`, …). due_at: when it had to start.
    """

    id: str
    watch: str
    trigger: str
    due_at: datetime
    state: RunState = RunState.QUEUED
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """When a watch's probe was last due and last done, and what came of it."""

    watch: str
    last_due: datetime | None = None
    last_done: datetime | None = None
    verdict: Verdict | None = None


_COLUMNS = "id, watch, trigger, due_at, state, started_at, ended_at, error, trace_id"
_QUEUE = "INSERT INTO runs (id, watch, trigger, state, due_at, trace_id) VALUES (?, ?, ?, 'queued', ?, ?)"
_START = "UPDATE runs SET state = 'running', started_at = ?2 WHERE id = ?1 AND state = 'queued'"
_END = """
    UPDATE runs SET state = ?2, ended_at = ?3, error = ?4, trace_id = coalesce(?5, trace_id)
    WHERE id = ?1 AND state IN ('queued', 'running')"""
_INTERRUPT = "UPDATE runs SET state = 'interrupted', ended_at = ?1, error = ?2 WHERE state = 'running'"
_QUEUED = f"SELECT {_COLUMNS} FROM runs WHERE state = 'queued' AND due_at <= ? ORDER BY due_at, number LIMIT ?"
_GET = f"SELECT {_COLUMNS} FROM runs WHERE id = ?"
_RUNS = f"""
    SELECT {_COLUMNS} FROM runs WHERE (?1 IS NULL OR watch = ?1) AND (?2 IS NULL OR state = ?2)
    ORDER BY number DESC LIMIT ?3"""
_LAST_DUE = "SELECT max(due_at) FROM runs WHERE watch = ?"
_TRIM_OLD = "DELETE FROM runs WHERE number IN (SELECT number FROM runs WHERE ended_at < ? ORDER BY ended_at LIMIT ?)"
_TRIM_MANY = """
    DELETE FROM runs WHERE number IN (SELECT number FROM runs WHERE ended_at IS NOT NULL ORDER BY ended_at LIMIT ?)"""
_ENDED = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL"
_SAVE_PROBE = "INSERT OR REPLACE INTO probes (watch, last_due, last_done, verdict) VALUES (?, ?, ?, ?)"
_PROBES = "SELECT watch, last_due, last_done, verdict FROM probes"
_FORGET_PROBE = "DELETE FROM probes WHERE watch = ?"


def queue(c: apsw.Connection, run: Run) -> None:
    """Remember that `run` is to start at its due time. Raises apsw.ConstraintError when the id is known."""
    c.execute(_QUEUE, (run.id, text(run.watch), text(run.trigger), to_us(run.due_at), run.trace_id))


def start(c: apsw.Connection, id: str, now: datetime) -> bool:
    """False when it is not queued any more (cancelled meanwhile)."""
    c.execute(_START, (id, to_us(now)))
    return c.changes() > 0


def end(
    c: apsw.Connection,
    id: str,
    now: datetime,
    state: RunState,
    *,
    error: str | None = None,
    trace_id: str | None = None,
) -> bool:
    """It came to an end; only the first end counts: False when it had ended already."""
    c.execute(_END, (id, state.value, to_us(now), optional_text(error), trace_id))
    return c.changes() > 0


def interrupt_all_running(c: apsw.Connection, now: datetime, why: str = "the daemon stopped while it ran") -> int:
    """At start: nobody runs what the last process was running. Returns how many there were."""
    c.execute(_INTERRUPT, (to_us(now), why))
    return c.changes()


def queued(c: apsw.Connection, now: datetime, limit: int = 100) -> list[Run]:
    """The runs that are to start now, the one due first in front."""
    return [_run(row) for row in c.execute(_QUEUED, (to_us(now), limit))]


def get(c: apsw.Connection, id: str) -> Run | None:
    row = first(c.execute(_GET, (id,)))
    return _run(row) if row else None


def runs(c: apsw.Connection, *, watch: str | None = None, state: RunState | None = None, limit: int = 100) -> list[Run]:
    """Newest first."""
    return [_run(row) for row in c.execute(_RUNS, (watch, state.value if state else None, limit))]


def last_due(c: apsw.Connection, watch: str) -> datetime | None:
    """When the latest run of the watch was due: from there on runs may have been missed."""
    return from_optional_us(value(c.execute(_LAST_DUE, (watch,))))


def trim(c: apsw.Connection, before: datetime, *, max_rows: int = 100_000, limit: int = 500) -> int:
    """Delete up to `limit` ended runs that ended before `before` or are too many; returns how many went."""
    c.execute(_TRIM_OLD, (to_us(before), limit))
    gone = c.changes()
    surplus = value(c.execute(_ENDED)) - max_rows
    if surplus > 0 and gone < limit:
        c.execute(_TRIM_MANY, (min(surplus, limit - gone),))
        gone += c.changes()
    return gone


def save_probes(c: apsw.Connection, rows: Iterable[ProbeRow]) -> None:
    """Write what changed since the last call: once a minute and at stop, in one go."""
    c.executemany(
        _SAVE_PROBE,
        [
            (text(row.watch), optional_us(row.last_due), optional_us(row.last_done), row.verdict and row.verdict.value)
            for row in rows
        ],
    )


def load_probes(c: apsw.Connection) -> dict[str, ProbeRow]:
    """By watch."""
    found: list[Any] = c.execute(_PROBES).fetchall()
    return {
        watch: ProbeRow(watch, from_optional_us(due), from_optional_us(done), Verdict(verdict) if verdict else None)
        for watch, due, done, verdict in found
    }


def forget_probe(c: apsw.Connection, watch: str) -> None:
    """The config no longer names it."""
    c.execute(_FORGET_PROBE, (watch,))


def _run(row: tuple[Any, ...]) -> Run:
    return Run(
        id=row[0],
        watch=row[1],
        trigger=row[2],
        due_at=from_us(row[3]),
        state=RunState(row[4]),
        started_at=from_optional_us(row[5]),
        ended_at=from_optional_us(row[6]),
        error=row[7],
        trace_id=row[8],
    )
