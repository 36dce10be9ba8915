"""The scheduler under a fake clock: a year of cron, jumps both ways, overlap, crashes, stop."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop

from agentd.clock import SystemClock
from agentd.cron import parse_cron
from agentd.schedule.scheduler import Due, Run, Scheduler
from agentd.schedule.triggers import AtStart, Cron, Every, Once
from agentd.testing import FakeClock

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Diary:
    """Notes each run with its time on the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.dues: list[Due] = []
        self.at: list[datetime] = []

    async def __call__(self, due: Due) -> None:
        self.dues.append(due)
        self.at.append(self.clock.now())

    def counts(self) -> Counter[str]:
        return Counter(due.name for due in self.dues)

    def clear(self) -> None:
        self.dues.clear()
        self.at.clear()


class Stage:
    """A scheduler on a fake clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.diary = Diary(self.clock)
        self.scheduler = Scheduler(self.clock, **options)

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        async def whole() -> None:
            self.scheduler.start()
            await story
            await self.scheduler.stop(0)

        self.clock.run(whole())


async def never_ending(_: Due) -> None:
    await asyncio.Event().wait()


def test_a_job_runs_once_an_interval() -> None:
    """The most ordinary thing must be exactly right."""
    stage = Stage()
    stage.scheduler.add("shop", Every(30 * SECOND, "shop"), stage.diary)

    stage.play(stage.clock.advance(HOUR))

    assert len(stage.diary.dues) == 120
    gaps = {later.at - earlier.at for earlier, later in zip(stage.diary.dues, stage.diary.dues[1:], strict=False)}
    assert gaps == {30 * SECOND}
    assert (
        max(abs((at - due.at).total_seconds()) for at, due in zip(stage.diary.at, stage.diary.dues, strict=True))
        < 0.003
    )


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year_of_cron_is_365_reports(zone: str) -> None:
    """Both changes of the clocks are within; a report a day, at half past two or where that was left out after it."""
    stage = Stage(guard_every_s=DAY.total_seconds())
    schedule = parse_cron("30 2 * * *", zone)
    stage.scheduler.add("report", Cron(schedule), stage.diary)

    stage.play(stage.clock.advance(365 * DAY))

    days = [due.at.astimezone(schedule.zone).date() for due in stage.diary.dues]
    assert days == [days[0] + number * DAY for number in range(365)]
    assert all(due.late_s == 0 for due in stage.diary.dues)
    assert stage.scheduler.stats().coalesced == 0


def test_two_runs_of_one_job_never_overlap() -> None:
    """A slow target must not pile up checks; the later one is dropped and counted."""
    stage = Stage()
    runs: list[str] = []

    async def slow(due: Due) -> None:
        runs.append("begin")
        await asyncio.sleep(25)
        runs.append("end")

    stage.scheduler.add("slow", Every(10 * SECOND, "slow"), slow)
    stage.play(stage.clock.advance(120))

    assert runs[:6] == ["begin", "end"] * 3
    stats = stage.scheduler.stats()
    assert stats.runs == runs.count("begin")
    assert stats.overlaps == 12 - stats.runs


def test_a_crash_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A defect in one probe must not end the watching of all others, nor its own."""
    stage = Stage()

    async def broken(_: Due) -> None:
        raise ZeroDivisionError

    stage.scheduler.add("broken", Every(10 * SECOND, "broken"), broken)
    stage.scheduler.add("shop", Every(10 * SECOND, "shop"), stage.diary)
    with caplog.at_level(logging.ERROR):
        stage.play(stage.clock.advance(60))

    assert stage.scheduler.stats().crashed == 6
    assert len(stage.diary.dues) == 6
    assert {record.getMessage() for record in caplog.records} == {"job_crashed"}


def test_the_clock_set_back_ten_minutes_stops_nothing() -> None:
    """Stock APScheduler stands still for those ten minutes."""
    stage = Stage()
    jumps: list[timedelta] = []
    stage.scheduler = Scheduler(stage.clock, jumps.append)
    for number in range(100):
        stage.scheduler.add(f"w{number}", Every(2 * SECOND, f"w{number}"), stage.diary)

    async def story() -> None:
        await stage.clock.advance(60.25)
        stage.clock.jump(-10 * MINUTE)
        stage.diary.clear()
        await stage.clock.advance(3)

    stage.play(story())

    assert len(stage.diary.counts()) == 100
    assert max(stage.diary.counts().values()) <= 3
    assert [round(jump.total_seconds()) for jump in jumps] == [-600]


