"""
Look through one log file, newest lines first.

In: an open file, plain or gzip, and what is looked for. Out: hits, each with its neighbours and its time.
Promise: a plain file is read from its end and no further than needed, a gzip file from its beginning, of which the
last hits are kept; in blocks, in time linear in what is read, and no more than `Budget` has left.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from agentd.agent.port import ToolFailure
from agentd.agent.tools.read_file import unpacked
from agentd.agent.tools.working import Stop
from agentd.errors import ConfigError
from agentd.logs.parse.stamp import Stamps
from agentd.logs.patterns import Pattern, compile_pattern, literal, widened
from agentd.logs.scan import Search, found_lines

_BLOCK = 1024 * 1024
_AROUND = 32 * 1024
_STAMP_LINES = 50
_STAMP_BYTES = 500
_KEPT = 8192
"""Bytes of a line that are kept to be shown."""


@dataclass(slots=True)
class Budget:
    """
    What a search may still do. scanned: bytes so far. cut: it ended before everything was looked at.

    damage: why the last archive could not be read to its end.
    """

    stop: Stop
    most_bytes: int
    scanned: int = 0
    cut: bool = False
    damage: str = ""

    def take(self, size: int) -> bool:
        if self.scanned + size > self.most_bytes or self.stop.now:
            self.cut = True
            return False
        self.scanned += size
        return True


class Hit(NamedTuple):
    line: bytes
    at: datetime | None
    before: list[bytes]
    after: list[bytes]


@dataclass(slots=True)
class Wanted:
    """
    What is looked for. Make one by `wanted`; for one thread.

    since, until: of the time that a line says; a line that says none has that of the nearest line above it.
    """

    search: Search
    patterns: Sequence[Pattern]
    around: int
    since: datetime | None
    until: datetime | None
    now: datetime
    stamps: Stamps = field(default_factory=lambda: Stamps(None))

    def stands_in(self, text: bytes) -> Sequence[int]:
        return (0,) if all(pattern.finds(text) for pattern in self.patterns) else ()

    def time_of(self, line: bytes) -> datetime | None:
        return self.stamps.of_line(line[:_STAMP_BYTES].decode("utf-8", "replace"), self.now)


def wanted(
    pattern: str | None,
    words: str | None,
    *,
    ignore_case: bool,
    around: int,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> Wanted:
    """
    pattern: for RE2. words: all of them stand in the line, in whatever order and case. Neither: every line that is
    not blank. Raises ConfigError, `what; how to mend`.
    """
    texts = [f"(?i){pattern}" if ignore_case else pattern] if pattern else []
    texts += [f"(?i){literal(word)}" for word in (words or "").split()]
    texts = texts or [r"\S"]
    if len(texts) > 20:
        raise ConfigError("more than 20 words; leave out those that stand in every line")
    compiled = [compile_pattern(text) for text in texts]
    first = max(texts, key=len)
    return Wanted(Search([widened(first)], one_line=True), compiled, around, since, until, now)


class _Block(NamedTuple):
    """A piece of a log: what is searched is text[begin:end], whole lines; the rest is what stands around it."""

    text: bytes
    begin: int
    end: int


def newest(fd: int, asked: Wanted, most: int, budget: Budget) -> list[Hit]:
    """
    The newest `most` hits of a file, the newest first; of a damaged archive those before the damage.

    Raises OSError.
    """
    if os.pread(fd, 2, 0) == b"\x1f\x8b":
        return _newest_packed(fd, asked, most, budget)
    found: list[Hit] = []
    for block in _backwards(fd, budget):
        last = _above(block.text, block.end, asked)
        if asked.since is not None and last is not None and last < asked.since:
            break
        for hit in reversed(list(_hits(block, asked))):
            found.append(hit)
            if len(found) >= most:
                return found
    return found


def _newest_packed(fd: int, asked: Wanted, most: int, budget: Budget) -> list[Hit]:
    kept: deque[Hit] = deque(maxlen=most)
    for block in _forwards(fd, budget):
        kept.extend(_hits(block, asked))
    return list(reversed(kept))


def _backwards(fd: int, budget: Budget) -> Iterator[_Block]:
    end = os.fstat(fd).st_size
    while end > 0:
        begin = max(0, end - _BLOCK)
        if not budget.take(end - begin):
            return
        from_, to = max(0, begin - _AROUND), end + _AROUND
        text = os.pread(fd, to - from_, from_)
        start, stop = begin - from_, min(end - from_, len(text))
        if begin:
            # Back to the begin of a line; one that is longer than a block is cut.
            newline = text.find(b"\n", start, stop)
            if 0 <= newline < stop - 1:
                start = newline + 1
        yield _Block(text, start, stop)
        end = from_ + start if start < stop else begin


def _forwards(fd: int, budget: Budget) -> Iterator[_Block]:
    before, block = b"", bytearray()
    for piece in _whole(fd, budget):
        if not budget.take(len(piece)):
            break
        block += piece
        if len(block) >= _BLOCK + _AROUND:
            end = block.rfind(b"\n", 0, len(block) - _AROUND) + 1 or len(block)
            text = before + bytes(block)
            yield _Block(text, len(before), len(before) + end)
            before = bytes(block[max(0, end - _AROUND) : end])
            del block[:end]
    if block:
        yield _Block(before + bytes(block), len(before), len(before) + len(block))


def _whole(fd: int, budget: Budget) -> Iterator[bytes]:
    try:
        yield from unpacked(fd)
    except ToolFailure as error:
        budget.damage = str(error)


def _hits(block: _Block, asked: Wanted) -> Iterator[Hit]:
    text = block.text
    part = text[block.begin : block.end]
    for begin, end, line, _ in found_lines(part, asked.search, asked.stands_in):
        begin, end = block.begin + begin, block.begin + end
        at = asked.time_of(line)
        known = at
        if known is None and (asked.since is not None or asked.until is not None):
            known = _above(text, begin, asked)
        if known is not None and (
            (asked.since is not None and known < asked.since) or (asked.until is not None and known > asked.until)
        ):
            continue
        yield Hit(line[:_KEPT], at, _lines_above(text, begin, asked.around), _lines_below(text, end, asked.around))


def _above(text: bytes, end: int, asked: Wanted) -> datetime | None:
    """The time of the nearest line above this place that says one."""
    for line in _lines_above(text, end, _STAMP_LINES)[::-1]:
        at = asked.time_of(line)
        if at is not None:
            return at
    return None


def _lines_above(text: bytes, end: int, count: int) -> list[bytes]:
    lines: list[bytes] = []
    while end > 0 and len(lines) < count:
        begin = text.rfind(b"\n", 0, end - 1) + 1
        whole = end - 1 if text[end - 1 : end] == b"\n" else end
        lines.append(text[begin : min(whole, begin + _KEPT)])
        end = begin
    return lines[::-1]


def _lines_below(text: bytes, end: int, count: int) -> list[bytes]:
    lines: list[bytes] = []
    begin = end + 1
    while begin < len(text) and len(lines) < count:
        end = text.find(b"\n", begin)
        end = len(text) if end < 0 else end
        lines.append(text[begin : min(end, begin + _KEPT)])
        begin = end + 1
    return lines
