"""The moment in a line: every spelling, and what calendars do to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import ConfigError
from agentd.logs.parse import make_parser
from agentd.logs.port import Parser
from agentd.logs.settings import LogFormat, LogSource

WRITTEN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
NINE = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def parser(timezone: str = "UTC", **settings: Any) -> Parser:
    return make_parser(LogSource(files=("/var/log/x",), **settings), timezone=timezone)


STAMPS = {
    "2026-11-20T09:00:00Z x": NINE,
    "2026-11-20T10:00:00+01:00 x": NINE,
    "2026-11-20T10:00:00.123+0100 x": NINE + 123 * MS,
    "2026-11-20T09:00:00.123456789Z stdout F x": NINE + timedelta(microseconds=123456),
    "2026-11-20 09:00:00,123 ERROR x": NINE + 123 * MS,
    "2026-11-20 09:00:00.123 UTC [12] LOG:  x": NINE + 123 * MS,
    "2026-11-20 10:00:00 +0100 x": NINE,
    "2026-11-20 09:00:00, Info CBS": NINE,
    "2026-11-20 09:00:00": NINE,
    "2026-11-20 08:59:60 leap": NINE,
    "  2026-11-20T09:00:00Z  INFO x": NINE,
    "[2026-11-20T09:00:00Z INFO  x] y": NINE,
    "ERROR 2026-11-20 09:00:00,123 x": NINE + 123 * MS,
    "web-1 2026-11-20 09:00:00 x": NINE,
    "<34>1 2026-11-20T09:00:00.003Z host app - - - x": NINE + 3 * MS,
    "Nov 20 09:00:00 host sshd[1]: x": NINE,
    "Nov  5 09:00:00 host x": NINE - timedelta(days=15),
    "Nov 5 09:00:00 host x": NINE - timedelta(days=15),
    "<34>Nov 20 09:00:00.123 host x": NINE + 123 * MS,
    "<189>123: *Nov 20 09:00:00.123: %SYS-5-CONFIG_I: x": NINE + 123 * MS,
    "<166>Nov 20 2026 09:00:00: %ASA-6-302013: x": NINE,
    "Nov 20, 2026 9:00:00 AM org.example.App run": NINE,
    "Nov 20, 2026 9:00:00 PM org.example.App run": NINE + timedelta(hours=12),
    '10.0.0.1 - - [20/Nov/2026:10:00:00 +0100] "GET / HTTP/1.1" 200 1': NINE,
    "2026/11/20 09:00:00 [error] 12#12: x": NINE,
    "2026/11/20 09:00:00.123456 main.go:1: x": NINE + timedelta(microseconds=123456),
    "[Fri Nov 20 09:00:00.123456 2026] [core:error] x": NINE + timedelta(microseconds=123456),
    "[Fri Nov 20 09:00:00 2026] [error] x": NINE,
    "20 Nov 2026 09:00:00,123 x": NINE + 123 * MS,
    "20-Nov-2026 09:00:00.123 INFO [main] x": NINE + 123 * MS,
    "[20-Nov-2026 09:00:00 UTC] PHP Warning:  x": NINE,
    "1234:M 20 Nov 2026 09:00:00.123 * x": NINE + 123 * MS,
    "Fri, 20 Nov 2026 10:00:00 +0100 x": NINE,
    "I1120 09:00:00.123456       1 main.go:12] x": NINE + timedelta(microseconds=123456),
    "I20261120 09:00:00.123456 1 main.cc:1] x": NINE + timedelta(microseconds=123456),
    "11-20 09:00:00.123  1702  2395 D x": NINE + 123 * MS,
    "20261120-09:00:00:123|x": NINE + 123 * MS,
    "26/11/20 09:00:00 INFO x": NINE,
    "261120 090000 143 INFO x": NINE,
    "1795165200.123 200 10.0.0.1 TCP_MISS": NINE + 123 * MS,
    "type=SYSCALL msg=audit(1795165200.123:456): x": NINE + 123 * MS,
    "D, [2026-11-20T09:00:00.123456 #12] DEBUG -- : x": NINE + timedelta(microseconds=123456),
    '{"time":"2026-11-20T09:00:00Z","msg":"x"}': NINE,
    '{"msg":"x","ts":1795165200.123}': NINE + 123 * MS,
    '{"timestamp":1795165200123}': NINE + 123 * MS,
    '{"ts":1795165200123456}': NINE + timedelta(microseconds=123456),
    '{"ts":1795165200123456789}': NINE + timedelta(microseconds=123456),
    '{"time":0.25,"@timestamp":"2026-11-20T09:00:00.000Z"}': NINE,
    '{"a":{"ts":1},"ts":"2026-11-20T09:00:00Z"}': NINE,
    '{"t":{"$date":"2026-11-20T09:00:00.123+00:00"},"msg":"x"}': NINE + 123 * MS,
    '{"asctime": "2026-11-20 09:00:00,123", "message": "x"}': NINE + 123 * MS,
    'time="2026-11-20T09:00:00Z" level=info msg=x': NINE,
    "level=info ts=2026-11-20T09:00:00.5Z msg=x": NINE + 500 * MS,
    "level=info ts=1795165200.5 msg=x": NINE + 500 * MS,
    "date=2026-11-20 time=09:00:00 devname=fw": NINE,
}
TIMELESS = [
    "",
    "hello world",
    "the certificate ends 2027-01-01 00:00:00",
    "2026-13-20T09:00:00Z x",
    "2026-11-20T25:00:00Z x",
    "Feb 30 09:00:00 host x",
    "Nov 20 29:00:00 host x",
    '10.0.0.1 - - [99/Nov/2026:10:00:00 +0100] "GET /"',
    "I1399 09:00:00.123456 1 x.go:1] x",
    "1e400",
    "12345",
    '{"msg":"x","time":0.25}',
    '{"msg":"ts is \\"2026-11-20T09:00:00Z\\""}',
    '{"ts":1e999}',
    '{"ts":-5}',
    '{"time":{"$date":{"$date":1}}}',
    "took=12ms url=/x",
    "0000-00-00 00:00:00 x",
    "9999-12-31T23:59:59-23:59 x",
    "0001-01-01T00:00:00+23:59 x",
]


@pytest.mark.parametrize("text", STAMPS)
def test_a_time_is_read_in_every_usual_spelling(text: str) -> None:
    """Windows in event time are worth what the event's time is worth."""
    one = parser()

    assert one.time(text, None, WRITTEN) == STAMPS[text]
    assert one.time(text, None, WRITTEN) == STAMPS[text], "the second time it is looked up"


