"""
The work on one watch's log, a batch at a time: read, match, judge by the rules, learn the templates.

In: a source that stands where the store says. Out: what is to be committed, with the positions it was read up to.
Promise: blocking code for the one log thread; it knows neither the store nor alerts, so `agentd test` runs the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentd.logs.port import Batch, Outcome, Source
from agentd.memory.logs import TemplateName
from agentd.memory.templates import TemplateRow

if TYPE_CHECKING:
    from agentd.logs.eventtime import EventTime
    from agentd.logs.match import Matcher
    from agentd.logs.rules import RuleEngine

MAX_BATCH_BYTES = 1024 * 1024


@dataclass(slots=True)
class Taken:
    """
    What one batch came to.

    names: templates whose identity is to be stored with it; gone: ids of those given up. rows: counts for history.
    """

    batch: Batch
    outcome: Outcome
    names: list[TemplateName] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    rows: list[TemplateRow] = field(default_factory=list)


@dataclass(slots=True)
class LogWork:
    """The parts of one watch of logs, opened."""

    source: Source
    matcher: Matcher
    engine: RuleEngine
    times: EventTime

    def take(self) -> Taken:
        """Read on and work on it. On the log thread."""
        batch = self.source.read(MAX_BATCH_BYTES)
        for block in batch.blocks:
            self.engine.feed(self.matcher.hits(block, self.times))
        if batch.caught_up is not None:
            self.engine.advance(batch.caught_up)
        return Taken(batch, self.engine.take())

    def next_change(self) -> datetime | None:
        """When time alone could next change something."""
        return self.engine.next_change()

    def numbers(self, batch: Batch) -> dict[str, Any]:
        """What is shown of the watch: lines and bytes read, how far behind."""
        counters = self.source.counters
        return {"lines": counters.lines, "bytes": counters.bytes, "behind_bytes": batch.behind_bytes}
