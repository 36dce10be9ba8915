"""The work on a log while clocks do what clocks do: other zones, sleep, jumps, none at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agentd.clock import SystemClock
from agentd.logs.opening import open_file, open_log
from agentd.logs.parse import make_parser
from agentd.logs.parse.zone import find_zone
from agentd.logs.port import Ended, Occurrence
from agentd.logs.settings import LogSource, Rule
from agentd.logs.work import LogWork, Taken
from agentd.memory.logs import LogMemory
from agentd.testing import FakeClock

BRUTE = Rule(name="brute", type="frequency", match="failed", count=5, within=timedelta(minutes=10))
SILENT = Rule(name="silent", type="flatline", within=timedelta(minutes=10))
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The host lies in New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


class Log:
    """A log that is followed by these rules, on a clock that starts now, as the file's own times do."""

    def __init__(self, folder: Path, *rules: Rule, timezone: str | None, memory: LogMemory | None = None) -> None:
        self.clock = FakeClock(datetime.now(UTC))
        self.file = folder / "app.log"
        self.file.touch()
        self.rules, self.timezone = rules, timezone
        self.work = self.open(memory or LogMemory(started=self.clock.now()))

    def open(self, memory: LogMemory) -> LogWork:
        source = LogSource(files=(str(self.file),), templates=False)
        return open_log("w", source, self.rules, clock=self.clock, timezone=self.timezone, memory=memory)

    def writes(self, said: datetime, text: str = "failed") -> None:
        with self.file.open("a") as file:
            file.write(f"{said:%Y-%m-%d %H:%M:%S} {text}\n")

    def look(self, *, after_s: float = 1.0) -> list[Occurrence | Ended]:
        """What comes about when it is looked at again, a moment later."""
        self.clock.tick(after_s)
        os.utime(self.file, (self.clock.now().timestamp(),) * 2)
        return self.take().outcome.events

    def take(self) -> Taken:
        taken = self.work.take()
        while taken.batch.more:
            more = self.work.take()
            more.outcome.events[:0] = taken.outcome.events
            taken = more
        return taken


@contextmanager
def log(folder: Path, *rules: Rule, timezone: str | None = "UTC") -> Iterator[Log]:
    made = Log(folder, *rules, timezone=timezone)
    made.look()
    yield made


