"""
Learning the kinds of lines while they pass, and telling rules of type `novel` of those never seen before.

In: blocks. Out: sightings for the rules, names for the state store, counts for history.
Promise: what was told as new is stored with the lines that showed it, so it is new only once. Far behind, and with no
rule that asks for every line, only part of each block is learned from: the rules come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from agentd.logs.match import Matcher, Times
from agentd.logs.multiline import Joiner
from agentd.logs.port import Block, Sighting
from agentd.logs.templates import Miner, StoredTemplate
from agentd.logs.templates.table import Counted, Sample
from agentd.memory.logs import LogMemory, TemplateName
from agentd.memory.templates import TemplateRow
from agentd.telemetry.redact import redact

SKIMMED_BYTES = 64 * 1024
"""So much of each block is learned from while the source is far behind."""
FAR_BEHIND_BYTES = 8 * 1024 * 1024
COUNTS_EVERY_S = 30.0

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
        self.skipped_bytes = 0

    def add(self, block: Block, behind_bytes: int, until: datetime, times: Times) -> Iterator[Seen]:
        """Learn from a block. until: the time of its newest line. Gives what rules are to be told."""
        text, starts = block.text, block.starts
        if starts is None:
            if behind_bytes > FAR_BEHIND_BYTES and not self._novel:
                cut = text.rfind(b"\n", 0, SKIMMED_BYTES) + 1
                self.skipped_bytes += len(text) - cut if cut else 0
                text = text[:cut] or text
            if not self._joiner.plain:
                starts = [begin for begin, _ in self._joiner.entries(text)]
        for new in self._miner.add(text, until, until, starts):
            if not self._novel:
                continue
            entry = self._matcher.entry(block, new.offset, times)
            sighting = Sighting(new.id, new.pattern, entry)
            for rule in self._novel:
                groups = self._matcher.accepts(rule, entry)
                if groups is not None:
                    yield rule, sighting, groups

    def changes(self) -> tuple[list[TemplateName], list[str], list[TemplateRow]]:
        """
        What to store with the lines up to here: names that are new or wider now, ids that are gone; and now and then
        the counts of those that came.
        """
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
