"""
What history may keep: by age, and by bytes for each table of its own, so that traces never push out roll-ups.

In: the settings, now.  Out: small steps, each a function over a connection that says how many rows it took.
Promise: a step takes at most `STEP_ROWS` rows, a few milliseconds, and between two steps every waiting write gets its
turn. What is oldest goes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import apsw

from agentd.clock import to_us
from agentd.memory import audit, ledger, outbox, rollups, silences, spans, spend
from agentd.memory.columns import first, value

STEP_ROWS = 500
# Rows of many pages each.
LARGE_AT_ONCE = 50
# Taking the words of a note out of their index costs a hundred times what taking a row does.
NOTES_AT_ONCE = 40
PAGE = 4096
_DAY = timedelta(days=1)
_RUNS_SHARE = 0.04  # of everything: the state file is copied at every backup
_LEAST_SPEND = timedelta(days=2)  # west of Greenwich, and for clocks that are set back, yesterday's day still counts

Step = Callable[[apsw.Connection], int]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept. max_size: bytes of everything in the state directory together."""

    max_size: int = 2**30
    results: timedelta = timedelta(hours=24)
    rollups: timedelta = timedelta(days=400)
    runs: timedelta = timedelta(days=30)
    events: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Quota:
    """
    A table's part of history. size: the estimated bytes of a row, indexes included, over a sample of the newest.
    oldest: deletes the oldest rows. rows: how many there are, about. at_once: rows of one step.
    """

    table: str
    share: float
    size: str
    oldest: str
    rows: str
    at_once: int = STEP_ROWS


def _numbered(table: str, share: float, size: str, at_once: int = STEP_ROWS) -> Quota:
    """A table whose rows are numbered in the order they came."""
    return Quota(
        table,
        share,
        f"SELECT avg({size}) FROM (SELECT * FROM {table} ORDER BY number DESC LIMIT 200)",
        f"DELETE FROM {table} WHERE number IN (SELECT number FROM {table} ORDER BY number LIMIT ?)",
        f"SELECT coalesce(max(number) - min(number) + 1, 0) FROM {table}",
        at_once,
    )


def _notes(type: str, share: float) -> Quota:
    """Notes of a type: what tools said never pushes out what runs found."""
    return Quota(
        f"notes: {type}",
        share,
        f"""SELECT avg(200 + 2 * octet_length(text) + octet_length(data) + coalesce(octet_length(vector), 0))
            FROM (SELECT * FROM notes WHERE type = '{type}' ORDER BY number DESC LIMIT 200)
            LEFT JOIN note_vectors ON note = number""",
        f"DELETE FROM notes WHERE number IN (SELECT number FROM notes WHERE type = '{type}' ORDER BY number LIMIT ?)",
        f"SELECT count(*) FROM notes WHERE type = '{type}'",
        NOTES_AT_ONCE,
    )


QUOTAS = (
    _numbered("results", 0.25, "40 + length(watch) + 2 * length(summary) + coalesce(length(trace_id), 0)"),
    _numbered("spans", 0.15, "150 + length(data) + 2 * length(watch)"),
    _numbered("events", 0.12, "100 + length(data) + 2 * coalesce(length(watch), 0)"),
    _numbered("run_records", 0.12, "100 + 2 * length(run) + octet_length(data)", LARGE_AT_ONCE),
    _numbered("outputs", 0.08, "100 + 2 * length(run) + octet_length(data)", LARGE_AT_ONCE),
    _notes("tool_result", 0.04),
    _notes("final", 0.06),
    Quota(
        "rollups",
        0.18,
        "SELECT avg(80 + 2 * length(watch) + length(histogram)) FROM (SELECT * FROM rollups LIMIT 200)",
        """DELETE FROM rollups WHERE (level, watch, at) IN
           (SELECT level, watch, at FROM rollups INDEXED BY rollups_age ORDER BY level, at LIMIT ?)""",
        "SELECT count(*) FROM rollups INDEXED BY rollups_age",
    ),
)


def state_steps(keep: Retention, now: datetime) -> Iterator[Step]:
    """
    What the state file may let go of: dead letters, ended runs, money long spent, old deeds, silences long over.
    Never an alert, a waiting message, or what is spent of today's budgets.
    """
    yield lambda c: outbox.trim_dead(c, now, limit=STEP_ROWS)
    yield lambda c: _trim_runs(c, now - keep.runs, int(keep.max_size * _RUNS_SHARE))
    today, oldest = spend.day_of(now), spend.day_of(now - max(keep.runs, _LEAST_SPEND))
    yield lambda c: spend.trim(c, oldest, today, limit=STEP_ROWS)
    yield lambda c: audit.trim(c, now - keep.events, limit=STEP_ROWS)
    yield lambda c: silences.trim(c, now - silences.KEPT_AFTER_END, limit=STEP_ROWS)


