"""
What every check brought: raw results for a day, in the order they came.

In: batches of `CheckResult` from the recorder.  Out: the last ones of a watch; the plots' roll-ups read them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import text
from agentd.records import CheckResult, Verdict

VERDICTS = (Verdict.OK, Verdict.FAILING, Verdict.BLIND)
_NUMBER = {verdict: number for number, verdict in enumerate(VERDICTS)}
_LOOK_BACK = 20_000
_MAX_SUMMARY = 500
# SQLite's integers end at 2**63; a probe that measures nonsense must not lose its batch.
_MOST_US = 2**53

_COLUMNS = "watch, at, verdict, duration_us, latency_us, summary, trace_id"
_INSERT = f"INSERT INTO results ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_LAST = f"""
    SELECT {_COLUMNS} FROM results
    WHERE number > (SELECT coalesce(max(number), 0) FROM results) - ?2 AND watch = ?1 ORDER BY number DESC LIMIT ?3"""
_BAD = f"SELECT {_COLUMNS} FROM results WHERE verdict <> 0 AND watch = ?1 ORDER BY number DESC LIMIT ?2"


def insert(c: apsw.Connection, results: Iterable[CheckResult]) -> None:
    """Add a batch."""
    c.executemany(_INSERT, [_row(result) for result in results])


def last(c: apsw.Connection, watch: str, limit: int = 50) -> list[CheckResult]:
    """The newest results of a watch, newest first; looks through the last twenty thousand of all watches."""
    return [_result(row) for row in c.execute(_LAST, (watch, _LOOK_BACK, limit))]


def last_bad(c: apsw.Connection, watch: str, limit: int = 50) -> list[CheckResult]:
    """The newest results of a watch that were failing or blind, newest first."""
    return [_result(row) for row in c.execute(_BAD, (watch, limit))]


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
