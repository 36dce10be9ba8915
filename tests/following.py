"""
A follower for tests: reads a source, commits what it gives, and can be killed at any moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from agentd.logs.follow import open_files
from agentd.logs.port import Batch, Block, Counters, Source
from agentd.logs.settings import LogSource


def lines_of(block: Block) -> list[str]:
    assert block.text.endswith(b"\n")
    return block.text.decode().split("\n")[:-1]


@dataclass(frozen=True)
class Line:
    stream: str
    file: str
    offset: int
    text: str


def placed(block: Block) -> list[Line]:
    """The lines of a block, each with its offset in the file."""
    at = block.offset
    found = []
    for index, text in enumerate(lines_of(block)):
        offset = at if block.offsets is None else block.offsets[index]
        found.append(Line(block.stream, block.file, offset, text))
        at += len(text.encode()) + 1
    return found


class Follower:
    """
    Follows `files`; time stands still until `tick`.

    lines: every line that was committed. positions: what a restart begins with.
    """

    def __init__(
        self,
        *files: object,
        complete: Callable[[bytes], int] = len,
        start_at: str = "start",
        **settings: object,
    ) -> None:
        self.settings = LogSource.model_validate(
            {"files": tuple(str(file) for file in files), "start_at": start_at, **settings}
        )
        self.complete = complete
        self.time = 1000.0
        self.wall: datetime | None = None
        self.positions: dict[str, str] = {}
        self.lines: list[str] = []
        self.placed: list[Line] = []
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self.lost_before = 0
        self._lost = 0
        self.source: Source = self._open()

    def _open(self) -> Source:
        return open_files(
            self.settings,
            positions=self.positions,
            complete=self.complete,
            now=lambda: self.wall or datetime.now(UTC),
            monotonic=lambda: self.time,
            inotify=False,
        )

    @property
    def counters(self) -> Counters:
        return self.source.counters

    @property
    def lost(self) -> int:
        """As counted by what was committed, over all restarts."""
        return self.lost_before + self._lost

    def restart(self) -> None:
        """Killed, and started again with what was committed last."""
        self.lost_before += self._lost
        self._lost = 0
        asyncio.run(self.source.close())
        self.source = self._open()

    def tick(self, seconds: float = 1.0) -> None:
        self.time += seconds

    def once(self, most_bytes: int = 1 << 20, *, commit: bool = True) -> Batch:
        """One read, without waiting for the next look."""
        batch = self.source.read(most_bytes)
        if commit:
            self.commit(batch)
        return batch

    def commit(self, batch: Batch) -> None:
        for stream, position in batch.positions.items():
            if position is None:
                self.positions.pop(stream, None)
            else:
                self.positions[stream] = position
        self.notes += batch.notes
        self._lost = self.counters.lost
        for block in batch.blocks:
            self.blocks.append(block)
            self.lines += lines_of(block)
            self.placed += placed(block)

    def read(self, most_bytes: int = 1 << 20) -> list[str]:
        """Look, and read until nothing is left; the lines that came of it."""
        had = len(self.lines)
        self.tick()
        for _ in range(10_000):
            if not self.once(most_bytes).more:
                break
            self.tick(0.001)
        else:
            raise AssertionError("it never comes to an end")
        return self.lines[had:]

    def close(self) -> None:
        asyncio.run(self.source.close())
