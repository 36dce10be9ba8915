"""
Long text made short: repeated lines counted, lines alike told once, head and tail of what is still too long.

In: text of any size and a number of bytes. Out: text that fits, which says how much it leaves out.
Promise: pure functions; what fits comes through whole but for lines that stand there several times in a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DIGITS = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|[0-9]+")
_SHORTEST_LIKE = 12
_ROOM_FOR_NOTE = 64
_SEEK_LINE_END = 200
COUNT_MARK = re.compile(r" \[(?:[0-9]+ times|and [0-9]+ more like it)\]")
"""What is added to lines here, and so stands in no evidence."""


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """
    How much of `total` each one gets, in the order given.

    Who needs less than an equal share gets all it needs; the others share what is left evenly.
    """
    given = [0] * len(sizes)
    left, waiting = max(0, total), len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        given[index] = min(sizes[index], left // waiting)
        left -= given[index]
        waiting -= 1
    return given


def shortened(text: str, limit_bytes: int) -> str:
    """`text` in at most `limit_bytes` of UTF-8, as much of what it says as there is room for."""
    text = counted(text)
    if size_of(text) > limit_bytes:
        text = alike(text)
    return head_and_tail(text, limit_bytes)


def counted(text: str) -> str:
    """Lines that stand several times in a row stand once, with their number; of empty ones one is left."""
    if "\n" not in text:
        return text
    kept: list[str] = []
    before: str | None = None
    times = 1
    for line in [*text.split("\n"), None]:
        if line is not None and line == before:
            times += 1
            continue
        if before is not None:
            kept.append(_times(before, times))
        before, times = line, 1
    return "\n".join(kept)


def alike(text: str) -> str:
    """Lines that differ in numbers alone are told once, by the first of them, wherever they stand."""
    lines = text.split("\n")
    kinds = [_kind(line) for line in lines]
    count: dict[str, int] = {}
    for kind in kinds:
        if kind:
            count[kind] = count.get(kind, 0) + 1
    kept = []
    for line, kind in zip(lines, kinds, strict=True):
        if not kind:
            kept.append(line)
        elif number := count.pop(kind, 0):
            kept.append(line if number == 1 else f"{line} [and {number - 1} more like it]")
    return "\n".join(kept)


def head_and_tail(text: str, limit_bytes: int) -> str:
    """Where it is too long: two thirds from the beginning, a third from the end, and how much is left out between."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return text
    room = limit_bytes - _ROOM_FOR_NOTE
    if room < _ROOM_FOR_NOTE:
        return _decoded(data[: max(0, limit_bytes - 3)]) + ("…" if limit_bytes >= 3 else "")
    head_end, tail_start = room * 2 // 3, len(data) - (room - room * 2 // 3)
    # Whole lines where one ends nearby.
    if (end := data.rfind(b"\n", head_end - min(_SEEK_LINE_END, head_end // 4), head_end)) > 0:
        head_end = end
    if (start := data.find(b"\n", tail_start, tail_start + min(_SEEK_LINE_END, (len(data) - tail_start) // 4))) > 0:
        tail_start = start + 1
    left_out = data[head_end:tail_start]
    note = f"[… {len(left_out)} bytes, {left_out.count(10) + 1} lines left out …]"
    return f"{_decoded(data[:head_end])}\n{note}\n{_decoded(data[tail_start:])}"


def size_of(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _times(line: str, times: int) -> str:
    return line if times == 1 or not line.strip() else f"{line} [{times} times]"


def _kind(line: str) -> str:
    """What a line looks like without its numbers; empty where it is too short to be told apart by that."""
    return _DIGITS.sub("#", COUNT_MARK.sub("", line)) if len(line) >= _SHORTEST_LIKE else ""


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "ignore")
