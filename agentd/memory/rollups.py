"""
Roll-ups: what the checks of a minute, an hour, a day amounted to, for plots and uptime strips.

In: raw results, each taken in exactly once, in the order they came.  Out: series for a watch.
Promise: all three levels move in one transaction, so they always agree with each other and with the results behind
them, also after a crash and when the wall clock jumps.

Uptime weighs minutes: each in which somebody could look counts the same, however many looks there were. Hours and days
know how many such minutes they hold, so that an hour of which one minute was seen weighs no more than that minute.

Latencies are kept as a histogram whose classes grow by a fourth, so that a percentile is right within 12 %
and two histograms add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import first

LEVELS = (60, 3600, 86400)
MAX_POINTS = 2000
STEP_ROWS = 2500
_GROWTH = math.log(1.25)
_HOURS_FROM_US = 6 * 3_600_000_000
_CLASSES = 120  # up to 1.25 ** 120 µs, more than three days

_SPAN = """
    SELECT (SELECT number FROM rolled), max(number), count(*) FROM
        (SELECT number FROM results WHERE number > (SELECT number FROM rolled) ORDER BY number LIMIT ?)"""
# SQLite groups, outside of the interpreter's lock; only the groups come up here.
_GROUPS = f"""
    SELECT watch, at / 60000000, class, count(*), sum(verdict = 1), sum(verdict = 2), count(latency_us),
           coalesce(sum(latency_us), 0), min(latency_us), max(latency_us)
    FROM (SELECT watch, at, verdict, latency_us,
                 CASE WHEN latency_us > 1 THEN min({_CLASSES}, CAST(ln(latency_us) / {_GROWTH!r} AS INTEGER))
                      WHEN latency_us IS NOT NULL THEN 0 END AS class
          FROM results WHERE number > ? AND number <= ?)
    GROUP BY 1, 2, 3"""
_REACHED = "UPDATE rolled SET number = ?"
_COLUMNS = "count, failing, blind, timed, sum_us, min_us, max_us, histogram"
_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US
_GET = f"SELECT {_COLUMNS}, seen, well_us FROM rollups WHERE level = ? AND watch = ? AND at = ?"
_PUT = f"""
    INSERT OR REPLACE INTO rollups (level, watch, at, {_COLUMNS}, seen, well_us)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_SERIES = f"""
    SELECT at, {_COLUMNS} FROM rollups WHERE level = ? AND watch = ? AND at >= ? AND at < ? ORDER BY at"""
_STRIP = """
    SELECT (at - ?3) / ?5, sum(count), sum(failing), sum(blind) FROM rollups
    WHERE level = ?1 AND watch = ?2 AND at >= ?3 AND at < ?4 GROUP BY 1"""
_SPARK = """
    SELECT (at - ?2) / ?4, sum(sum_us), sum(timed) FROM rollups
    WHERE level = 60 AND watch = ?1 AND at >= ?2 AND at < ?3 AND timed GROUP BY 1"""
_MINUTES = "min(level / 60, count - blind)"
_WELL_US = f"{_MINUTES} * {_MINUTE_US} * (count - blind - failing) / (count - blind)"
_PART = f"""
    SELECT coalesce(seen, {_MINUTES}) AS seen, coalesce(well_us, {_WELL_US}) AS well_us FROM rollups
    WHERE level = {{level}} AND watch = ?1 AND at >= {{since}} AND at < {{until}} AND count > blind"""
# Whole hours, and the minutes before and after them.
_UP = f"""
    SELECT sum(seen), sum(well_us) FROM (
        {_PART.format(level=60, since="?2", until="?3")} UNION ALL
        {_PART.format(level=3600, since="?3", until="?4")} UNION ALL
        {_PART.format(level=60, since="?4", until="?5")})"""
_TRIM = """
    DELETE FROM rollups WHERE (level, watch, at) IN
        (SELECT level, watch, at FROM rollups INDEXED BY rollups_age
         WHERE level = ?1 AND at < ?2 ORDER BY at LIMIT ?3)"""


