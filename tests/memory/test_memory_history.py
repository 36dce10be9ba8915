"""History: results, roll-ups, traces and events, and the recorder that feeds them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentd.memory import events, recorder, results, rollups, spans
from agentd.memory.database import Database
from agentd.memory.migrate import migrate, steps
from agentd.memory.recorder import Recorder
from agentd.records import CheckResult, Verdict
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("history"), "test", before=lambda: None)
    yield connection
    connection.close()


def result(at: datetime, verdict: Verdict = Verdict.OK, ms: float | None = 10.0, watch: str = "shop") -> CheckResult:
    return CheckResult(watch, at, verdict, 0.012, ms)


def rolled(c: apsw.Connection, limit: int = 1000) -> None:
    while rollups.roll_up(c, limit):
        pass


def test_results_come_back_newest_first(c: apsw.Connection) -> None:
    """What a check showed is what its page shows."""
    bad = CheckResult("shop", NOW + MINUTE, Verdict.FAILING, 1.5, None, "refused", "t1")
    results.insert(c, [result(NOW), bad, result(NOW, watch="db")])

    assert results.last(c, "shop") == [bad, result(NOW)]
    assert results.last_bad(c, "shop") == [bad]


def test_nonsense_of_a_probe_does_not_lose_the_batch(c: apsw.Connection) -> None:
    """One plugin that measures infinity must not cost the results of all others."""
    results.insert(c, [result(NOW, ms=float("inf")), result(NOW, ms=float("nan")), result(NOW, ms=-1.0)])
    rolled(c)

    assert [r.latency_ms for r in results.last(c, "shop")] == [0, 0, 0]


def test_a_rollup_says_what_the_results_said(c: apsw.Connection) -> None:
    """A plot of last month must not tell another story than the checks did."""
    latencies = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(latencies)
    results.insert(c, [result(NOW + timedelta(seconds=n / 10), ms=ms) for n, ms in enumerate(latencies)])
    results.insert(c, [result(NOW, Verdict.FAILING, None), result(NOW, Verdict.BLIND, None)])
    rolled(c, 7)

    (point,) = rollups.series(c, "shop", NOW - MINUTE, NOW + MINUTE, MINUTE)

    assert (point.count, point.failing, point.blind, point.up) == (102, 1, 1, 100 / 101)
    assert (point.min_ms, point.avg_ms, point.max_ms) == (1.0, 50.5, 100.0)
    assert point.p50_ms == pytest.approx(50, rel=0.13)
    assert point.p95_ms == pytest.approx(95, rel=0.13)


def test_every_level_counts_every_result_once(c: apsw.Connection) -> None:
    """Minutes, hours and days must agree, however the batches fell and whichever way the clock jumped."""
    moments = [NOW + timedelta(minutes=7 * n) for n in range(300)] + [NOW - timedelta(days=40)]
    results.insert(c, [result(at) for at in moments])
    rolled(c, 13)

    for level in rollups.LEVELS:
        total = c.execute("SELECT sum(count), sum(timed) FROM rollups WHERE level = ?", (level,)).fetchall()
        assert total == [(301, 301)]
    day = rollups.series(c, "shop", NOW, NOW + timedelta(days=1), timedelta(days=1))
    assert sum(point.count for point in day) == 300


def test_a_series_has_a_bounded_number_of_points(c: apsw.Connection) -> None:
    """A plot of a year in steps of a minute would be half a million points."""
    results.insert(c, [result(NOW + timedelta(hours=n)) for n in range(24 * 100)])
    rolled(c)

    points = rollups.series(c, "shop", NOW, NOW + timedelta(days=365), MINUTE)

    assert len(points) <= rollups.MAX_POINTS
    assert sum(point.count for point in points) == 2400


def test_a_strip_has_its_bars_and_gaps(c: apsw.Connection) -> None:
    """Ninety bars, the newest on the right; a gap where nobody looked is no uptime."""
    results.insert(
        c, [result(NOW), result(NOW - timedelta(hours=23), Verdict.FAILING), result(NOW - timedelta(days=2))]
    )
    rolled(c)

    bars = rollups.strip(c, "shop", NOW)

    assert len(bars) == 90
    assert bars[-1] is not None
    assert (bars[-1].count, bars[-1].failing) == (1, 0)
    assert [bar.failing for bar in bars if bar is not None] == [1, 0]


def trace(number: int, watch: str = "shop", status: str = "ok") -> list[dict[str, Any]]:
    root = {
        "trace_id": f"{number:032x}",
        "span_id": "a",
        "name": "check",
        "start_us": number,
        "status": status,
        "attributes": {"agentd.watch": watch},
    }
    return [{**root, "name": "probe http", "attributes": {}}, root]


def test_a_trace_comes_back_whole(c: apsw.Connection) -> None:
    """A person who follows a trace id from an alert must find the run."""
    spans.save(c, trace(1))

    assert spans.trace(c, f"{1:032x}") == trace(1)
    assert spans.trace(c, "nowhere") == []
    assert [row.watch for row in spans.last(c)] == ["shop"]


def test_healthy_traces_never_push_out_failed_ones(c: apsw.Connection) -> None:
    """The one failing run of the night is the one that is looked for in the morning."""
    spans.save(c, trace(1, status="error"))
    for number in range(2, 200):
        spans.save(c, trace(number))

    kept = spans.last(c, watch="shop", limit=1000)
    assert len(kept) == spans.KEEP_PER_WATCH + 1
    assert [row.started_at for row in kept if row.failed] == [datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]


def test_an_enormous_trace_keeps_its_root(c: apsw.Connection) -> None:
    """One run with a megabyte of attributes must not take the room of a thousand others."""
    big = trace(1)
    big[0]["attributes"] = {"x": "y" * 1_000_000}
    spans.save(c, big)

    assert spans.trace(c, f"{1:032x}") == big[1:]


def test_events_are_read_on_from_where_one_was(c: apsw.Connection) -> None:
    """A page that lost its connection must miss nothing."""
    first = events.append(c, "alert.firing", NOW, watch="shop", fingerprint="f1", data={"a": 1})
    events.append(c, "config.reloaded", NOW)
    events.append(c, "alert.resolved", NOW, watch="shop", fingerprint="f1")

    assert [event.kind for event in events.after(c, first)] == ["config.reloaded", "alert.resolved"]
    assert [event.kind for event in events.last(c, fingerprint="f1")] == ["alert.resolved", "alert.firing"]
    assert [event.kind for event in events.last(c, watch="shop", limit=1)] == ["alert.resolved"]
    assert events.last(c)[-1].data == {"a": 1}


def test_the_recorder_writes_once_a_second(tmp_path: Path) -> None:
    """Five hundred checks a second are one transaction, not five hundred."""
    clock = FakeClock()

    async def story() -> tuple[int, int, list[rollups.Point]]:
        db = await Database.open(tmp_path / "history.db", migrations="history", durable=False, clock=clock)
        clock.busy.append(lambda: db.pending > 0)
        taker = Recorder(db)
        running = asyncio.create_task(taker.run())
        before = db.counts.commits
        for _ in range(500):
            taker.record(result(clock.now()))
        taker.trace(trace(1))
        await clock.advance(1)
        commits = db.counts.commits - before
        await clock.advance(10)
        taker.record(result(clock.now()))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await db.write(lambda c: None)
        count = await db.read(lambda c: len(results.last(c, "shop", 1000)))
        now = clock.now()
        points = await db.read(lambda c: rollups.series(c, "shop", now - MINUTE, now + MINUTE, MINUTE))
        await db.close()
        return commits, count, points

    commits, count, points = clock.run(story())
    assert commits <= 2
    assert count == 501
    assert [point.count for point in points] == [500]


def test_the_recorder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs must not eat the machine's memory."""
    monkeypatch.setattr(recorder, "MAX_WAITING", 10)
    clock = FakeClock()

    async def story() -> int:
        db = await Database.open(tmp_path / "history.db", migrations="history", durable=False)
        taker = Recorder(db)
        for _ in range(15):
            taker.record(result(NOW))
        await db.close()
        return taker.dropped

    assert clock.run(story()) == 5
