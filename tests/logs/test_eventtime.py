"""When an entry happened: what clocks do, and what must not come of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentd.logs.eventtime import MAX_STREAMS, EventTime

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def live() -> EventTime:
    return EventTime(lambda: NOW)


def test_a_line_keeps_its_own_time() -> None:
    """Windows are in event time: a burst read late is still a burst."""
    times = live()

    assert times.of("s", NOW - 5 * SECOND, NOW) == NOW - 5 * SECOND


def test_a_line_without_time_is_of_its_arrival() -> None:
    """A stream that tells no times at all is followed as it comes."""
    times = live()

    assert times.of("s", None, NOW) == NOW
    assert times.of("s", None, NOW + HOUR) == NOW + HOUR
    assert times.far_off == times.ahead == 0


def test_a_line_without_time_in_a_backlog_is_of_its_stream() -> None:
    """Half of last month's traceback must not be dated today."""
    times = live()
    times.of("s", NOW - 30 * DAY, NOW)

    assert times.of("s", None, NOW + SECOND) == NOW - 30 * DAY + SECOND


def test_after_a_pause_a_backlog_is_over() -> None:
    """What is appended to an old file now is of now."""
    times = live()
    times.of("s", NOW - 30 * DAY, NOW)

    assert times.of("s", None, NOW + HOUR) == NOW + HOUR


def test_nothing_is_of_the_future() -> None:
    """A writer five minutes ahead would hold every window open that long."""
    times = live()

    assert times.of("s", NOW + 5 * SECOND, NOW) == NOW
    assert times.of("s", NOW + DAY, NOW) == NOW
    assert (times.ahead, times.far_off, times.warnings) == (2, 0, [])


def test_a_line_far_off_is_taken_as_now_and_told_once() -> None:
    """1970 and 2099 are clocks that were never set, and must neither fire nor silence a rule."""
    times = live()
    times.of("s", NOW - SECOND, NOW)

    for said in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC), NOW - 3 * DAY):
        assert times.of("s", said, NOW) == NOW - SECOND
    assert times.far_off == 3
    assert len(times.warnings) == 1
    assert "1970" in times.warnings[0]


def test_a_line_far_off_that_comes_first_is_of_its_arrival() -> None:
    """There is no scale yet, and this line must not set one."""
    times = live()

    assert times.of("s", datetime(1970, 1, 1, tzinfo=UTC), NOW) == NOW
    assert times.of("s", NOW - 40 * DAY, NOW) == NOW - 40 * DAY


def test_a_line_far_off_leaves_no_trace() -> None:
    """The next line is judged as if it had not been there."""
    times = live()
    times.of("s", NOW - HOUR, NOW)
    times.of("s", datetime(2099, 1, 1, tzinfo=UTC), NOW)

    assert times.of("s", NOW - HOUR + SECOND, NOW) == NOW - HOUR + SECOND


def test_every_stream_has_a_scale_and_a_warning_of_its_own() -> None:
    """One old file among new ones is no error."""
    times = live()
    times.of("new", NOW, NOW)

    assert times.of("old", NOW - 300 * DAY, NOW) == NOW - 300 * DAY
    for name in ("new", "old"):
        times.of(name, datetime(1970, 1, 1, tzinfo=UTC), NOW)
    assert len(times.warnings) == 2


def test_an_old_backlog_keeps_its_own_times() -> None:
    """`start_at: start` on last year's log: gaps of weeks forward are normal."""
    times = live()
    said = [NOW - 400 * DAY, NOW - 399 * DAY, NOW - 30 * DAY, NOW - 30 * DAY - HOUR, NOW - SECOND]

    assert [times.of("s", each, NOW) for each in said] == said
    assert times.far_off == 0


def test_a_writer_whose_clock_was_set_back_is_believed() -> None:
    """NTP took an hour off: the new times are the right ones."""
    times = live()
    times.of("s", NOW, NOW)

    assert times.of("s", NOW - HOUR, NOW + SECOND) == NOW - HOUR
    assert times.far_off == 0


def test_our_own_clock_ahead_does_not_poison_the_scale() -> None:
    """The machine booted in 2099: once NTP has set it right, lines must not be far off for years."""
    times = live()
    wrong = datetime(2099, 1, 1, tzinfo=UTC)
    times.of("s", wrong, wrong)

    assert times.of("s", NOW - SECOND, NOW) == NOW - SECOND
    assert times.of("s", None, NOW) == NOW
    assert times.far_off == 0


def test_a_zone_that_is_ahead_by_hours_is_taken_as_arrival() -> None:
    """Configured as UTC, written in Berlin: what cannot be true is not believed."""
    times = live()

    for step in range(5):
        read_at = NOW + step * SECOND
        assert times.of("s", read_at + 2 * HOUR, read_at) == read_at
    assert times.ahead == 5


def test_a_zone_that_is_behind_by_hours_is_told() -> None:
    """Nothing else shows it: the times are plausible, only every window is two hours late."""
    times = live()

    for step in range(60):
        times.of("s", NOW - 2 * HOUR + step * SECOND, NOW + (step + 1) * SECOND)
    assert len(times.warnings) == 1
    assert "2:00:00" in times.warnings[0]


def test_a_backlog_that_is_read_is_no_wrong_zone() -> None:
    """Its distance from now changes with every read."""
    times = live()

    for step in range(600):
        times.of("s", NOW - 5 * HOUR + step * timedelta(seconds=25), NOW + step * SECOND)
    assert times.warnings == []


def test_in_a_replay_the_reading_says_nothing() -> None:
    """Last year's file through `agentd test`: lines without time are of the line before."""
    times = EventTime(lambda: NOW, live=False)
    written = NOW - 300 * DAY

    assert times.of("s", None, written) == written
    assert times.of("s", NOW - 301 * DAY, written) == NOW - 301 * DAY
    assert times.of("s", None, written) == NOW - 301 * DAY
    assert times.of("s", NOW - 299 * DAY, written) == NOW - 299 * DAY
    assert times.of("s", datetime(1970, 1, 1, tzinfo=UTC), written) == NOW - 299 * DAY
    assert times.of("s", NOW + HOUR, written) == NOW


def test_a_million_streams_do_not_grow_memory() -> None:
    """A glob over session files has no end."""
    times = live()
    for number in range(MAX_STREAMS + 50):
        times.of(f"s{number}", NOW, NOW)

    assert len(times._streams) == MAX_STREAMS


MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.timedeltas(-5 * DAY, 5 * DAY).map(lambda off: NOW + off)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | MOMENTS, MOMENTS), max_size=30), st.booleans())
def test_any_clock_gives_a_time_that_is_not_of_the_future(
    seen: list[tuple[str, datetime | None, datetime]], is_live: bool
) -> None:
    """Whatever writers and our own clock do."""
    times = EventTime(lambda: NOW, live=is_live)

    for stream, said, read_at in seen:
        assert times.of(stream, said, read_at) <= (read_at if is_live else NOW)
