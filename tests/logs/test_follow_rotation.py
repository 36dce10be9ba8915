"""
Whatever rotates a log, each of its lines is read once, in order.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Follower


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    follower = Follower(log)
    yield follower
    follower.close()


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def pack(path: Path) -> None:
    """As gzip does it: the packed file has the mtime of the plain one, which is gone."""
    packed = path.with_name(path.name + ".gz")
    with path.open("rb") as plain, gzip.open(packed, "wb") as out:
        shutil.copyfileobj(plain, out)
    shutil.copystat(path, packed)
    path.unlink()


def cut_back(log: Path, copy: Path) -> None:
    shutil.copyfile(log, copy)
    os.truncate(log, 0)


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:06} what happened then" for number in range(first, last + 1)]


def test_lines_come_as_they_are_written(follower: Follower, log: Path) -> None:
    """The plain case."""
    write(log, "one", "two")
    first = follower.read()
    write(log, "three")

    assert (first, follower.read()) == (["one", "two"], ["three"])


def test_an_unfinished_line_waits_over_reads_and_restarts(follower: Follower, log: Path) -> None:
    """Half a line matches half a rule."""
    log.write_text("one\ntw")
    assert follower.read() == ["one"]
    follower.restart()
    assert follower.read() == []
    with log.open("a") as file:
        file.write("o\n")

    assert follower.read() == ["two"]


def test_renamed_file_is_read_to_its_end_before_the_new_one(follower: Follower, log: Path) -> None:
    """What was written just before the rotation was not read yet."""
    write(log, "one")
    follower.read()
    write(log, "two")
    log.rename(log.with_name("app.log.1"))
    write(log, "three")

    assert follower.read() == ["two", "three"]
    assert follower.counters.rotated == 1


def test_late_lines_in_a_renamed_file_are_read(follower: Follower, log: Path) -> None:
    """A writer keeps its descriptor until it is told to open the log anew."""
    write(log, "one")
    follower.read()
    late = log.open("a")
    log.rename(log.with_name("app.log.1"))
    write(log, "new")
    follower.read()
    late.write("late\nunfinished")
    late.close()

    assert follower.read() == ["late"]
    follower.tick(301)
    assert follower.read() == ["unfinished"]


def test_late_lines_are_read_over_a_restart(follower: Follower, log: Path) -> None:
    """The place in the old file is stored beside that in the new one."""
    write(log, "one")
    follower.read()
    log.rename(log.with_name("app.log.1"))
    write(log, "new")
    follower.read()
    follower.restart()
    write(log.with_name("app.log.1"), "late")

    assert follower.read() == ["late"]


@pytest.mark.parametrize(
    "names",
    [
        ["app.log.3", "app.log.2", "app.log.1"],
        ["app.log-20260101", "app.log-20260102", "app.log-20260103"],
        ["app.log-20260101-1767225600", "app.log-20260101-1767229200", "app.log-20260101-1767232800"],
        ["app.log-2026010101", "app.log-2026010102", "app.log-2026010103"],
        ["app.log.2026-01-01", "app.log.2026-01-02", "app.log.2026-01-03"],
        ["app.3.log", "app.2.log", "app.1.log"],
        ["app-20260101.log", "app-20260102.log", "app-20260103.log"],
    ],
)
@pytest.mark.parametrize("packed", [0, 1, 2, 3])
@pytest.mark.parametrize("down", [True, False])
def test_rotated_three_times_between_two_looks(
    follower: Follower, log: Path, names: list[str], packed: int, down: bool
) -> None:
    """We were down, or slow: the stored file is found among the siblings and every newer one follows in order."""
    write(log, *numbered(1, 50))
    follower.read()
    write(log, *numbered(51, 60))
    for index, _ in enumerate(names):
        log.rename(log.with_name(f"rotating{index}"))
        write(log, *numbered(61 + 10 * index, 70 + 10 * index))
    for index, name in enumerate(names):
        log.with_name(f"rotating{index}").rename(log.with_name(name))
    for name in names[:packed]:
        pack(log.with_name(name))
    if down:
        follower.restart()

    assert follower.read() == numbered(51, 90)
    assert follower.counters.lost == 0
    follower.restart()
    assert follower.read() == []


def test_copytruncate_reads_the_rest_from_the_copy(follower: Follower, log: Path) -> None:
    """What was written between our last read and the copy is in the copy alone."""
    write(log, *numbered(1, 5))
    follower.read()
    write(log, *numbered(6, 9))
    cut_back(log, log.with_name("app.log.1"))
    write(log, *numbered(10, 12))

    assert follower.read() == numbered(6, 12)
    assert follower.counters.cut_back == 1
    assert follower.counters.lost == 0
    assert "app.log.1" in follower.notes[0]


def test_copytruncate_twice_and_packed_while_we_were_down(follower: Follower, log: Path) -> None:
    """The copies are read like renamed files."""
    write(log, *numbered(1, 50))
    follower.read()
    write(log, *numbered(51, 60))
    cut_back(log, log.with_name("app.log.2"))
    pack(log.with_name("app.log.2"))
    write(log, *numbered(61, 70))
    cut_back(log, log.with_name("app.log.1"))
    write(log, *numbered(71, 80))
    follower.restart()

    assert follower.read() == numbered(51, 80)
    follower.restart()
    assert follower.read() == []


def test_cut_and_filled_beyond_our_place_is_noticed(follower: Follower, log: Path) -> None:
    """The size alone does not tell: the bytes just before our place do."""
    write(log, *numbered(1, 5))
    follower.read()
    os.truncate(log, 0)
    write(log, *numbered(10, 30))

    assert follower.read() == numbered(10, 30)
    assert follower.counters.cut_back == 1
    assert follower.counters.lost == 1


def test_place_beyond_the_end_begins_anew(follower: Follower, log: Path) -> None:
    """A log that was emptied by hand."""
    write(log, *numbered(1, 5))
    follower.read()
    follower.restart()
    log.write_text("new\n")

    assert follower.read() == ["new"]


def test_empty_file_filled_and_cut_between_two_looks(follower: Follower, log: Path) -> None:
    """Nothing was read from it, so only the time of the copy tells that it is new."""
    log.touch()
    follower.read()
    write(log, "one")
    cut_back(log, log.with_name("app.log.1"))

    assert follower.read() == ["one"]


def test_hole_that_a_writer_leaves_after_a_cut_is_skipped(follower: Follower, log: Path) -> None:
    """A writer without O_APPEND goes on at its old place: all before it reads as NULs."""
    with log.open("w") as writer:
        writer.write("one\n" * 5000)
        writer.flush()
        follower.read()
        os.truncate(log, 0)
        writer.write("two\nth\0ree\n")
        writer.flush()

        assert follower.read() == ["two", "th\0ree"]
        follower.restart()
        writer.write("four\n")
        writer.flush()
        assert follower.read() == ["four"]
    assert follower.placed[-3].offset == 20_000


def test_large_hole_costs_no_time(follower: Follower, log: Path) -> None:
    """The old place may be many gigabytes on."""
    with log.open("wb") as writer:
        writer.seek(1 << 40)
        writer.write(b"far\n")

    assert follower.read() == ["far"]


def test_deleted_and_made_anew(follower: Follower, log: Path) -> None:
    """The number of an inode is soon used again."""
    write(log, *numbered(1, 5))
    follower.read()
    log.unlink()
    write(log, *numbered(10, 30))

    assert follower.read() == numbered(10, 30)
    assert follower.counters.lost == 0


def test_deleted_and_made_anew_while_we_were_down_is_owned(follower: Follower, log: Path) -> None:
    """What nobody can know is said."""
    write(log, *numbered(1, 5))
    follower.read()
    follower.restart()
    log.unlink()
    write(log, *numbered(10, 30))

    assert follower.read() == numbered(10, 30)
    assert follower.counters.lost == 1
    assert follower.notes


def test_renamed_and_deleted_while_we_hold_it(follower: Follower, log: Path) -> None:
    """The descriptor outlives the name."""
    write(log, "one")
    follower.read()
    write(log, "two")
    log.unlink()

    assert follower.read() == ["two"]
    write(log, "three")
    assert follower.read() == ["three"]
    assert follower.counters.lost == 0


def test_deleted_file_is_let_go_of(follower: Follower, log: Path) -> None:
    """A deleted log must not fill the disk because we hold it."""
    log.write_text("one\nunfinished")
    follower.read()
    opened = len(os.listdir("/proc/self/fd"))
    log.unlink()
    follower.read()
    follower.tick(61)

    assert follower.read() == ["unfinished"]
    follower.read()
    assert len(os.listdir("/proc/self/fd")) == opened - 1
    write(log, "new")
    assert follower.read() == ["new"]
    assert follower.counters.lost == 0


def test_moved_away_and_back(follower: Follower, log: Path) -> None:
    """A file that returns is the same file."""
    write(log, "one")
    follower.read()
    log.rename(log.with_name("elsewhere"))
    follower.read()
    follower.tick(400)
    follower.read()
    follower.restart()
    follower.read()
    log.with_name("elsewhere").rename(log)
    write(log, "two")

    assert follower.read() == ["two"]
    assert follower.counters.lost == 0


def test_glob_that_names_rotated_siblings_reads_nothing_twice(tmp_path: Path, log: Path) -> None:
    """`app.log*` is what people write."""
    follower = Follower(f"{log}*")
    write(log, *numbered(1, 5))
    follower.read()
    log.rename(log.with_name("app.log.1"))
    follower.read()
    write(log, *numbered(6, 9))
    follower.read()
    shutil.copy2(log, log.with_name("app.log.bak"))
    follower.read()
    log.with_name("app.log.1").rename(log.with_name("app.log.2"))
    pack(log.with_name("app.log.2"))
    cut_back(log, log.with_name("app.log.1"))
    write(log, *numbered(10, 12))
    follower.restart()
    follower.read()
    pack(log.with_name("app.log.1"))
    follower.read()
    follower.restart()
    follower.read()

    assert follower.lines == numbered(1, 12)
    follower.close()


def test_start_at_the_start_reads_named_siblings_first(log: Path) -> None:
    """In the order in which they were written."""
    write(log.with_name("app.log.2"), *numbered(1, 5))
    pack(log.with_name("app.log.2"))
    write(log.with_name("app.log.1"), *numbered(6, 9))
    write(log, *numbered(10, 12))
    os.utime(log.with_name("app.log.2.gz"), (1000, 1000))
    os.utime(log.with_name("app.log.1"), (2000, 2000))

    wide, narrow = Follower(f"{log}*"), Follower(log)

    assert wide.read() == numbered(1, 12)
    assert narrow.read() == numbered(10, 12)
    wide.close()
    narrow.close()


def test_dated_live_files_that_are_packed_later_act_once(tmp_path: Path) -> None:
    """Each day has its own file, and cron packs yesterday's."""
    follower = Follower(tmp_path / "app-*")
    first, second = tmp_path / "app-2026-01-01.log", tmp_path / "app-2026-01-02.log"
    write(first, *numbered(1, 5))
    follower.read()
    write(second, *numbered(6, 9))
    follower.read()
    write(first, "late")
    pack(first)
    follower.read()
    follower.restart()
    follower.read()
    follower.tick(400)
    follower.read()

    assert follower.lines == [*numbered(1, 9), "late"]
    follower.close()


