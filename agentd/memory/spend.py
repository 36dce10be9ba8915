"""
What models took: set aside before each call, put right after it, summed by run, by watch and day, and by day.

In: what a call may take at most, then what it took. Out: nothing, or the limit that stands in its way.
Promise: all of it happens in the caller's transaction, and the store has one writer, so two calls never share one
last dollar. What was reserved and never settled counts as spent. Money is whole billionths of a dollar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import apsw

from agentd.memory.columns import clipped, first, value

Scope = Literal["run", "watch_per_day", "daemon_per_day"]
What = Literal["usd", "tokens"]

NANO = 1_000_000_000
MAX_OPEN = 1000
MAX_ROWS = 200_000
KEEP_DAYS = 8
# Far above what any call takes, far below where sums leave 64 bits.
_MOST_NANO = 10**15
_MOST_TOKENS = 10**12
_MAX_NAME = 200

_SUMS = "coalesce(sum(calls), 0), coalesce(sum(tokens), 0), coalesce(sum(usd_nano), 0), coalesce(sum(unknown_calls), 0)"
_OF_RUN = f"SELECT {_SUMS} FROM spend WHERE run = ?"
_OF_WATCH = f"SELECT {_SUMS} FROM spend_days WHERE day = ? AND watch = ?"
_OF_DAY = f"SELECT {_SUMS} FROM spend_days WHERE day = ? AND watch IS NULL"
_COLUMNS = "calls, tokens, usd_nano, unknown_calls"
_DAYS = f"SELECT day, {_COLUMNS} FROM spend_days WHERE watch IS NULL ORDER BY day DESC LIMIT ?"
_WATCHES = f"""
    SELECT watch, {_COLUMNS} FROM spend_days WHERE day = ? AND watch IS NOT NULL
    ORDER BY usd_nano DESC, tokens DESC, watch LIMIT ?"""
_MODELS = f"SELECT model, {_SUMS} FROM spend WHERE day = ? GROUP BY model ORDER BY sum(usd_nano) DESC, model"
_MODELS_OF_RUN = f"SELECT model, {_SUMS} FROM spend WHERE run = ? GROUP BY model ORDER BY sum(usd_nano) DESC, model"
_ADD = "calls = calls + {0}, tokens = tokens + {1}, usd_nano = usd_nano + {2}, unknown_calls = unknown_calls + {3}"
_ADD_ROW = f"""
    INSERT INTO spend (day, watch, run, model, {_COLUMNS}) VALUES (?5, ?6, ?7, ?8, ?1, ?2, ?3, ?4)
    ON CONFLICT (day, watch, run, model) DO UPDATE SET {_ADD.format("?1", "?2", "?3", "?4")}"""
_ADD_WATCH = f"""
    INSERT INTO spend_days (day, watch, {_COLUMNS}) VALUES (?5, ?6, ?1, ?2, ?3, ?4)
    ON CONFLICT (day, watch) WHERE watch IS NOT NULL DO UPDATE SET {_ADD.format("?1", "?2", "?3", "?4")}"""
_ADD_DAY = f"""
    INSERT INTO spend_days (day, watch, {_COLUMNS}) VALUES (?5, NULL, ?1, ?2, ?3, ?4)
    ON CONFLICT (day) WHERE watch IS NULL DO UPDATE SET {_ADD.format("?1", "?2", "?3", "?4")}"""
_OPEN = "INSERT INTO spend_open (id, run, day, watch, model, tokens, usd_nano) VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT_OPEN = "SELECT count(*) FROM spend_open WHERE run = ?"
_SETTLE = "DELETE FROM spend_open WHERE id = ? RETURNING run, day, watch, model, tokens, usd_nano"
_CLOSE = "DELETE FROM spend_open WHERE run = ?"
_CLOSE_ALL = "DELETE FROM spend_open"
_TRIM_ROWS = """
    DELETE FROM spend WHERE (day, watch, run, model) IN
        (SELECT day, watch, run, model FROM spend WHERE day < ? ORDER BY day LIMIT ?)"""
_TRIM_DAYS = "DELETE FROM spend_days WHERE rowid IN (SELECT rowid FROM spend_days WHERE day < ? ORDER BY day LIMIT ?)"
_NEWEST_DAYS = "SELECT day FROM spend_days WHERE watch IS NULL ORDER BY day DESC LIMIT 1 OFFSET ?"
_COUNT_ROWS = "SELECT count(*) FROM spend"


@dataclass(frozen=True, slots=True)
class Limit:
    """None: no limit of this kind."""

    usd_nano: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """run: for the whole of it, over all days. watch, daemon: for one UTC day."""

    run: Limit = Limit()
    watch: Limit = Limit()
    daemon: Limit = Limit()


class Spent(NamedTuple):
    """unknown_calls: those whose price is not known; their money is not in usd_nano."""

    calls: int = 0
    tokens: int = 0
    usd_nano: int = 0
    unknown_calls: int = 0

    @property
    def usd(self) -> float:
        return self.usd_nano / NANO


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    The limit that a call would go over. what: of `spent` and `limit`: `usd` (both in nano-USD) or `tokens`.

    spent: without the call, reservations included.
    """

    scope: Scope
    what: What
    spent: int
    limit: int


