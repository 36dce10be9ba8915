"""
The work on one watch's log, a batch at a time: read, match, judge by the rules, learn the templates.

In: a source that stands where the store says. Out: what is to be committed, with the positions it was read up to.
Promise: blocking code for the one log thread; it knows neither the store nor alerts, so `agentd test` runs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from agentd.clock import EPOCH, Clock
from agentd.logs.port import Batch, Block, Ended, Hit, Occurrence, Outcome, Parser, Source
from agentd.memory.logs import TemplateName
from agentd.memory.templates import TemplateRow
from agentd.telemetry.redact import redact, redact_all, redact_name

if TYPE_CHECKING:
    from agentd.logs.eventtime import EventTime
    from agentd.logs.learning import Learning
    from agentd.logs.match import Matcher
    from agentd.logs.multiline import Joiner
    from agentd.logs.rules import RuleEngine

# The allocator gives buffers of a megabyte back to the kernel each time, and every page of them is faulted in anew for
# the next batch: that took a third of all time. Those of half a megabyte it keeps.
MAX_BATCH_BYTES = 512 * 1024
_LEAST_BATCH_BYTES = 64 * 1024
_MANY_EVENTS = 500
"""A batch of more is a long transaction and much to hold: the next one is smaller. The first is as small as any."""
_SLEEP_S = 30.0
_QUARTER = timedelta(minutes=15)
_LARGEST_OFFSET = 14 * 4
_AT_ONCE = timedelta(seconds=2)
_AHEAD = timedelta(minutes=1)
_RARE = ("truncated", "undecodable", "rotated", "cut_back", "lost")
_RARE_IN_RULES = ("late", "evicted", "without_value")


@dataclass(slots=True)
class Taken:
    """
    What one batch came to.

    until: up to this moment nothing is unread, so silence counts; None while there is more to read.
    awake_since: until then the machine slept, or our clock was behind: no quiet before it was watched.
    names: templates whose identity is to be stored with it; gone: ids of those given up. rows: counts for history.
    """

    batch: Batch
    outcome: Outcome
    until: datetime | None = None
    awake_since: datetime | None = None
    names: list[TemplateName] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    rows: list[TemplateRow] = field(default_factory=list)


@dataclass(slots=True)
class LogWork:
    """
    The parts of one watch of logs, opened.

    novel: the numbers of the rules that want to hear of new templates.
    by_event_time: silence counts up to the newest line, not to now: for a file that is tried.
    observe: shown each block with its hits, for who wants to know what matched.
    clock: tells of sleep and of jumps of the wall clock; None: there are none, as in a file that is tried.
    unread_since: since when there has been more to read; None when the last read came to the end.
    """

    source: Source
    matcher: Matcher
    engine: RuleEngine
    times: EventTime
    joiner: Joiner
    parser: Parser
    novel: Sequence[int] = ()
    learning: Learning | None = None
    by_event_time: bool = False
    observe: Callable[[Block, Sequence[Hit]], None] | None = None
    clock: Clock | None = None
    unread_since: datetime | None = None
    _awake_since: datetime | None = None
    _wall_ahead_s: float | None = None
    _read_to_end: datetime | None = None
    _asked: int = 0
    _unsaid: int = 0
    _newest: tuple[datetime | None, datetime | None] = (None, None)
    _most_bytes: int = _LEAST_BATCH_BYTES

    def take(self) -> Taken:
        """Read on and work on it. On the log thread."""
        batch = self.source.read(self._most_bytes)
        until = batch.caught_up
        self._feel_sleep()
        blanks = [moment for moment in (batch.since, self._awake_since) if moment is not None]
        if blanks:
            self.engine.unseen_before(max(blanks))
        for block in batch.blocks:
            last_at = self._work_on(block, batch)
            if self.by_event_time:
                until = last_at
        if until is not None:
            self.engine.advance(until)
        outcome = self.engine.take()
        if len(outcome.events) > _MANY_EVENTS:
            self._most_bytes = max(_LEAST_BATCH_BYTES, self._most_bytes // 2)
        elif len(outcome.events) < _MANY_EVENTS // 4:
            self._most_bytes = min(MAX_BATCH_BYTES, self._most_bytes * 2)
        outcome.events = [_shown(event) for event in outcome.events]
        if batch.caught_up is not None:
            self._read_to_end, self.unread_since = batch.caught_up, None
        elif self.unread_since is None and self.clock is not None:
            self.unread_since = self.clock.now()
        if self.by_event_time and not batch.more:
            batch.notes += self._doubts()
        batch.notes += self.times.warnings
        self.times.warnings.clear()
        batch.blocks.clear()  # or a megabyte would be kept until the next line comes
        taken = Taken(batch, outcome, until, self._awake_since)
        if self.learning is not None:
            taken.names, taken.gone, taken.rows = self.learning.changes()
        return taken

    def _feel_sleep(self) -> None:
        """The wall clock went further than the one that stands still in a suspend: nobody looked, nor wrote."""
        if self.clock is None:
            return
        now = self.clock.now()
        ahead_s = (now - EPOCH).total_seconds() - self.clock.monotonic()
        slept = self._wall_ahead_s is not None and ahead_s - self._wall_ahead_s > _SLEEP_S
        set_back = self._awake_since is not None and self._awake_since > now
        if slept or set_back:
            self._awake_since = now
        self._wall_ahead_s = ahead_s

    def _work_on(self, block: Block, batch: Batch) -> datetime:
        """Returns the event time of the block's last entry."""
        said = self._said_by_last(block)
        if not self.by_event_time:
            self.times.begin(
                block.stream,
                said,
                block.read_at,
                since=self._read_to_end,
                at_end=not batch.more,
                written_by=block.written_by,
            )
        self._newest = said, block.written_by
        asked, unsaid = self.times.asked, self.times.unsaid
        hits: Iterable[Hit] = self.matcher.hits(block, self.times)
        if self.observe is not None:
            hits = list(hits)
            self.observe(block, hits)
        self.engine.feed(hits)
        self._asked += self.times.asked - asked
        self._unsaid += self.times.unsaid - unsaid
        last_at = self.times.of(block.stream, said, block.read_at)
        if self.engine.counted:
            self.engine.count_all(self._entries_in(block), last_at, last_at)
        if self.learning is not None:
            self.engine.novel(self.learning.add(block, batch.behind_bytes, last_at, self.times))
        return last_at

    def _said_by_last(self, block: Block) -> datetime | None:
        text = block.text
        begin = block.starts[-1] if block.starts is not None else self.joiner.bounds(text, len(text) - 1)[0]
        fields = block.fields[-1] if block.fields is not None else None
        line = text[begin : begin + 4096].decode(errors="replace")
        return self.parser.time(line, fields, block.written_by or block.read_at)

    def _doubts(self) -> Iterator[str]:
        """What a file says of its own times, at its end."""
        if self._unsaid:
            yield (
                f"{self._unsaid} of {self._asked} lines that were looked at say no time: they are taken as of the line "
                "before, or of the file's last change, and windows mean nothing for them"
            )
        said, written_by = self._newest
        if said is None or written_by is None:
            return
        lag = written_by - said
        quarters = round(lag / _QUARTER)
        if lag < -_AHEAD or (1 <= quarters <= _LARGEST_OFFSET and abs(lag - quarters * _QUARTER) <= _AT_ONCE):
            off = timedelta(seconds=round(abs(lag).total_seconds()))
            which = "before" if lag > timedelta(0) else "after"
            yield (
                f"the last line is dated {off} {which} the file was written last; if its times are of another zone, "
                "set `timezone` of the watch"
            )

    def _entries_in(self, block: Block) -> int:
        if block.starts is not None:
            return len(block.starts)
        if self.joiner.plain:
            return block.text.count(b"\n")
        return sum(1 for _ in self.joiner.entries(block.text))

    def next_change(self) -> datetime | None:
        """When time alone could next change something."""
        return self.engine.next_change()

    def numbers(self, batch: Batch) -> dict[str, int]:
        """
        What is shown of the watch, since it was opened: lines and bytes read, bytes known to be unread, the files that
        are followed, if any; and of what is rare, how often: see `Counters`, `EventTime`, `RuleCounts` and `Learning`.
        """
        counters = self.source.counters
        shown = {"lines": counters.lines, "bytes": counters.bytes, "behind_bytes": batch.behind_bytes}
        if (files := getattr(self.source, "files", None)) is not None:
            shown["files"] = files
        rare = {name: getattr(counters, name) for name in _RARE}
        rare |= {"ahead": self.times.ahead, "far_off": self.times.far_off, "shifted": self.times.shifted}
        rules = self.engine.counts.values()
        rare |= {name: sum(getattr(each, name) for each in rules) for name in _RARE_IN_RULES}
        if self.learning is not None:
            rare["not_learned_bytes"] = self.learning.skipped_bytes
        return shown | {name: count for name, count in rare.items() if count}


def _shown(event: Occurrence | Ended) -> Occurrence | Ended:
    """
    As it may be stored and sent: a log may hold other people's passwords.

    `by` names an alert: what is taken out of it leaves a mark that is always the same, and of no other secret.
    """
    by = {name: redact_name(name, value) for name, value in event.by.items()}
    if isinstance(event, Ended):
        return replace(event, by=by)
    return replace(
        event,
        by=by,
        summary=redact(event.summary),
        values=redact_all(dict(event.values)),
        evidence=tuple(replace(each, line=redact(each.line)) for each in event.evidence),
    )
