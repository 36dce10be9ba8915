"""Maintenance windows, above all in the nights in which the clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.alert.maintenance import Maintenance, muted_text, span_at
from agentd.condition import compile_condition
from agentd.cron import parse_cron

HOUR = timedelta(hours=1)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def window(cron: str, duration: timedelta, zone: str) -> Maintenance:
    return Maintenance(compile_condition("true", []), parse_cron(cron, zone), duration, zone)


def open_minutes(maintenance: Maintenance, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """The times in which it is open, by asking every minute."""
    found: list[tuple[datetime, datetime]] = []
    now = begin
    while now < end:
        if span_at(maintenance, now).until is not None:
            if found and found[-1][1] == now:
                found[-1] = (found[-1][0], now + timedelta(minutes=1))
            else:
                found.append((now, now + timedelta(minutes=1)))
        now += timedelta(minutes=1)
    return found


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "night", "begin"),
    [
        # Berlin, spring: 02:00 CET becomes 03:00 CEST at 01:00 UTC.
        ("0 3 * * SUN", BERLIN, "2026-03-29", "01:00"),
        ("30 2 * * SUN", BERLIN, "2026-03-29", "01:00"),  # in the gap: at its end
        ("30 1 * * SUN", BERLIN, "2026-03-29", "00:30"),  # 01:30 CET, over the gap
        # Berlin, autumn: 03:00 CEST becomes 02:00 CET at 01:00 UTC.
        ("0 3 * * SUN", BERLIN, "2026-10-25", "02:00"),
        ("30 2 * * SUN", BERLIN, "2026-10-25", "00:30"),  # the first of the two
        ("30 1 * * SUN", BERLIN, "2026-10-24 23:00", "23:30"),
        # New York, spring: 02:00 EST becomes 03:00 EDT at 07:00 UTC.
        ("0 3 * * SUN", NEW_YORK, "2026-03-08", "07:00"),
        ("15 2 * * SUN", NEW_YORK, "2026-03-08", "07:00"),
        # New York, autumn: 02:00 EDT becomes 01:00 EST at 06:00 UTC.
        ("30 1 * * SUN", NEW_YORK, "2026-11-01", "05:30"),
        ("0 3 * * SUN", NEW_YORK, "2026-11-01", "08:00"),
    ],
)
def test_an_hour_is_an_hour_whatever_the_clocks_do(cron: str, zone: str, night: str, begin: str) -> None:
    """The work that is done then takes as long as in any other night."""
    start = utc(night if " " in night else f"{night} 00:00")
    expected = utc(f"{night[:10]} {begin}")

    assert open_minutes(window(cron, HOUR, zone), start, start + 11 * HOUR) == [(expected, expected + HOUR)]


def test_the_end_is_told_by_the_wall_clock_of_the_place() -> None:
    """Across the gap a window of an hour from 01:30 ends at 03:30."""
    maintenance = window("30 1 * * *", HOUR, BERLIN)
    span = span_at(maintenance, utc("2026-03-29 01:15"))

    assert span.until == utc("2026-03-29 01:30")
    assert muted_text(maintenance, span.until) == "maintenance until 03:30 Europe/Berlin"
    long = window("0 22 * * FRI", timedelta(days=2), BERLIN)
    assert muted_text(long, utc("2026-03-29 20:00")) == "maintenance until 2026-03-29 22:00 Europe/Berlin"


def test_windows_that_overlap_are_one() -> None:
    """Every half hour for an hour is always; and the last begun says until when."""
    maintenance = window("*/30 * * * *", HOUR, "UTC")
    now = utc("2026-05-05 12:40")
    span = span_at(maintenance, now)

    assert span.until == utc("2026-05-05 13:30")
    assert span.change == utc("2026-05-05 13:00")
    assert len(open_minutes(maintenance, now, now + 5 * HOUR)) == 1


@given(
    st.sampled_from(["0 3 * * *", "30 2 * * *", "*/20 1-3 * * *", "59 23 * * 6", "15 * * * *"]),
    st.integers(1, 60 * 30),
    st.sampled_from([BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe"]),
    st.integers(0, 366 * 86400).map(lambda seconds: utc("2026-01-01") + timedelta(seconds=seconds)),
)
def test_a_window_is_open_after_a_fire_and_for_no_longer(cron: str, length: int, zone: str, now: datetime) -> None:
    """Whatever the line, the zone and the moment; and nothing changes before it is said to."""
    duration = timedelta(minutes=length)
    maintenance = window(cron, duration, zone)
    fires = parse_cron(cron, zone).fires_between(now - duration, now, 100_000)

    span = span_at(maintenance, now)

    assert span.until == (fires[-1] + duration if fires else None)
    assert span.change is not None
    assert span.change > now
    assert span.holds_at(now)
    later = now + (span.change - now) * 0.999
    assert span_at(maintenance, later).until == span.until
    assert span_at(maintenance, span.change).until != span.until
