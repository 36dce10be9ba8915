"""
Many files of one watch: found, shared out fairly, reported when they cannot be read.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from following import Follower

from agentd.logs.follow import open_files
from agentd.logs.follow.bell import RING_S, Bell
from agentd.logs.follow.globs import Globs
from agentd.logs.follow.siblings import forms
from agentd.logs.settings import LogSource


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Paths that cannot be opened, and why: root may read everything, so chmod shows nothing."""
    refused: dict[str, int] = {}
    really = os.open

    def opening(path: str, flags: int, *rest: int) -> int:
        if str(path) in refused:
            raise OSError(refused[str(path)], os.strerror(refused[str(path)]))
        return really(path, flags, *rest)

    monkeypatch.setattr(os, "open", opening)
    return refused


# -- which files


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("*.log", ["a.log", "b.log"]),
        ("[ab].log", ["a.log", "b.log"]),
        ("?.log", ["a.log", "b.log"]),
        ("*", ["a.log", "b.log", "c.txt"]),
        (".*", [".hidden.log"]),
        ("*/*.log", ["sub/d.log"]),
        ("**/*.log", ["a.log", "b.log", "sub/d.log", "sub/deep/e.log"]),
        ("sub/**", ["sub/d.log", "sub/deep/e.log"]),
        ("sub/deep/e.log", ["sub/deep/e.log"]),
        ("none/*.log", []),
    ],
)
def test_patterns_name_files(tmp_path: Path, pattern: str, named: list[str]) -> None:
    """As people know it from the shell; and the question whether a path is named has the same answer."""
    every = ["a.log", "b.log", "c.txt", ".hidden.log", "sub/d.log", "sub/deep/e.log"]
    for name in every:
        write(tmp_path / name, "x")
    globs = Globs((str(tmp_path / pattern),))

    assert sorted(globs.find().paths) == sorted(str(tmp_path / name) for name in named)
    assert [name for name in every if globs.naming(str(tmp_path / name))] == [name for name in every if name in named]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("app.log.1", "app.log"),
        ("app.log.12.gz", "app.log"),
        ("app.log-20260101", "app.log"),
        ("app.log-20260101.gz", "app.log"),
        ("app.log-2026010113", "app.log"),
        ("app.log-1767225600", "app.log"),
        ("app.log-20260101-1700000000", "app.log"),
        ("app.log.2026-01-01_10-00", "app.log"),
        ("app.log.2026-01-01", "app.log"),
        ("app.log.old", "app.log"),
        ("app-20260101.log", "app.log"),
        ("app.2026-01-01.0.log.gz", "app.log"),
        ("app.1.log", "app.log"),
        ("syslog.1", "syslog"),
    ],
)
def test_names_of_rotated_files(name: str, base: str) -> None:
    """logrotate with its options, Python's handlers, logback."""
    assert base in [form.base for form in forms(name)]


@pytest.mark.parametrize("name", ["app.log", "app", "app-web.log", "worker-1.log", "error_log", "access.log.txt"])
def test_names_that_are_not_rotated(name: str) -> None:
    """A live file must not be taken for what became of another."""
    assert forms(name) == []


def test_folder_that_is_made_later(tmp_path: Path) -> None:
    """The service may be installed after we started."""
    follower = Follower(tmp_path / "app" / "logs" / "*.log", start_at="end")
    assert follower.read() == []
    assert follower.once().blind is None
    write(tmp_path / "app" / "logs" / "a.log", "one")

    assert follower.read() == ["one"]
    follower.close()


def test_two_names_of_one_file_are_read_once(tmp_path: Path) -> None:
    """Two patterns, a hard link, a link."""
    write(tmp_path / "a.log", "one")
    os.link(tmp_path / "a.log", tmp_path / "b.log")
    (tmp_path / "c.log").symlink_to(tmp_path / "a.log")
    follower = Follower(tmp_path / "a.log", tmp_path / "*.log", tmp_path / "?.log")
    follower.read()
    follower.tick(10)
    write(tmp_path / "b.log", "two")
    follower.restart()
    follower.read()

    assert follower.lines == ["one", "two"]
    follower.close()


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Opening it would wait for a writer for ever."""
    os.mkfifo(tmp_path / "a.log")
    (tmp_path / "folder.log").mkdir()
    write(tmp_path / "b.log", "one")
    follower = Follower(tmp_path / "*.log")

    assert follower.read() == ["one"]
    follower.close()


def test_name_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    """A file's name is bytes; the store takes text."""
    path = os.fsencode(tmp_path) + b"/\xff.log"
    with open(path, "wb") as file:
        file.write(b"one\n")
    follower = Follower(tmp_path / "*.log")
    follower.read()
    follower.restart()
    with open(path, "ab") as file:
        file.write(b"two\n")
    follower.read()

    assert follower.lines == ["one", "two"]
    "".join([*follower.positions, *follower.positions.values()]).encode()
    follower.close()


