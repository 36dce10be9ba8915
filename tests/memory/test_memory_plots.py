"""What pages ask of the stores: steps of an hour, uptime, strips of weeks, pages of events, letters of an alert."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import apsw
import pytest

from agentd.memory import audit, events, letters, outbox, results, rollups, run_records
from agentd.memory.migrate import migrate, steps
from agentd.memory.run_records import RunLine
from agentd.records import CheckResult, Delivery, EventType, Verdict

NOW = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LANE = '{"watch":"shop"}'


@pytest.fixture
def history() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("history"), "test", before=lambda: None)
    yield connection
    connection.close()


@pytest.fixture
def state() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def check(ago: timedelta, verdict: Verdict = Verdict.OK, ms: float | None = 10.0, watch: str = "shop") -> CheckResult:
    return CheckResult(watch, NOW - ago, verdict, 0.012, ms)


def rolled(c: apsw.Connection, *checks: CheckResult) -> None:
    results.insert(c, sorted(checks, key=lambda each: each.at))
    while rollups.roll_up(c):
        pass


def test_the_last_hour_is_measured_in_steps(history: apsw.Connection) -> None:
    """A check each few seconds is a curve, not ten points."""
    results.insert(
        history,
        [
            check(HOUR * 2),
            check(timedelta(seconds=50), ms=10.0),
            check(timedelta(seconds=45), Verdict.FAILING, ms=30.0),
            check(timedelta(seconds=45), watch="till"),
            check(timedelta(seconds=5), Verdict.BLIND, ms=None),
        ],
    )

    found = results.steps(history, "shop", NOW - HOUR, NOW, timedelta(seconds=20))
    assert found is not None
    first, second = found

    assert (first.count, first.failing, first.blind) == (2, 1, 0)
    assert (first.min_ms, first.mean_ms, first.max_ms) == (10.0, 20.0, 30.0)
    assert (second.count, second.blind, second.mean_ms) == (1, 1, None)
    assert results.steps(history, "nobody", NOW - HOUR, NOW, MINUTE) == []


def test_results_that_do_not_reach_back_are_no_plot(history: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour of ten thousand watches, drawn as one hour of one, would look like an outage."""
    monkeypatch.setattr(results, "_MOST_PLOTTED", 10)
    results.insert(history, [check(HOUR * 2 - n * MINUTE) for n in range(115)])
    assert results.steps(history, "shop", NOW - HOUR, NOW, MINUTE) is None
    assert results.steps(history, "shop", NOW - 10 * MINUTE, NOW, MINUTE) is not None

    history.execute("DELETE FROM results WHERE number < 114")
    assert results.steps(history, "shop", NOW - HOUR, NOW, MINUTE) is None, "some are gone"


def test_uptime_weighs_time_not_checks(history: apsw.Connection) -> None:
    """What fails is often looked at more often: that must not make an outage longer than it was."""
    calm = [check(n * MINUTE) for n in range(1, 10)]
    busy = [check(timedelta(seconds=n), Verdict.FAILING) for n in range(30)]
    rolled(history, *calm, *busy, check(20 * MINUTE, Verdict.BLIND))

    assert rollups.uptime(history, "shop", NOW - DAY, NOW) == pytest.approx(0.9)
    assert rollups.uptime(history, "till", NOW - DAY, NOW) is None
    assert rollups.uptime(history, "shop", NOW - 21 * MINUTE, NOW - 15 * MINUTE) is None, "nobody could look"


def test_a_strip_of_weeks_is_made_of_whole_hours(history: apsw.Connection) -> None:
    """Each check is in one bar, the last one in the last bar."""
    rolled(history, *(check(n * HOUR) for n in range(30 * 24 - 8)), check(2 * HOUR, Verdict.FAILING))

    bars = rollups.strip(history, "shop", NOW, buckets=90, span=30 * DAY)
    begin, width = rollups.strip_place(NOW, buckets=90, span=30 * DAY)

    assert sum(bar.count for bar in bars if bar) == 30 * 24 - 8 + 1
    assert bars[-1] is not None
    assert bars[-1].failing == 1
    assert (begin + 90 * width, width) == (NOW.replace(hour=13, minute=0, second=0), 8 * HOUR)


def test_events_are_read_in_pages(history: apsw.Connection) -> None:
    """What was seen last names the next page, whatever came in meanwhile."""
    numbers = [events.append(history, "alert.firing", NOW, watch="shop", fingerprint="f") for _ in range(5)]
    events.append(history, "alert.firing", NOW, watch="till")

    for which in ({}, {"watch": "shop"}, {"fingerprint": "f"}):
        page = events.last(history, before=numbers[3], limit=2, **which)
        assert [event.number for event in page] == [numbers[2], numbers[1]]


def test_what_was_done_to_one_thing(state: apsw.Connection) -> None:
    """A watch of that name, not a webhook of the same."""
    for action, target in (("pause", "shop"), ("pause", "till"), ("resume", "shop"), ("retry", "shop")):
        audit.append(state, "eve", action, target, "", NOW)

    assert [deed.action for deed in audit.about(state, "shop", ("pause", "resume"))] == ["resume", "pause"]