@dataclass(slots=True)
class Summary:
    """
    What came of some checks.

    count: all of them; failing, blind: of these. timed: those with a latency, of which sum, min and max in
    microseconds. histogram: how many latencies in each class. seen: in how many minutes somebody could look, well_us:
    how long these were well; of an hour or a day.
    """

    count: int = 0
    failing: int = 0
    blind: int = 0
    timed: int = 0
    sum_us: int = 0
    min_us: int | None = None
    max_us: int | None = None
    histogram: dict[int, int] = field(default_factory=dict)
    seen: int = 0
    well_us: int = 0

    def merge(self, other: Summary) -> None:
        """Take in what another summary counted."""
        self.count += other.count
        self.failing += other.failing
        self.blind += other.blind
        self.timed += other.timed
        self.seen += other.seen
        self.well_us += other.well_us
        self.sum_us += other.sum_us
        if other.min_us is not None and (self.min_us is None or other.min_us < self.min_us):
            self.min_us = other.min_us
        if other.max_us is not None and (self.max_us is None or other.max_us > self.max_us):
            self.max_us = other.max_us
        for place, count in other.histogram.items():
            self.histogram[place] = self.histogram.get(place, 0) + count

    def average_ms(self) -> float | None:
        return self.sum_us / self.timed / 1000 if self.timed else None

    def percentile_ms(self, share: float) -> float | None:
        """The latency below which `share` (0 to 1) of the checks lay, within 12 %."""
        if not self.timed:
            return None
        assert self.min_us is not None
        assert self.max_us is not None
        wanted, seen = share * self.timed, 0
        for place in sorted(self.histogram):
            seen += self.histogram[place]
            if seen >= wanted:
                middle = math.exp((place + 0.5) * _GROWTH)
                return min(max(middle, self.min_us), self.max_us) / 1000
        return self.max_us / 1000


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a series: the checks from `at` on. up: share of ok among those that could look, or None."""

    at: datetime
    count: int
    failing: int
    blind: int
    up: float | None
    min_ms: float | None
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of an uptime strip: how many checks began in it, and how many of these were failing or blind."""

    at: datetime
    count: int
    failing: int
    blind: int


def roll_up(c: apsw.Connection, limit: int = STEP_ROWS) -> int:
    """Take up to `limit` further results into the roll-ups; returns how many there were."""
    span = first(c.execute(_SPAN, (limit,)))
    assert span is not None
    done, reached, count = span
    if not count:
        return 0
    summaries: dict[tuple[str, int], Summary] = {}
    groups: list[Any] = c.execute(_GROUPS, (done, reached)).fetchall()
    for watch, minute, place, *numbers in groups:
        summary = Summary(*numbers)
        if place is not None:
            summary.histogram[place] = summary.timed
        if (known := summaries.setdefault((watch, minute), summary)) is not summary:
            known.merge(summary)
    levels: dict[tuple[int, str, int], Summary] = {}
    for (watch, minute), new in summaries.items():
        at = minute * _MINUTE_US
        before = _stored(c, (60, watch, at))
        whole = Summary()
        whole.merge(before)
        whole.merge(new)
        c.execute(_PUT, (60, watch, at, *_values(whole), None, None))
        # What the minute counts for now, less what it counted for: its checks may come in several batches.
        (seen, well_us), (seen_before, well_before) = _weight(whole, 1), _weight(before, 1)
        new.seen, new.well_us = seen - seen_before, well_us - well_before
        for level in LEVELS[1:]:
            begin = minute * 60 // level * level * 1_000_000
            levels.setdefault((level, watch, begin), Summary()).merge(new)
    for place3, summary in levels.items():
        summary.merge(_stored(c, place3))
        c.execute(_PUT, (*place3, *_values(summary), summary.seen, summary.well_us))
    c.execute(_REACHED, (reached,))
    return int(count)