def test_rotated_before_it_was_ever_seen(tmp_path: Path, log: Path) -> None:
    """The rotated file is followed for itself until its live file is there, and then belongs to it."""
    write(log.with_name("app.log.1"), "one")
    follower = Follower(tmp_path / "app.log*")
    follower.read()
    write(log.with_name("app.log.1"), "two")
    follower.read()
    write(log, "three")
    follower.read()
    log.with_name("app.log.1").rename(log.with_name("app.log.2"))
    log.rename(log.with_name("app.log.1"))
    write(log, "four")
    follower.restart()
    follower.read()

    assert follower.lines == ["one", "two", "three", "four"]
    assert str(log.with_name("app.log.1")) not in follower.positions
    follower.close()


def test_a_thousand_files(tmp_path: Path) -> None:
    """All are read, few are held open, and a look that finds nothing is quick."""
    for number in range(1000):
        write(tmp_path / f"{number}.log", f"one {number}")
    before = len(os.listdir("/proc/self/fd"))
    follower = Follower(tmp_path / "*.log")
    assert len(follower.read()) == 1000
    for number in range(1000):
        write(tmp_path / f"{number}.log", f"two {number}")
    assert len(follower.read()) == 1000
    assert len(os.listdir("/proc/self/fd")) - before <= 256
    for number in range(1000):
        (tmp_path / f"{number}.log").rename(tmp_path / f"{number}.log.1")
        write(tmp_path / f"{number}.log.1", f"three {number}")
        write(tmp_path / f"{number}.log", f"four {number}")
    follower.restart()

    assert len(follower.read()) == 2000
    assert follower.counters.lost == 0
    follower.tick()
    assert not follower.once().positions
    follower.close()


# -- where reading begins


def test_start_at_end_skips_what_is_there_and_nothing_else(tmp_path: Path, log: Path) -> None:
    """Files that appear later are read from their beginning."""
    log.write_text("old\nbeing writ")
    follower = Follower(tmp_path / "*.log", start_at="end")
    assert follower.read() == []
    with log.open("a") as file:
        file.write("ten\n")
    write(tmp_path / "new.log", "first")

    assert sorted(follower.read()) == ["being written", "first"]
    follower.close()


def test_appeared_while_we_were_down(tmp_path: Path, log: Path) -> None:
    """What was written since we were there last is news; what lay about before, under another name, is not."""
    write(log, "one")
    follower = Follower(tmp_path / "*.log", start_at="end")
    follower.read()
    follower.restart()
    write(tmp_path / "new.log", "new")
    write(tmp_path / "moved.log", "ancient")
    os.utime(tmp_path / "moved.log", (1000, 1000))

    assert follower.read() == ["new"]
    write(tmp_path / "moved.log", "recent")
    assert follower.read() == ["recent"]
    follower.close()


def test_appeared_while_we_were_down_after_a_start_with_nothing(tmp_path: Path, log: Path) -> None:
    """That there was nothing at the first look is remembered too."""
    follower = Follower(tmp_path / "*.log", start_at="end")
    follower.read()
    follower.restart()
    write(log, "one")

    assert follower.read() == ["one"]
    follower.close()


def test_new_pattern_begins_as_a_new_watch_does(tmp_path: Path, log: Path) -> None:
    """A file that was there all the time is no news because the configuration names it now."""
    write(log, "one")
    follower = Follower(log, start_at="end")
    follower.read()
    write(tmp_path / "other.txt", "old")
    follower.settings = follower.settings.model_copy(update={"files": (str(log), str(tmp_path / "*.txt"))})
    follower.restart()
    assert follower.read() == []
    write(tmp_path / "other.txt", "new")

    assert follower.read() == ["new"]
    follower.close()


def test_pattern_that_is_gone_takes_its_positions_along(tmp_path: Path, log: Path) -> None:
    """The store must not fill with what nobody reads."""
    write(log, "one")
    write(tmp_path / "b.txt", "x")
    follower = Follower(tmp_path / "*", start_at="end")
    follower.read()
    follower.settings = follower.settings.model_copy(update={"files": (str(log),)})
    follower.restart()
    follower.read()

    assert set(follower.positions) == {str(log), "patterns"}
    follower.close()


