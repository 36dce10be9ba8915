"""
A log that is copied and cut back: at whatever moment of it somebody looks, each line acts once.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Follower

from agentd.logs.follow.kin import Kin
from agentd.logs.follow.part import Part


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


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:06} what happened then" for number in range(first, last + 1)]


def numbers(log: Path) -> list[int]:
    beside = [path.name.removeprefix(f"{log.name}.") for path in log.parent.iterdir() if path != log]
    return sorted({int(name.partition(".")[0]) for name in beside}, reverse=True)


class Rotation:
    """
    `copytruncate` as logrotate does it, in steps between which others may look.

    compress: the copy is packed when the file is cut; delay: only when the next one is made.
    """

    def __init__(self, log: Path, *, compress: bool = False, delay: bool = False) -> None:
        self.log = log
        self.compress = compress
        self.delay = delay

    def named(self, number: int, ending: str = "") -> Path:
        return self.log.with_name(f"{self.log.name}.{number}{ending}")

    def pack(self, path: Path) -> Iterator[str]:
        text = path.read_bytes()
        packed = path.with_name(path.name + ".gz")
        squeezed = gzip.compress(text)
        packed.write_bytes(squeezed[: len(squeezed) // 2])
        yield "packing"
        packed.write_bytes(squeezed)
        shutil.copystat(path, packed)
        yield "packed"
        path.unlink()
        yield "unlinked"

    def steps(self) -> Iterator[str]:
        if self.delay and self.named(1).exists():
            yield from self.pack(self.named(1))
        for number in numbers(self.log):
            for ending in ("", ".gz"):
                if self.named(number, ending).exists():
                    self.named(number, ending).rename(self.named(number + 1, ending))
                    yield "pushed up"
        with self.log.open("rb") as source, self.named(1).open("wb", buffering=0) as copy:
            yield "made"
            copy.write(source.read(self.log.stat().st_size // 2))
            yield "half"
            copy.write(source.read())
        yield "copied"
        os.truncate(self.log, 0)
        yield "cut"
        if self.compress and not self.delay:
            yield from self.pack(self.named(1))


def rotate(log: Path) -> None:
    for _ in Rotation(log).steps():
        pass


def test_a_copy_that_is_not_cut_yet_is_read_once(follower: Follower, log: Path) -> None:
    """We come up between the copy and the cut of the second rotation since: both files begin with the same lines."""
    write(log, *numbered(1, 20))
    follower.read()
    rotate(log)
    write(log, *numbered(21, 50))
    steps = Rotation(log).steps()
    while next(steps) != "copied":
        pass
    follower.restart()

    first = follower.read()
    list(steps)
    write(log, *numbered(51, 53))

    assert (first, follower.read()) == (numbered(21, 50), numbered(51, 53))


def test_a_copy_that_is_made_while_it_is_read_is_read_once(follower: Follower, log: Path) -> None:
    """The copy grows behind our back, and the file it is made from is there all the while."""
    write(log, *numbered(1, 20))
    follower.read()
    rotate(log)
    write(log, *numbered(21, 50))
    follower.restart()
    for step in Rotation(log).steps():
        follower.read()
        if step == "copied":
            follower.restart()
    write(log, *numbered(51, 53))
    follower.read()

    assert follower.lines == numbered(1, 53)


def test_what_is_read_between_copy_and_cut_is_not_read_from_the_copy(follower: Follower, log: Path) -> None:
    """The copy ends before our place, in the first KiB, where one checksum says nothing about a shorter text."""
    write(log, *numbered(1, 5))
    follower.read()
    shutil.copyfile(log, log.with_name("app.log.1"))
    write(log, *numbered(6, 7))
    follower.read()
    os.truncate(log, 0)
    follower.read()
    write(log, *numbered(8, 9))
    follower.read()

    assert follower.lines == numbered(1, 9)
    assert follower.counters.lost == 1  # there was a writer in between: who knows what else it wrote


@pytest.mark.parametrize("compress", [False, True])
def test_a_cut_that_nobody_saw_is_said_all_the_same(follower: Follower, log: Path, compress: bool) -> None:
    """Who was away at each cut would never hear that lines may be in neither file."""
    write(log, *numbered(1, 20))
    follower.read()
    write(log, *numbered(21, 25))
    list(Rotation(log, compress=compress).steps())
    write(log, *numbered(26, 30))
    follower.restart()

    assert follower.read() == numbered(21, 30)
    assert [note for note in follower.notes if "written between the copy and the cut" in note]
    assert (follower.counters.cut_back, follower.counters.lost) == (1, 0)


def test_a_cut_that_nobody_saw_under_a_writer_is_counted(follower: Follower, log: Path) -> None:
    """The copy ends before what was read: a line that is in neither file was there, and others may have been."""
    write(log, *numbered(1, 300))
    follower.read()
    shutil.copyfile(log, log.with_name("app.log.1"))
    write(log, *numbered(301, 302))
    follower.read()
    os.truncate(log, 0)
    write(log, *numbered(303, 304))
    follower.restart()

    assert follower.read() == numbered(303, 304)
    assert follower.counters.lost == 1
    assert any("written between the copy and the cut" in note for note in follower.notes)


def test_a_packed_file_whose_inode_the_new_one_was_given_was_not_cut(
    follower: Follower, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renamed and packed, and nothing is lost; its inode's number came free and was given out again."""
    write(log, *numbered(1, 20))
    follower.read()
    write(log, *numbered(21, 25))
    list(Rotation(log, compress=True).steps())
    monkeypatch.setattr("agentd.logs.follow.lineage.born_ns", lambda path: os.stat(path).st_mtime_ns + 1)
    follower.restart()

    assert follower.read() == numbered(21, 25)
    assert not follower.notes