def series(c: apsw.Connection, watch: str, since: datetime, until: datetime, step: timedelta) -> list[Point]:
    """
    Points of `step` each from `since` to `until`, those without any check left out; at most two thousand.

    step is rounded up to whole minutes, and so far that the limit holds.
    """
    span_s = max(60, math.ceil((until - since).total_seconds()))
    step_s = max(60, math.ceil(step.total_seconds()), math.ceil(span_s / MAX_POINTS))
    level = max(level for level in LEVELS if level <= step_s)
    step_us = math.ceil(step_s / level) * level * 1_000_000
    begin = to_us(since) // step_us * step_us
    summaries: dict[int, Summary] = {}
    rows: list[Any] = c.execute(_SERIES, (level, watch, begin, to_us(until))).fetchall()
    for at, *values in rows:
        summaries.setdefault((at - begin) // step_us, Summary()).merge(_summary(values))
    return [_point(from_us(begin + place * step_us), summary) for place, summary in sorted(summaries.items())]


def strip_place(
    now: datetime, *, buckets: int = 90, span: timedelta = timedelta(hours=24)
) -> tuple[datetime, timedelta]:
    """Where the first bar of `strip` begins, and how long each is."""
    width_us = max(60_000_000, math.ceil(span / timedelta(microseconds=1) / buckets / 60_000_000) * 60_000_000)
    level_us = _level_of(width_us) * 1_000_000
    width_us = math.ceil(width_us / level_us) * level_us
    # The last bar holds this minute, or hour; the others end on whole ones, so that no roll-up falls into two.
    end = (to_us(now) // level_us + 1) * level_us
    return from_us(end - buckets * width_us), timedelta(microseconds=width_us)


def strip(
    c: apsw.Connection, watch: str, now: datetime, *, buckets: int = 90, span: timedelta = timedelta(hours=24)
) -> list[Bar | None]:
    """`buckets` equal parts of the `span` before `now`, oldest first; None where nothing was checked."""
    first_at, width = strip_place(now, buckets=buckets, span=span)
    begin, width_us = to_us(first_at), width // timedelta(microseconds=1)
    bars: list[Bar | None] = [None] * buckets
    named = (_level_of(width_us), watch, begin, begin + buckets * width_us, width_us)
    rows: list[Any] = c.execute(_STRIP, named).fetchall()
    for place, count, failing, blind in rows:
        bars[place] = Bar(from_us(begin + place * width_us), count, failing, blind)
    return bars


def spark(
    c: apsw.Connection, watch: str, now: datetime, *, points: int = 30, span: timedelta = timedelta(minutes=90)
) -> list[float | None]:
    """
    Mean latencies in milliseconds of `points` equal parts of the `span` before `now`, oldest first; None where there is
    none. [] for a watch that has no latency in all of it.
    """
    first_at, width = strip_place(now, buckets=points, span=span)
    begin, width_us = to_us(first_at), width // timedelta(microseconds=1)
    found: list[float | None] = [None] * points
    rows: list[Any] = c.execute(_SPARK, (watch, begin, begin + points * width_us, width_us)).fetchall()
    for place, sum_us, timed in rows:
        found[place] = round(sum_us / timed / 1000, 3)
    return found if rows else []


def _level_of(width_us: int) -> int:
    """A strip of weeks is made of hours, of which minutes would be sixty times as many."""
    return 3600 if width_us >= _HOURS_FROM_US else 60


def uptime(c: apsw.Connection, watch: str, since: datetime, until: datetime) -> float | None:
    """
    The share, 0 to 1, of the minutes in which anybody could look that was ok; None when nobody could.

    A minute with both counts for the share of its looks. Reads whole hours, and minutes only before and after them.
    """
    since_us, until_us = to_us(since), to_us(until)
    first_hour, last_hour = -(-since_us // _HOUR_US) * _HOUR_US, until_us // _HOUR_US * _HOUR_US
    if first_hour > last_hour:  # both within one hour
        first_hour = last_hour = until_us
    found = first(c.execute(_UP, (watch, since_us, first_hour, last_hour, until_us)))
    assert found is not None
    seen, well_us = found
    return well_us / (seen * _MINUTE_US) if seen else None


def trim(c: apsw.Connection, level: int, before: datetime, limit: int = 500) -> int:
    """Delete up to `limit` of the oldest rows of a level that begin before `before`; returns how many went."""
    c.execute(_TRIM, (level, to_us(before), limit))
    return c.changes()


def _values(summary: Summary) -> tuple[int | str | None, ...]:
    histogram = ",".join(f"{place}:{count}" for place, count in sorted(summary.histogram.items()))
    return (
        summary.count,
        summary.failing,
        summary.blind,
        summary.timed,
        summary.sum_us,
        summary.min_us,
        summary.max_us,
        histogram,
    )


def _stored(c: apsw.Connection, place: tuple[int, str, int]) -> Summary:
    """The row of a level, a watch and a moment; an empty one when there is none."""
    row = first(c.execute(_GET, place))
    if row is None:
        return Summary()
    *counts, seen, well_us = row
    summary = _summary(counts)
    if seen is None and place[0] > 60:
        seen, well_us = _weight(summary, place[0] // 60)
    summary.seen, summary.well_us = seen or 0, well_us or 0
    return summary


def _weight(summary: Summary, most: int) -> tuple[int, int]:
    """How many of its minutes, at most `most`, were seen, and how long they were well, as far as its checks tell."""
    looked = summary.count - summary.blind
    if looked <= 0:
        return 0, 0
    seen = min(most, looked)
    return seen, seen * _MINUTE_US * (looked - summary.failing) // looked


def _summary(row: Any) -> Summary:
    count, failing, blind, timed, sum_us, min_us, max_us, histogram = row
    classes = (part.split(":") for part in histogram.split(",")) if histogram else ()
    counts = {int(place): int(number) for place, number in classes}
    return Summary(count, failing, blind, timed, sum_us, min_us, max_us, counts)


def _point(at: datetime, summary: Summary) -> Point:
    looked = summary.count - summary.blind
    return Point(
        at=at,
        count=summary.count,
        failing=summary.failing,
        blind=summary.blind,
        up=(looked - summary.failing) / looked if looked else None,
        min_ms=None if summary.min_us is None else summary.min_us / 1000,
        avg_ms=summary.average_ms(),
        p50_ms=summary.percentile_ms(0.5),
        p95_ms=summary.percentile_ms(0.95),
        max_ms=None if summary.max_us is None else summary.max_us / 1000,
    )
