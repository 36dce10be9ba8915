"""
What the API answers, as types: for the OpenAPI document, and for people who read it.

Nothing here is looked at while an answer is made. Moments are texts of ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import JsonValue
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

Json = dict[str, Any]
Verdict = Literal["ok", "failing", "blind"]
Severity = Literal["info", "warning", "critical"]
AlertState = Literal["ok", "pending", "firing", "resolved"]
Bar = Literal["ok", "failing", "blind", "paused"]


class Health(TypedDict):
    """`status`: ok; with 503 what the daemon does instead, such as starting."""

    status: str


class Counted(TypedDict):
    """By what their last checks said; `waiting`: without any yet."""

    total: int
    paused: int
    disabled: NotRequired[int]
    ok: NotRequired[int]
    failing: NotRequired[int]
    blind: NotRequired[int]
    waiting: NotRequired[int]


class Outbox(TypedDict):
    """Messages that wait and that were given up. held: why a restore holds all of them back."""

    waiting: int
    dead: int
    held: str | None
    disabled_webhooks: list[str]
    failing_webhooks: dict[str, str]


class Checks(TypedDict):
    """lag: how late checks began. overlaps: checks that were left out since the one before was still on."""

    done: int
    lag_p50_ms: float
    lag_p99_ms: float
    overlaps: int


class EventsSeen(TypedDict):
    """
    Of what starts watches: hooks, alerts, files and cron lines. started: runs. coalesced: that joined a waiting run.

    circular, too_deep: refused by the protection against loops. full: refused for want of room. failed: runs.
    """

    published: int
    started: int
    coalesced: int
    circular: int
    too_deep: int
    full: int
    failed: int


class Today(TypedDict):
    """What agents took today (UTC), and what `budgets.daemon_per_day` allows; null: it sets no limit."""

    usd: float
    usd_limit: float | None
    tokens: int
    tokens_limit: int | None
    calls: int
    calls_of_unknown_price: int


class Agents(TypedDict):
    """model: asked where nothing else is said. host_pid: of the process that agents work in, while there is one."""

    running: int
    queued: int
    model: str | None
    today: Today
    host_pid: int | None


class Store(TypedDict):
    """full: nothing more fits on the disk."""

    full: bool
    trouble: str | None


class Status(TypedDict):
    """trouble: what is wrong with the daemon itself, in words. page: where people find it."""

    state: Literal["running", "starting"]
    version: str
    instance: str
    pid: int
    config: str
    state_dir: str
    started_at: str
    uptime: str
    trouble: list[str]
    note: str
    page: str | None
    watches: Counted
    alerts: dict[str, int]
    outbox: Outbox
    checks: Checks
    events: EventsSeen
    agents: NotRequired[Agents]
    store: Store
    memory_mib: float


class PauseShown(TypedDict):
    """until: null where nobody said; then somebody has to resume it."""

    by: str
    at: str
    until: str | None
    reason: str


class Watch(TypedDict):
    """A watch with what it saw last. verdict: null before the first check. alert: the state of its worst one."""

    name: str
    kind: str | None
    enabled: bool
    verdict: Verdict | None
    summary: str
    alert: AlertState
    severity: Severity
    labels: dict[str, str]
    latency_ms: float | None
    log: Json | None
    checked_at: str | None
    next_at: str | None
    paused: bool
    paused_until: str | None
    pause: PauseShown | None
    notify: list[str]


class Watches(TypedDict):
    watches: list[Watch]


class Paused(Watch):
    """replaced: the pause that this one takes the place of."""

    replaced: PauseShown | None


class CheckShown(TypedDict):
    at: str
    verdict: Verdict
    summary: str
    duration_ms: float
    alert: AlertState


class Checked(TypedDict):
    watch: Watch
    check: CheckShown | None
    run: NotRequired[JsonValue]


class Template(TypedDict):
    """A kind of lines, `<*>` where they differ. samples: some of them, for known callers."""

    id: int | str
    template: str
    count: int
    rate_per_hour: float | None
    first_at: str
    last_at: str
    samples: list[str]


class Templates(TypedDict):
    watch: str
    templates: list[Template]


class Alert(TypedDict):
    """failed: the conditions that do not hold. told: webhooks that heard of it. finding: what an agent found."""

    fingerprint: str
    watch: str
    rule: str | None
    by: dict[str, str]
    state: AlertState
    severity: Severity
    instance: str
    summary: str
    reason: str | None
    reason_text: str
    labels: dict[str, str]
    values: Json
    failed: list[Any]
    pending_since: str | None
    started_at: str | None
    ended_at: str | None
    blind_since: str | None
    occurrences: int
    acked_by: str | None
    muted_by: str | None
    flapping: bool
    told: list[str]
    finding: Json | None
    cost: Json | None
    trace_id: str | None


class Alerts(TypedDict):
    alerts: list[Alert]


class Silence(TypedDict):
    id: str
    state: Literal["planned", "active", "ended"]
    matchers: list[str]
    starts_at: str
    ends_at: str
    author: str
    reason: str
    ended_by: str | None


class Silences(TypedDict):
    silences: list[Silence]


class Silenced(TypedDict):
    """alerts: that it mutes now. note: what somebody may not have meant."""

    silence: Silence
    alerts: int
    note: NotRequired[str | None]


class Delivery(TypedDict):
    """A message to one webhook. superseded: dead, and not to be sent again: a newer one has told of it."""

    id: str
    webhook: str
    lane: str
    type: str
    state: Literal["waiting", "claimed", "dead", "delivered"]
    note: str | None
    fingerprint: str | None
    created_at: str
    due_at: str
    attempts: int
    last_error: str | None
    last_status: int | None
    ended_at: str | None
    superseded: bool


class Deliveries(TypedDict):
    deliveries: list[Delivery]


class DeliveryWhole(Delivery):
    data: Json | None


class Retried(TypedDict):
    retried: int
    superseded: NotRequired[int]


class Dropped(TypedDict):
    dropped: int


class WebhookTested(TypedDict):
    """ok: the receiver took it. answer: the beginning of what it answered."""

    webhook: str
    ok: bool
    status: int | None
    error: str | None
    latency_ms: float
    answer: str | None


class WebhookEnabled(TypedDict):
    webhook: str
    enabled: bool
    was_disabled: bool


class Reloaded(TypedDict):
    reloaded: bool
    note: str


class Released(TypedDict):
    """was_held: whether anything was held back."""

    was_held: bool


class Event(TypedDict):
    """One of Server-Sent Events. data: JSON of it. reset: something was missed, read everything anew."""

    id: NotRequired[str]
    event: Literal["alert", "watch", "run", "outbox", "config", "status", "reset"]
    data: str


class Beaten(TypedDict):
    watch: str
    received_at: str


class Hooked(TypedDict):
    accepted: bool
    started: list[str]
    why: NotRequired[str]


class Key(TypedDict):
    """Nothing of it lets anybody in."""

    name: str
    scope: Literal["read", "operate", "admin"]
    last_used_at: str | None


class Keys(TypedDict):
    keys: list[Key]