def test_stream_of_a_file_gone_for_a_day_is_forgotten(log: Path) -> None:
    """Dated names would pile up for ever."""
    write(log, "one")
    follower = Follower(log)
    follower.wall = datetime(2026, 1, 1, tzinfo=UTC)
    follower.read()
    log.unlink()
    follower.read()
    follower.wall += timedelta(hours=23)
    follower.restart()
    follower.read()
    assert str(log) in follower.positions
    follower.wall += timedelta(hours=2)
    follower.read()

    assert str(log) not in follower.positions
    follower.close()


def test_damaged_position_begins_anew_and_says_so(log: Path) -> None:
    """The store is ours, but a person may have been at it."""
    write(log, "one")
    follower = Follower(log)
    follower.read()
    follower.positions[str(log)] = '{"v": 1}'
    follower.restart()
    follower.read()

    assert follower.counters.lost == 1
    assert any("position" in note for note in follower.notes)
    follower.close()


# -- what cannot be read


@pytest.mark.parametrize("why", [errno.EACCES, errno.EIO])
def test_file_that_cannot_be_read_is_blind_and_the_others_go_on(
    tmp_path: Path, log: Path, unreadable: dict[str, int], why: int
) -> None:
    """Silence would look like peace."""
    write(log, "one")
    write(tmp_path / "b.log", "b one")
    follower = Follower(tmp_path / "*.log")
    follower.read()
    follower.restart()
    unreadable[str(log)] = why
    write(log, "two")
    write(tmp_path / "b.log", "b two")
    follower.tick()
    batch = follower.once()

    assert follower.lines[-1] == "b two"
    assert batch.blind is not None
    assert str(log) in batch.blind
    assert os.strerror(why) in batch.blind
    assert batch.caught_up is None
    assert not batch.more
    unreadable.clear()
    assert follower.read() == ["two"]
    follower.tick()
    assert follower.once().blind is None
    follower.close()


def test_file_that_was_never_readable_is_read_from_the_first_look_on(log: Path, unreadable: dict[str, int]) -> None:
    """`start_at: end` means the end that was there when we looked, whether we could read or not."""
    write(log, "old")
    unreadable[str(log)] = errno.EACCES
    follower = Follower(log, start_at="end")
    follower.tick()
    assert follower.once().blind is not None
    write(log, "new")
    follower.tick()
    follower.once()
    follower.restart()
    unreadable.clear()

    assert follower.read() == ["new"]
    follower.close()


def test_folder_that_cannot_be_listed_is_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that matches nothing is no trouble; a folder that we may not look into is."""
    follower = Follower(tmp_path / "*.log")
    assert follower.once().blind is None
    listing = os.scandir

    def refusing(path: str) -> object:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refusing)
    follower.tick(10)
    blind = follower.once().blind
    monkeypatch.setattr(os, "scandir", listing)
    follower.tick(10)

    assert blind == f"{tmp_path}: Permission denied"
    assert follower.once().blind is None
    follower.close()


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Folders that may not be looked into: root may, so chmod shows nothing."""
    folders: set[str] = set()

    def guarded(name: str, *, within: bool) -> None:
        really = getattr(os, name)

        def call(path: Any, *rest: Any, **more: Any) -> Any:
            if (os.path.dirname(path) if within else str(path)) in folders:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return really(path, *rest, **more)

        monkeypatch.setattr(os, name, call)

    guarded("scandir", within=False)
    guarded("stat", within=True)
    guarded("lstat", within=True)
    return folders


@pytest.mark.parametrize("pattern", ["*.log", "app.log", "**"])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_what_lay_in_a_folder_that_was_shut_at_the_first_look_is_not_read_from_its_beginning(
    tmp_path: Path, shut: set[str], pattern: str, restarted: bool, written: bool
) -> None:
    """`start_at: end` with a folder of mode 0700: once it is opened, years of logs must not act."""
    log = tmp_path / "logs" / "app.log"
    write(log, "ancient")
    shut.add(str(log.parent))
    follower = Follower(log.parent / pattern, start_at="end")
    follower.tick()
    assert follower.once().blind is not None
    if restarted:
        follower.restart()
        follower.read()
    if written:
        write(log, "unseen")
    shut.clear()
    follower.tick(10)
    assert follower.read() == []
    write(log, "new")

    assert follower.read() == ["new"]
    assert "unseen" not in follower.positions["patterns"]
    follower.close()