def to_nano(usd: float | None) -> int | None:
    """Whole nano-USD, rounded up; None, or what is no number, is unknown."""
    if usd is None or math.isnan(usd):
        return None
    return _MOST_NANO if usd * NANO >= _MOST_NANO else max(math.ceil(round(usd * NANO, 3)), 0)


def from_nano(usd_nano: int | None) -> float | None:
    return None if usd_nano is None else usd_nano / NANO


def day_of(now: datetime) -> str:
    """The UTC day of a moment, as `2026-11-20`."""
    return now.astimezone(UTC).date().isoformat()


def reserve(
    c: apsw.Connection,
    *,
    id: str,
    day: str,
    watch: str,
    run: str,
    model: str,
    tokens: int,
    usd_nano: int | None,
    limits: Limits = Limits(),
) -> Refusal | None:
    """
    Set aside what a call may take at most, or say which limit it would go over; then nothing is set aside.

    id: of the call, unique over all runs. day: `day_of` now. usd_nano: None when no price is known: then limits of
    money do not hold this call, only those of tokens do. A call that costs nothing goes over no limit of money.
    Raises apsw.ConstraintError when a call of this id is open already.
    """
    tokens, usd_nano = _bounded(tokens, usd_nano)
    watch, run, model = clipped(watch, _MAX_NAME), clipped(run, _MAX_NAME), clipped(model, _MAX_NAME)
    budgets: tuple[tuple[Scope, Limit, str, tuple[str, ...]], ...] = (
        ("run", limits.run, _OF_RUN, (run,)),
        ("watch_per_day", limits.watch, _OF_WATCH, (day, watch)),
        ("daemon_per_day", limits.daemon, _OF_DAY, (day,)),
    )
    for scope, limit, query, key in budgets:
        if limit.usd_nano is None and limit.tokens is None:
            continue
        spent = _spent(c, query, key)
        if usd_nano and limit.usd_nano is not None and spent.usd_nano + usd_nano > limit.usd_nano:
            return Refusal(scope, "usd", spent.usd_nano, limit.usd_nano)
        if tokens and limit.tokens is not None and spent.tokens + tokens > limit.tokens:
            return Refusal(scope, "tokens", spent.tokens, limit.tokens)
    if value(c.execute(_COUNT_OPEN, (run,))) >= MAX_OPEN:
        close_run(c, run)
    c.execute(_OPEN, (clipped(id, _MAX_NAME), run, day, watch, model, tokens, usd_nano))
    _add(c, Spent(1, tokens, usd_nano or 0, int(usd_nano is None)), day, watch, run, model)
    return None


