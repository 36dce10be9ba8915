"""
What passes between the parts of the log path.

    Source ─▶ Batch of Blocks ─▶ Joiner, Matcher ─▶ Hits ─▶ RuleEngine ─▶ Outcome ─▶ (pipeline) one transaction
                        └──────▶ Miner ─▶ Sightings ──┘

Everything here runs on the one log thread, except `Source.wait`; nothing here knows the store. Times are aware UTC.
Promise: a batch carries the positions that may be stored once its outcome is, in the same transaction, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from agentd.records import Ended as Ended
from agentd.records import Evidence as Evidence
from agentd.records import Occurrence as Occurrence
from agentd.records import Place as Place


@dataclass(slots=True)
class Block:
    """
    A run of whole entries of one stream, in order; at most about 1 MiB.

    stream: which stream of the source, stable over rotation; event time is kept for each.
    file: what evidence calls it.
    text: valid UTF-8; every line ends with a newline, the last one too. A byte that could not be decoded stands as
    "?", so that offsets hold. "\\r\\n" is left as it is.
    offset: of text[0] in the stream.
    read_at: when it was read; stands in for event time where a line has none.
    written_by: no line was written after this moment (the file's mtime); which year a line without one is of.
    starts: where each entry begins in `text`, if the source knows (journal, transcoded files); then `offsets`,
    `cursors` and `fields` are parallel to it where they are given. None: lines, which a Joiner may join.
    """

    stream: str
    file: str
    text: bytes
    offset: int
    read_at: datetime
    written_by: datetime | None = None
    starts: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    cursors: Sequence[str] | None = None
    fields: Sequence[Mapping[str, Any]] | None = None


@dataclass(slots=True)
class Counters:
    """What one source has seen since it was opened; only ever grows."""

    bytes: int = 0
    lines: int = 0
    truncated: int = 0
    undecodable: int = 0
    rotated: int = 0
    cut_back: int = 0
    """Files that were truncated or rewritten under us."""
    lost: int = 0
    """Times when something may have been missed and nobody can know what: said in `Batch.notes` too."""


@dataclass(slots=True)
class Batch:
    """
    What one read of a source gave.

    positions: by stream, opaque text to be stored with the outcome of this batch; None: forget the stream.
    caught_up: when not None, at that moment nothing was left to read: whoever waits for silence may count until then.
    more: there is more to read at once. behind_bytes: how much is known to be unread after this batch.
    blind: why nothing, or not everything, could be looked at (permission denied), for people; None when all was.
    since: of a source without a past (a command): nobody knows what was before this moment, and silence counts from
    there. None: whatever was written is read, however late.
    notes: rare things people should know (a file was truncated, entries were vacuumed away), each once.
    """

    blocks: list[Block] = field(default_factory=list)
    positions: dict[str, str | None] = field(default_factory=dict)
    caught_up: datetime | None = None
    more: bool = False
    behind_bytes: int = 0
    blind: str | None = None
    since: datetime | None = None
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """Where lines come from. Opened with the positions that were stored last; keeps its own place from then on."""

    counters: Counters

    def read(self, most_bytes: int) -> Batch:
        """Take up to about so many bytes. On the log thread; never raises for what a file, disk or journal can do."""

    async def wait(self, timeout_s: float) -> None:
        """Return when there may be something to read, or after `timeout_s`. On the event loop."""

    async def close(self) -> None:
        """Let go of everything. Twice is once; no `read` runs then or later."""


class Parser(Protocol):
    """Takes an entry's text apart. Never raises."""

    def fields(self, text: str) -> dict[str, Any]:
        """
        The fields by name, each fit for JSON; `message` is always there: what is left when the frame is taken off.

        A text of another format gives {"message": text}.
        """

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        """When it happened, UTC; None when the text does not say. Cheap: need not take the text apart."""


class Entry:
    """
    One entry: a line, or several that belong together. Made only for what matched something; the rest stays bytes.

    text: without the last newline. given: fields that the source already knows (journal).
    """

    __slots__ = ("_fields", "_given", "_parser", "at", "place", "text")

    def __init__(
        self,
        text: str,
        place: Place,
        at: datetime,
        parser: Parser,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self.text = text
        self.place = place
        self.at = at
        self._parser = parser
        self._given = given
        self._fields: Mapping[str, Any] | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """Fields by name, taken apart when first asked for."""
        if self._fields is None:
            self._fields = self._given if self._given is not None else self._parser.fields(self.text)
        return self._fields


@dataclass(slots=True)
class Hit:
    """
    An entry that a rule is about.

    rule: index of the rule. groups: named groups of its pattern.
    matched: False only for rules that look at every entry (percentage), where the entry counts in the whole alone.
    begin: where the entry begins in its block.
    """

    rule: int
    entry: Entry
    groups: Mapping[str, str]
    matched: bool = True
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A log template that was not there before, and the entry that showed it."""

    template: str
    pattern: str
    entry: Entry


@dataclass(slots=True)
class Outcome:
    """
    What came of a batch: to be committed with its positions, whole.

    events: in the order of event time for each (rule, by).
    windows: by (rule, key): the state to store, as JSON text; None: delete.
    """

    events: list[Occurrence | Ended] = field(default_factory=list)
    windows: dict[tuple[str, str], str | None] = field(default_factory=dict)