def test_what_is_made_in_a_folder_after_the_first_look_is_read_whole_once_it_can_be_seen(
    tmp_path: Path, shut: set[str]
) -> None:
    """It is no old log; only what was there before is."""
    folder = tmp_path / "logs"
    write(folder / "old.log", "ancient")
    shut.add(str(folder))
    follower = Follower(folder / "*.log", start_at="end")
    follower.wall = datetime.now(UTC) - timedelta(hours=1)
    follower.restart()
    os.utime(folder / "old.log", (1000, 1000))
    follower.tick()
    follower.once()
    write(folder / "new.log", "one")
    shut.clear()
    follower.tick(10)

    assert follower.read() == ["one"]
    follower.close()


def test_rotated_file_that_cannot_be_read_does_not_hold_up_the_live_one(log: Path, unreadable: dict[str, int]) -> None:
    """logrotate may give what it rotates to root alone; then that is lost, and said to be."""
    write(log, "one")
    follower = Follower(log)
    follower.read()
    for name in ("app.log.2", "app.log.1"):
        log.rename(log.with_name(name))
        write(log, f"after {name}")
    unreadable[str(log.with_name("app.log.1"))] = errno.EACCES
    follower.read()

    assert follower.lines == ["one", "after app.log.1"]
    assert follower.counters.lost == 1
    assert "cannot be: Permission denied" in follower.notes[0]
    follower.close()


# -- sharing


def test_a_large_file_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    """One service in trouble must not hide the others."""
    write(tmp_path / "a.log", *["x" * 1000] * 20_000)
    for name in "bcdef":
        write(tmp_path / f"{name}.log", name)
    follower = Follower(tmp_path / "*.log")
    follower.tick()
    batch = follower.once(1 << 20)

    assert {block.stream[-5] for block in batch.blocks} == set("abcdef")
    assert batch.more
    assert batch.behind_bytes == (tmp_path / "a.log").stat().st_size - sum(len(b.text) for b in batch.blocks) + 10
    assert batch.caught_up is None
    follower.close()


def test_caught_up_is_the_moment_of_the_look(log: Path) -> None:
    """Silence may be counted until then, and not until the reading was over."""
    write(log, *["x" * 100] * 50_000)
    follower = Follower(log)
    follower.wall = looked = datetime(2026, 1, 1, tzinfo=UTC)
    follower.tick()
    batch = follower.once(1 << 20)
    while batch.more:
        assert batch.caught_up is None
        follower.wall += timedelta(seconds=1)
        batch = follower.once(1 << 20)

    assert batch.caught_up == looked
    assert batch.behind_bytes == 0
    follower.close()


def test_only_changed_positions_are_given(tmp_path: Path) -> None:
    """A thousand rows a batch would be a thousand writes."""
    for name in "abc":
        write(tmp_path / f"{name}.log", name)
    follower = Follower(tmp_path / "*.log")
    follower.read()
    write(tmp_path / "b.log", "more")
    follower.tick()

    assert list(follower.once().positions) == [str(tmp_path / "b.log")]
    assert len(follower.positions[str(tmp_path / "b.log")]) < 250
    follower.close()


def test_positions_stand_behind_their_batch_wherever_it_is_cut(log: Path) -> None:
    """A kill between two commits loses nothing and repeats nothing."""
    write(log, *[f"{number:05} {'x' * (number % 300)}" for number in range(3000)])
    follower = Follower(log, max_line=1024)
    for _ in range(100):
        follower.tick()
        follower.once(50_000)
        follower.once(50_000, commit=False)
        follower.restart()

    assert [int(line[:5]) for line in follower.lines] == list(range(3000))
    follower.close()


# -- entries of several lines


def entries(text: bytes) -> int:
    """An entry begins with a line that is not indented; the last one may go on."""
    at = len(text)
    while at > 0:
        at = text.rfind(b"\n", 0, at - 1) + 1
        if not text[at : at + 1].isspace():
            return at
    return 0


