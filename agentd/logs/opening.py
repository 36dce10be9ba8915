"""
Put the parts of one watch's log together: source, joiner, parser, matcher, rules, learning.

In: what the configuration says, and what is remembered. Out: `LogWork`, ready to take its first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentd.clock import Clock
from agentd.logs.eventtime import EventTime
from agentd.logs.learning import Learning
from agentd.logs.match import Matcher
from agentd.logs.multiline import Joiner, make_joiner
from agentd.logs.parse import make_parser
from agentd.logs.parse.zone import find_zone
from agentd.logs.port import Parser, Source
from agentd.logs.rules import RuleEngine
from agentd.logs.settings import JournalSource, LogSource, Rule
from agentd.logs.work import LogWork
from agentd.memory.logs import LogMemory
from agentd.telemetry.redact import without_secrets


@dataclass(frozen=True, slots=True)
class _Reading:
    """How entries are told apart, and taken apart."""

    joiner: Joiner
    parser: Parser


def open_log(
    watch: str,
    source: LogSource | JournalSource,
    rules: Sequence[Rule],
    *,
    clock: Clock,
    timezone: str | None,
    memory: LogMemory,
    every_s: float | None = None,
) -> LogWork:
    """
    Follow a source from where `memory` says. Blocking.

    timezone: of times that name none; None: the host's own. every_s: seconds between runs of a command; None: it
    keeps running.
    """
    reading = _reading(source, timezone)
    opened = _source(source, reading, clock, memory, every_s)
    # Not since the watch began: a rule that was added or changed has seen nothing of the time before.
    # What a command says again at its start it may have said long ago; a file only grows.
    appended = isinstance(source, LogSource) and source.command is None
    times = EventTime(clock.now, appended=appended, zone=find_zone(timezone))
    work = _work(opened, reading, rules, times, memory, clock.now())
    work.clock = clock
    if source.templates or work.novel:
        work.learning = Learning(watch, memory, work.matcher, reading.joiner, work.novel, monotonic=clock.monotonic)
    return work


def open_file(
    watch: str,
    source: LogSource | JournalSource,
    rules: Sequence[Rule],
    file: Path,
    *,
    clock: Clock,
    timezone: str | None,
) -> LogWork:
    """Run a file through the rules, from its beginning to its end, in its own time. Blocking."""
    reading = _reading(source, timezone)
    memory = LogMemory()
    written = _written(file, clock)
    opened = _file(source, reading, rules, file, lambda: written, timezone)
    work = _work(opened, reading, rules, EventTime(clock.now, live=False, zone=find_zone(timezone)), memory, None)
    work.by_event_time = True
    if work.novel:
        work.learning = Learning(watch, memory, work.matcher, reading.joiner, work.novel, monotonic=clock.monotonic)
    return work


def _written(file: Path, clock: Clock) -> datetime:
    """When it was written last, as far as that can be: it stands in for the time of lines that say none."""
    try:
        return min(datetime.fromtimestamp(file.stat().st_mtime, UTC), clock.now())
    except (OSError, OverflowError, ValueError):
        return clock.now()


def _file(
    source: LogSource | JournalSource,
    reading: _Reading,
    rules: Sequence[Rule],
    file: Path,
    now: Callable[[], datetime],
    timezone: str | None,
) -> Source:
    if isinstance(source, JournalSource):
        from agentd.logs.journal_file import open_journal_file

        return open_journal_file(source, rules, file, now=now, timezone=timezone)
    from agentd.logs.follow import replay_file

    return replay_file(str(file), source, complete=reading.joiner.complete, now=now)


def _reading(source: LogSource | JournalSource, timezone: str | None) -> _Reading:
    if isinstance(source, LogSource):
        return _Reading(make_joiner(source.multiline), make_parser(source, timezone=timezone))
    from agentd.logs.journal import JournalParser

    return _Reading(make_joiner(None), JournalParser())


def _source(
    source: LogSource | JournalSource, reading: _Reading, clock: Clock, memory: LogMemory, every_s: float | None
) -> Source:
    # Each where it is needed: the journal's library is not everywhere, and a command needs no files followed.
    if isinstance(source, JournalSource):
        from agentd.logs.journal import open_journal

        return open_journal(source, positions=memory.positions, now=clock.now, monotonic=clock.monotonic)
    if source.command is not None:
        from agentd.logs.command import open_command

        return open_command(
            source.command,
            source,
            every_s=every_s,
            complete=reading.joiner.complete,
            now=clock.now,
            monotonic=clock.monotonic,
        )
    from agentd.logs.follow import open_files

    return open_files(
        source,
        positions=memory.positions,
        complete=reading.joiner.complete,
        now=clock.now,
        monotonic=clock.monotonic,
    )


def _work(
    source: Source,
    reading: _Reading,
    rules: Sequence[Rule],
    times: EventTime,
    memory: LogMemory,
    started: datetime | None,
) -> LogWork:
    """started: when rules begin of which nothing is stored; None: a file is tried."""
    engine = RuleEngine(
        rules,
        stored=memory.windows,
        started=started,
        templates_since=memory.started if memory.templates else None,
        secrets_out=without_secrets,
        in_order=started is None,
    )
    matcher = Matcher(rules, reading.joiner, reading.parser, counted=engine.counted)
    novel = tuple(number for number, rule in enumerate(rules) if rule.type == "novel")
    return LogWork(source, matcher, engine, times, reading.joiner, reading.parser, novel)
