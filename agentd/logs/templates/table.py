"""
A template, what is known of it, and the forms in which it leaves: rows for people, changes for the stores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MOST_SAMPLES = 5
LONGEST_SAMPLE = 300
RATE_WINDOW = timedelta(minutes=10)
ESTABLISHED = 3
"""So many lines make a template one that one-off lines do not push out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A line as it came, cut to 300 characters."""

    at: datetime
    line: str


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """
    What outlives a restart: the identity, and what the history has of counts and samples, if it has.

    pattern: tokens with one space between, as `Changes.identities` gave it.
    """

    id: str
    pattern: str
    first_seen: datetime
    count: int = 0
    last_seen: datetime | None = None
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """For the history: `count` is the sum since the template was first seen."""

    id: str
    count: int
    last_seen: datetime
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """
    What to store since the last call.

    identities: new templates, and those whose pattern became wider. counted: those that were seen.
    gone: ids to delete, with the id that took over when two became one, or None when the table was full.
    """

    identities: tuple[StoredTemplate, ...] = ()
    counted: tuple[Counted, ...] = ()
    gone: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table for people. per_minute: over about the last ten minutes that lines came in."""

    id: str
    pattern: str
    count: int
    per_minute: float
    first_seen: datetime
    last_seen: datetime
    samples: tuple[str, ...]


class Template:
    """One kind of line. `id` stays for good; `tokens` only ever become wider."""

    __slots__ = (
        "_gap",
        "_rate_at",
        "_recent",
        "_sated_from",
        "_sated_until",
        "count",
        "faces",
        "first_seen",
        "gone",
        "id",
        "into",
        "last_seen",
        "order",
        "recently",
        "samples",
        "stored_once",
        "tokens",
    )

    def __init__(self, id: str, tokens: tuple[str, ...], order: int, first_seen: datetime) -> None:
        self.id = id
        self.tokens = tokens
        self.faces = tokens
        """See `grove.faces`."""
        self.order = order
        self.first_seen = first_seen
        self.last_seen = first_seen
        self.count = 0
        self.samples: list[Sample] = []
        self.into: Template | None = None
        """The template that took this one over."""
        self.gone = False
        """Pushed out of a full table, or taken over."""
        self.stored_once = False
        """The store knows it, so it must be told when it goes."""
        self.recently = False
        """Seen since somebody last looked for one to push out."""
        self._gap = timedelta(0)
        self._sated_from = self._sated_until = first_seen
        self._recent = 0.0
        self._rate_at = first_seen

    @property
    def pattern(self) -> str:
        return " ".join(self.tokens)

    def wants_sample(self, now: datetime) -> bool:
        """Whether enough time passed since the last sample, or the clock jumped back."""
        return not self._sated_from < now < self._sated_until

    def seen(self, lines: int, at: datetime) -> None:
        """Count lines, the last of them at `at`."""
        self.count += lines
        self.recently = True
        if at == self._rate_at:
            self._recent += lines
            return
        if at > self.last_seen:
            self.last_seen = at
        self._recent = self._recent * self._faded(at) + lines
        self._rate_at = at

    def per_minute(self, now: datetime) -> float:
        """Lines a minute, weighted towards the last ten."""
        known = min(RATE_WINDOW, max(now - self.first_seen, timedelta(minutes=1)))
        return self._recent * self._faded(now) / (known / timedelta(minutes=1))

    def _faded(self, now: datetime) -> float:
        return math.exp(-max(0.0, (now - self._rate_at) / RATE_WINDOW))

    def sample(self, line: str, at: datetime) -> None:
        """Keep a line, thinning out so that what is kept spreads over the time from first to last."""
        self.samples.append(Sample(at, line[:LONGEST_SAMPLE]))
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._gap = max((self.samples[-1].at - self.samples[0].at) / (MOST_SAMPLES - 1), timedelta(seconds=1))
        self._sated_from, self._sated_until = at - self._gap, at + self._gap

    def take_over(self, other: Template) -> None:
        """Add up what is known of another one that turned out to be the same."""
        self.count += other.count
        self.first_seen = min(self.first_seen, other.first_seen)
        self.last_seen = max(self.last_seen, other.last_seen)
        self._recent += other._recent
        self._gap = max(self._gap, other._gap)
        both = sorted(self.samples + other.samples, key=lambda sample: sample.at)
        while len(both) > MOST_SAMPLES:
            both.pop(len(both) // 2)
        self.samples = both

    def let_go(self) -> None:
        """Hold nothing any more: caches may still point here for a while."""
        self.gone = True
        self.id = ""
        self.tokens = self.faces = ()
        self.samples = []
        self.last_seen = self._rate_at = self.first_seen
        self._gap, self._recent = timedelta(0), 0.0

    def restore(self, stored: StoredTemplate) -> None:
        """Take on what an earlier run knew."""
        self.count = stored.count
        self.last_seen = stored.last_seen or stored.first_seen
        self.samples = list(stored.samples)
        self.stored_once = True

    def stored(self) -> StoredTemplate:
        return StoredTemplate(self.id, self.pattern, self.first_seen)

    def counted(self) -> Counted:
        return Counted(self.id, self.count, self.last_seen, tuple(self.samples))

    def row(self, now: datetime) -> Row:
        return Row(
            self.id,
            self.pattern,
            self.count,
            self.per_minute(now),
            self.first_seen,
            self.last_seen,
            tuple(sample.line for sample in self.samples),
        )