def test_entry_that_may_go_on_is_kept_back_for_a_second(log: Path) -> None:
    """A traceback is written line by line."""
    follower = Follower(log, complete=entries)
    write(log, "one", "Traceback", "  line 1")
    assert follower.read() == ["one"]
    follower.restart()
    follower.tick(-0.7)
    write(log, "  line 2")
    assert follower.read() == []
    write(log, "two")
    follower.tick(-0.5)
    assert follower.read() == ["Traceback", "  line 1", "  line 2"]
    assert follower.once().caught_up is not None
    follower.tick(1.1)
    assert follower.read() == ["two"]
    write(log, "  late")
    follower.read()
    follower.tick(2)
    follower.read()

    assert follower.lines == ["one", "Traceback", "  line 1", "  line 2", "two", "  late"]
    follower.close()


def test_entry_kept_back_is_given_out_when_its_file_was_rotated(log: Path) -> None:
    """The old file's last entry is complete soon enough."""
    follower = Follower(log, complete=entries)
    write(log, "one", "two")
    follower.read()
    log.rename(log.with_name("app.log.1"))
    write(log, "three", "four")
    follower.read()
    follower.tick(2)
    follower.read()

    assert sorted(follower.lines) == ["four", "one", "three", "two"]
    follower.close()


def test_entry_without_end_is_given_out_in_pieces(log: Path) -> None:
    """Memory has a bound, an entry has none."""
    write(log, "begin", *["  " + "x" * 1000] * 5000, "end")
    follower = Follower(log, complete=entries)
    lines = follower.read()
    follower.tick(2)
    lines += follower.read()

    assert len(lines) == 5002
    assert max(len(block.text) for block in follower.blocks) <= 1 << 20
    follower.close()


def test_entries_of_transcoded_text_keep_their_offsets(log: Path) -> None:
    """What is kept back is so in bytes of the file."""
    follower = Follower(log, complete=entries, encoding="latin-1")
    log.write_bytes("é one\n  ü\né two\n".encode("latin-1"))
    assert follower.read() == ["é one", "  ü"]
    follower.restart()
    follower.tick(2)
    follower.read()
    follower.tick(2)
    follower.read()

    assert [(line.text, line.offset) for line in follower.placed] == [("é one", 0), ("  ü", 6), ("é two", 10)]
    follower.close()


# -- the doorbell


async def test_bell_rings_when_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not again at once, however much is written."""
    monkeypatch.setattr("agentd.logs.follow.bell.POLL_S", 3600)
    loop = asyncio.get_running_loop()
    notes: list[str] = []
    bell = Bell(notes.append, inotify=True)
    bell.hang([str(tmp_path)], [])
    assert bell._fd >= 0
    write(tmp_path / "a.log", "one")
    await bell.wait(3600)
    first = loop.time()
    for number in range(1000):
        write(tmp_path / "a.log", str(number))
    await bell.wait(3600)

    assert loop.time() - first >= RING_S * 0.9
    assert not notes
    bell.close()
    bell.close()


async def test_bell_without_inotify_lets_go_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the files are looked at every second."""
    bell = Bell(lambda note: None, inotify=False)
    bell.hang([str(tmp_path)], [])
    await bell.wait(0.01)

    assert bell._fd == -1
    bell.close()


async def test_bell_that_has_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.inotify.max_user_watches is small on some machines."""
    notes: list[str] = []
    bell = Bell(notes.append, inotify=True)
    bell.hang([], [])
    monkeypatch.setattr(bell, "_errno", lambda: errno.ENOSPC)

    class Full:
        def inotify_add_watch(self, *rest: object) -> int:
            return -1

    bell._libc = Full()
    bell.hang([str(tmp_path)], [])

    assert "every second" in notes[0]
    bell.close()


async def test_source_waits_by_the_bell(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New folders are listened to, and a closed source rings no more."""
    monkeypatch.setattr("agentd.logs.follow.bell.POLL_S", 3600)
    monkeypatch.setattr("agentd.logs.follow.source._QUICK_SCAN_S", 3600)
    source = open_files(
        LogSource(files=(str(log.parent / "later" / "*.log"),)),
        positions={},
        complete=len,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
    )
    source.read(1 << 20)
    (log.parent / "later").mkdir()
    await source.wait(3600)
    source.read(1 << 20)
    write(log.parent / "later" / "a.log", "one")
    await source.wait(3600)

    assert [block.text for block in source.read(1 << 20).blocks] == [b"one\n"]
    await source.close()
    await source.close()
    await source.wait(0)


def test_stored_position_is_small_and_plain(log: Path) -> None:
    """It is written with every batch."""
    write(log, "one")
    follower = Follower(log)
    follower.read()

    position = json.loads(follower.positions[str(log)])
    assert position["current"]["offset"] == 4
    follower.close()