@pytest.mark.parametrize("by", [30 * DAY, -30 * DAY, 365 * DAY], ids=str)
def test_a_jump_of_a_month_costs_neither_runs_nor_memory(by: timedelta) -> None:
    """Stock APScheduler lists each of the 2.6 million times that were missed, for every job."""
    stage = Stage()
    for number in range(500):
        stage.scheduler.add(f"w{number}", Every(SECOND * (1 + number % 10), f"w{number}"), stage.diary)
    stage.scheduler.add("minutely", Cron(parse_cron("* * * * *")), stage.diary)

    async def story() -> None:
        await stage.clock.advance(30)
        stage.diary.clear()
        stage.clock.jump(by)
        await stage.clock.advance(2.0)

    tracemalloc.start()
    try:
        stage.play(story())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    counts = stage.diary.counts()
    assert sum(counts[f"w{number}"] > 0 for number in range(0, 500, 10)) == 50
    assert max(counts.values()) <= 4
    assert peak < 10 * 2**20


def test_a_jump_brings_no_stampede() -> None:
    """Ten thousand checks at once would be an attack on our own network."""
    stage = Stage()
    for number in range(1000):
        stage.scheduler.add(f"w{number}", Every(HOUR, f"w{number}"), stage.diary)

    async def story() -> None:
        await stage.clock.advance(10)
        stage.diary.clear()
        stage.clock.jump(5 * HOUR)
        await stage.clock.advance(40)

    stage.play(story())

    per_second = Counter(at.replace(microsecond=0) for at in stage.diary.at)
    assert len(stage.diary.counts()) >= 1000
    assert max(per_second.values()) < 80


def test_after_standing_still_each_job_runs_at_most_once_at_first() -> None:
    """SIGSTOP for an hour: the monotonic clock ran on, the loop did not."""
    stage = Stage()
    for number in range(200):
        stage.scheduler.add(f"w{number}", Every(20 * SECOND, f"w{number}"), stage.diary)
    stage.scheduler.add("report", Cron(parse_cron("30 12 * * *")), stage.diary)

    async def story() -> None:
        await stage.clock.advance(30)
        stage.diary.clear()
        stage.clock.tick(HOUR)
        await stage.clock.settle()
        assert stage.diary.counts() == {"report": 1}
        await stage.clock.advance(20)

    stage.play(story())

    counts = stage.diary.counts()
    assert len(counts) == 201
    assert max(counts.values()) <= 2
    assert stage.diary.dues[0].late_s == pytest.approx(30 * 60 + 30, abs=1)


def test_a_block_of_some_seconds_skips_no_run() -> None:
    """Stock APScheduler drops what is more than a second late."""
    stage = Stage()
    stage.scheduler.add("daily", Cron(parse_cron("0 13 * * *")), stage.diary)
    stage.scheduler.add("quick", Every(SECOND, "quick"), stage.diary)

    async def story() -> None:
        await stage.clock.advance(59 * MINUTE + 58 * SECOND)
        stage.diary.clear()
        stage.clock.tick(4)
        await stage.clock.settle()

    stage.play(story())

    assert stage.diary.counts() == {"daily": 1, "quick": 1}
    assert stage.scheduler.stats().coalesced == 1


def test_jobs_begin_under_a_run_now_and_beside_a_pause() -> None:
    """An operator's "run it now" works on a paused watch and joins a run under way."""
    stage = Stage()
    scheduler = stage.scheduler
    scheduler.add("shop", Every(10 * SECOND, "shop"), stage.diary)
    scheduler.add("long", Every(10 * SECOND, "long"), never_ending)

    async def story() -> None:
        scheduler.pause("shop")
        assert scheduler.next_run("shop") is None
        await stage.clock.advance(60)
        assert stage.diary.dues == []
        await scheduler.run_now("shop")
        assert [due.trigger for due in stage.diary.dues] == ["manual"]
        assert scheduler.run_now("long") is scheduler.running("long")
        scheduler.resume("shop")
        await stage.clock.advance(10)
        assert [due.trigger for due in stage.diary.dues] == ["manual", "every"]

    stage.play(story())


