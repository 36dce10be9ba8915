"""
A log file tried against a watch: the same work and the same decisions as in the daemon, and nothing is kept or sent.

In: a watch and the work on a file, opened at its beginning. Out: what matched, what did not, and what would be told.
Time is the log's own: silence counts up to its last line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from agentd.errors import AgentdError
from agentd.pipeline.outcome import steps_of
from agentd.pipeline.watches import LogWatch
from agentd.records import Alert, AlertStatus, Transition

if TYPE_CHECKING:
    from agentd.logs.port import Block, Hit
    from agentd.logs.work import LogWork, Taken

MOST_TRANSITIONS = 10_000


@dataclass(slots=True)
class RuleReport:
    """hits: entries that the rule looked at and took. samples: the first few of them."""

    hits: int = 0
    fired: int = 0
    samples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """
    What a file came to.

    lines, bytes: of the whole file. matched: entries that some rule took. missed: entries that none took; counted and
    sampled only when asked for. timeline: transitions in the order of event time, the first `MOST_TRANSITIONS`;
    cut: how many more there were. firing: what still fires at the end.
    """

    rules: dict[str, RuleReport]
    lines: int = 0
    bytes: int = 0
    matched: int = 0
    missed: int | None = None
    missed_lines: list[str] = field(default_factory=list)
    timeline: list[Transition] = field(default_factory=list)
    cut: int = 0
    firing: list[Alert] = field(default_factory=list)
    last_at: datetime | None = None
    notes: list[str] = field(default_factory=list)


def replay(
    watch: LogWatch,
    work: LogWork,
    *,
    instance: str,
    show: int,
    missed: bool,
    progress: Callable[[int], None] = lambda bytes_read: None,
) -> Report:
    """
    Run the file to its end. Blocking.

    show: how many lines of each rule, and how many missed ones, to keep; 0 for all. progress: told the bytes read.
    Raises AgentdError when the file cannot be read.
    """
    return _Replay(watch, work, instance, show, missed).run(progress)


class _Replay:
    def __init__(self, watch: LogWatch, work: LogWork, instance: str, show: int, missed: bool) -> None:
        self._watch, self._work, self._instance = watch, work, instance
        self._show = show
        self._names = list(watch.rules)
        self._alerts: dict[str, Alert] = {}
        self._report = Report({name: RuleReport() for name in watch.rules}, missed=0 if missed else None)
        work.observe = self._observe

    def run(self, progress: Callable[[int], None]) -> Report:
        report, work = self._report, self._work
        more = True
        while more:
            taken = work.take()
            more = taken.batch.more
            if taken.batch.blind is not None:
                raise AgentdError(taken.batch.blind)
            if taken.until is not None:
                report.last_at = taken.until
            self._decide(taken)
            report.notes += taken.batch.notes
            progress(work.source.counters.bytes)
        report.lines, report.bytes = work.source.counters.lines, work.source.counters.bytes
        report.timeline.sort(key=lambda transition: transition.at)
        report.firing = [alert for alert in self._alerts.values() if alert.status is AlertStatus.FIRING]
        return report

    def _decide(self, taken: Taken) -> None:
        report = self._report
        steps = steps_of(
            self._watch,
            self._instance,
            taken.outcome.events,
            taken.until,
            alerts=self._alerts,
            firing=list(self._alerts),
        )
        for step in list(steps):
            alert = step.alert
            if alert.status is AlertStatus.FIRING:
                self._alerts[alert.fingerprint] = alert
            else:
                self._alerts.pop(alert.fingerprint, None)
            if step.transition is None:
                continue
            if alert.status is AlertStatus.FIRING and alert.rule is not None:
                report.rules[alert.rule].fired += 1
            if len(report.timeline) < MOST_TRANSITIONS:
                report.timeline.append(step.transition)
            else:
                report.cut += 1

    def _observe(self, block: Block, hits: Sequence[Hit]) -> None:
        report = self._report
        taken: set[int] = set()
        for hit in hits:
            if not hit.matched:
                continue
            rule = report.rules[self._names[hit.rule]]
            rule.hits += 1
            if not self._show or len(rule.samples) < self._show:
                rule.samples.append(hit.entry.text)
            taken.add(hit.begin)
        report.matched += len(taken)
        if report.missed is None:
            return
        for begin, text in self._work.matcher.entries(block):
            if begin not in taken:
                report.missed += 1
                if not self._show or len(report.missed_lines) < self._show:
                    report.missed_lines.append(text)