def test_the_same_lines_again_after_a_cut_are_new(follower: Follower, log: Path) -> None:
    """A job that always says the same: sizes and times tell its new file from the copy."""
    write(log, "first")
    follower.read()
    write(log, "second")
    rotate(log)
    write(log, "begin", "end")
    rotate(log)
    write(log, "begin", "end")
    later_ns = log.stat().st_mtime_ns + 10**9
    os.utime(log, ns=(later_ns, later_ns))
    follower.restart()

    assert follower.read() == ["second", "begin", "end", "begin", "end"]


def test_a_new_file_that_begins_like_the_copy_does_is_not_waited_for(follower: Follower, log: Path) -> None:
    """Every file of some programs has the same first line."""
    write(log, "first")
    follower.read()
    write(log, "second")
    rotate(log)
    write(log, "begin", "end")
    rotate(log)
    write(log, "begin")
    follower.restart()

    assert follower.read() == ["second", "begin", "end", "begin"]


def test_a_file_that_is_cut_while_it_is_opened_is_read_once(
    follower: Follower, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning is known by then, and is that of the copy which was just read."""
    log.touch()
    follower.read()
    write(log, *numbered(1, 4))
    steps = Rotation(log).steps()
    while next(steps) != "copied":
        pass
    take_over = Kin.take_over

    def cutting(kin: Kin, copy: Part, live: Part) -> bool | None:
        list(steps)
        return take_over(kin, copy, live)

    monkeypatch.setattr(Kin, "take_over", cutting)
    for _ in range(3):
        follower.read()

    assert follower.lines == numbered(1, 4)


def story(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    log = tmp_path / "app.log"
    log.touch()
    follower = Follower(dice.choice([log, f"{log}*"]))
    follower.read()
    rotation = Rotation(log, compress=dice.random() < 0.6, delay=dice.random() < 0.5)
    busy = dice.choice([0.02, 0.1, 0.4])
    chatty = dice.random() < 0.3
    written = 0
    between: set[str] = set()

    def look() -> None:
        # Killed, only the times would tell a copy that ends before our place, and here all is done in one tick.
        if not chatty and dice.random() < busy / 4:
            follower.tick()
            follower.once(1 << 16, commit=dice.random() < 0.5)
            follower.restart()
        if dice.random() < busy:
            follower.read()

    for _ in range(30):
        for _ in range(dice.choice([0, 1, 1, 2, 4, 60])):
            written += 1
            write(log, *numbered(written, written))
        look()
        for step in rotation.steps():
            look()
            if chatty and dice.random() < 0.2:
                written += 1
                write(log, *numbered(written, written))
                if step == "copied":
                    between |= set(numbered(written, written))
                look()
        look()
    follower.read()
    follower.read()

    missing = set(numbered(1, written)) - set(follower.lines)
    assert missing <= between, f"seed {seed}"
    assert follower.lines == [line for line in numbered(1, written) if line not in missing], f"seed {seed}"
    assert chatty or not follower.lost, f"seed {seed}: {follower.notes}"
    follower.close()


@pytest.mark.parametrize("block", range(10))
def test_every_line_once_wherever_a_rotation_is_caught(tmp_path: Path, block: int) -> None:
    """Nothing comes twice, and only what a chatty writer wrote between a copy and its cut may be missing."""
    for seed in range(block * 12, block * 12 + 12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        story(folder, seed)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
@pytest.mark.parametrize("options", [(), ("compress",), ("compress", "delaycompress")], ids=" ".join)
def test_every_line_once_with_the_real_logrotate(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Its steps and its times are what counts, and not our idea of them."""
    dice = random.Random(3)
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o755)
    log, rules = folder / "app.log", tmp_path / "rules"
    rules.write_text("\n".join([f"{log} {{", "rotate 200", "copytruncate", *options, "}"]) + "\n")
    rules.chmod(0o644)
    log.touch()
    follower = Follower(log)
    follower.read()
    written = 0

    for _ in range(int(os.environ.get("AGENTD_TEST_ROTATIONS", "25"))):
        for _ in range(dice.randint(1, 4)):
            written += 1
            write(log, *numbered(written, written))
        if dice.random() < 0.3:
            follower.read()
        with subprocess.Popen(["logrotate", "-f", "-s", tmp_path / "state", rules]) as rotating:
            while rotating.poll() is None:
                if dice.random() < 0.1:
                    follower.read()
        assert not rotating.returncode
    follower.read()
    follower.read()

    assert follower.lines == numbered(1, written)
    assert follower.lost == 0, follower.notes
    follower.close()