def settle(c: apsw.Connection, id: str, tokens: int, usd_nano: int | None) -> bool:
    """
    The call took so much, instead of what was set aside; it counts on the day of its reservation.

    usd_nano: None when the price of what answered is not known; what was set aside then stays counted.
    False, and nothing changes, when no such call is open: it was settled before, or its run has ended.
    """
    found = first(c.execute(_SETTLE, (clipped(id, _MAX_NAME),)))
    if found is None:
        return False
    run, day, watch, model, quoted_tokens, quoted_nano = found
    tokens, usd_nano = _bounded(tokens, usd_nano)
    more = 0 if usd_nano is None else usd_nano - (quoted_nano or 0)
    unknown = int(usd_nano is None) - int(quoted_nano is None)
    _add(c, Spent(0, tokens - quoted_tokens, more, unknown), day, watch, run, model)
    return True


def close_run(c: apsw.Connection, run: str) -> int:
    """The run has ended: what it did not settle stays counted as it was set aside. Returns how many calls."""
    c.execute(_CLOSE, (run,))
    return c.changes()


def close_all(c: apsw.Connection) -> int:
    """At start, as nobody settles what the last process reserved. Returns how many calls."""
    c.execute(_CLOSE_ALL)
    return c.changes()


def today(c: apsw.Connection, day: str) -> Spent:
    """Of all watches on this day."""
    return _spent(c, _OF_DAY, (day,))


def of_watch(c: apsw.Connection, day: str, watch: str) -> Spent:
    return _spent(c, _OF_WATCH, (day, watch))


def of_run(c: apsw.Connection, run: str) -> Spent:
    """Over all days."""
    return _spent(c, _OF_RUN, (run,))


def days(c: apsw.Connection, limit: int = 31) -> dict[str, Spent]:
    """Newest first."""
    return {str(day): Spent(*row) for day, *row in c.execute(_DAYS, (limit,))}


def by_watch(c: apsw.Connection, day: str, limit: int = 100) -> dict[str, Spent]:
    """The dearest first."""
    return {str(watch): Spent(*row) for watch, *row in c.execute(_WATCHES, (day, limit))}


def by_model(c: apsw.Connection, *, day: str | None = None, run: str | None = None) -> dict[str, Spent]:
    """Of a run, or of a day. The dearest first."""
    found = c.execute(_MODELS, (day,)) if run is None else c.execute(_MODELS_OF_RUN, (run,))
    return {str(model): Spent(*row) for model, *row in found}


def trim(c: apsw.Connection, before: str, today: str, *, max_rows: int = MAX_ROWS, limit: int = 500) -> int:
    """
    Forget days before `before`, and of too many rows the oldest; returns how many went.

    before, today: as `day_of` gives them. The newest eight days on which anything was spent stay in any case: a clock
    that was a year ahead for a minute must not open a budget anew when it is set back.
    """
    row = first(c.execute(_NEWEST_DAYS, (KEEP_DAYS - 1,)))
    if row is None:
        gone = 0
    else:
        before = min(before, row[0])
        c.execute(_TRIM_ROWS, (before, limit))
        gone = c.changes()
        c.execute(_TRIM_DAYS, (before, limit))
        gone = max(gone, c.changes())
    surplus = int(value(c.execute(_COUNT_ROWS))) - max_rows
    if surplus > 0 and gone < limit:
        # The rows of runs alone: what is spent of a day's budget stands in the sums.
        c.execute(_TRIM_ROWS, (today, min(surplus, limit - gone)))
        gone += c.changes()
    return gone


def _spent(c: apsw.Connection, query: str, key: tuple[Any, ...]) -> Spent:
    return Spent(*(first(c.execute(query, key)) or ()))


def _bounded(tokens: int, usd_nano: int | None) -> tuple[int, int | None]:
    return min(max(tokens, 0), _MOST_TOKENS), None if usd_nano is None else min(max(usd_nano, 0), _MOST_NANO)


def _add(c: apsw.Connection, more: Spent, day: str, watch: str, run: str, model: str) -> None:
    c.execute(_ADD_ROW, (*more, day, watch, run, model))
    c.execute(_ADD_WATCH, (*more, day, watch))
    c.execute(_ADD_DAY, (*more, day))
