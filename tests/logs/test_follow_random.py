"""
A writer that rotates at random, a reader that is killed at random: every line once, in order.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
from pathlib import Path

import pytest
from following import Follower


class Writer:
    """
    Writes numbered lines to one log and rotates it in every way, as logrotate with `rotate 30` would.

    Names shift as logrotate shifts them; the newest may stay plain (delaycompress).
    """

    def __init__(self, log: Path, dice: random.Random, *, dated: bool, keep: int = 30) -> None:
        self.log = log
        self.dice = dice
        self.dated = dated
        self.keep = keep
        self.number = 0
        self.rotations = 0
        self.unsure = 0
        self.partial = ""
        self.unread = False

    def append(self) -> None:
        with self.log.open("a") as file:
            if self.partial:
                file.write(self.partial[10:] + "\n")
                self.partial = ""
            for _ in range(self.dice.choice([1, 3, 40])):
                self.number += 1
                file.write(f"{self.number:08} {'x' * self.dice.randint(0, 80)}\n")
            if self.dice.random() < 0.2:
                self.number += 1
                self.partial = f"{self.number:08} unfinished"
                file.write(self.partial[:10])

    def finish_line(self) -> None:
        if self.partial:
            with self.log.open("a") as file:
                file.write(self.partial[10:] + "\n")
            self.partial = ""

    def _free_name(self) -> Path:
        self.rotations += 1
        if self.dated:
            return self.log.with_name(f"{self.log.name}-20260101-{1767225600 + self.rotations}")
        names = {path.name for path in self.log.parent.iterdir()}
        for number in range(self.keep, 0, -1):
            for ending in ("", ".gz"):
                name = f"{self.log.name}.{number}{ending}"
                if name in names:
                    self.log.with_name(name).rename(self.log.with_name(f"{self.log.name}.{number + 1}{ending}"))
        return self.log.with_name(f"{self.log.name}.1")

    def rename(self) -> None:
        if not self.log.exists():
            return
        self.finish_line()
        self.log.rename(self._free_name())
        if self.dice.random() < 0.7:
            self.log.touch()

    def copytruncate(self) -> None:
        if not self.log.exists():
            return
        self.finish_line()
        copy = self._free_name()
        shutil.copyfile(self.log, copy)
        os.truncate(self.log, 0)
        self.unsure += 1

    def pack(self) -> None:
        """Of what was rotated, one; the newest only sometimes."""
        rotated = [path for path in self.log.parent.iterdir() if path != self.log and path.suffix != ".gz"]
        if not rotated:
            return
        path = self.dice.choice(rotated)
        packed = path.with_name(path.name + ".gz")
        with path.open("rb") as plain, gzip.open(packed, "wb") as out:
            shutil.copyfileobj(plain, out)
        shutil.copystat(path, packed)
        path.unlink()

    def delete(self) -> None:
        """Only what the reader has seen to its end may be deleted without loss."""
        if not self.log.exists() or self.partial or self.unread:
            return
        self.log.unlink()
        self.unsure += 1
        if self.dice.random() < 0.5:
            self.log.touch()

    def prune(self) -> None:
        for path in self.log.parent.iterdir():
            if path.name.startswith(f"{self.log.name}.3") and path.name[-2:].isdigit():
                path.unlink()


def story(tmp_path: Path, seed: int, *, steps: int = 60) -> None:
    dice = random.Random(seed)
    log = tmp_path / "app.log"
    writer = Writer(log, dice, dated=dice.random() < 0.4)
    pattern = dice.choice([log, f"{log}*", tmp_path / "*"])
    follower = Follower(pattern, start_at=dice.choice(["start", "end"]))
    if pattern != log:
        log.touch()  # else what is rotated before it was ever seen is a stream for each of its files
    follower.read()
    deleting = False
    for _ in range(steps):
        act = dice.choice(
            ["append", "append", "append", "rename", "copytruncate", "pack", "delete", "read", "read", "some", "kill"]
        )
        match act:
            case "append":
                writer.append()
                writer.unread = True
            case "rename":
                writer.rename()
            case "copytruncate":
                writer.copytruncate()
            case "pack":
                writer.pack()
            case "delete" if not deleting:
                writer.delete()
                deleting = True
            case "read":
                follower.read(dice.choice([1 << 20, 1 << 16]))
                writer.unread = deleting = False
            case "some":
                follower.tick()
                follower.once(1 << 16, commit=True)
            case "kill" if not deleting:
                follower.tick()
                follower.once(1 << 16, commit=False)
                follower.restart()
    writer.finish_line()
    follower.read()
    follower.read()

    lines = [int(line[:8]) for line in follower.lines]
    assert lines == list(range(1, writer.number + 1)), f"seed {seed}"
    assert follower.lost <= writer.unsure, f"seed {seed}: {follower.notes}"
    follower.close()


@pytest.mark.parametrize("block", range(10))
def test_every_line_once_in_order(tmp_path: Path, block: int) -> None:
    """The promise of following, whatever happens in whatever order."""
    for seed in range(block * 12, block * 12 + 12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        story(folder, seed)
