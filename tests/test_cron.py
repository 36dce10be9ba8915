"""Cron lines against the calendar, the clocks of three zones, and a slow but obvious oracle."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.cron import CronSchedule, parse_cron
from agentd.errors import ConfigError

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
BERLIN = "Europe/Berlin"
LORD_HOWE = "Australia/Lord_Howe"


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc, arg-type]  # year, month, day and what follows


def local_fires(schedule: CronSchedule, since: datetime, until: datetime) -> list[str]:
    fires = schedule.fires_between(since, until, 1000)
    return [fire.astimezone(schedule.zone).strftime("%d %H:%M %z") for fire in fires]


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("* * * * *", utc(2026, 1, 1, 0, 0, 30), utc(2026, 1, 1, 0, 1)),
        ("0 6 * * *", utc(2026, 1, 1, 6), utc(2026, 1, 2, 6)),
        ("59 23 31 12 *", utc(2026, 12, 31, 23, 59), utc(2027, 12, 31, 23, 59)),
        ("0 0 29 2 *", utc(2096, 3, 1), utc(2104, 2, 29)),
        ("0 12 * * 0", utc(2026, 1, 5), utc(2026, 1, 11, 12)),
        ("0 12 * * 7", utc(2026, 1, 5), utc(2026, 1, 11, 12)),
        ("0 12 * * SUN", utc(2026, 1, 5), utc(2026, 1, 11, 12)),
        ("0 12 * * 1", utc(2026, 1, 4), utc(2026, 1, 5, 12)),
        ("0 12 * * fri-sun", utc(2026, 1, 10, 13), utc(2026, 1, 11, 12)),
        ("5-59/15 8-18/5 * jan,jul mon-fri", utc(2026, 1, 9, 18, 50), utc(2026, 1, 12, 8, 5)),
        ("@hourly", utc(2026, 1, 1, 0, 0, 1), utc(2026, 1, 1, 1)),
        ("@daily", utc(2026, 1, 1), utc(2026, 1, 2)),
        ("@weekly", utc(2026, 1, 5), utc(2026, 1, 11)),
        ("@monthly", utc(2026, 1, 5), utc(2026, 2, 1)),
        ("@yearly", utc(2026, 1, 5), utc(2027, 1, 1)),
    ],
)
def test_next_fire_is_the_one_cron_would_choose(line: str, after: datetime, expected: datetime) -> None:
    """People bring their crontabs along; Sunday is 0 and 7, Monday is 1."""
    assert parse_cron(line).next_after(after) == expected


def test_day_of_month_or_weekday_is_enough_when_both_are_restricted() -> None:
    """`0 0 13 * 5` is every 13th and every Friday, as crontab(5) says, not Friday the 13th."""
    days = parse_cron("0 0 13 * 5").fires_between(utc(2026, 2, 28), utc(2026, 3, 31), 100)

    assert [day.day for day in days] == [6, 13, 20, 27]
    assert date(2026, 5, 13) in {day.date() for day in parse_cron("0 0 13 * 5").fires_between(*year(2026), 100)}


def test_a_field_that_begins_with_a_star_restricts_together_with_the_other() -> None:
    """`*/2` beside a weekday narrows: crontab(5) counts it as a star."""
    days = parse_cron("0 0 */2 * mon").fires_between(utc(2026, 1, 1), utc(2026, 1, 31), 100)

    assert [day.day for day in days] == [5, 19]


def year(number: int) -> tuple[datetime, datetime]:
    return utc(number, 1, 1) - MINUTE, utc(number + 1, 1, 1) - MINUTE


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", LORD_HOWE, "America/St_Johns", "UTC"])
@pytest.mark.parametrize("line", ["30 2 * * *", "0 0 * * *", "15 1 * * *", "45 23 * * *"])
def test_a_daily_line_fires_once_on_each_day_of_the_year(zone: str, line: str) -> None:
    """No report is missing in spring and none is there twice in autumn."""
    schedule = parse_cron(line, zone)
    start = datetime(2026, 1, 1, tzinfo=schedule.zone)

    fires = schedule.fires_between(start - MINUTE, start.replace(year=2027) - MINUTE, 1000)

    days = [fire.astimezone(schedule.zone).date() for fire in fires]
    assert days == [start.date() + number * DAY for number in range(365)]


@pytest.mark.parametrize(
    ("zone", "line", "day", "expected"),
    [
        (BERLIN, "30 2 * * *", utc(2026, 3, 29), ["29 03:00 +0200"]),
        (BERLIN, "*/10 2 * * *", utc(2026, 3, 29), ["29 03:00 +0200"]),
        (BERLIN, "0 2,3 * * *", utc(2026, 3, 29), ["29 03:00 +0200"]),
        (BERLIN, "30 2 * * *", utc(2026, 10, 24, 22), ["25 02:30 +0200"]),
        (
            BERLIN,
            "0,30 2-3 * * *",
            utc(2026, 10, 24, 22),
            ["25 02:00 +0200", "25 02:30 +0200", "25 03:00 +0100", "25 03:30 +0100"],
        ),
        ("America/New_York", "15 2 * * *", utc(2026, 3, 8, 5), ["08 03:00 -0400"]),
        ("America/New_York", "15 1 * * *", utc(2026, 11, 1, 4), ["01 01:15 -0400"]),
        (LORD_HOWE, "15 2 * * *", utc(2026, 10, 3, 14), ["04 02:30 +1100"]),
        (LORD_HOWE, "45 1 * * *", utc(2026, 4, 4, 13), ["05 01:45 +1100"]),
    ],
)
def test_a_time_of_day_fires_once_where_clocks_change(zone: str, line: str, day: datetime, expected: list[str]) -> None:
    """A time that spring leaves out comes at the end of the gap; of two in autumn the first counts."""
    assert local_fires(parse_cron(line, zone), day, day + 20 * timedelta(hours=1)) == expected


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        (BERLIN, utc(2026, 3, 28, 20)),
        (BERLIN, utc(2026, 10, 24, 20)),
        ("America/New_York", utc(2026, 11, 1)),
        (LORD_HOWE, utc(2026, 4, 4, 8)),
        (LORD_HOWE, utc(2026, 10, 3, 8)),
    ],
)
def test_a_pace_is_kept_through_changes_of_the_clocks(zone: str, start: datetime) -> None:
    """A line for every hour must not leave a service unwatched for an hour in autumn."""
    fires = parse_cron("*/10 * * * *", zone).fires_between(start, start + DAY, 1000)

    assert fires == [start + number * 10 * MINUTE for number in range(1, 145)]


def test_a_pace_does_not_leap_over_the_full_hour() -> None:
    """Caracas went from 02:30 to 03:00 in 2016: half an hour after 02:00 it was three."""
    fires = parse_cron("0 * * * *", "America/Caracas").fires_between(utc(2016, 5, 1, 6), utc(2016, 5, 1, 9), 9)

    assert fires == [utc(2016, 5, 1, 6, 30), utc(2016, 5, 1, 7), utc(2016, 5, 1, 8), utc(2016, 5, 1, 9)]


def test_a_day_the_zone_left_out_is_made_up_at_its_end() -> None:
    """Samoa had no 30 December 2011; the work of that day is done when the 31st begins."""
    assert local_fires(parse_cron("0 12 30 12 *", "Pacific/Apia"), utc(2011, 12, 1), utc(2012, 1, 31)) == [
        "31 00:00 +1400"
    ]


PARTS = st.sampled_from(["*", "*/2", "0", "2", "1-2", "2,3", "1-12/3"])
LINES = st.tuples(
    st.sampled_from(["*", "0", "15", "*/30", "10-50/20", "30,45"]),
    PARTS,
    st.sampled_from(["*", "1", "4,5,29"]),
    st.sampled_from(["*", "3,4,10,11"]),
    st.sampled_from(["*", "0", "mon-fri"]),
).map(" ".join)
CHANGES = {
    BERLIN: [utc(2026, 3, 29), utc(2026, 10, 25)],
    "America/New_York": [utc(2026, 3, 8), utc(2026, 11, 1)],
    "America/St_Johns": [utc(2010, 3, 14), utc(2010, 11, 7)],
    LORD_HOWE: [utc(2026, 4, 4), utc(2026, 10, 3)],
    "America/Caracas": [utc(2007, 12, 9), utc(2016, 5, 1)],  # half an hour, not on the hour
}


def oracle(schedule: CronSchedule, since: datetime, until: datetime) -> list[datetime]:
    """Every minute is looked at; gaps and folds are found by comparing a minute with the one before."""

    def matches(local: datetime) -> bool:
        by_date = local.day in schedule.days
        by_week = (local.weekday() + 1) % 7 in schedule.weekdays
        day = by_date or by_week if schedule.either else by_date and by_week
        return (
            day and local.month in schedule.months and local.hour in schedule.hours and local.minute in schedule.minutes
        )

    zone = schedule.zone
    fires = []
    at = since
    while (at := at + MINUTE) <= until:
        here = at.astimezone(zone)
        local, before = here.replace(tzinfo=None), (at - MINUTE).astimezone(zone).replace(tzinfo=None)
        if len(schedule.hours) == 24:
            hit = matches(local)
        else:
            left_out = (before + number * MINUTE for number in range(1, (local - before) // MINUTE))
            hit = (matches(local) and not here.fold) or any(matches(skipped) for skipped in left_out)
        if hit:
            fires.append(at)
    return fires


@settings(max_examples=60, deadline=None)
@given(line=LINES, zone=st.sampled_from(sorted(CHANGES)), change=st.integers(0, 1), shift=st.integers(-600, 600))
def test_fires_are_those_an_oracle_finds_minute_by_minute(line: str, zone: str, change: int, shift: int) -> None:
    """The arithmetic leaps; whatever it leaps over must not have been a match."""
    schedule = parse_cron(line, zone)
    since = CHANGES[zone][change] + shift * MINUTE
    until = since + timedelta(hours=30)

    expected = oracle(schedule, since, until)

    assert schedule.fires_between(since, until, 10_000) == expected
    assert schedule.last_until(until, since) == (expected[-1] if expected else None)


@pytest.mark.parametrize(
    "line",
    [
        "0 0 30 2 *", "0 0 31 4,6,9,11 *", "@reboot", "* * * *", "* * * * * *", "", "61 * * * *", "* 24 * * *",
        "* * 0 * *", "* * * 13 *", "* * * * 8", "5/15 * * * *", "* 22-2 * * *", "*/0 * * * *", "*/90 * * * *",
        "0 0 * * xyz", "0 0 L * *", "1, * * * *", "-1 * * * *", "٣ * * * *", "* * * * mon#2", "0 * * * * " * 40,
        "99999999999 * * * *",
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_refused_with_a_cure(line: str) -> None:
    """An error at load beats a report that never comes; 30 February must not be searched for, either."""
    with pytest.raises(ConfigError, match=r"; (write|mend) "):
        parse_cron(line)


@pytest.mark.parametrize("zone", ["", "Mars/Base", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", "x" * 5000])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    """A wrong zone would move every report by hours."""
    with pytest.raises(ConfigError, match="IANA name"):
        parse_cron("* * * * *", zone)


def test_the_end_of_the_calendar_is_no_error() -> None:
    """A clock set to the year 9999 must not take the scheduler down."""
    assert parse_cron("0 0 1 1 *", "Asia/Tokyo").next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert parse_cron("* * * * *").next_after(datetime.max.replace(tzinfo=UTC)) is None


def test_the_latest_fire_of_thirty_years_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long time off, 15 million missed minutes must not be walked one by one."""
    steps = []
    original = CronSchedule.next_after

    def counted(self: CronSchedule, moment: datetime) -> datetime | None:
        steps.append(moment)
        return original(self, moment)

    monkeypatch.setattr(CronSchedule, "next_after", counted)
    at = parse_cron("* * * * *").last_until(utc(2026, 1, 1, 0, 0, 30), utc(1996, 1, 1))

    assert at == utc(2026, 1, 1)
    assert len(steps) < 64


def test_answers_are_in_utc_whatever_zone_is_asked_in() -> None:
    """Two zones side by side in a log or a store are a trap."""
    asked = datetime(2026, 6, 1, 12, tzinfo=ZoneInfo("Asia/Tokyo"))

    at = parse_cron("0 6 * * *", BERLIN).next_after(asked)

    assert at == utc(2026, 6, 1, 4)
    assert at.tzinfo is UTC