def history_steps(keep: Retention, now: datetime, room: int) -> Iterator[Step]:
    """room: bytes that history may take. Repeat each step until it says less than STEP_ROWS."""
    yield rollups.roll_up
    yield lambda c: _trim_results(c, now - keep.results, now)
    # Minutes for the last weeks, hours and days for as long as roll-ups are kept at all.
    yield lambda c: rollups.trim(c, rollups.LEVELS[0], now - max(keep.results, keep.rollups / 20), STEP_ROWS)
    yield lambda c: rollups.trim(c, rollups.LEVELS[1], now - keep.rollups, STEP_ROWS)
    yield lambda c: rollups.trim(c, rollups.LEVELS[2], now - keep.rollups, STEP_ROWS)
    yield lambda c: spans.trim(c, now - keep.runs, STEP_ROWS)
    yield lambda c: _trim_events(c, now - keep.events, now)
    yield lambda c: _trim_numbered(c, "run_records", now - keep.runs, now, at_once=LARGE_AT_ONCE)
    yield lambda c: _trim_numbered(c, "outputs", now - keep.runs, now, at_once=LARGE_AT_ONCE)
    # What was found stays as long as the incident that it is about, what tools said as long as its run.
    yield lambda c: _trim_notes(c, "tool_result", now - keep.runs, now)
    yield lambda c: _trim_notes(c, "final", now - max(keep.runs, keep.events), now)
    for quota in QUOTAS:
        yield partial(_hold, quota, room=room)


def used_bytes(c: apsw.Connection) -> int:
    """Bytes of the file in use, without free pages."""
    return int(c.pragma("page_count") - c.pragma("freelist_count")) * PAGE


def shrink(c: apsw.Connection, room: int, pages: int = 64) -> int:
    """
    Give free pages back to the disk, a few at a time; returns STEP_ROWS while there is more to give, else 0.

    A quarter of the file may stay free: it is used again soon, and giving it back costs more than it brings.
    """
    total, unused = int(c.pragma("page_count")), int(c.pragma("freelist_count"))
    if unused <= 256 or (unused * 4 <= total and total * PAGE <= room):
        return 0
    c.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return STEP_ROWS


def _trim_runs(c: apsw.Connection, before: datetime, max_bytes: int) -> int:
    gone = ledger.trim(c, before, max_bytes=max_bytes, limit=LARGE_AT_ONCE)
    return _taken(gone, LARGE_AT_ONCE)


def _trim_results(c: apsw.Connection, before: datetime, now: datetime) -> int:
    return _trim_numbered(
        c, "results", before, now, "AND number <= (SELECT number FROM rolled)"
    )  # a result goes only after it was rolled up


def _trim_events(c: apsw.Connection, before: datetime, now: datetime) -> int:
    return _trim_numbered(c, "events", before, now)


def _trim_notes(c: apsw.Connection, type: str, before: datetime, now: datetime) -> int:
    return _trim_numbered(c, "notes", before, now, at_once=NOTES_AT_ONCE, of=f"WHERE type = '{type}'")


def _trim_numbered(
    c: apsw.Connection,
    table: str,
    before: datetime,
    now: datetime,
    also: str = "",
    *,
    at_once: int = STEP_ROWS,
    of: str = "",
) -> int:
    # Rows from a far future are those of a clock that was wrong: without this they would stay at the head for years.
    c.execute(
        f"""DELETE FROM {table} WHERE number IN (SELECT number FROM {table} {of} ORDER BY number LIMIT ?3)
            AND (at < ?1 OR at > ?2) {also}""",
        (to_us(before), to_us(now + _DAY), at_once),
    )
    return _taken(c.changes(), at_once)


def _taken(rows: int, at_once: int) -> int:
    """What a step says that took this many: STEP_ROWS stands for more to come."""
    return STEP_ROWS if rows >= at_once else min(rows, STEP_ROWS - 1)


def _hold(quota: Quota, c: apsw.Connection, *, room: int) -> int:
    """Take the oldest rows of a table that is above its share, if history as a whole is above three quarters."""
    if used_bytes(c) <= room * 3 // 4:
        return 0
    sampled = first(c.execute(quota.size))
    if sampled is None or sampled[0] is None:
        return 0
    surplus = math.ceil(value(c.execute(quota.rows)) - room * quota.share / sampled[0])
    if surplus <= 0:
        return 0
    c.execute(quota.oldest, (min(surplus, quota.at_once),))
    return _taken(c.changes(), quota.at_once)
