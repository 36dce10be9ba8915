"""When an entry happened: what clocks do, and what must not come of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.logs.eventtime import MAX_STREAMS, EventTime
from agentd.logs.parse import make_parser
from agentd.logs.settings import LogSource

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


def read(
    times: EventTime, said: list[datetime], at: datetime, since: datetime | None, written_by: datetime | None = None
) -> list[datetime]:
    """A block of a followed log: what its lines are taken as."""
    times.begin("s", said[-1], at, since=since, at_end=True, written_by=written_by)
    return [times.of("s", each, at) for each in said]


def appended() -> EventTime:
    return EventTime(lambda: NOW, appended=True)


@pytest.mark.parametrize("lag", [2 * HOUR, timedelta(minutes=37), 14 * HOUR, 300 * DAY])
def test_a_line_written_while_we_looked_is_of_now_whatever_its_writer_says(lag: timedelta) -> None:
    """West of Greenwich no brute force would fire, and each silence would: every window would be hours behind."""
    times = appended()

    assert read(times, [NOW - lag - 3 * SECOND, NOW - lag], NOW, NOW - SECOND) == [NOW - 3 * SECOND, NOW]
    assert read(times, [NOW - lag + 5 * SECOND], NOW + 5 * SECOND, NOW + 4 * SECOND) == [NOW + 5 * SECOND]
    assert (times.shifted, times.far_off, times.ahead) == (3, 0, 0)


def test_what_was_written_while_nobody_looked_keeps_its_time() -> None:
    """After a night's stop the night is told as it was, though the log has grown while it is read."""
    times = appended()

    assert read(times, [NOW - 8 * HOUR, NOW - 5 * HOUR], NOW, None) == [NOW - 8 * HOUR, NOW - 5 * HOUR]
    assert read(times, [NOW - 4 * HOUR], NOW, None) == [NOW - 4 * HOUR]
    assert read(times, [NOW], NOW + HOUR, NOW) == [NOW]
    assert times.shifted == 0


def test_a_file_that_comes_with_its_past_keeps_its_times() -> None:
    """A rotated log moved into the folder was not written today."""
    times = appended()

    assert read(times, [NOW - 5 * HOUR], NOW, NOW - SECOND, NOW - 5 * HOUR) == [NOW - 5 * HOUR]


def test_a_clock_put_right_is_believed_at_once() -> None:
    """The writer's NTP came up: nothing is put forward any more."""
    times = appended()
    read(times, [NOW - 2 * HOUR], NOW, NOW - SECOND)

    assert read(times, [NOW + SECOND], NOW + SECOND, NOW) == [NOW + SECOND]
    assert read(times, [NOW + HOUR - 30 * SECOND], NOW + HOUR, NOW + HOUR - SECOND) == [NOW + HOUR - 30 * SECOND]


def test_what_is_delivered_late_keeps_its_own_times() -> None:
    """A relay hands three hours over in three seconds: pressed together they would be a burst that never was."""
    times = appended()
    read(times, [NOW - 3 * HOUR], NOW, NOW - SECOND)

    for step in range(1, 4):
        at, said = NOW + step * SECOND, NOW - (3 - step / 2) * HOUR
        assert read(times, [said - SECOND, said], at, at - SECOND) == [said - SECOND, said]
    end = NOW + 10 * SECOND
    assert read(times, [end], end, end - SECOND) == [end]
    assert read(times, [end - 2 * HOUR], end + SECOND, end) == [end], "and is watched as before"


def test_a_writer_of_another_zone_among_others_is_of_its_arrival() -> None:
    """A daemon in a chroot writes UTC into a log of local times."""
    times = appended()
    read(times, [NOW], NOW, NOW - SECOND)
    at = NOW + 5 * SECOND

    assert read(times, [at - 2 * SECOND, at - 2 * HOUR, at - SECOND], at, NOW) == [at - 2 * SECOND, at, at - SECOND]
    assert times.shifted == 1


def test_an_hour_handed_over_at_once_keeps_its_distances() -> None:
    """Some writers flush now and then: the hour is no burst, and its end shows that the clock is right."""
    times = appended()
    read(times, [NOW], NOW, NOW - SECOND)
    said = [NOW + minute * timedelta(minutes=1) for minute in range(60)]

    assert read(times, said, said[-1] + SECOND, said[-1]) == said


@pytest.mark.parametrize(("off", "word"), [(-2 * HOUR, "before"), (-timedelta(minutes=37), "before"), (HOUR, "later")])
@pytest.mark.parametrize("is_file", [True, False])
def test_a_clock_that_is_steadily_off_is_told_once(off: timedelta, word: str, is_file: bool) -> None:
    """Or nobody would ever put it right."""
    times = EventTime(lambda: NOW, appended=is_file)

    for step in range(100):
        at = NOW + step * SECOND
        read(times, [at + off], at, at - SECOND)
    (warning,) = times.warnings
    assert f"{abs(off)} {word}" in warning
    assert "timezone" in warning


def test_a_command_that_lags_steadily_is_of_now_once_that_is_sure() -> None:
    """It may have said old things at its start, so there is no other sign."""
    times = live()
    taken = [
        read(times, [NOW + step * SECOND - 2 * HOUR], NOW + step * SECOND, NOW + (step - 1) * SECOND)[0]
        for step in range(90)
    ]

    assert taken[0] == NOW - 2 * HOUR
    assert taken[-1] == NOW + 89 * SECOND


def test_a_backlog_that_is_read_is_no_wrong_zone() -> None:
    """Its distance from now changes with every read."""
    times = live()

    for step in range(600):
        at = NOW + step * SECOND
        read(times, [NOW - 5 * HOUR + step * timedelta(seconds=25)], at, NOW)
    assert times.warnings == []


def test_a_local_time_that_comes_twice_is_the_earlier_one_until_the_stream_steps_back() -> None:
    """A log of last autumn, tried in spring: the two hours are two, in their order."""
    berlin = ZoneInfo("Europe/Berlin")
    midnight = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    moments = [midnight + minutes * timedelta(minutes=10) for minutes in range(36)]
    parser = make_parser(LogSource(files=("x",)), timezone="Europe/Berlin")
    times = EventTime(lambda: NOW, live=False, zone=berlin)

    taken = []
    for moment in moments:
        said = parser.time(f"{moment.astimezone(berlin):%Y-%m-%d %H:%M:%S} x", None, NOW)
        taken.append(times.of("s", said, NOW))

    assert taken == moments


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


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.none() | MOMENTS, MOMENTS, st.none() | MOMENTS), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_any_clock_gives_a_time_that_is_not_of_the_future(
    seen: list[tuple[str, datetime | None, datetime, datetime | None]], is_live: bool, is_file: bool
) -> None:
    """Whatever writers and our own clock do."""
    times = EventTime(lambda: NOW, live=is_live, appended=is_file, zone=ZoneInfo("Europe/Berlin"))

    for stream, said, read_at, since in seen:
        if is_live:
            times.begin(stream, said, read_at, since=since, at_end=True)
        assert times.of(stream, said, read_at) <= (read_at if is_live else NOW)
