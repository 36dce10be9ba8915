"""
Logs that a process writes at full speed while they are rotated, and the truth of what was written where.

In: the ways of rotating. Out: for each line the names of its file and its offset there; the lines that a copy and a cut
lost between them. It is done as logrotate does it: rename, tell the writer to open the name anew, then pack; or copy,
then cut.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import gzip
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from around import News
from log_writer import COUNT_EVERY, LINE_BYTES, MARK_EVERY


@dataclass
class Generation:
    """One file from its first byte: the number of its first line, and the names it has had, the present one last."""

    first: int
    names: list[str]


@dataclass
class Log:
    """
    One log that is rotated.

    generations: in the order in which lines went there; lost: numbers that stand in no file any more; last: the last
    line, when the writer rests; resting: it does; opened: how often the writer has opened it; rotations: how often that
    was done.
    """

    name: str
    folder: Path
    generations: list[Generation] = field(default_factory=list)
    lost: list[range] = field(default_factory=list)
    last: int = 0
    resting: bool = True
    opened: int = 0
    rotations: int = 0

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.log"

    def names(self) -> list[str]:
        """Of the file that is written to: its name, and where that leads to if it is a link."""
        return [str(self.path), *([os.path.realpath(self.path)] if self.path.is_symlink() else [])]

    def old(self, number: object) -> Path:
        return self.folder / f"{self.name}.log.{number}"

    def place(self, number: int) -> tuple[list[str], int]:
        """The names of the file that a line was written to, and its offset there."""
        index = bisect.bisect_right(self.generations, number, key=lambda each: each.first) - 1
        generation = self.generations[index]
        return generation.names, (number - generation.first) * LINE_BYTES

    def is_lost(self, number: int) -> bool:
        return any(number in lost for lost in self.lost)

    def marked(self) -> range:
        return range(MARK_EVERY, self.last + 1, MARK_EVERY)

    def counted(self) -> range:
        return range(COUNT_EVERY, self.last + 1, COUNT_EVERY)

    def named(self, path: Path) -> Generation:
        """The file that goes by that name now."""
        return next(each for each in reversed(self.generations) if each.names[-1] == str(path))

    def rename(self, source: Path, target: Path) -> None:
        self.named(source).names.append(str(target))
        source.rename(target)

    def pack(self, path: Path) -> None:
        """As gzip does it: the packed file is there before the plain one goes, and has its times."""
        packed, part = Path(f"{path}.gz"), self.folder / f".{path.name}.part"
        generation = self.named(path)
        generation.names.append(str(packed))
        with path.open("rb") as plain, gzip.open(part, "wb", compresslevel=1) as out:
            shutil.copyfileobj(plain, out)
        shutil.copystat(path, part)
        part.rename(packed)
        path.unlink()

    def push_up(self) -> None:
        """x.log.1 becomes x.log.2 and so on, packed ones too."""
        held = [each for each in self.generations if each.names[-1].startswith(f"{self.path}.")]
        for generation in held:  # the oldest, which has the highest number, first
            source = Path(generation.names[-1])
            number, _, packed = source.name.removeprefix(f"{self.path.name}.").partition(".")
            self.rename(source, self.old(f"{int(number) + 1}{'.' if packed else ''}{packed}"))


class Writer:
    """The writing process, and the logs it writes."""

    def __init__(self, folder: Path, names: Sequence[str], news: News) -> None:
        self.logs = {name: Log(name, folder) for name in names}
        self._folder = folder
        self._news = news

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Writer]:
        argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(Path(__file__).with_name("log_writer.py"))]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, str(self._folder), *self.logs, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        reading = asyncio.create_task(self._read(process.stdout))
        try:
            for log in self.logs.values():
                await self._news.until(lambda: log.opened, f"{log.name} is opened")  # noqa: B023
            yield self
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await reading

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            word, name, number = line.decode().split()
            log = self.logs[name]
            if word == "opened":
                log.opened += 1
                log.generations.append(Generation(int(number), log.names()))
            else:
                log.last, log.resting = int(number), True
            self._news.tell()

    def go(self, log: Log) -> None:
        log.resting = False
        self._tell(f"go {log.name}")

    async def pause(self, log: Log) -> None:
        """The writer rests, with a marked line as its last."""
        if not log.resting:
            self._tell(f"pause {log.name}")
            await self._news.until(lambda: log.resting, f"the writer of {log.name} rests")

    async def reopen(self, log: Log) -> None:
        opened = log.opened
        self._tell(f"open {log.name}")
        await self._news.until(lambda: log.opened > opened, f"{log.name} is opened anew")

    def _tell(self, command: str) -> None:
        self._stdin.write(f"{command}\n".encode())


Rotation = Callable[[Writer, Log], Awaitable[None]]


async def by_rename(writer: Writer, log: Log) -> None:
    log.push_up()
    log.rename(log.path, log.old(1))
    await writer.reopen(log)


async def and_compress(writer: Writer, log: Log) -> None:
    await by_rename(writer, log)
    await asyncio.to_thread(log.pack, log.old(1))


async def delay_compress(writer: Writer, log: Log) -> None:
    if log.old(1).exists():
        await asyncio.to_thread(log.pack, log.old(1))
    await by_rename(writer, log)


async def twice(writer: Writer, log: Log) -> None:
    """What is between the two is short, perhaps nothing."""
    await by_rename(writer, log)
    await by_rename(writer, log)


async def with_date(writer: Writer, log: Log) -> None:
    log.rename(log.path, log.folder / f"{log.path.name}-20260105-{1767600000 + log.rotations}")
    await writer.reopen(log)


async def copy_and_cut_at_rest(writer: Writer, log: Log) -> None:
    """With nobody writing meanwhile, nothing can be lost."""
    await writer.pause(log)
    log.push_up()
    shutil.copy2(log.path, log.old(1))
    log.named(log.path).names.append(str(log.old(1)))
    log.generations.append(Generation(log.last + 1, [str(log.path)]))
    os.truncate(log.path, 0)
    writer.go(log)


async def copy_and_cut(writer: Writer, log: Log) -> None:
    """What is written between the end of the copy and the cut stands nowhere: those lines are noted."""
    log.push_up()
    before = log.named(log.path)
    await asyncio.to_thread(shutil.copy2, log.path, log.old(1))
    os.truncate(log.path, 0)
    copied = log.old(1).stat().st_size
    before.names.append(str(log.old(1)))
    with log.path.open("rb") as file:
        while not (beginning := file.read(LINE_BYTES)):  # the writer writes at full speed
            await asyncio.sleep(0.001)
    first = int(beginning.split()[1])
    log.generations.append(Generation(first, [str(log.path)]))
    log.lost.append(range(before.first + copied // LINE_BYTES, first))


def link(log: Log, target: Path) -> None:
    """Make the log's name a link to a new file, in one go."""
    target.touch()
    new = log.folder / f".{log.name}.link"
    new.symlink_to(target)
    new.rename(log.path)