def test_letters_of_an_alert_are_those_of_its_incident(state: apsw.Connection) -> None:
    """Its own, wherever they are by now, and its group's since it began; nobody else's."""

    def put(id: str, fingerprint: str | None, at: datetime = NOW, lane: str = LANE, webhook: str = "ops") -> None:
        outbox.put(state, Delivery(id, webhook, lane, EventType.FIRING, "{}", at, at, fingerprint))

    put("old", "f", NOW - DAY)
    outbox.done(state, "old", NOW - DAY, 200)
    put("old-group", None, NOW - DAY)
    outbox.done(state, "old-group", NOW - DAY, 200)
    put("sent", None)
    outbox.done(state, "sent", NOW, 200)
    put("dead", "f")
    outbox.bury(state, "dead", now=NOW, error="410")
    put("other", "g")
    put("waits", "f")
    put("elsewhere", "f", lane="another", webhook="pager")

    rows = letters.about(state, "f", webhooks=["ops"], lane=LANE, since=NOW - HOUR)

    assert [(row.delivery.id, row.state) for row in rows] == [
        ("waits", "waiting"),
        ("dead", "dead"),
        ("sent", "delivered"),
        ("old", "delivered"),
    ]
    newest = letters.about(state, "f", webhooks=["ops"], lane=LANE, since=NOW - HOUR, limit=1)
    assert [row.delivery.id for row in newest] == ["waits"]
    assert [row.delivery.id for row in letters.about(state, "x", webhooks=[], lane="", since=None)] == []


def test_a_record_is_read_as_far_as_there_is_room(history: apsw.Connection) -> None:
    """All of it may be gigabytes, and only its begin is drawn."""
    run_records.save(history, "r", NOW, [RunLine(n, 0.0, "event", {"text": str(n)}) for n in range(1, 101)])

    assert len(list(run_records.read(history, "r", most_bytes=200))) < 100
    assert len(list(run_records.read(history, "r", most_bytes=10**9))) == 100
    assert run_records.has_all(history, "r")
    assert run_records.count(history, "r", kinds=("model",)) == 0
    history.execute("DELETE FROM run_records WHERE seq = 50")
    assert not run_records.has_all(history, "r")
    assert not run_records.has_all(history, "nobody")


def test_a_sparkline_is_of_means_and_has_gaps(history: apsw.Connection) -> None:
    """It says whether it grew slower, at a glance; nothing is drawn where nothing was measured."""
    rolled(
        history,
        check(timedelta(seconds=20), ms=10.0),
        check(timedelta(seconds=10), Verdict.FAILING, ms=30.0),
        check(7 * MINUTE, ms=5.0),
        check(10 * MINUTE, Verdict.BLIND, ms=None),
        check(5 * HOUR, ms=99.0),
    )

    found = rollups.spark(history, "shop", NOW, points=30, span=90 * MINUTE)

    assert found == [None] * 27 + [5.0, None, 20.0]
    assert rollups.spark(history, "nobody", NOW) == []


def test_an_hour_of_which_a_minute_was_seen_weighs_a_minute(history: apsw.Connection) -> None:
    """One failing check before the hour struck is no half of the time, over whatever span one asks."""
    rolled(history, check(61 * MINUTE, Verdict.FAILING), *(check(n * MINUTE) for n in range(1, 61)))

    for span in (2 * HOUR, DAY, 7 * DAY, 30 * DAY):
        assert rollups.uptime(history, "shop", NOW - span, NOW) == pytest.approx(60 / 61)
    assert rollups.uptime(history, "shop", NOW - 40 * MINUTE, NOW - 20 * MINUTE) == 1.0, "within one hour"


def test_uptime_is_the_same_however_results_come_in(history: apsw.Connection) -> None:
    """A minute may be rolled up in two batches, and counts once."""
    for second in range(0, 60, 20):
        rolled(history, check(5 * HOUR + timedelta(seconds=second - 30), Verdict.FAILING if second else Verdict.OK))
    rolled(history, check(3 * HOUR, Verdict.BLIND), check(2 * HOUR))

    assert rollups.uptime(history, "shop", NOW - DAY, NOW) == pytest.approx((1 / 3 + 1) / 2)
    assert rollups.uptime(history, "shop", NOW - DAY, NOW) == rollups.uptime(history, "shop", NOW - 30 * DAY, NOW)


def test_uptime_of_hours_that_an_older_agentd_rolled_up_is_estimated() -> None:
    """An update must not lose a year of history."""
    connection = apsw.Connection(":memory:")
    old = steps("history")
    migrate(connection, old[:3], "test", before=lambda: None)
    hour = int((NOW - 5 * HOUR).timestamp()) // 3600 * 3_600_000_000
    connection.execute(
        "INSERT INTO rollups VALUES (3600, 'shop', ?, 60, 30, 0, 0, 0, NULL, NULL, ''), "
        "(3600, 'shop', ?, 12, 0, 2, 0, 0, NULL, NULL, '')",
        (hour, hour + 3_600_000_000),
    )
    migrate(connection, old, "test", before=lambda: None)
    assert rollups.uptime(connection, "shop", NOW - DAY, NOW) == pytest.approx(40 / 70)

    rolled(connection, check(5 * HOUR), check(2 * HOUR))

    assert rollups.uptime(connection, "shop", NOW - DAY, NOW) == pytest.approx(42 / 72)
    connection.close()


def test_uptime_reads_hours_and_only_the_minutes_around_them(history: apsw.Connection) -> None:
    """The overview asks it of hundreds of watches at once."""
    rolled(history, *(check(n * MINUTE) for n in range(26 * 60)))
    history.execute("DELETE FROM rollups WHERE level = 60 AND at BETWEEN ? AND ?", _whole_hours())

    assert rollups.uptime(history, "shop", NOW - DAY, NOW) == 1.0
    plan = history.execute(f"EXPLAIN QUERY PLAN {rollups._UP}", ("shop", 0, 1, 2, 3)).fetchall()
    assert sum("PRIMARY KEY (level=? AND watch=? AND at>? AND at<?)" in str(row[3]) for row in plan) == 3


def _whole_hours() -> tuple[int, int]:
    hour = int(NOW.timestamp()) // 3600
    return (hour - 23) * 3_600_000_000, hour * 3_600_000_000 - 1
