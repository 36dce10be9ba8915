"""
Learning the kinds of lines while they pass, and telling rules of type `novel` of those never seen before.

In: blocks. Out: sightings for the rules, names for the state store, counts for history.
Promise: what was told as new is stored with the lines that showed it, so it is new only once. Far behind, and with no
rule that asks for every line, learning has only so much time for each block: the rules come first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from agentd.logs.match import Matcher, Times
from agentd.logs.multiline import Joiner
from agentd.logs.port import Block, Sighting
from agentd.logs.templates import Miner, StoredTemplate
from agentd.logs.templates.table import Counted, Sample
from agentd.memory.logs import LogMemory, TemplateName
from agentd.memory.templates import TemplateRow
from agentd.telemetry.redact import redact

FAR_BEHIND_BYTES = 1024 * 1024
SKIM_S_PER_BYTE = 5e-10
"""So long may learning take for each byte of a block far behind: a tenth of the time at 200 MB/s."""
COUNTS_EVERY_S = 30.0
_SMALL_BYTES = 32 * 1024
"""Blocks up to so long, as they come from many files that grow by a few lines each, are learned from together."""

Seen = tuple[int, Sighting, Mapping[str, str]]
"""A rule, what it is to be told of, and the groups of its pattern there."""


class Learning:
    """
    watch: its name. novel: the numbers of the rules that want to hear of new templates. monotonic: seconds, for how
    often counts are given out.
    """

    def __init__(
        self,
        watch: str,
        memory: LogMemory,
        matcher: Matcher,
        joiner: Joiner,
        novel: Sequence[int],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._watch = watch
        self._matcher = matcher
        self._joiner = joiner
        self._novel = tuple(novel)
        self._monotonic = monotonic
        self._miner = Miner(stored=_stored(memory))
        self._names = {each.id: each for each in memory.templates}
        self._counted: dict[str, Counted] = {}
        self._told_at = monotonic()
        self._bytes_per_s = 1e6
        self._small: list[bytes] = []
        self._small_until = datetime.min.replace(tzinfo=UTC)
        self.skipped_bytes = 0

    def add(self, block: Block, behind_bytes: int, until: datetime, times: Times) -> Iterator[Seen]:
        """Learn from a block. until: the time of its newest line. Gives what rules are to be told."""
        text, starts = block.text, block.starts
        began_s = time.thread_time()
        if starts is None:
            if behind_bytes > FAR_BEHIND_BYTES and not self._novel:
                text = self._skimmed(text)
            elif self._joiner.plain and not self._novel and len(text) <= _SMALL_BYTES:
                self._small.append(text)
                self._small_until = max(self._small_until, until)
                return
            if not self._joiner.plain:
                starts = [begin for begin, _ in self._joiner.entries(text)]
        found = self._miner.add(text, until, until, starts)
        # How fast it goes is for the lines to say: a hundred times faster where they are alike.
        took_s = max(time.thread_time() - began_s, 1e-6)
        self._bytes_per_s += (len(text) / took_s - self._bytes_per_s) / 4
        for new in found if self._novel else ():
            entry = self._matcher.entry(block, new.offset, times)
            sighting = Sighting(new.id, new.pattern, entry)
            for rule in self._novel:
                groups = self._matcher.accepts(rule, entry)
                if groups is not None:
                    yield rule, sighting, groups

    def _skimmed(self, text: bytes) -> bytes:
        """The first lines of a block, as many as there is time for."""
        cut = text.find(b"\n", int(self._bytes_per_s * SKIM_S_PER_BYTE * len(text))) + 1
        if not cut:
            return text
        self.skipped_bytes += len(text) - cut
        return text[:cut]

    @property
    def known(self) -> int:
        """How many templates there are."""
        return len(self._names)

    def changes(self) -> tuple[list[TemplateName], list[str], list[TemplateRow]]:
        """
        What to store with the lines up to here: names that are new or wider now, ids that are gone; and now and then
        the counts of those that came.
        """
        if self._small:
            self._miner.add(b"".join(self._small), self._small_until, self._small_until)
            self._small.clear()
        changes = self._miner.changes()
        names = [TemplateName(each.id, redact(each.pattern), each.first_seen) for each in changes.identities]
        self._names.update((each.id, each) for each in names)
        for id in changes.gone:
            self._names.pop(id, None)
            self._counted.pop(id, None)
        self._counted.update((each.id, each) for each in changes.counted)
        if changes.gone or self._monotonic() - self._told_at >= COUNTS_EVERY_S:
            return names, list(changes.gone), self._rows()
        return names, list(changes.gone), []

    def _rows(self) -> list[TemplateRow]:
        counted, self._counted, self._told_at = self._counted, {}, self._monotonic()
        return [self._row(each, self._names[each.id]) for each in counted.values() if each.id in self._names]

    def _row(self, counted: Counted, name: TemplateName) -> TemplateRow:
        samples = tuple((sample.at, redact(sample.line)) for sample in counted.samples)
        return TemplateRow(
            self._watch, name.id, name.pattern, counted.count, name.first_seen, counted.last_seen, samples
        )


def _stored(memory: LogMemory) -> Iterator[StoredTemplate]:
    counts = {row.id: row for row in memory.counts}
    for name in memory.templates:
        row = counts.get(name.id)
        if row is None:
            yield StoredTemplate(name.id, name.pattern, name.first_seen)
        else:
            samples = tuple(Sample(at, line) for at, line in row.samples)
            yield StoredTemplate(name.id, name.pattern, name.first_seen, row.count, row.last_at, samples)