async def turn_link(writer: Writer, log: Log) -> None:
    """The name is a link, which is turned to a file that carries the date, as cronolog does it."""
    target = log.folder / f"{log.name}-20260105-{1767600000 + log.rotations}.log"
    link(log, target)
    await writer.reopen(log)


Acted = Callable[[Log], Awaitable[bool]]
"""Whether the daemon is known to have acted on the last line of a log; it is given some seconds."""


def turn_link_when_read(acted: Acted) -> Rotation:
    """The link is turned to a file whose name says nothing; so no more than one such file may be unread."""

    async def rotate(writer: Writer, log: Log) -> None:
        link(log, log.folder / f"{log.rotations:x} of {log.name}")
        await writer.reopen(log)
        await _rest_when_read(writer, log, acted)
        writer.go(log)

    return rotate


def delete_when_read(acted: Acted) -> Rotation:
    """Deleted and made anew, with nothing unread in it."""

    async def rotate(writer: Writer, log: Log) -> None:
        await _rest_when_read(writer, log, acted)
        log.path.unlink()
        await writer.reopen(log)
        writer.go(log)

    return rotate


async def _rest_when_read(writer: Writer, log: Log, acted: Acted) -> None:
    await writer.pause(log)
    while not await acted(log):
        # It may have been killed when it had acted, and before it said so; of a later line it will.
        writer.go(log)
        await writer.pause(log)
