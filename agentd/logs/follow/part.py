"""
One file that is being read: what it is, how far we are, and the next blocks of it.

In: bytes of the file.  Out: blocks of whole lines, and a mark that says what was given out up to where.
A mark is the file's identity (device, inode, checksum of its first KiB or of what there was of it) and a place
(offset, checksum of up to 64 bytes just before it): it tells our place again in a renamed, copied or packed file.
Promise: the mark always stands behind the blocks given out, and before everything else.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from agentd.logs.follow.content import CHUNK, Damaged, Plain, open_content
from agentd.logs.follow.text import Encoding, cut_lines, find_encoding
from agentd.logs.port import Block, Counters

HEAD = 1024
MARKER = 64
MOST_OPEN = 256
# Larger buffers are given back to the system after each use, and cost three times as much to fill.
_PIECE = 512 * 1024
_UNPACKING_COST = 256 * 1024


class Moved(Exception):
    """What lies in the file is not what we have read so far."""


def checksum(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def shown(path: str) -> str:
    """The path as valid text, whatever bytes its name is of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class Means:
    """What every part of one source reads with."""

    encoding: str
    longest: int
    complete: Callable[[bytes], int]
    now: Callable[[], datetime]
    counters: Counters = field(default_factory=Counters)
    notes: list[str] = field(default_factory=list)
    opened: OrderedDict[Part, None] = field(default_factory=OrderedDict)

    def note(self, text: str) -> None:
        if len(self.notes) < 100 and text not in self.notes:
            self.notes.append(text)


