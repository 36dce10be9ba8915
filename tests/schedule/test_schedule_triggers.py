"""Triggers, missed runs and the ledger: decisions without a loop."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from agentd.cron import parse_cron
from agentd.schedule.missed import missed_runs
from agentd.schedule.triggers import CATCH_UP, AtStart, Cron, Every, Once, Trigger, spread

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NAMES = [f"watch-{number}" for number in range(10_000)]


def test_watches_of_one_interval_are_spread_evenly_over_it() -> None:
    """A burst of checks would be felt by the targets and show in every latency."""
    slots = [0] * 60
    for name in NAMES:
        slots[spread(name, MINUTE) // timedelta(seconds=1)] += 1

    # 10,000 in 60 slots: 167 each; five standard deviations of a random spread.
    assert min(slots) > 167 - 65
    assert max(slots) < 167 + 65


def test_a_restart_moves_no_watch() -> None:
    """Python's own hash differs from process to process; this must not."""
    code = """
from datetime import timedelta
from agentd.schedule.triggers import spread
print(spread("shop", timedelta(days=1)))
"""
    seen = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}

    assert seen == {f"{spread('shop', timedelta(days=1))}\n"}


@pytest.mark.parametrize("interval_s", [0.25, 1, 7, 30, 3600, 86400, 14 * 86400])
def test_every_fires_once_an_interval_at_its_own_place(interval_s: float) -> None:
    """The place depends on the clock alone, so it holds whenever the daemon was started."""
    every = Every(timedelta(seconds=interval_s), "shop")
    first = every.get_next_fire_time(None, NOW)
    assert first is not None

    assert NOW < first <= NOW + every.interval
    assert every.get_next_fire_time(first, first) == first + every.interval
    assert every.get_next_fire_time(None, first - timedelta(microseconds=1)) == first
    assert every.get_next_fire_time(first, NOW) == first + every.interval


def test_thirty_days_late_is_answered_by_arithmetic() -> None:
    """Walking a second's interval through thirty days would take 2.6 million steps."""
    every = Every(timedelta(seconds=1), "shop")
    later = NOW + timedelta(days=30)

    following = every.get_next_fire_time(NOW, later)

    assert following is not None
    assert later < following <= later + every.interval


def test_an_interval_of_nothing_is_refused() -> None:
    """It would spin the scheduler."""
    with pytest.raises(ValueError, match="not above zero"):
        Every(timedelta(0), "shop")


@pytest.mark.parametrize("trigger", [Every(HOUR, "shop"), Cron(parse_cron("* * * * *"))])
def test_the_end_of_the_calendar_is_no_error(trigger: Trigger) -> None:
    """A clock set to the year 9999 must not crash the scheduler."""
    assert trigger.get_next_fire_time(None, datetime.max.replace(tzinfo=UTC)) is None


def test_long_intervals_that_missed_their_turn_are_caught_up_spread_out() -> None:
    """After a night's suspend the daily look must not wait a day, nor all of them come at once."""
    dues = []
    for name in NAMES[:1000]:
        every = Every(24 * HOUR, name)
        pending = every.get_next_fire_time(None, NOW)
        assert pending is not None
        due = every.anchored(pending, None, pending + 7 * HOUR)
        assert due is not None
        dues.append(due - pending - 7 * HOUR)

    seconds = [due // timedelta(seconds=1) for due in dues]
    assert max(dues) <= CATCH_UP
    assert max(seconds.count(second) for second in range(30)) < 70


def test_a_clock_set_back_keeps_intervals_going() -> None:
    """Stock APScheduler stands still until the old time comes again."""
    every = Every(timedelta(seconds=10), "shop")

    due = every.anchored(NOW, None, NOW - 10 * MINUTE)

    assert due is not None
    assert due <= NOW - 10 * MINUTE + every.interval


def test_cron_does_not_fire_again_when_the_clock_is_set_back_a_little() -> None:
    """The daily report came at 06:00; at 06:05 the clock goes to 05:55."""
    cron = Cron(parse_cron("0 6 * * *"))
    ran = datetime(2026, 1, 5, 6, tzinfo=UTC)

    assert cron.anchored(ran + 24 * HOUR, ran, ran - 5 * MINUTE) == ran + 24 * HOUR
    assert cron.anchored(ran + 24 * HOUR, ran, ran - 30 * 24 * HOUR) == ran - 29 * 24 * HOUR


def test_cron_that_became_due_in_a_jump_stays_due() -> None:
    """A suspend over 06:00 must not swallow the report of 06:00; and it stands for the latest time only."""
    cron = Cron(parse_cron("0 6 * * *"))
    pending = datetime(2026, 1, 5, 6, tzinfo=UTC)

    assert cron.anchored(pending, None, pending + 72 * HOUR) == pending
    assert cron.latest(pending, pending + 73 * HOUR) == pending + 72 * HOUR


def test_once_and_start_fire_one_time() -> None:
    """They are over after their run."""
    assert Once(NOW).get_next_fire_time(None, NOW + HOUR) == NOW
    assert Once(NOW).get_next_fire_time(NOW, NOW) is None
    assert AtStart().get_next_fire_time(None, NOW) == NOW
    assert AtStart().get_next_fire_time(NOW, NOW) is None


HOURLY = parse_cron("@hourly")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("skip", []), ("once", [NOW]), ("all", [NOW - 2 * HOUR, NOW - HOUR, NOW])],
)
def test_missed_runs_follow_the_policy(policy: str, expected: list[datetime]) -> None:
    """Down from shortly after nine until shortly after twelve."""
    assert missed_runs(HOURLY, NOW - 3 * HOUR, NOW + MINUTE, policy) == expected  # type: ignore[arg-type]


def test_nothing_was_missed_by_a_new_job_nor_by_one_of_the_future() -> None:
    """A fresh install must not make up for all of history; nor must a clock that was wrong by a year."""
    assert missed_runs(HOURLY, None, NOW, "all") == []
    assert missed_runs(HOURLY, NOW + 365 * 24 * HOUR, NOW, "all") == []
    assert missed_runs(HOURLY, NOW, NOW + 59 * MINUTE, "all") == []


def test_of_thirty_years_the_newest_day_is_made_up() -> None:
    """262,800 hourly runs were missed; 24 at most are of use."""
    runs = missed_runs(HOURLY, NOW - timedelta(days=30 * 365), NOW, "all")

    assert runs == [NOW - number * HOUR for number in range(23, -1, -1)]
