"""
Which lines belong together: tracebacks, stack traces, panics and indented lines with the line they are about.

In: whole lines, bytes, each ending with a newline.  Out: where entries begin and end; the text itself is not copied.
Promise: what `bounds` says of one byte is what `entries` says of the whole text. The first line begins an entry, and an
entry is at most 500 lines and 64 KiB (or one line, if that alone is longer): what goes on after that is an entry anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from agentd.logs.trace import TraceWalk

MAX_LINES = 500
MAX_BYTES = 64 * 1024
_REMEMBERED_FROM = 16
"""Lines that had to be walked; for fewer, walking anew is cheaper than to hold on to the text."""


class Joiner(Protocol):
    plain: bool
    """An entry is a line: callers may take shortcuts."""

    def complete(self, text: bytes) -> int:
        """How many leading bytes are certainly whole entries: the start of the last one, if it may go on."""

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        """
        Begin and end of the entry that holds the byte `index` (0 to len(text) - 1).

        The end leaves out the last newline, with its carriage return and the empty lines before it.
        """

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Begin and end of every entry, in order."""


def make_joiner(multiline: str | None) -> Joiner:
    """
    The joiner of one source.

    multiline: None, an entry is a line; "auto"; else the RE2 pattern that matches somewhere in an entry's first line.
    Raises ConfigError for a pattern that RE2 cannot take.
    """
    if multiline is None:
        return Lines()
    if multiline == "auto":
        return Joined(TraceWalk)
    from agentd.logs.parse.named import compiled

    search = compiled(multiline).search
    return Joined(lambda: _PatternWalk(search))


class Lines:
    """An entry is a line."""

    plain = True

    def complete(self, text: bytes) -> int:
        return len(text)

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        end = text.find(b"\n", index)
        return text.rfind(b"\n", 0, index) + 1, _without_return(text, len(text) if end < 0 else end)

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        at = 0
        while at < len(text):
            end = text.find(b"\n", at)
            end = len(text) if end < 0 else end
            yield at, _without_return(text, end)
            at = end + 1


def _without_return(text: bytes, end: int) -> int:
    return end - 1 if text[end - 1 : end] == b"\r" else end


class Walk(Protocol):
    """Is told lines in order, from one that begins an entry on, and says which others do."""

    def begins(self, line: bytes) -> bool: ...

    def sure(self, line: bytes, before: bytes) -> bool:
        """Whether the line begins an entry, whatever stands above `before`, the line above it."""


class _PatternWalk:
    def __init__(self, search: Callable[[bytes], Any]) -> None:
        self._search = search

    def begins(self, line: bytes) -> bool:
        return self._search(line.removesuffix(b"\r")) is not None

    def sure(self, line: bytes, before: bytes) -> bool:
        return self.begins(line)


class _Run:
    """The begins of entries from a sure one on, as far as they were asked for."""

    __slots__ = ("_walker", "begins", "owner", "text")

    def __init__(self, owner: Joined, text: bytes, walker: Iterator[int]) -> None:
        self.owner = owner
        self.text = text
        self._walker = walker
        self.begins = [next(walker)]

    def around(self, index: int) -> tuple[int, int]:
        """The begin of the entry with this byte, and of the next one (or the text's length)."""
        while self.begins[-1] <= index:
            self.begins.append(next(self._walker, len(self.text)))
        at = bisect_right(self.begins, index)
        return self.begins[at - 1], self.begins[at]


class Joined:
    """Entries of several lines, as a walk says."""

    plain = False

    # One for all joiners, so that a thousand of them do not each hold on to a block: a hit in a long entry is
    # followed by others there, and walking back to its begin each time would be quadratic.
    _last_run: _Run | None = None

    def __init__(self, new_walk: Callable[[], Walk]) -> None:
        self._new_walk = new_walk
        self._sure = new_walk().sure

    def complete(self, text: bytes) -> int:
        if not text:
            return 0
        begin, _ = self._around(text, len(text) - 1)
        full = len(text) - begin >= MAX_BYTES or text.count(b"\n", begin) >= MAX_LINES
        return len(text) if full else begin

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        begin, after = self._around(text, index)
        return begin, _trimmed(text, begin, after)

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        if not text:
            return
        begin = 0
        begins = self._begins(text, 0)
        next(begins)
        for after in begins:
            yield begin, _trimmed(text, begin, after)
            begin = after
        yield begin, _trimmed(text, begin, len(text))

    def _around(self, text: bytes, index: int) -> tuple[int, int]:
        run = Joined._last_run
        if run is not None and (run.text is not text or run.owner is not self or index < run.begins[0]):
            run = None
        walked = run.begins[-1] if run is not None else 0
        if run is not None and index < walked:
            return run.around(index)
        at = text.rfind(b"\n", 0, index) + 1
        end = text.find(b"\n", at)
        line = text[at : end if end >= 0 else len(text)]
        lines = 0
        while at > walked:
            above = text.rfind(b"\n", 0, at - 1) + 1
            before = text[above : at - 1]
            if self._sure(line, before):
                run = None
                break
            at, line = above, before
            lines += 1
        else:
            if run is not None:
                return run.around(index)
        run = _Run(self, text, self._begins(text, at))
        if lines >= _REMEMBERED_FROM:
            Joined._last_run = run
        return run.around(index)

    def _begins(self, text: bytes, at: int) -> Iterator[int]:
        begins = self._new_walk().begins
        size = len(text)
        entry, lines = at, MAX_LINES  # so that the first line begins an entry in any case
        while at < size:
            newline = text.find(b"\n", at)
            after = newline + 1 if newline >= 0 else size
            if begins(text[at : newline if newline >= 0 else size]) or lines >= MAX_LINES or after - entry > MAX_BYTES:
                yield at
                entry, lines = at, 0
            lines += 1
            at = after


def _trimmed(text: bytes, begin: int, after: int) -> int:
    end = after
    while end > begin and text[end - 1] in b"\r\n":
        end -= 1
    return end