def test_file_renamed_to_another_name_of_the_patterns(tmp_path: Path) -> None:
    """Its place goes with it."""
    follower = Follower(tmp_path / "*.log")
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    write(old, "one")
    follower.read()
    old.rename(new)
    write(new, "two")
    write(old, "three")
    follower.read()
    old.rename(tmp_path / "last.log")
    write(tmp_path / "last.log", "four")
    follower.restart()
    follower.read()

    assert sorted(follower.lines) == ["four", "one", "three", "two"]
    follower.close()


def test_link_that_is_turned_to_another_file(tmp_path: Path) -> None:
    """The old target is read to its end, also when we were down."""
    link = tmp_path / "current.log"
    write(tmp_path / "a", "one")
    link.symlink_to(tmp_path / "a")
    follower = Follower(link)
    follower.read()
    write(tmp_path / "a", "two")
    write(tmp_path / "b", "three")
    link.unlink()
    link.symlink_to(tmp_path / "b")
    assert follower.read() == ["two", "three"]
    write(tmp_path / "b", "four")
    write(tmp_path / "c", "five")
    link.unlink()
    link.symlink_to(tmp_path / "c")
    follower.restart()

    assert follower.read() == ["four", "five"]
    assert follower.counters.lost == 0
    follower.close()


def test_other_workers_file_is_no_rotated_sibling(tmp_path: Path) -> None:
    """worker.1.log may be a log of its own: unless our file went by such a name, it is left alone."""
    follower = Follower(tmp_path / "worker.log")
    write(tmp_path / "worker.log", "one")
    follower.read()
    write(tmp_path / "worker.1.log", "foreign")
    follower.restart()
    (tmp_path / "worker.log").unlink()
    write(tmp_path / "worker.log", "two")

    assert follower.read() == ["two"]
    follower.close()


