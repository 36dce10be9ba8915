"""
The plain values that travel along the main path: what was seen, what was decided, what is to be told.

No behaviour here beyond what a value knows about itself; decisions live in `alert/`, storage in `memory/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """`blind`: the checker itself could not look. It is never reported as failing."""

    OK = "ok"
    FAILING = "failing"
    BLIND = "blind"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertStatus(StrEnum):
    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Reason(StrEnum):
    """Why an alert changed its state: a closed list, part of the payload's schema."""

    THRESHOLD = "threshold"
    RECOVERED = "recovered"
    BLIND = "blind"
    SIGHT_REGAINED = "sight_regained"
    WATCH_REMOVED = "watch_removed"
    REMINDER = "reminder"
    MATCHED = "matched"
    QUIET = "quiet"
    CROWDED_OUT = "crowded_out"
    ESCALATED = "escalated"
    FLAPPING = "flapping"
    STEADY = "steady"
    FINDING = "finding"


class EventType(StrEnum):
    """What a message says: `type` of the payload."""

    FIRING = "alert.firing"
    UPDATED = "alert.updated"
    REMINDER = "alert.reminder"
    ESCALATED = "alert.escalated"
    RESOLVED = "alert.resolved"
    FLAPPING = "alert.flapping"
    GROUP_FIRING = "group.firing"
    GROUP_RESOLVED = "group.resolved"
    FINDING = "goal.finding"
    TEST = "agentd.test"


@dataclass(slots=True)
class Observation:
    """
    What one look at a source showed.

    values: what conditions may read, by variable name.
    error: the target did not answer as it must (refused, timed out, bad certificate); the verdict is failing.
    blind: the checker could not look (no route, no permission, no file descriptor); the verdict is blind.
    duration_s: from start to end of the look, monotonic.
    notes: what a trace keeps beside the values (peer address, certificate subject); short, never secret.
    early: why there is nothing to see yet; a verdict ok then says only that nothing is overdue, and is no uptime.
    """

    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    blind: str | None = None
    duration_s: float = 0.0
    notes: dict[str, str | int | float | bool] = field(default_factory=dict)
    early: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    What the conditions made of an observation.

    summary: one line for people, such as `status == 200 does not hold (status = 503)`; empty when all is well.
    failed: the conditions that did not hold, as written in the config.
    shown: the values that those conditions read.
    """

    verdict: Verdict
    summary: str = ""
    failed: tuple[str, ...] = ()
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a log entry stands.

    file: path, `journal`, or the command. offset: of its first byte (in the unpacked text, if it is compressed).
    cursor: of a journal entry.
    """

    file: str
    offset: int | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One log line that an alert rests on, cut to a sensible length."""

    place: Place
    line: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """
    What a log rule is there for came about: its alert fires, or if it fires already, counts on.

    by: names and values of the alert's identity. at, last_at: event time of the first and the last, in one run whose
    gaps are all shorter than the rule's `resolve_after`. count: how many (lines, for rules that count lines).
    summary: one line for people. reason_text: such as `5 lines within 10m`.
    """

    rule: str
    by: Mapping[str, str]
    at: datetime
    last_at: datetime
    count: int
    summary: str
    reason_text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The alert of (rule, by) is over before its `resolve_after`: lines are back, or too many keys crowded it out."""

    rule: str
    by: Mapping[str, str]
    at: datetime
    reason_text: str
    crowded_out: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """
    One alert and the streaks that lead to it: one row of the state store.

    window: the last outcomes, newest last, `1` failing and `0` ok; never longer than `fail_after` needs.
    oks: consecutive ok verdicts while firing.
    blind_since: since when the checker could not look; streaks are frozen meanwhile.
    escalated: how many steps of its escalation were taken in this incident.
    outcomes: the last checks, newest last, `1` failing and `0` ok: by these it counts as flapping.
    occurrences: failing verdicts of this incident; exact when told, not written at every check.
    told: the webhooks that were sent this firing: they hear of its end, whatever the config says by then.
    evidence: log lines of this incident, the first and the last few. last_at: event time of the newest occurrence, of
    alerts of log rules. finding: what an agent found out about this incident, cost: what that took; both as the payload
    shows them, and without any say in the alert's identity, state or severity.
    """

    fingerprint: str
    instance: str
    watch: str
    severity: Severity
    rule: str | None = None
    by: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    status: AlertStatus = AlertStatus.OK
    window: str = ""
    oks: int = 0
    blind_since: datetime | None = None
    pending_since: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: Reason | None = None
    reason_text: str = ""
    summary: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    occurrences: int = 0
    acked_by: str | None = None
    muted_by: str | None = None
    flapping: bool = False
    told: tuple[str, ...] = ()
    trace_id: str | None = None
    evidence: tuple[Evidence, ...] = ()
    last_at: datetime | None = None
    escalated: int = 0
    outcomes: str = ""
    finding: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """
    A change of an alert.

    event: what people are told, or None when nobody is (pending, and back from it).
    alert: the alert after the change.
    """

    before: AlertStatus
    after: AlertStatus
    reason: Reason
    reason_text: str
    at: datetime
    alert: Alert
    event: EventType | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    One message to one webhook: a row of the outbox.

    id: `msg_…`, the `webhook-id`; constant over all retries.
    lane: deliveries of one (webhook, lane) leave in the order of their rows.
    data: the payload's `data`, JSON text. Names of webhooks and secrets, never their values.
    attempts: sends that were started. last_error: what the last one said, without URL or secret.
    """

    id: str
    webhook: str
    lane: str
    type: EventType
    data: str
    created_at: datetime
    due_at: datetime
    fingerprint: str | None = None
    traceparent: str | None = None
    attempts: int = 0
    last_error: str | None = None
    last_status: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One row of the raw results in history: what a check took and what came of it."""

    watch: str
    at: datetime
    verdict: Verdict
    duration_s: float
    latency_ms: float | None = None
    summary: str = ""
    trace_id: str | None = None
