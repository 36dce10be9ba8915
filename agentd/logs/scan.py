"""
Where in a block something is, for many patterns at once and at the speed of memory.

In: widened patterns and a block's text. Out: the entries in which one of them may stand, first to last.
Promise: no entry in which a pattern stands is passed over; some others may be named. The time is linear in the text,
however many finds there are and however far a pattern would like to look.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from agentd.logs.patterns import compile_search, unanchored
from agentd.logs.port import Block

_SEARCH_MEMORY = 32 << 20
"""Bytes for the program and automaton of one search; they are taken as the texts need them."""
_FIRST_WINDOW = 4096
_LARGEST_WINDOW = 1 << 20
_DENSE = 8
"""So many entries in a row that were named: from there on naming the next one costs more than looking at it."""

Bounds = tuple[int, int]
"""Begin of an entry in the block, and its end: without the last newline, and the carriage return before it or not."""


class Joiner(Protocol):
    """Which lines make one entry."""

    @property
    def plain(self) -> bool:
        """Every line is an entry."""
        ...

    def bounds(self, text: bytes, index: int) -> Bounds:
        """The entry that holds this byte."""
        ...

    def entries(self, text: bytes) -> Iterator[Bounds]:
        """All entries of a block."""
        ...


class Search:
    """Several patterns as one; two or more when one would be too large."""

    def __init__(self, widened: Sequence[str], *, one_line: bool) -> None:
        self._matches: list[Callable[..., Any]] = list(_compiled(widened, one_line))
        self._unanchored = unanchored()

    def of(self, text: bytes) -> Callable[[int, int], int]:
        """
        The search in one text: asked with (from, to), both begins of an entry and never going back, it gives where
        the first find begins, or -1.
        """
        where = self._unanchored
        if len(self._matches) == 1:
            match = self._matches[0]
            return lambda begin, end: match(where, text, begin, end)[0][0]
        return _together([_Alone(match, where, text) for match in self._matches])


def _compiled(widened: Sequence[str], one_line: bool) -> Iterator[Callable[..., Any]]:
    if not widened:
        return
    match = compile_search("|".join(widened), one_line=one_line, memory=_SEARCH_MEMORY)
    if match is not None:
        yield match
        return
    assert len(widened) > 1, "each pattern fits alone: it was compiled with less memory"
    half = len(widened) // 2
    yield from _compiled(widened[:half], one_line)
    yield from _compiled(widened[half:], one_line)


class _Alone:
    """One search of several: remembers what it found, for the others may be nearer."""

    def __init__(self, match: Callable[..., Any], where: Any, text: bytes) -> None:
        self._match, self._where, self._text = match, where, text
        self._at = -1
        self._seen = 0

    def __call__(self, begin: int, end: int) -> int:
        if self._at < begin:
            if self._seen >= end:
                return -1
            at = self._match(self._where, self._text, max(begin, self._seen), end)[0][0]
            self._at, self._seen = at, end if at < 0 else at
        return self._at if self._at < end else -1


def _together(searches: Sequence[_Alone]) -> Callable[[int, int], int]:
    def find(begin: int, end: int) -> int:
        nearest = -1
        for search in searches:
            at = search(begin, end if nearest < 0 else nearest)
            if at >= 0:
                nearest = at
        return nearest

    return find


Which = Callable[[bytes], Sequence[int]]
"""Which patterns stand in an entry, by number."""

Found = tuple[int, int, bytes, Sequence[int]]
"""Bounds of an entry, its text, and which patterns stand in it: at least one."""


def found_lines(text: bytes, search: Search, which: Which) -> Iterator[Found]:
    """The entries of a text in which every line is one; the search keeps to one line."""
    end_of_text = len(text)
    # The same length, so that what is found there is here.
    find = search.of(text.replace(b"\r\n", b"\n\n") if b"\r" in text else text)
    at = row = 0
    while at < end_of_text:
        begin = at
        if row < _DENSE:
            index = find(at, end_of_text)
            if index < 0 or index >= end_of_text:
                return
            begin = text.rfind(b"\n", 0, index) + 1
        end = text.find(b"\n", begin)
        if end < 0:
            end = end_of_text
        entry = line_text(text, begin, end)
        numbers = which(entry)
        if numbers:
            row = row + 1 if begin == at else 0
            yield begin, end, entry, numbers
        else:
            row = 0
        at = end + 1


def found_entries(text: bytes, search: Search, which: Which, bounds: Callable[[int], Bounds]) -> Iterator[Found]:
    """
    The entries of a text in which they may have several lines.

    bounds: of the entry that holds a byte.
    """
    end_of_text = len(text)
    shown = _Shown(text)
    find = search.of(shown.text)
    at, window = 0, _FIRST_WINDOW
    # A find may make the search look far ahead (`a[^x]*b`), so it may look no further than a while without one.
    while at < end_of_text:
        stop = end_of_text if at + window >= end_of_text else _after(text, bounds(at + window)[1])
        index = find(shown.there(at), shown.there(stop))
        if index < 0 or (here := shown.here(index)) >= stop:
            at, window = stop, min(window * 2, _LARGEST_WINDOW)
            continue
        begin, end = bounds(here)
        entry = entry_text(text, begin, end)
        if numbers := which(entry):
            yield begin, end, entry, numbers
        at, window = _after(text, end), _FIRST_WINDOW


def _after(text: bytes, end: int) -> int:
    """Where the next entry begins."""
    return text.find(b"\n", end) + 1 or len(text)


class _Shown:
    """A text as its entries show it, without the carriage returns, and the way there and back."""

    def __init__(self, text: bytes) -> None:
        self._returns = [each.start() for each in re.finditer(b"\r\n", text)] if b"\r" in text else []
        self._newlines = [index - number for number, index in enumerate(self._returns)]
        self.text = text.replace(b"\r\n", b"\n") if self._returns else text

    def there(self, index: int) -> int:
        return index - bisect_left(self._returns, index) if self._returns else index

    def here(self, index: int) -> int:
        return index + bisect_right(self._newlines, index) if self._newlines else index


def line_text(text: bytes, begin: int, end: int) -> bytes:
    # One carriage return belongs to the newline; it is cut already where the bounds leave it out.
    returns = end > begin and text[end - 1] == 13 and text[end : end + 1] == b"\n"
    return text[begin : end - 1] if returns else text[begin:end]


def entry_text(text: bytes, begin: int, end: int) -> bytes:
    entry = line_text(text, begin, end)
    return entry.replace(b"\r\n", b"\n") if b"\r" in entry else entry


def bounds_of(block: Block, joiner: Joiner) -> Callable[[int], Bounds]:
    """Bounds of the entry that holds a byte."""
    text, starts = block.text, block.starts
    if starts is None:
        return lambda index: joiner.bounds(text, index)

    def bounds(index: int) -> Bounds:
        return _given(text, starts, max(0, bisect_right(starts, index) - 1))

    return bounds


def all_bounds(block: Block, joiner: Joiner) -> Iterator[Bounds]:
    """Every entry of a block."""
    text = block.text
    if block.starts is not None:
        for number in range(len(block.starts)):
            yield _given(text, block.starts, number)
    elif not joiner.plain:
        yield from joiner.entries(text)
    else:
        at, size = 0, len(text)
        while at < size:
            end = text.find(b"\n", at)
            if end < 0:
                end = size
            yield at, end
            at = end + 1


def _given(text: bytes, starts: Sequence[int], number: int) -> Bounds:
    end = starts[number + 1] if number + 1 < len(starts) else len(text)
    return starts[number], end - 1 if end > starts[number] and text[end - 1] == 10 else end
