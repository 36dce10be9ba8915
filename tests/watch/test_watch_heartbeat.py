"""Heartbeats: silence is noticed, and only silence."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from agentd.memory.heartbeats import Beat
from agentd.records import Observation
from agentd.testing import FakeClock
from agentd.watch.heartbeat import MAX_PARDONS, Beats, HeartbeatProbe, HeartbeatSettings, is_pardoned

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NO_TIME = timedelta(0)


def look(beats: Beats, **settings: Any) -> Observation:
    every = {"expect_every": "24h", "grace": "1h"} | settings
    return asyncio.run(HeartbeatProbe(HeartbeatSettings(**every), "backup", beats).look(5))


def restarted(clock: FakeClock, beats: Beats, down_for: timedelta = NO_TIME) -> Beats:
    """The daemon stops, is away for a while, and starts again on what it stored."""
    rows = beats.take_changed()
    alive_until = clock.now()
    clock.tick(down_for)
    reborn = Beats(clock)
    reborn.restore(rows, alive_until)
    reborn.keep_changed(rows)
    return reborn


def test_silence_beyond_the_grace_fails_with_how_long_it_lasts() -> None:
    """The message must let a person judge without opening the config."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(25 * HOUR)
    assert look(beats).error is None

    clock.tick(timedelta(minutes=12))

    assert look(beats).error == "no heartbeat for 1d1h12m (expected every 1d, grace 1h)"


def test_a_beat_ends_the_failure() -> None:
    """The next run of the job heals it."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(3 * DAY)
    assert look(beats).error

    beats.beat("backup", clock.now(), message="412 files\n in 3 min")

    seen = look(beats)
    assert seen.error is None
    assert seen.values == {"beat_age_s": 0.0, "beats": 2, "last_ok": True, "message": "412 files in 3 min"}


def test_a_job_that_reports_failure_fails_at_once() -> None:
    """Waiting out the day would hide what the job already knows."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now(), ok=False, message="disk full")

    assert look(beats).error == "the job reported failure: disk full"


def test_a_watch_that_never_got_a_beat_waits_from_when_it_was_first_known() -> None:
    """A job wired wrongly must be noticed, also when the daemon restarts more often than the job runs."""
    clock = FakeClock()
    beats = Beats(clock)
    for _ in range(4):
        assert look(beats).error is None
        clock.tick(5 * HOUR)
        beats = restarted(clock, beats)
    clock.tick(6 * HOUR)

    assert look(beats).error == "no heartbeat ever, watched for 1d2h (expected every 1d, grace 1h)"


@pytest.mark.parametrize("jump", [30 * DAY, -30 * DAY], ids=["forward", "back"])
def test_a_jump_of_the_wall_clock_fires_nothing_and_hides_nothing(jump: timedelta) -> None:
    """NTP at boot must not page anybody, nor keep a dead job quiet for a month."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(12 * HOUR)

    clock.jump(jump)

    assert look(beats).error is None
    clock.tick(14 * HOUR)
    assert look(beats).error


@pytest.mark.parametrize("jump", [30 * DAY, -30 * DAY], ids=["forward", "back"])
def test_a_clock_that_is_wrong_at_the_start_fires_nothing(jump: timedelta) -> None:
    """A board without a battery boots in 1970 or with a stale time, and is set right later."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(HOUR)
    rows, alive_until = beats.take_changed(), clock.now()
    clock.jump(jump)
    reborn = Beats(clock)
    reborn.restore(rows, alive_until)
    clock.jump(-jump)

    assert look(reborn).error is None
    clock.tick(26 * HOUR)
    assert look(reborn).error


def test_a_beat_that_could_not_have_reached_us_is_not_missed() -> None:
    """The host was down when the job ran: the job is not to blame."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(22 * HOUR)

    beats = restarted(clock, beats, down_for=4 * HOUR)

    assert look(beats).error is None
    clock.tick(25 * HOUR)
    assert look(beats).error is None
    clock.tick(timedelta(seconds=1))
    assert look(beats).error == "no heartbeat for 2d3h1s (expected every 1d, grace 1h)"


def test_a_downtime_long_before_the_beat_was_due_pardons_nothing() -> None:
    """Any restart of the daemon would else delay every alarm by a day."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(5 * HOUR)

    beats = restarted(clock, beats, down_for=HOUR)

    clock.tick(19 * HOUR + timedelta(seconds=1))
    assert look(beats).error