def test_other_live_file_under_such_a_name_is_read_once(tmp_path: Path) -> None:
    """What a stream of its own follows is nobody's rotated sibling."""
    log, foreign = tmp_path / "worker.log", tmp_path / "worker.1.log"
    write(log, "one")
    write(foreign, "foreign")
    follower = Follower(tmp_path / "*.log")
    follower.read()
    log.rename(tmp_path / "worker.2.log")
    write(log, "two")
    follower.read()

    assert sorted(follower.lines) == ["foreign", "one", "two"]
    follower.close()


def test_file_that_is_just_being_packed_is_read_once(follower: Follower, log: Path) -> None:
    """While gzip works, both stand there, and the packed one is not whole."""
    write(log, "one")
    follower.read()
    log.rename(log.with_name("app.log.2"))
    write(log, *numbered(1, 5000))
    log.rename(log.with_name("app.log.1"))
    packed = gzip.compress(log.with_name("app.log.1").read_bytes())
    log.with_name("app.log.1.gz").write_bytes(packed[: len(packed) // 2])
    write(log, "three")

    assert follower.read() == [*numbered(1, 5000), "three"]


def test_cut_file_that_begins_as_before_is_noticed_by_its_size(follower: Follower, log: Path) -> None:
    """Programs write the same first line each time, and the bytes before our place may be just that."""
    log.write_text("# begin\nunfinished and rather lo")
    follower.read()
    with log.open("a") as file:
        file.write("ng\nmore\n")
    cut_back(log, log.with_name("app.log.1"))
    write(log, "# begin", "new")

    assert follower.read() == ["unfinished and rather long", "more", "# begin", "new"]


def test_file_cut_while_its_first_entry_was_kept_back(log: Path) -> None:
    """Nothing was consumed, so there is no place whose bytes would tell: the head does."""
    follower = Follower(log, complete=lambda text: 0)
    write(log, "one")
    follower.read()
    cut_back(log, log.with_name("app.log.1"))
    write(log, "two", "three", "four")
    follower.tick(-0.5)
    for _ in range(4):
        follower.read()
        follower.tick(2)

    assert follower.lines == ["one", "two", "three", "four"]
    assert follower.counters.cut_back == 1
    follower.close()
