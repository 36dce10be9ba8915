"""
What every check brought: raw results for a day, in the order they came.

In: batches of `CheckResult` from the recorder.  Out: the last ones of a watch; the plots' roll-ups read them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import first, text
from agentd.records import CheckResult, Verdict

VERDICTS = (Verdict.OK, Verdict.FAILING, Verdict.BLIND)
_NUMBER = {verdict: number for number, verdict in enumerate(VERDICTS)}
_LOOK_BACK = 20_000
_MOST_PLOTTED = 50_000
_MAX_SUMMARY = 500
# SQLite's integers end at 2**63; a probe that measures nonsense must not lose its batch.
_MOST_US = 2**53

_COLUMNS = "watch, at, verdict, duration_us, latency_us, summary, trace_id"
_INSERT = f"INSERT INTO results ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_LAST = f"""
    SELECT {_COLUMNS} FROM results
    WHERE number > (SELECT coalesce(max(number), 0) FROM results) - ?2 AND watch = ?1 ORDER BY number DESC LIMIT ?3"""
_BAD = f"SELECT {_COLUMNS} FROM results WHERE verdict <> 0 AND watch = ?1 ORDER BY number DESC LIMIT ?2"
# The newest rows alone, as many as a plot may cost; `whole` when all that is asked for is among them.
_REACH = """
    SELECT number, at, number = (SELECT min(number) FROM results) FROM results
    WHERE number > (SELECT coalesce(max(number), 0) FROM results) - ? ORDER BY number LIMIT 1"""
_STEPS = """
    SELECT (at - ?3) / ?5, count(*), sum(verdict = 1), sum(verdict = 2),
           min(latency_us), avg(latency_us), max(latency_us)
    FROM results WHERE number >= ?1 AND watch = ?2 AND at >= ?3 AND at < ?4 GROUP BY 1 ORDER BY 1"""


@dataclass(frozen=True, slots=True)
class Step:
    """What the checks of one step came to. count: all of them. *_ms: latencies; None where none was measured."""

    at: datetime
    count: int
    failing: int
    blind: int
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None


def insert(c: apsw.Connection, results: Iterable[CheckResult]) -> None:
    """Add a batch."""
    c.executemany(_INSERT, [_row(result) for result in results])


def last(c: apsw.Connection, watch: str, limit: int = 50) -> list[CheckResult]:
    """The newest results of a watch, newest first; looks through the last twenty thousand of all watches."""
    return [_result(row) for row in c.execute(_LAST, (watch, _LOOK_BACK, limit))]


def last_bad(c: apsw.Connection, watch: str, limit: int = 50) -> list[CheckResult]:
    """The newest results of a watch that were failing or blind, newest first."""
    return [_result(row) for row in c.execute(_BAD, (watch, limit))]


def steps(c: apsw.Connection, watch: str, since: datetime, until: datetime, step: timedelta) -> list[Step] | None:
    """
    What was measured, in steps from `since` on, those without any check left out.

    None when there are more results of all watches since then than may be looked through, or some of them are gone.
    """
    reach = first(c.execute(_REACH, (_MOST_PLOTTED,)))
    if reach is None:
        return []
    number, oldest, is_first = reach
    if oldest > to_us(since) and not (is_first and number == 1):
        return None
    begin, step_us = to_us(since), step // timedelta(microseconds=1)
    rows: list[Any] = c.execute(_STEPS, (number, watch, begin, to_us(until), step_us)).fetchall()
    return [
        Step(from_us(begin + place * step_us), count, failing, blind, *(_ms(each) for each in latencies))
        for place, count, failing, blind, *latencies in rows
    ]


def _ms(us: float | None) -> float | None:
    return None if us is None else us / 1000


def _row(result: CheckResult) -> tuple[str, int, int, int, int | None, str, str | None]:
    return (
        text(result.watch),
        to_us(result.at),
        _NUMBER[result.verdict],
        _us(result.duration_s * 1_000_000),
        None if result.latency_ms is None else _us(result.latency_ms * 1000),
        text(result.summary[:_MAX_SUMMARY]) if result.summary else "",
        result.trace_id,
    )


def _us(value: float) -> int:
    # `0 <= value` is False for NaN too.
    return int(value) if 0 <= value <= _MOST_US else 0


def _result(row: tuple[Any, ...]) -> CheckResult:
    watch, at, verdict, duration_us, latency_us, summary, trace_id = row
    return CheckResult(
        watch=watch,
        at=from_us(at),
        verdict=VERDICTS[verdict],
        duration_s=duration_us / 1_000_000,
        latency_ms=None if latency_us is None else latency_us / 1000,
        summary=summary,
        trace_id=trace_id,
    )
