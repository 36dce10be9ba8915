"""
Counting, at next to no cost: what metrics are made of when somebody asks for them.

In: one `add` each time something happens. Out: counts by label values, and spreads (histograms), to be copied by who
collects them. Promise: an `add` allocates nothing that stays, and no label, however many values it takes, makes these
grow past their bound: what comes after is counted together, under `other`. Nothing of any metrics library is needed.

Each is written by one thread. Another may read meanwhile: it sees one `add` half done at worst.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from itertools import repeat

OTHER = "other"
MOST_WATCHES = 2000
MOST_SERIES = 1000

Labels = tuple[str, ...]

FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""For what should take no time: a commit, a turn of the loop."""
WORK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""For what others take part in: a check, a request, a webhook. Its end is the longest usual timeout."""
LATE_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
"""For how late a check begins: `late` is more than ten seconds."""
WAIT_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""For how long a message waits: at once, through a retry, through an outage of its receiver."""
MODEL_S = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


class Tally:
    """Counts by label values. most: so many combinations have a count of their own, the rest one together."""

    __slots__ = ("_most", "counts")

    def __init__(self, most: int = MOST_SERIES) -> None:
        self.counts: dict[Labels, float] = {}
        self._most = most

    def add(self, labels: Labels, count: float = 1) -> None:
        counts = self.counts
        if labels in counts:
            counts[labels] += count
        elif len(counts) < self._most:
            counts[labels] = count
        else:
            rest = tuple(repeat(OTHER, len(labels)))
            counts[rest] = counts.get(rest, 0) + count

    def __getitem__(self, labels: Labels) -> float:
        return self.counts.get(labels, 0)

    def __iter__(self) -> Iterator[tuple[Labels, float]]:
        """A copy of what there is now."""
        return iter(self.counts.copy().items())


class Seen:
    """A spread as it was at one moment. counts: of each bucket, not cumulative; the last one is of all beyond."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...], counts: tuple[int, ...], total: float) -> None:
        self.bounds = bounds
        self.counts = counts
        self.total = total

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __add__(self, other: Seen) -> Seen:
        """Of spreads with the same bounds."""
        counts = tuple(mine + its for mine, its in zip(self.counts, other.counts, strict=True))
        return Seen(self.bounds, counts, self.total + other.total)


class Spread:
    """How values spread over buckets. bounds: their upper ends, each belonging to its bucket, ascending."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def seen(self) -> Seen:
        return Seen(self.bounds, tuple(self.counts), self.total)


class Spreads:
    """One spread for each combination of label values. most: so many, the rest has one together."""

    __slots__ = ("_bounds", "_most", "_spreads")

    def __init__(self, bounds: tuple[float, ...], most: int = 100) -> None:
        self._bounds = bounds
        self._most = most
        self._spreads: dict[Labels, Spread] = {}

    def add(self, labels: Labels, value: float) -> None:
        spread = self._spreads.get(labels)
        if spread is None:
            if len(self._spreads) >= self._most:
                labels = tuple(repeat(OTHER, len(labels)))
            spread = self._spreads.setdefault(labels, Spread(self._bounds))
        spread.add(value)

    def __iter__(self) -> Iterator[tuple[Labels, Seen]]:
        """A copy of what there is now."""
        return iter([(labels, spread.seen()) for labels, spread in self._spreads.copy().items()])


class Admitted:
    """
    Which names are a label of their own: the first so many, for as long as they are there.

    A name that was let in once keeps its place until it is gone, so that no series jumps to `other` and back.
    """

    def __init__(self, most: int = MOST_WATCHES) -> None:
        self._most = most
        self._names: set[str] = set()

    def keep(self, names: Collection[str]) -> None:
        """These names there are now: forget those that are gone, let in as many new ones as there is room for."""
        self._names.intersection_update(names)
        for name in names:
            if len(self._names) >= self._most:
                break
            self._names.add(name)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def label(self, name: str) -> str:
        return name if name in self._names else OTHER
