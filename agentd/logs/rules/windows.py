"""
Windows in event time: the newest times, counts by slots of time, distinct values.

In: event times, as seconds since 1970, mostly in order. Out: how much lies within the last `within`, counted back from
the newest. What lies exactly `within` back is out. Pure data, made of lists of numbers that JSON keeps exactly.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

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

    rows: [slot, all, marked] in order of time; width: of a slot, in seconds; span: how many slots are kept.
    """

    __slots__ = ("all", "marked", "rows", "span", "width")

    def __init__(self, width: float, span: int, rows: Iterable[list[int]] = ()) -> None:
        self.width = width
        self.span = span
        self.rows = [list(row) for row in rows]
        self.all = sum(row[1] for row in self.rows)
        self.marked = sum(row[2] for row in self.rows)

    def add(self, at: float, count: int = 1, marked: int = 0) -> bool:
        """False: it is older than all that is kept, and is not taken."""
        rows = self.rows
        slot = int(at // self.width)
        if rows and slot == rows[-1][0]:
            row = rows[-1]
            row[1] += count
            row[2] += marked
        elif not rows or slot > rows[-1][0]:
            rows.append([slot, count, marked])
            floor = slot - self.span
            while rows[0][0] <= floor:
                self.all -= rows[0][1]
                self.marked -= rows[0][2]
                del rows[0]
        elif slot <= rows[-1][0] - self.span:
            return False
        else:
            index = bisect_left(rows, [slot])
            if rows[index][0] == slot:
                rows[index][1] += count
                rows[index][2] += marked
            else:
                rows.insert(index, [slot, count, marked])
        self.all += count
        self.marked += marked
        return True

    @property
    def newest(self) -> int:
        """The newest slot; there is one."""
        return self.rows[-1][0]

    @property
    def last_at(self) -> float:
        """When the newest slot ends; 0 where there is none."""
        return (self.rows[-1][0] + 1) * self.width if self.rows else 0.0

    def between(self, after: int, to: int) -> int:
        """How many there are in the slots after `after`, up to and with `to`."""
        return sum(row[1] for row in self.rows if after < row[0] <= to)

    def nth_newest(self, count: int) -> float | None:
        """When the slot begins that holds the count-th newest; None while there are not so many."""
        for slot, every, _ in reversed(self.rows):
            count -= every
            if count <= 0:
                return slot * self.width
        return None

    def cut_at(self, to: float) -> None:
        """Take what lies after `to` as if it were at `to`."""
        last = int(to // self.width)
        late = [row for row in self.rows if row[0] > last]
        if not late:
            return
        self.rows = [row for row in self.rows if row[0] <= last]
        self.all -= sum(row[1] for row in late)
        self.marked -= sum(row[2] for row in late)
        self.add(to, sum(row[1] for row in late), sum(row[2] for row in late))


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