def test_a_later_restart_does_not_forget_the_pardon() -> None:
    """The deadline that a pardon gave must outlive the process."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    clock.tick(22 * HOUR)
    beats = restarted(clock, beats, down_for=4 * HOUR)
    assert look(beats).error is None
    clock.tick(3 * HOUR)

    beats = restarted(clock, beats)

    assert look(beats).error is None


def test_daily_restarts_at_the_hour_of_the_job_do_not_hide_a_dead_one_for_ever() -> None:
    """The promised bound: (pardons + 1) times (every + grace), plus the downtimes."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    began = clock.now()
    down = timedelta(minutes=1)
    while look(beats).error is None:
        clock.tick(DAY - down)
        beats = restarted(clock, beats, down_for=down)
        assert clock.now() - began <= (MAX_PARDONS + 1) * (25 * HOUR + down) + DAY

    beats.beat("backup", clock.now())
    clock.tick(22 * HOUR)
    assert look(restarted(clock, beats, down_for=4 * HOUR)).error is None


def test_a_crash_loop_pardons_no_job_that_beats_often() -> None:
    """Each crash is a downtime; the pardons must not add up over a beat that was heard since."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    for _ in range(50):
        beats = restarted(clock, beats, down_for=timedelta(seconds=30))
        look(beats, expect_every="1m", grace="10s")
        beats.beat("backup", clock.now())

    [row] = beats.take_changed()
    assert (row.count, row.pardons) == (51, 0)


def test_with_nothing_known_of_our_past_the_beats_are_pardoned() -> None:
    """A restored store without the time of our death must not page for every job."""
    clock = FakeClock()
    old = Beat("backup", clock.now() - 9 * DAY, count=3)
    beats = Beats(clock)
    beats.restore([old], None)

    assert look(beats).error is None


def test_only_what_changed_is_stored() -> None:
    """A look that changes nothing writes nothing; what a full disk refused is offered again."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    rows = beats.take_changed()
    assert [(row.watch, row.count) for row in rows] == [("backup", 1)]

    look(beats)
    assert beats.take_changed() == []

    beats.keep_changed(rows)
    assert beats.take_changed() == rows


def test_watches_that_left_the_config_are_forgotten() -> None:
    """Memory and store must not keep every name that ever was."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now())
    beats.beat("gone", clock.now())

    assert beats.forget_others({"backup"}) == ["gone"]
    assert [row.watch for row in beats.take_changed()] == ["backup"]


def test_a_flood_of_text_is_cut() -> None:
    """The message is a stranger's, and ends in alerts."""
    clock = FakeClock()
    beats = Beats(clock)
    beats.beat("backup", clock.now(), message="x" * 100_000)

    assert len(beats.take_changed()[0].message) == 500


def test_a_downtime_that_ended_before_the_beat_is_over() -> None:
    """With a grace longer than the interval, the window reaches back behind the beat itself."""
    now = FakeClock().now()

    assert not is_pardoned(now, HOUR, 2 * HOUR, (now - HOUR, now), 0)
    assert is_pardoned(now, HOUR, 2 * HOUR, (now - HOUR, now + timedelta(seconds=1)), 0)


@pytest.mark.parametrize(("every", "grace"), [("30s", 10), ("1h", 360), ("14d", 3600)])
def test_the_default_grace_follows_the_interval(every: str, grace: int) -> None:
    """A tenth, but neither less than a cron's jitter nor more than an hour."""
    assert HeartbeatSettings(expect_every=every).allowed_grace == timedelta(seconds=grace)  # type: ignore[arg-type]  # read from text


@pytest.mark.parametrize(("grace", "every"), [("0s", 1), ("3s", 1.5), ("20s", 10), ("1h", 10)])
def test_a_short_grace_is_looked_at_often(grace: str, every: float) -> None:
    """A job that reports each few seconds is late by more than its grace when looked at each ten."""
    settings = HeartbeatSettings(expect_every="5s", grace=grace)  # type: ignore[arg-type]  # read from text

    assert settings.look_every == timedelta(seconds=every)


def test_never_expecting_a_beat_is_refused() -> None:
    """`expect_every: 0` would fire at every look."""
    with pytest.raises(ValidationError, match="not longer than zero"):
        HeartbeatSettings(expect_every="0s")  # type: ignore[arg-type]  # read from text
