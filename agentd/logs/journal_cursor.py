"""
Cursors of the journal taken apart, and whether anything is missing between two of them.

In: cursors as libsystemd writes them (journal's file format, "s=…;i=…;b=…;m=…;t=…;x=…"). Out: `Spot`s, and a note.
Promise: pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentd.clock import from_us, iso


@dataclass(frozen=True, slots=True)
class Spot:
    """
    An entry's place.

    numbering, number: entries of one numbering have consecutive numbers, over all files of one journald, for as long
    as it finds its files again. boot, monotonic_us, realtime_us: when. content: a hash of all of its fields.
    """

    cursor: str
    numbering: str
    number: int
    boot: str
    monotonic_us: int
    realtime_us: int
    content: str

    def is_same(self, other: Spot) -> bool:
        """The same entry, also after journald has copied it into another file (from /run to /var, at boot)."""
        if self.numbering == other.numbering:
            return self.number == other.number
        return self.moment == other.moment and self.content == other.content

    @property
    def moment(self) -> tuple[str, int, int]:
        return self.boot, self.monotonic_us, self.realtime_us

    def is_after(self, other: Spot) -> bool:
        if self.numbering == other.numbering:
            return self.number > other.number
        if self.boot == other.boot:
            return self.monotonic_us > other.monotonic_us
        return self.realtime_us > other.realtime_us


def spot(cursor: str) -> Spot | None:
    """None when it is no cursor with all its parts."""
    parts = dict(part.split("=", 1) for part in cursor.split(";") if "=" in part)
    try:
        return Spot(
            cursor=cursor,
            numbering=parts["s"],
            number=int(parts["i"], 16),
            boot=parts["b"],
            monotonic_us=int(parts["m"], 16),
            realtime_us=int(parts["t"], 16),
            content=parts["x"],
        )
    except (KeyError, ValueError):
        return None


class Window:
    """
    What lies after `done`, if there is one, and before `end`.

    In the order of libsystemd, which goes by number, else by time.
    """

    def __init__(self, done: Spot | None, end: Spot) -> None:
        self._done = done
        self._end = end
        # Nearly always all are of one numbering; then there is no need to take each cursor apart.
        one = done is None or done.numbering == end.numbering
        self._prefix = f"s={end.numbering};i=" if one else None
        self._after = -1 if done is None else done.number

    def side(self, cursor: str) -> int:
        """-1: `done` or earlier; 0: within; 1: `end` or later. Raises ValueError for what is no cursor."""
        if self._prefix is not None and cursor.startswith(self._prefix):
            begin = len(self._prefix)
            number = int(cursor[begin : cursor.index(";", begin)], 16)
            return -1 if number <= self._after else 1 if number >= self._end.number else 0
        here = spot(cursor)
        if here is None:
            raise ValueError(f"{cursor[:200]!r} is no cursor")
        if self._done is not None and not here.is_after(self._done):
            return -1
        return 1 if here.is_same(self._end) or here.is_after(self._end) else 0


def missing(done: Spot, found: bool, following: Spot | None) -> str | None:
    """
    What may have been lost after `done`, for people; None when nothing was.

    found: the entry of `done` is still in the journal. following: the oldest entry after it, of whatever kind.
    """
    if following is not None and following.numbering == done.numbering:
        count = following.number - done.number - 1
        if count <= 0:
            return None
        return (
            f"{count} entries of the journal, written between {_when(done)} and {_when(following)}, "
            "were removed before they were read"
        )
    if found:
        return None
    until = "" if following is None else f" and before {_when(following)}"
    return (
        f"the journal no longer has the entry of {_when(done)} that was read last; "
        f"what was written after it{until} may have been missed"
    )


def _when(place: Spot) -> str:
    try:
        moment: datetime = from_us(place.realtime_us)
    except OverflowError:
        return "an unknown moment"
    return iso(moment)