def test_replace_keeps_the_time_the_pause_and_the_run_under_way() -> None:
    """A reload must not move, wake or double a watch that did not change."""
    stage = Stage()
    scheduler = stage.scheduler
    scheduler.add("same", Every(HOUR, "same"), never_ending)
    scheduler.add("paused", Every(HOUR, "paused"), never_ending)

    async def story() -> None:
        scheduler.pause("paused")
        running = scheduler.run_now("same")
        due = scheduler.next_run("same")
        for name in ("same", "paused"):
            scheduler.replace(name, Every(HOUR, name), stage.diary)
        assert scheduler.next_run("same") == due
        scheduler.replace("paused", Every(MINUTE, "paused"), stage.diary)
        await stage.clock.advance(HOUR)
        assert scheduler.running("same") is running
        assert scheduler.next_run("paused") is None
        assert scheduler.stats().overlaps == 1
        scheduler.replace("new", Every(MINUTE, "new"), stage.diary)
        await stage.clock.advance(MINUTE)

    stage.play(story())
    assert stage.diary.counts() == {"new": 1}


def test_a_removed_job_is_gone_but_its_run_is_handed_back() -> None:
    """The caller of a reload decides whether a run under way may finish."""
    stage = Stage()
    scheduler = stage.scheduler
    scheduler.add("old", Every(MINUTE, "old"), never_ending)

    async def story() -> None:
        scheduler.run_now("old")
        left = scheduler.remove("old")
        assert left is not None
        left.cancel()
        await stage.clock.advance(HOUR)
        assert left.cancelled()
        assert scheduler.running("old") is None
        scheduler.add("old", Every(MINUTE, "old"), stage.diary)
        await stage.clock.advance(MINUTE)
        with pytest.raises(ValueError, match="there already"):
            scheduler.add("old", Every(MINUTE, "old"), stage.diary)
        with pytest.raises(KeyError):
            scheduler.remove("unknown")

    stage.play(story())
    assert stage.diary.counts() == {"old": 1}


def test_a_run_cancelled_before_it_began_does_not_block_its_job() -> None:
    """Its own clean-up never runs then."""
    stage = Stage()
    stage.scheduler.add("shop", Every(MINUTE, "shop"), stage.diary)

    async def story() -> None:
        stage.scheduler.run_now("shop").cancel()
        await stage.clock.advance(MINUTE)
        assert stage.scheduler.in_flight == 0

    stage.play(story())
    assert stage.diary.counts() == {"shop": 1}


def test_start_and_once_run_a_single_time() -> None:
    """They stay known afterwards, so that an operator can run them again."""
    stage = Stage()
    stage.scheduler.add("boot", AtStart(), stage.diary)
    stage.scheduler.add("later", Once(stage.clock.now() + MINUTE), stage.diary)
    stage.scheduler.add("passed", Once(stage.clock.now() - DAY), stage.diary)

    async def story() -> None:
        await stage.clock.advance(0)
        assert stage.diary.counts() == {"boot": 1, "passed": 1}
        stage.clock.jump(DAY)
        await stage.clock.advance(DAY)
        await stage.scheduler.run_now("boot")

    stage.play(story())
    assert stage.diary.counts() == {"boot": 2, "passed": 1, "later": 1}


def test_stop_lets_runs_finish_then_cancels_the_rest() -> None:
    """A check that is nearly done is worth five seconds; one that hangs is not worth the stop timeout."""
    clock = FakeClock()
    scheduler = Scheduler(clock)
    ends: list[str] = []

    def taking(seconds: float) -> Run:
        async def run(due: Due) -> None:
            try:
                await asyncio.sleep(seconds)
                ends.append(f"{due.name} finished")
            except asyncio.CancelledError:
                ends.append(f"{due.name} cancelled")
                raise

        return run

    async def story() -> None:
        scheduler.start()
        scheduler.add("short", AtStart(), taking(3))
        scheduler.add("hanging", AtStart(), taking(3600))
        scheduler.add("next", Every(SECOND, "next"), taking(0))
        await clock.advance(1.5)
        ends.clear()
        stopping = asyncio.create_task(scheduler.stop(5))
        await clock.advance(10)
        await stopping
        assert len(asyncio.all_tasks()) == 1
        with pytest.raises(RuntimeError):
            scheduler.run_now("short")

    clock.run(story())
    assert ends == ["short finished", "hanging cancelled"]


def test_a_run_that_will_not_end_does_not_hold_up_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    """systemd would kill us, and everything behind the scheduler would lose its own drain."""
    clock = FakeClock()
    scheduler = Scheduler(clock)
    release = asyncio.Event()

    async def stubborn(_: Due) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def story() -> None:
        scheduler.start()
        scheduler.add("stubborn", AtStart(), stubborn)
        await clock.advance(1)
        stopping = asyncio.create_task(scheduler.stop(1))
        await clock.advance(7)
        assert stopping.done()
        release.set()

    clock.run(story())
    assert [record.getMessage() for record in caplog.records] == ["job_will_not_end"]


