"""
Windows in event time: the newest times, counts by slots of time, distinct values.

In: event times, as seconds since 1970, mostly in order. Out: how much lies within the last `within`, counted back from
the newest. What lies exactly `within` back is out. Pure data, made of lists of numbers that JSON keeps exactly.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence

EXACT = 200
"""Up to so many times are kept one by one; what must count further does it by slots of `within` / 200."""


def add_time(times: list[float], at: float, within: float, most: int) -> bool:
    """
    Put a time in its place among at most the `most` newest, and drop what the window has left behind.

    False: it is older than the window itself, and is not taken.
    """
    if not times or at >= times[-1]:
        times.append(at)
    elif at <= times[-1] - within:
        return False
    else:
        insort(times, at)
    if len(times) > most:
        del times[0]
    floor = times[-1] - within
    if times[0] <= floor:
        del times[: bisect_right(times, floor)]
    return True


def add_newest(times: list[float], at: float, most: int) -> None:
    """Put a time in its place among the `most` newest, however old they are."""
    if not times or at >= times[-1]:
        times.append(at)
    else:
        insort(times, at)
    if len(times) > most:
        del times[0]


class Slots:
    """
    Two counts by slot of time: of all, and of those that were marked.

    width: of a slot, in seconds. span: how many slots are kept. Plain arrays, for there may be ten thousand of these.
    """

    __slots__ = ("_all", "_marked", "_slots", "all", "marked", "span", "width")

    def __init__(self, width: float, span: int, rows: Sequence[Sequence[int]] = ()) -> None:
        """rows: [slot, all, marked] in order of time, as `rows` gave them."""
        self.width = width
        self.span = span
        self._slots = array("q", [int(row[0]) for row in rows])
        self._all = array("q", [int(row[1]) for row in rows])
        self._marked = array("q", [int(row[2]) for row in rows])
        self.all = sum(self._all)
        self.marked = sum(self._marked)

    def rows(self) -> list[list[int]]:
        return [list(row) for row in zip(self._slots, self._all, self._marked, strict=True)]

    def add(self, at: float, count: int = 1, marked: int = 0) -> bool:
        """False: it is older than all that is kept, and is not taken."""
        slots = self._slots
        slot = int(at // self.width)
        if not slots or slot > slots[-1]:
            self._insert(len(slots), slot)
            self._forget(bisect_right(slots, slot - self.span))
            index = -1
        elif slot == slots[-1]:
            index = -1
        elif slot <= slots[-1] - self.span:
            return False
        else:
            index = bisect_left(slots, slot)
            if slots[index] != slot:
                self._insert(index, slot)
        self._all[index] += count
        self._marked[index] += marked
        self.all += count
        self.marked += marked
        return True

    @property
    def newest(self) -> int | None:
        """The newest slot; None where there is none."""
        return self._slots[-1] if self._slots else None

    @property
    def last_at(self) -> float:
        """When the newest slot ends; 0 where there is none."""
        return (self._slots[-1] + 1) * self.width if self._slots else 0.0

    def between(self, after: int, to: int) -> int:
        """How many there are in the slots after `after`, up to and with `to`."""
        return sum(self._all[bisect_right(self._slots, after) : bisect_right(self._slots, to)])

    def nth_newest(self, count: int) -> float | None:
        """When the slot begins that holds the count-th newest; None while there are not so many."""
        for index in range(len(self._slots) - 1, -1, -1):
            count -= self._all[index]
            if count <= 0:
                return self._slots[index] * self.width
        return None

    def cut_at(self, to: float) -> None:
        """Take what lies after `to` as if it were at `to`."""
        first = bisect_right(self._slots, int(to // self.width))
        late, marked = sum(self._all[first:]), sum(self._marked[first:])
        if first == len(self._slots):
            return
        for each in (self._slots, self._all, self._marked):
            del each[first:]
        self.all -= late
        self.marked -= marked
        self.add(to, late, marked)

    def _insert(self, index: int, slot: int) -> None:
        self._slots.insert(index, slot)
        self._all.insert(index, 0)
        self._marked.insert(index, 0)

    def _forget(self, count: int) -> None:
        if count:
            self.all -= sum(self._all[:count])
            self.marked -= sum(self._marked[:count])
            for each in (self._slots, self._all, self._marked):
                del each[:count]


class Distinct:
    """
    The `most` most recent distinct values, each with the time it was last seen at.

    The heap holds one entry a value, which may be older than what `times` says: it is put right when it comes up.
    """

    __slots__ = ("heap", "most", "newest", "times")

    def __init__(self, most: int, times: Iterable[tuple[str, float]] = ()) -> None:
        self.most = most
        self._fill(times)

    def _fill(self, times: Iterable[tuple[str, float]]) -> None:
        self.times = {value: float(at) for value, at in times}
        self.heap = [(at, value) for value, at in self.times.items()]
        heapq.heapify(self.heap)
        self.newest = max(self.times.values(), default=0.0)

    def __len__(self) -> int:
        return len(self.times)

    def add(self, value: str, at: float, within: float | None = None) -> bool:
        """within: forget what lies so far before the newest. False: it is older than that, and is not taken."""
        if self.times and within is not None and at <= self.newest - within:
            return False
        before = self.times.get(value)
        if before is None:
            self.times[value] = at
            heapq.heappush(self.heap, (at, value))
        elif at > before:
            self.times[value] = at
        if at > self.newest or len(self.times) == 1:
            self.newest = at
        floor = None if within is None else self.newest - within
        while len(self.times) > self.most or (floor is not None and self.heap[0][0] <= floor):
            oldest, each = self._oldest()
            if len(self.times) <= self.most and (floor is None or oldest > floor):
                break
            heapq.heappop(self.heap)
            del self.times[each]
        return True

    def oldest(self) -> float:
        """When the value that was seen least recently was seen; there is one."""
        return self._oldest()[0]

    def cut_at(self, to: float) -> None:
        """Take what lies after `to` as if it were at `to`."""
        self._fill([(value, min(at, to)) for value, at in self.times.items()])

    def _oldest(self) -> tuple[float, str]:
        while True:
            at, value = self.heap[0]
            now = self.times[value]
            if now == at:
                return at, value
            heapq.heapreplace(self.heap, (now, value))