class Part:
    """
    One file, from where we are in it.

    path: where it was found last. size, mtime_ns: as last seen. live: it lies where the pattern names it.
    final: nobody writes to it any more (a copy, a packed file): what is left at its end is taken as it is.
    done: read to its end and let go of. dirty: there may be something to read. force: what is held back is taken as
    it is. held: whole lines are held back, as their entry may go on. settled: the place was found since the start.
    real: where the name led to, when it is a link. grown_at: monotonic moment when it was last seen to change.
    aside: it never went by the live file's name while we looked, so it may be a copy of it that is just being made.
    beginning: while it is open, its first bytes, up to `HEAD`: what `head` is the checksum of, to tell a shorter copy.
    """

    __slots__ = (
        "_content", "_encoding", "_nuls", "_read_ns", "_room", "aside", "beginning", "dev", "dirty", "done", "final",
        "force", "grown_at", "head", "head_bytes", "held", "ino", "live", "marker", "mtime_ns", "offset", "path",
        "real", "settled", "size", "skipping",
    )  # fmt: skip

    def __init__(self, path: str, dev: int, ino: int) -> None:
        self.path = path
        self.dev = dev
        self.ino = ino
        self.offset = 0
        self.head = ""
        self.head_bytes = 0
        self.marker: str | None = ""
        self.size = 0
        self.mtime_ns = 0
        self.skipping = False
        self.live = False
        self.final = False
        self.done = False
        self.settled = True
        self.dirty = True
        self.force = False
        self.held = False
        self.grown_at = 0.0
        self.real: str | None = None
        self.aside = False
        self.beginning = b""
        self._read_ns = 0
        self._content: Plain | None = None
        self._encoding: Encoding | None = None
        self._nuls = 0
        self._room = 0

    # -- the mark

    def mark(self) -> dict[str, Any]:
        """What is stored: fit for JSON, and enough for `restored`."""
        mark: dict[str, Any] = {
            "dev": self.dev,
            "ino": self.ino,
            "head": self.head,
            "head_bytes": self.head_bytes,
            "offset": self.offset,
            "marker": self.marker,
            # What was copied from it before the last write that we have read is no news.
            "mtime_ns": max(self.mtime_ns, self._read_ns),
        }
        if self.real is not None:
            mark["real"] = self.real
        mark.update({name: True for name in ("skipping", "final", "done", "aside") if getattr(self, name)})
        return mark

    @staticmethod
    def restored(path: str, mark: dict[str, Any]) -> Part:
        """Raises KeyError, TypeError or ValueError for what `mark` never gave."""
        part = Part(path, int(mark["dev"]), int(mark["ino"]))
        part.head = str(mark["head"])
        part.head_bytes = int(mark["head_bytes"])
        part.offset = int(mark["offset"])
        part.marker = None if mark["marker"] is None else str(mark["marker"])
        part.mtime_ns = int(mark["mtime_ns"])
        part.skipping = mark.get("skipping") is True
        part.final = mark.get("final") is True
        part.done = mark.get("done") is True
        part.aside = mark.get("aside") is True
        real = mark.get("real")
        part.real = None if real is None else str(real)
        part.settled = False
        return part

    @property
    def identity(self) -> tuple[int, int]:
        return self.dev, self.ino

    @property
    def packed(self) -> bool:
        return self._content is not None and self._content.packed

    @property
    def is_open(self) -> bool:
        return self._content is not None

    def behind(self) -> int:
        """Bytes known to be unread, of the file as it lies there."""
        return max(0, self.size - self.fed()) if self.dirty else 0

    def fed(self) -> int:
        """Bytes read of the file as it lies there."""
        if self._content is not None and self._content.packed:
            return self._content.fed
        return max(self.offset, self._nuls)

    # -- opening

    def open(self, means: Means) -> Plain:
        """The file, opened when it is not yet. Raises OSError; Moved when another file lies there now."""
        if self._content is not None:
            means.opened.move_to_end(self)
            return self._content
        _make_room(means)
        content = open_content(self.path)
        try:
            seen = content.stat()
            if (seen.st_dev, seen.st_ino) != self.identity:
                raise Moved
            self._begin(content, means)
        except BaseException:
            content.close()
            raise
        self._content = content
        means.opened[self] = None
        if os.path.islink(self.path):
            self.real = os.path.realpath(self.path)
        return content

    def _begin(self, content: Plain, means: Means) -> None:
        beginning = content.pread(HEAD, 0) or b""
        if not self.head_bytes and self.marker == "":
            self.head_bytes = len(beginning)
            self.head = checksum(beginning)
        if self.head_bytes and checksum(beginning[: self.head_bytes]) == self.head:
            self.beginning = beginning[: self.head_bytes]
        if self._encoding is None:
            self._encoding = find_encoding(means.encoding, beginning)

    def close(self, means: Means) -> None:
        """Let the descriptor go; the place is kept."""
        if self._content is not None:
            self._content.close()
            self._content = None
            self.beginning = b""
            means.opened.pop(self, None)

    def stat(self) -> os.stat_result | None:
        """Of the opened file, whatever its name is by now. Raises OSError."""
        return None if self._content is None else self._content.stat()

    def stand_at_end(self, means: Means) -> None:
        """Take the file as read so far; a line that is just being written is still to come, whole. Raises OSError."""
        content = self.open(means)
        if content.packed:
            self.done = self.final = True
            return
        size = content.stat().st_size
        if self._encoding is not None:
            size -= size % self._encoding.unit
            window = min(size, means.longest - means.longest % self._encoding.unit)
            end = self._encoding.rfind(content.pread(window, size - window) or b"", 0, window)
            size = size if end < 0 else size - window + end
        before = min(MARKER, size)
        self.offset = size
        self.marker = checksum(content.pread(before, size - before) or b"") if size else ""

    def ends_whole(self, means: Means) -> bool:
        """Whether the file ends with a newline, as far as that is quickly told. Never raises for what a disk can do."""
        try:
            content = self.open(means)
            if content.packed or self._encoding is None:
                return True
            newline, size = self._encoding.newline, content.stat().st_size
            return not size or content.pread(len(newline), max(0, size - len(newline))) == newline
        except (OSError, Moved, Damaged):
            return True

    def holds(self, content: Plain) -> bool:
        """
        Whether `content` is the file of our mark, our place included.

        Of a packed file only the head is looked at; the way to the place may be long. Raises OSError, Damaged.
        """
        if self.head_bytes and checksum(content.pread(self.head_bytes, 0) or b"") != self.head:
            return False
        if content.packed or not self.offset or self.marker is None:
            return True
        before = min(MARKER, self.offset)
        return checksum(content.pread(before, self.offset - before) or b"") == self.marker

    def place_in(self, content: Plain, beginning: bytes) -> int | None:
        """
        Our place in what may be a copy of this file: our offset, or its end if it ends before that. None: it is none.

        beginning: its first bytes, more than `HEAD` if there are. Raises OSError, Damaged.
        """
        if len(beginning) >= self.head_bytes:
            if checksum(beginning[: self.head_bytes]) != self.head:
                return None
        elif not beginning or not self.beginning.startswith(beginning):
            return None
        if content.packed:
            return min(self.offset, len(beginning)) if len(beginning) <= HEAD else self.offset
        size = content.stat().st_size
        if size < self.offset:
            return size
        before = min(MARKER, self.offset)
        if not before or self.marker is None:
            return self.offset
        return self.offset if checksum(content.pread(before, self.offset - before) or b"") == self.marker else None

    # -- reading

    def take(self, means: Means, stream: str, most: int, *, to_end: bool) -> tuple[list[Block], int]:
        """
        The next blocks, and what they cost in bytes read; at the end `dirty` is false.

        to_end: at the end, a line without newline and an entry that may go on are taken as they are.
        Raises Moved, Damaged, OSError.
        """
        content = self.open(means)
        before = min(MARKER, self.offset)
        start = self.offset - before if self.offset else self._nuls
        room = max(min(most, _PIECE), means.longest + 8, self._room)
        data = content.pread(before + room, start)
        if data is None:
            return [], _UNPACKING_COST
        full = len(data) == before + room
        if content.packed:
            to_end = content.ended
            self.final = self.done = to_end and not full
        if not self._in_place(data, before, content):
            raise Moved
        if self._encoding is None:
            self._encoding = find_encoding(means.encoding, data[:4].ljust(4, b"?") if to_end else data[:4])
            if self._encoding is None:
                self.dirty = full
                return [], len(data)
        if len(data) < before:
            self.dirty = False
            return [], 0
        at = before
        if not self.offset:
            at = self._skip_beginning(data, content)
            if at == len(data) and full:
                return [], len(data)
        place = self.offset
        blocks = self._blocks(means, stream, data, at, start, full=full, to_end=to_end)
        if content.damage is not None and self.offset == place:
            raise content.damage
        self.dirty = full or content.damage is not None
        return blocks, len(data) - before

    def _in_place(self, data: bytes, before: int, content: Plain) -> bool:
        if self.offset:
            if len(data) < before:
                return content.packed and not data  # a copy that ends before the place we had come to
            return self.marker is None or checksum(data[:before]) == self.marker
        if self._nuls or not self.head_bytes:
            return True
        return checksum(data[: self.head_bytes]) == self.head

    def _skip_beginning(self, data: bytes, content: Plain) -> int:
        """Past the hole that a writer leaves who writes on at its old place after the file was cut, and past a BOM."""
        assert self._encoding is not None
        nuls = self._encoding.leading_nuls(data)
        if nuls and nuls == len(data):
            self._nuls = max(
                self._nuls + nuls, min(content.data_from(self._nuls + nuls), self._nuls + nuls + (1 << 40))
            )
            self._nuls -= self._nuls % self._encoding.unit
        if not nuls and not self._nuls and self._encoding.bom and data.startswith(self._encoding.bom):
            return len(self._encoding.bom)
        return nuls

    def _blocks(
        self, means: Means, stream: str, data: bytes, at: int, start: int, *, full: bool, to_end: bool
    ) -> list[Block]:
        encoding = self._encoding
        assert encoding is not None
        cut = cut_lines(data, at, means.longest, encoding, skipping=self.skipping)
        read_at = means.now()
        written_by = self._written_by()
        hold = not (self.force or (to_end and not full))
        blocks: list[Block] = []
        end = cut.end
        self.held = False
        for first, last, shortened in cut.pieces:
            raw = data[first:last]
            if shortened:
                raw = encoding.trim(raw) + encoding.newline
                means.counters.truncated += 1
            text = encoding.decode(raw)
            kept, raw_kept = len(text.text), last - first
            starts, offsets = text.starts, text.offsets
            if hold and not shortened and last == cut.end:
                kept = means.complete(text.text)
                if kept < len(text.text):
                    kept, raw_kept, starts, offsets = _shorten(text.starts, text.offsets, kept)
                    if not kept and full and first == at and self._room < CHUNK:
                        self._room = max(CHUNK // 2, self._room * 2)
                    elif not kept and full and first == at:
                        kept, raw_kept, starts, offsets = len(text.text), last - first, text.starts, text.offsets
                    self.held = kept < len(text.text)
                    end = first + raw_kept
            if not kept:
                continue
            blocks.append(
                Block(
                    stream=stream,
                    file=shown(self.path),
                    text=text.text[:kept],
                    offset=start + first,
                    read_at=read_at,
                    written_by=written_by,
                    starts=starts,
                    offsets=None if offsets is None else [start + first + offset for offset in offsets],
                )
            )
            if text.bad:
                means.counters.undecodable += encoding.decode(raw[:raw_kept]).bad if raw_kept < len(raw) else text.bad
            means.counters.lines += blocks[-1].text.count(b"\n")
        skipping = cut.skipping
        if to_end and not full:
            skipping = False
            if end == cut.end < cut.stop:
                blocks.append(self._tail(means, stream, data[end : cut.stop], start + end, read_at, written_by))
                end = cut.stop
        if blocks:
            self._room = 0
        self._advance(data, at, end, start, skipping)
        means.counters.bytes += max(0, end - at)
        return blocks

    def _tail(
        self, means: Means, stream: str, raw: bytes, offset: int, read_at: datetime, written_by: datetime | None
    ) -> Block:
        assert self._encoding is not None
        text = self._encoding.decode(raw + self._encoding.newline)
        means.counters.undecodable += text.bad
        means.counters.lines += 1
        offsets = None if text.offsets is None else [offset]
        return Block(stream, shown(self.path), text.text, offset, read_at, written_by, text.starts, offsets)

    def _advance(self, data: bytes, at: int, end: int, start: int, skipping: bool) -> None:
        if end == at and skipping == self.skipping:
            return
        self.skipping = skipping
        self.offset = start + end
        content = self._content
        assert content is not None
        before = min(MARKER, self.offset)
        if end >= before:
            self.marker = checksum(data[end - before : end])
        else:
            self.marker = checksum(content.pread(before, self.offset - before) or b"")
        if self.head_bytes < HEAD and not content.packed:
            beginning = data[:HEAD] if start == 0 else content.pread(HEAD, 0) or b""
            # It may have been cut and filled anew since the bytes were read.
            if len(beginning) > self.head_bytes and (
                not self.head_bytes or checksum(beginning[: self.head_bytes]) == self.head
            ):
                self.head_bytes = len(beginning)
                self.head = checksum(beginning)
                self.beginning = beginning

    def _written_by(self) -> datetime | None:
        # Asked after reading: lines may have come since the file was last looked at.
        assert self._content is not None
        try:
            seen = self._content.stat()
            self._read_ns = seen.st_mtime_ns
            return datetime.fromtimestamp(seen.st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            return None


def _shorten(
    starts: list[int] | Any, offsets: list[int] | Any, kept: int
) -> tuple[int, int, list[int] | None, list[int] | None]:
    """Up to the line that begins at `kept` of the text: kept, the raw bytes of that, starts, offsets."""
    if starts is None:
        return kept, kept, None, None
    lines = bisect.bisect_right(starts, kept) - 1
    return starts[lines], offsets[lines], starts[:lines], offsets[:lines]


def _make_room(means: Means) -> None:
    """Close what was least recently read, rather what lies where it can be found again."""
    if len(means.opened) < MOST_OPEN:
        return
    idle = [part for part in means.opened if not part.dirty]
    for part in [part for part in idle if part.live] or idle or list(means.opened):
        part.close(means)
        return