def test_a_trigger_that_fails_takes_down_its_own_job_only(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a trigger raises, the other jobs' times come."""

    class Broken(Every):
        def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
            if previous_fire_time is not None:
                raise ZeroDivisionError
            return Every.get_next_fire_time(self, previous_fire_time, now)

    stage = Stage()
    stage.scheduler.add("broken", Broken(SECOND, "broken"), stage.diary)
    stage.scheduler.add("shop", Every(10 * SECOND, "shop"), stage.diary)

    stage.play(stage.clock.advance(60))

    assert stage.diary.counts()["shop"] == 6
    assert [record.getMessage() for record in caplog.records] == ["trigger_failed"]


def test_a_visit_to_the_year_9999_leaves_the_jobs_alive() -> None:
    """A dead clock battery can say anything until NTP speaks."""
    stage = Stage()
    stage.scheduler.add("shop", Every(10 * SECOND, "shop"), stage.diary)
    stage.scheduler.add("report", Cron(parse_cron("* * * * *")), stage.diary)

    async def story() -> None:
        there = datetime(9999, 12, 31, 23, 59, 57, tzinfo=UTC) - stage.clock.now()
        stage.clock.jump(there)
        await stage.clock.advance(1.5)
        stage.clock.jump(-there)
        await stage.clock.advance(2)
        stage.diary.clear()
        await stage.clock.advance(2 * MINUTE)

    stage.play(story())
    assert stage.diary.counts() == {"shop": 12, "report": 2}


def test_lateness_shows_in_the_stats_and_to_the_watchdog() -> None:
    """A scheduler that hangs must not look idle."""
    stage = Stage()
    stage.scheduler.add("report", Cron(parse_cron("* * * * *")), stage.diary)

    async def story() -> None:
        assert stage.scheduler.overdue_s() == 0
        stage.clock.tick(63)
        assert stage.scheduler.overdue_s() == pytest.approx(3)
        await stage.clock.settle()
        assert stage.scheduler.overdue_s() == 0

    stage.play(story())
    assert stage.scheduler.stats().lag_p99_s == pytest.approx(3)


def test_lateness_in_the_stats_is_at_most_a_second_old() -> None:
    """It is sorted anew for the first who asks in a second, and never only once."""
    stage = Stage()
    stage.scheduler.add("report", Cron(parse_cron("* * * * *")), stage.diary)

    async def story() -> None:
        assert stage.scheduler.stats().lag_p99_s == 0
        stage.clock.tick(63)
        await stage.clock.settle()
        assert stage.scheduler.stats().lag_p99_s == pytest.approx(3)

    stage.play(story())


def test_ten_thousand_jobs_share_the_loop() -> None:
    """All due at midnight: others on the loop get their turn in between, and each job runs."""
    stage = Stage()
    for number in range(10_000):
        stage.scheduler.add(f"w{number}", Cron(parse_cron("0 0 * * *")), stage.diary)
    turns = 0

    async def story() -> None:
        nonlocal turns
        await stage.clock.advance(12 * HOUR - SECOND)

        async def neighbour() -> None:
            nonlocal turns
            while len(stage.diary.dues) < 10_000:
                turns += bool(stage.diary.dues)
                await asyncio.sleep(0)

        stage.clock.tick(SECOND)
        await neighbour()

    stage.play(story())

    assert len(stage.diary.counts()) == 10_000
    assert turns >= 99


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_runs_on_real_loops_with_the_real_clock(factory: Any) -> None:
    """uvloop has timers of its own; real time may not go around us."""

    async def story() -> list[Due]:
        scheduler = Scheduler(SystemClock())
        seen: list[Due] = []
        enough = asyncio.Event()

        async def run(due: Due) -> None:
            seen.append(due)
            if len(seen) == 5:
                enough.set()

        scheduler.add("quick", Every(timedelta(milliseconds=20), "quick"), run)
        scheduler.start()
        await asyncio.wait_for(enough.wait(), 30)
        await scheduler.stop(1)
        return seen

    begin = time.time()
    with asyncio.Runner(loop_factory=factory) as runner:
        seen = runner.run(story())

    assert all(due.at.timestamp() > begin - 0.1 for due in seen)
    assert [due.name for due in seen] == ["quick"] * 5