@pytest.mark.parametrize("text", TIMELESS)
def test_what_is_no_time_is_none(text: str) -> None:
    """A date in the middle of a sentence is not when the line was written."""
    assert parser().time(text, None, WRITTEN) is None


@given(st.lists(st.sampled_from([*STAMPS, *TIMELESS]), max_size=12))
def test_what_came_before_changes_nothing(texts: list[str]) -> None:
    """The memory of what fitted last is for speed alone."""
    for zone in ("UTC", "Europe/Berlin"):
        one = parser(zone)
        for text in texts:
            assert one.time(text, None, WRITTEN) == parser(zone).time(text, None, WRITTEN), text


def test_a_time_without_zone_is_of_the_zone_given() -> None:
    """Most daemons write local time."""
    berlin = parser("Europe/Berlin")

    for text in ("2026-11-20 10:00:00,0 x", "Nov 20 10:00:00 host x", "2026/11/20 10:00:00 x"):
        assert berlin.time(text, None, WRITTEN) == NINE
    assert berlin.time("2026-11-20T09:00:00Z x", None, WRITTEN) == NINE


def test_where_clocks_are_set_back_the_later_moment_counts_once_it_has_come() -> None:
    """2:30 comes twice; whoever follows the log knows which one it is by the hour it is."""
    berlin = parser("Europe/Berlin")
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)

    for text in ("2026-10-25 02:30:00 x", "Oct 25 02:30:00 host x"):
        assert berlin.time(text, None, first + MS) == first
        assert berlin.time(text, None, second + MS) == second
        assert berlin.time(text, None, first + MS) == first