def test_lines_are_of_the_hosts_zone_where_nothing_else_is_said(zone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Daemons write local time: as UTC, each line would be hours old west of Greenwich."""
    with log(tmp_path, BRUTE, timezone=None) as made:
        for _ in range(4):
            made.writes(made.clock.now().astimezone(NEW_YORK))
            assert made.look(after_s=60) == []
        made.writes(made.clock.now().astimezone(NEW_YORK))
        (event,) = made.look(after_s=60)

        assert isinstance(event, Occurrence)
        assert made.clock.now() - event.at < timedelta(seconds=62)
        assert made.work.times.shifted == 0


def test_the_hosts_zone_has_its_winter_and_its_summer(zone: pytest.MonkeyPatch) -> None:
    """An offset that is right today would be an hour off in half of a year's log."""
    parser = make_parser(LogSource(files=("x",)), timezone=None)
    late = datetime(2027, 1, 1, tzinfo=UTC)

    for text, hour in (("2026-07-01 09:00:00 x", 13), ("2026-12-01 09:00:00 x", 14), ("2026-03-08 02:30:00 x", 7)):
        said = parser.time(text, None, late)
        assert said is not None
        assert said.hour == hour
    twice = parser.time("2026-11-01 01:30:00 x", None, late)
    assert twice == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    assert twice.fold == 1
    zone.setenv("TZ", "UTC")
    time.tzset()
    assert find_zone(None) is None


@pytest.mark.parametrize("lag", [timedelta(hours=5), timedelta(minutes=20)])
def test_brute_force_fires_whatever_zone_its_log_is_of(tmp_path: Path, lag: timedelta) -> None:
    """The windows of what lags were let go before the next line came."""
    with log(tmp_path, BRUTE) as made:
        for _ in range(4):
            made.writes(made.clock.now() - lag)
            assert made.look(after_s=60) == []
        made.writes(made.clock.now() - lag)
        (event,) = made.look(after_s=60)

        assert isinstance(event, Occurrence)
        assert made.clock.now() - event.last_at < timedelta(minutes=2), "or it would resolve at once"
        assert made.work.numbers(made.take().batch)["shifted"] > 0


def test_no_silence_is_told_of_a_log_of_another_zone(tmp_path: Path) -> None:
    """Lines come every minute, only dated five hours ago."""
    with log(tmp_path, SILENT) as made:
        for _ in range(60):
            made.writes(made.clock.now() - timedelta(hours=5), "fine")
            assert made.look(after_s=60) == []


def test_a_sleep_of_the_machine_is_no_silence_of_its_log(tmp_path: Path) -> None:
    """Whoever opens the laptop in the morning must not read that the log was silent all night."""
    with log(tmp_path, SILENT) as made:
        made.writes(made.clock.now(), "fine")
        assert made.look() == []

        made.clock.jump(timedelta(hours=8))
        assert made.look() == []
        assert made.look(after_s=590) == []

        (event,) = made.look(after_s=15)
        assert isinstance(event, Occurrence)


def test_a_silence_that_was_told_lasts_over_a_sleep(tmp_path: Path) -> None:
    """That nobody looked ends no outage."""
    with log(tmp_path, SILENT) as made:
        assert len(made.look(after_s=605)) == 1

        made.clock.jump(timedelta(hours=8))
        (event,) = made.look()
        assert isinstance(event, Occurrence)
        assert event.count == 0


def test_a_jump_is_told_with_the_batch_and_taken_back_with_the_clock(tmp_path: Path) -> None:
    """The alerts' own quiet hangs on it."""
    with log(tmp_path, BRUTE) as made:
        assert made.take().awake_since is None
        made.clock.jump(timedelta(seconds=20))
        assert made.take().awake_since is None, "a clock that is put right by seconds is none"
        made.clock.jump(timedelta(hours=1))
        assert made.take().awake_since == made.clock.now()
        made.clock.jump(-timedelta(hours=1))
        assert made.take().awake_since == made.clock.now()


def tried(file: Path, rule: Rule, timezone: str | None = "UTC") -> tuple[list[Occurrence | Ended], list[str]]:
    """Events and notes of a file that is run through a rule."""
    work = open_file("w", LogSource(files=(str(file),)), [rule], file, clock=SystemClock(), timezone=timezone)
    events, notes, more = [], [], True
    while more:
        taken = work.take()
        events += taken.outcome.events
        notes += taken.batch.notes
        more = taken.batch.more
    return events, notes


def test_a_file_without_times_is_of_its_last_change_and_says_so(tmp_path: Path) -> None:
    """All its lines are of one moment, so that each frequency would have fired: nobody is to believe that."""
    file = tmp_path / "app.log"
    file.write_text("failed\n" * 9)
    changed = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    os.utime(file, (changed.timestamp(),) * 2)

    (event,), (note,) = tried(file, BRUTE)

    assert isinstance(event, Occurrence)
    assert event.at == changed
    assert "9 of 9 lines" in note
    assert "windows mean nothing" in note


@pytest.mark.parametrize(
    ("off", "words"),
    [(timedelta(hours=-5), "5:00:00 before"), (timedelta(minutes=7), "0:07:00 after"), (timedelta(0), "")],
)
def test_a_file_whose_times_are_of_another_zone_says_so(tmp_path: Path, off: timedelta, words: str) -> None:
    """Its last line was written when the file was changed last."""
    file = tmp_path / "app.log"
    changed = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    file.write_text(f"{changed + off:%Y-%m-%d %H:%M:%S} failed\n")
    os.utime(file, (changed.timestamp(),) * 2)

    _, notes = tried(file, BRUTE)

    assert len(notes) == bool(words)
    assert all(words in note and "timezone" in note for note in notes)


def test_an_hour_that_comes_twice_is_two_hours_in_a_file_of_last_autumn(tmp_path: Path) -> None:
    """As one, it would be twice as many lines in half the time."""
    file = tmp_path / "app.log"
    start = datetime(2025, 11, 1, 4, 0, tzinfo=UTC)
    moments = [start + minutes * timedelta(minutes=4) for minutes in range(90 * 15)]
    file.write_text("".join(f"{moment.astimezone(NEW_YORK):%Y-%m-%d %H:%M:%S} failed\n" for moment in moments))
    four = BRUTE.model_copy(update={"count": 4})

    assert tried(file, four, "America/New_York")[0] == []
    three = BRUTE.model_copy(update={"count": 3})
    assert tried(file, three, "America/New_York")[0] != []
