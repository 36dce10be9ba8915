"""
Put the parts of one watch's log together: source, joiner, parser, matcher, rules, learning.

In: what the configuration says, and what is remembered. Out: `LogWork`, ready to take its first batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentd.clock import Clock
from agentd.logs.eventtime import EventTime
from agentd.logs.learning import Learning
from agentd.logs.match import Matcher
from agentd.logs.multiline import Joiner, make_joiner
from agentd.logs.parse import make_parser
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
    timezone: str,
    memory: LogMemory,
    every_s: float | None = None,
) -> LogWork:
    """
    Follow a source from where `memory` says. Blocking.

    every_s: seconds between runs of a command; None: it keeps running.
    """
    reading = _reading(source, timezone)
    opened = _source(source, reading, clock, memory, every_s)
    # Not since the watch began: a rule that was added or changed has seen nothing of the time before.
    work = _work(opened, reading, rules, EventTime(clock.now), memory, clock.now())
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
    timezone: str,
) -> LogWork:
    """Run a file through the rules, from its beginning to its end, in its own time. Blocking."""
    from agentd.logs.follow import replay_file

    # What the journal would give in fields, a file has in lines, as `journalctl` prints them.
    settings = source if isinstance(source, LogSource) else LogSource(files=(str(file),), format="auto")
    reading = _reading(settings, timezone)
    memory = LogMemory()
    opened = replay_file(str(file), settings, complete=reading.joiner.complete, now=clock.now)
    work = _work(opened, reading, rules, EventTime(clock.now, live=False), memory, None)
    work.by_event_time = True
    if work.novel:
        work.learning = Learning(watch, memory, work.matcher, reading.joiner, work.novel, monotonic=clock.monotonic)
    return work


def _reading(source: LogSource | JournalSource, timezone: str) -> _Reading:
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
