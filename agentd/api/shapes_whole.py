"""
What the API answers about one thing alone, and about what was: as types, for the OpenAPI document and for people.

As `shapes`: nothing here is looked at while an answer is made; moments are texts of ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from agentd.api.shapes import (
    Alert,
    AlertState,
    Bar,
    CheckShown,
    Delivery,
    Json,
    Severity,
    Silence,
    Watch,
)
from agentd.api.shapes_tasks import Run, RunWithAnswer

Span = Literal["1h", "24h", "7d", "30d"]
PublicState = Literal["ok", "failing", "paused", "unknown"]
Uptime = TypedDict("Uptime", {"24h": float | None, "7d": float | None, "30d": float | None})
"""Shares of known time, 0 to 1."""


# One watch.


class Condition(TypedDict):
    """ok: null when it was not asked."""

    text: str
    ok: bool | None


class CheckWhole(CheckShown):
    values: Json
    conditions: list[Condition]


class Rule(TypedDict):
    """Of a log. firing: how many alerts."""

    name: str
    severity: Severity
    resolve_after_s: float
    firing: int


class RunFinding(TypedDict):
    run: str
    at: str | None
    finding: Json | None


class WatchWhole(Watch):
    description: str
    public: bool
    settings: Json
    blind_since: str | None
    check: CheckWhole | None
    uptime: Uptime
    alerts: list[Alert]
    more_alerts: int
    silences: list[Silence]
    rules: list[Rule]
    runs: list[Run]
    findings: list[RunFinding]


class Measure(TypedDict):
    """What a plot shows."""

    name: str
    unit: str


class Point(TypedDict):
    """at: begin of the step. count: of checks, of which so many were ok, failing and blind."""

    at: str
    count: int
    ok: int
    failing: int
    blind: int
    min: float | None
    mean: float | None
    p95: float | None
    max: float | None


PauseThen = TypedDict("PauseThen", {"from": str, "to": str | None, "by": str, "reason": str})


class _Series(TypedDict):
    watch: str
    kind: str | None
    span: Span
    step_s: int
    source: Literal["results", "rollups"]
    value: Measure | None
    points: list[Point]
    bars: list[Bar | None]
    bars_from: str
    bar_s: int
    pauses: list[PauseThen]


_Between = TypedDict("_Between", {"from": str, "to": str})


class Series(_Series, _Between):
    pass


# What alerts did.


class Happened(TypedDict):
    """before, after: states of an alert, or what became of a run."""

    id: str
    at: str
    kind: str
    watch: str | None
    fingerprint: str | None
    rule: str | None
    severity: Severity | None
    before: AlertState | None
    after: AlertState | None
    reason: str | None
    reason_text: str | None
    summary: str | None
    trace_id: str | None
    run: str | None


class History(TypedDict):
    events: list[Happened]
    next: str | None


class Evidence(TypedDict):
    """A line of a log and where it stands: in a file, or in the journal."""

    file: NotRequired[str]
    offset: NotRequired[int]
    cursor: NotRequired[str]
    line: str


class AlertWhole(Alert):
    last_at: str | None
    escalated: int
    evidence: list[Evidence]
    history: list[Happened]
    history_next: str | None
    deliveries: list[Delivery]
    runs: list[Run]
    silences: list[Silence]
    watch_view: Watch | None


# A run as a timeline.


class RunOfTimeline(RunWithAnswer):
    trace_id: str | None
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    artifacts: list[Any]
    took_s: float | None


class Lane(TypedDict):
    """Seconds since the run began. ok: null while it is under way, and of a note."""

    id: str
    label: str
    kind: Literal["model", "tool", "note"]
    start_s: float
    end_s: float
    ok: bool | None
    detail: str
    tokens: int | None
    usd: float | None
    depends_on: list[str]
    attempts: int


class SpanShown(TypedDict):
    """Of a trace; seconds since its first span. depth: 0 for a root."""

    name: str
    start_s: float
    end_s: float
    status: str
    status_text: str
    depth: int


class Timeline(TypedDict):
    run: RunOfTimeline
    total_s: float
    lanes: list[Lane]
    more_lanes: int
    spans: list[SpanShown]
    whole: bool


# What is remembered.


class Note(TypedDict):
    id: int
    type: Literal["final", "tool_result"]
    at: str
    run: str
    watch: str
    fingerprint: str | None
    tool: str | None
    step: int | None
    text: str
    snippet: str | None
    finding: Json | None


class Worked(TypedDict):
    """How a way of working went, on average of its runs."""

    kind: str
    worker: str
    shape: str
    model: str
    runs: int
    successes: int
    latency_s: float
    tokens: int
    usd: float | None
    last_at: str


class Spent(TypedDict):
    usd: float
    tokens: int
    calls: int
    unknown_calls: int


class Sizes(TypedDict):
    notes: dict[str, int]
    runs: dict[str, int]
    state_bytes: int
    history_bytes: int
    spent_today: Spent


class Memory(TypedDict):
    query: str | None
    notes: list[Note]
    worked: list[Worked]
    sizes: Sizes


class Deed(TypedDict):
    """What somebody did, by command, API or page."""

    id: str
    at: str
    who: str
    action: str
    target: str
    detail: str


class Audit(TypedDict):
    deeds: list[Deed]
    next: str | None


# What anybody may see.


class PublicWatch(TypedDict):
    """bars: how it was, oldest first; null: nothing is known of that time."""

    name: str
    state: PublicState
    uptime_30d: float | None
    bars: list[Bar | None]


class PublicWatchWhole(PublicWatch):
    uptime: Uptime


class Public(TypedDict):
    instance: str
    at: str
    state: PublicState
    watches: list[PublicWatch]
    more_watches: int


# The daemon.


class SeriesOfMetric(TypedDict):
    """A number, or how numbers were spread: `buckets` by their upper ends, each with all below it."""

    labels: dict[str, str]
    value: NotRequired[float]
    count: NotRequired[int]
    sum: NotRequired[float]
    buckets: NotRequired[dict[str, int]]


class Metric(TypedDict):
    """As in the text of Prometheus."""

    type: Literal["counter", "gauge", "histogram"]
    help: str
    series: list[SeriesOfMetric]


class Metrics(TypedDict):
    at: str
    metrics: dict[str, Metric]


class OverlayShown(TypedDict):
    """What was changed while the daemon ran. trouble: why it is not in effect."""

    file: str
    keys: list[str]
    trouble: str | None


class Configuration(TypedDict):
    """origins: where the value of a key comes from, of those that are no defaults. live: keys that may be changed."""

    config: Json
    origins: dict[str, str]
    live: list[str]
    overlay: OverlayShown
    note: str


class Changed(TypedDict):
    """changed: keys, dotted."""

    changed: list[str]
    warnings: list[str]


class ConfigProblem(TypedDict):
    key: str
    line: int
    message: str
    cure: str


class Validated(TypedDict):
    valid: bool
    errors: list[ConfigProblem]
    warnings: list[ConfigProblem]
