"""
What history may keep: by age, and by bytes for each table of its own, so that traces never push out roll-ups.

In: the settings, now.  Out: small steps, each a function over a connection that says how many rows it took.
Promise: a step takes at most `STEP_ROWS` rows, a few milliseconds, and between two steps every waiting write gets its
turn. What is oldest goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import apsw

from agentd.clock import to_us
from agentd.memory import audit, ledger, outbox, rollups, silences, spans
from agentd.memory.columns import first, value

STEP_ROWS = 500
PAGE = 4096
_DAY = timedelta(days=1)

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
    oldest: deletes the oldest rows. rows: how many there are, about.
    """

    table: str
    share: float
    size: str
    oldest: str
    rows: str


def _numbered(table: str, share: float, size: str) -> Quota:
    """A table whose rows are numbered in the order they came."""
    return Quota(
        table,
        share,
        f"SELECT avg({size}) FROM (SELECT * FROM {table} ORDER BY number DESC LIMIT 200)",
        f"DELETE FROM {table} WHERE number IN (SELECT number FROM {table} ORDER BY number LIMIT ?)",
        f"SELECT coalesce(max(number) - min(number) + 1, 0) FROM {table}",
    )


QUOTAS = (
    _numbered("results", 0.35, "40 + length(watch) + 2 * length(summary) + coalesce(length(trace_id), 0)"),
    _numbered("spans", 0.25, "150 + length(data) + 2 * length(watch)"),
    _numbered("events", 0.15, "100 + length(data) + 2 * coalesce(length(watch), 0)"),
    Quota(
        "rollups",
        0.25,
        "SELECT avg(80 + 2 * length(watch) + length(histogram)) FROM (SELECT * FROM rollups LIMIT 200)",
        """DELETE FROM rollups WHERE (level, watch, at) IN
           (SELECT level, watch, at FROM rollups INDEXED BY rollups_age ORDER BY level, at LIMIT ?)""",
        "SELECT count(*) FROM rollups INDEXED BY rollups_age",
    ),
)


def state_steps(keep: Retention, now: datetime) -> Iterator[Step]:
    """
    What the state file may let go of: dead letters, ended runs, old deeds, silences long over. Never an alert or a
    waiting message.
    """
    yield lambda c: outbox.trim_dead(c, now, limit=STEP_ROWS)
    yield lambda c: ledger.trim(c, now - keep.runs, limit=STEP_ROWS)
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


def _trim_results(c: apsw.Connection, before: datetime, now: datetime) -> int:
    return _trim_numbered(
        c, "results", before, now, "AND number <= (SELECT number FROM rolled)"
    )  # a result goes only after it was rolled up


def _trim_events(c: apsw.Connection, before: datetime, now: datetime) -> int:
    return _trim_numbered(c, "events", before, now, "")


def _trim_numbered(c: apsw.Connection, table: str, before: datetime, now: datetime, also: str) -> int:
    # Rows from a far future are those of a clock that was wrong: without this they would stay at the head for years.
    c.execute(
        f"""DELETE FROM {table} WHERE number IN (SELECT number FROM {table} ORDER BY number LIMIT ?3)
            AND (at < ?1 OR at > ?2) {also}""",
        (to_us(before), to_us(now + _DAY), STEP_ROWS),
    )
    return c.changes()


def _hold(quota: Quota, c: apsw.Connection, *, room: int) -> int:
    """Take the oldest rows of a table that is above its share, if history as a whole is above three quarters."""
    if used_bytes(c) <= room * 3 // 4:
        return 0
    sampled = first(c.execute(quota.size))
    if sampled is None or sampled[0] is None:
        return 0
    if value(c.execute(quota.rows)) * sampled[0] <= room * quota.share:
        return 0
    c.execute(quota.oldest, (STEP_ROWS,))
    return c.changes()