def test_a_time_that_clocks_skip_goes_by_the_offset_before() -> None:
    """Nobody should write it, but some do; an hour off beats no time."""
    assert parser("Europe/Berlin").time("2026-03-29 02:30:00 x", None, WRITTEN) == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        ("Dec 31 23:59:59 h x", datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC), "2026-12-31T23:59:59"),
        ("Jan  1 00:00:01 h x", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2027-01-01T00:00:01"),
        ("Feb 29 12:00:00 h x", datetime(2026, 11, 20, tzinfo=UTC), "2024-02-29T12:00:00"),
        ("Feb 29 12:00:00 h x", datetime(2103, 11, 20, tzinfo=UTC), "2096-02-29T12:00:00"),
        ("Nov 21 09:30:00 h x", WRITTEN, "2026-11-21T09:30:00"),
        ("Nov 21 09:30:01 h x", WRITTEN, "2025-11-21T09:30:01"),
    ],
)
def test_a_year_that_is_not_written_is_the_latest_that_can_be(text: str, written: datetime, expected: str) -> None:
    """At New Year a wrong guess is off by a year, and a rotated file is read long after."""
    one = parser()
    one.time(text, None, written + timedelta(days=800))

    assert one.time(text, None, written) == datetime.fromisoformat(expected + "Z")
    assert one.time(text, None, written) == datetime.fromisoformat(expected + "Z")


def test_a_year_that_was_found_is_not_kept_for_ever() -> None:
    """A daemon that runs over New Year reads the same dates a year later."""
    one = parser()

    for year in (2026, 2027, 2031, 2026):
        for clock in ("09:00:00", "09:00:01"):
            expected = datetime.fromisoformat(f"{year}-11-20T{clock}Z")
            assert one.time(f"Nov 20 {clock} h x", None, expected + MS) == expected


def test_the_source_may_know_the_time() -> None:
    """The journal's own, or what `fields` gave."""
    one = parser()

    assert one.time("x", {"timestamp": "2026-11-20T09:00:00Z"}, WRITTEN) == NINE
    assert one.time("x", {"timestamp": 1795165200}, WRITTEN) == NINE
    assert one.time("Nov 20 09:00:00 h x", {"timestamp": "Nov 20 09:00:00"}, WRITTEN) == NINE


def test_a_pattern_may_name_the_time() -> None:
    """Where it stands in the middle of the line nothing else can find it."""
    one = parser(format="regex", pattern=r"^(?P<host>\S+) \((?P<time>[^)]+)\) (?P<message>.*)")
    text = "web (20 Nov 2026 09:00:00) up"

    assert one.time(text, None, WRITTEN) == NINE
    assert one.time(text, one.fields(text), WRITTEN) == NINE
    assert one.time("2026-11-20T09:00:00Z other", None, WRITTEN) == NINE


def test_an_unknown_zone_is_an_error_at_load() -> None:
    """Every time would be wrong, and nobody would see it."""
    for zone in ("Europe/Berln", "../etc/passwd", ""):
        with pytest.raises(ConfigError, match="time zone"):
            parser(zone)


FORMATS: list[LogFormat] = ["auto", "plain", "syslog", "json", "logfmt", "combined"]
PIECES = st.sampled_from([*STAMPS, *TIMELESS, "[", "]", '"', "{", "<", "0", "-", "Nov ", "\x00", "\ud800", "٣"])


@given(st.lists(PIECES | st.text(max_size=12), max_size=5).map("".join), st.sampled_from(FORMATS))
def test_no_text_makes_it_raise(text: str, kind: LogFormat) -> None:
    """One hostile line must not end the log thread."""
    one = parser("Europe/Berlin", format=kind)

    for _ in range(2):
        found = one.time(text, None, WRITTEN)
        assert found is None or found.tzinfo is UTC
    one.time(text, {"timestamp": text}, WRITTEN)
