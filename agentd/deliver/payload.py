"""
What a message says: the envelope, and the `data` of each kind, as published models.

In: a transition. Out: plain JSON values for the outbox, and the JSON Schema that receivers build on.
Promise: whatever a target or a log put into the values, `data` is valid JSON of at most 32 KiB, keeps every field,
and keeps what identifies the alert whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from agentd.clock import iso
from agentd.deliver.plain import Limits, plain, short
from agentd.records import AlertStatus, EventType, Evidence, Reason, Severity, Transition

MAX_DATA_BYTES = 32 * 1024
MAX_LABELS_BYTES = 8 * 1024
_NAME_CHARS = 256
_MOST_LINK_CHARS = 1000
_LIMITS = (
    Limits(chars=2048, items=64, depth=6),
    Limits(chars=512, items=32, depth=4),
    Limits(chars=128, items=16, depth=3),
    Limits(chars=64, items=8, depth=2),
)

_Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
    ),
]


class _Model(BaseModel):
    # Receivers must take fields of later versions; the schema says so by not forbidding them.
    # Built with the first message: a daemon that has nothing to tell needs none of them.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class AlertData(_Model):
    """One alert as it stands after the change that is told."""

    schema_: Literal["agentd.alert/1"] = Field(alias="schema", description="The shape of this object.")
    fingerprint: str = Field(description="Identity of the alert: the same over all its messages, and over restarts.")
    watch: str = Field(description="Name of the watch that raised it.")
    rule: str | None = Field(description="The rule within the watch, null when the watch has none.")
    severity: Severity
    state: AlertStatus = Field(description="State after the change.")
    reason: Reason = Field(description="Why the state changed. New codes may be added.")
    reason_text: str = Field(description="The reason, for people.")
    instance: str = Field(description="The machine that looked.")
    summary: str = Field(description="One line for people.")
    labels: dict[str, str] = Field(
        description="Labels of the watch, and the values that tell the alerts of one rule apart."
    )
    values: dict[str, Any] = Field(description="The values that the conditions read, cut to a sensible size.")
    failed: list[str] = Field(description="The conditions that did not hold, as configured.")
    evidence: list[dict[str, Any]] = Field(
        description="Log lines: file and offset, or cursor, and line. Empty for probes."
    )
    finding: dict[str, Any] | None = Field(description="What an agent found, null when none was asked or is ready.")
    started_at: _Moment | None = Field(description="When this incident began to fire.")
    ended_at: _Moment | None = Field(description="When it resolved, null before.")
    muted_by: str | None = Field(description="What mutes it, null when nothing does.")
    flapping: bool
    occurrences: int = Field(ge=0, description="Failing looks, or matching lines, of this incident so far.")
    cost: dict[str, Any] | None = Field(description="What the investigation cost, null when there was none.")
    trace_id: str | None = Field(description="The trace of the run that made this message.")
    links: dict[str, str] = Field(description="Where to read on, by name.")


class GroupData(_Model):
    """Several alerts that are told as one."""

    schema_: Literal["agentd.group/1"] = Field(alias="schema", description="The shape of this object.")
    group: dict[str, str] = Field(description="The labels that the members have in common, and their values.")
    reason: Literal["first", "new_firing", "all_clear", "new_resolved", "repeat"] = Field(
        description="Why the group is told of: it is new, more fire, none fires any more, some resolved, a reminder."
    )
    firing: int = Field(ge=0, description="How many members fire.")
    resolved: int = Field(ge=0, description="How many members resolved since the last message.")
    omitted: int = Field(ge=0, description="How many of these are not in `alerts`, for want of room.")
    alerts: list[AlertData] = Field(description="The members, what is news first.")


class Claim(_Model):
    """One thing that a finding says."""

    text: str
    evidence: list[str] = Field(default=[], description="Ids of what it rests on.")
    quotes: list[str] = Field(default=[], description="Words of these, each found in one of them.")


class Finding(_Model):
    """What a language model made of what it saw: to be read as such."""

    status: str = Field(description="`ok` when nobody needs to look.")
    severity: Severity
    summary: str
    claims: list[Claim] = []
    next_steps: list[str] = []
    confidence: float | None = Field(default=None, ge=0, le=1)
    unverified: bool = Field(default=False, description="A quote was not found in what it cites.")
    analysis: str | None = Field(default=None, description="Why there is none: `unavailable (reason)`.")
    sources: dict[str, str] = Field(default={}, description="What the ids are that claims cite, a line each.")


class FindingData(_Model):
    """What one run of a goal came to."""

    schema_: Literal["agentd.finding/1"] = Field(alias="schema", description="The shape of this object.")
    watch: str = Field(description="Name of the watch with the goal.")
    instance: str = Field(description="The machine that looked.")
    run: str = Field(description="Id of the run.")
    goal: str = Field(description="What was asked.")
    labels: dict[str, str] = Field(description="Labels of the watch.")
    finding: Finding
    cost: dict[str, Any] | None = Field(description="What the run cost.")
    trace_id: str | None = Field(description="The trace of the run.")
    links: dict[str, str] = Field(description="Where to read on, by name.")


class TestData(_Model):
    """A sample sent on request: nothing is wrong."""

    __test__ = False  # not one of pytest's

    schema_: Literal["agentd.test/1"] = Field(alias="schema", description="The shape of this object.")
    webhook: str = Field(description="Name of the webhook under test.")
    instance: str = Field(description="The machine that sent it.")
    summary: str = Field(description="Says that this is a test.")


AlertEvent = Literal[
    "alert.firing", "alert.updated", "alert.reminder", "alert.escalated", "alert.resolved", "alert.flapping"
]


class AlertMessage(_Model):
    """News of one alert."""

    type: AlertEvent
    timestamp: _Moment = Field(description="When it happened; the same over all retries.")
    data: AlertData


class GroupMessage(_Model):
    """News of a group of alerts."""

    type: Literal["group.firing", "group.resolved"]
    timestamp: _Moment = Field(description="When it happened; the same over all retries.")
    data: GroupData


class FindingMessage(_Model):
    """What a goal came to."""

    type: Literal["goal.finding"]
    timestamp: _Moment = Field(description="When it happened; the same over all retries.")
    data: FindingData


class TestMessage(_Model):
    """A test of the webhook."""

    __test__ = False  # not one of pytest's

    type: Literal["agentd.test"]
    timestamp: _Moment
    data: TestData


def alert_data(
    transition: Transition,
    *,
    links: Mapping[str, str] | None = None,
    trace_id: str | None = None,
    instance: str | None = None,
) -> dict[str, Any]:
    """
    The `data` of a message about one alert (`agentd.alert/1`): JSON values only, at most 32 KiB as JSON.

    links: URLs by name. trace_id, instance: where they are not the alert's own.
    What is too large is cut, first gently, in the end down to no values and no evidence.
    """
    alert = transition.alert
    kept: dict[str, Any] = {
        "schema": "agentd.alert/1",
        "fingerprint": short(alert.fingerprint, _NAME_CHARS),
        "watch": short(alert.watch, _NAME_CHARS),
        "rule": None if alert.rule is None else short(alert.rule, _NAME_CHARS),
        "severity": alert.severity.value,
        "state": transition.after.value,
        "reason": transition.reason.value,
        "reason_text": short(transition.reason_text, _NAME_CHARS),
        "instance": short(instance or alert.instance, _NAME_CHARS),
        "started_at": _moment(alert.started_at),
        "ended_at": _moment(alert.ended_at),
        "muted_by": None if alert.muted_by is None else short(alert.muted_by, _NAME_CHARS),
        "flapping": alert.flapping,
        "occurrences": alert.occurrences,
        "trace_id": trace_id or alert.trace_id,
    }
    # What tells the alerts of one rule apart is a label too: receivers route and group by labels. So labels are cut by
    # their own size alone: they are the same in all messages of an alert.
    kept["labels"] = _labels({**alert.labels, **alert.by})
    cut = {
        "summary": f"{alert.watch}: {alert.summary}",
        "values": alert.values,
        "failed": alert.failed,
        "evidence": [evidence_data(each) for each in alert.evidence],
        "finding": alert.finding,
        "cost": alert.cost,
    }
    data: dict[str, Any] = {}
    for limits in _LIMITS:
        smaller = {key: plain(value, limits) for key, value in cut.items()}
        data = _in_order(kept | smaller | {"links": _links(links)})
        if _size(data) <= MAX_DATA_BYTES:
            return data
    return data | {"values": {}, "evidence": [], "finding": None}


def finding_data(
    *,
    watch: str,
    instance: str,
    run: str,
    goal: str,
    labels: Mapping[str, str],
    finding: Mapping[str, Any],
    cost: Mapping[str, Any] | None,
    trace_id: str | None = None,
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The `data` of a message about one run of a goal (`agentd.finding/1`): at most 32 KiB as JSON."""
    data: dict[str, Any] = {}
    for limits in _LIMITS:
        data = {
            "schema": "agentd.finding/1",
            "watch": short(watch, _NAME_CHARS),
            "instance": short(instance, _NAME_CHARS),
            "run": short(run, _NAME_CHARS),
            "goal": short(goal, limits.chars),
            "labels": _labels(labels),
            "finding": plain(finding, limits),
            "cost": plain(cost, limits),
            "trace_id": trace_id,
            "links": _links(links),
        }
        if _size(data) <= MAX_DATA_BYTES:
            break
    return data


def evidence_data(evidence: Evidence) -> dict[str, Any]:
    """One line of evidence as it goes out."""
    place = evidence.place
    where = {"file": place.file, "offset": place.offset, "cursor": place.cursor}
    return {key: value for key, value in where.items() if value is not None} | {"line": evidence.line}


def alert_payload(type: EventType, data: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """The whole message, as a `standard` receiver sees it. at: when it happened."""
    return {"type": type.value, "timestamp": iso(at), "data": data}


def sample_test(webhook: str, instance: str) -> dict[str, Any]:
    """The `data` of `agentd.test`."""
    return {
        "schema": "agentd.test/1",
        "webhook": webhook,
        "instance": short(instance, _NAME_CHARS),
        "summary": f"A test of webhook {webhook!r} by agentd on {short(instance, _NAME_CHARS)}. Nothing is wrong.",
    }


def payload_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of everything a `standard` receiver may get, with an example of each type."""
    messages: list[type[BaseModel]] = [AlertMessage, GroupMessage, FindingMessage, TestMessage]
    references, definitions = models_json_schema(
        [(model, "validation") for model in messages], by_alias=True, ref_template="#/$defs/{model}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "agentd webhook payload",
        "description": "Unknown fields and types may be added: ignore what you do not know.",
        "oneOf": [references[model, "validation"] for model in messages],
        "$defs": definitions["$defs"],
        "examples": examples(),
    }


def examples() -> list[dict[str, Any]]:
    """One message of every type; the first is a firing alert."""
    firing: dict[str, Any] = {
        "schema": "agentd.alert/1",
        "fingerprint": "9f2c41d0a7b3e865",
        "watch": "shop",
        "rule": None,
        "severity": "critical",
        "state": "firing",
        "reason": "threshold",
        "reason_text": "failed 3 of 5",
        "instance": "web-1",
        "summary": "shop: status == 200 does not hold (status = 503)",
        "labels": {"team": "web"},
        "values": {"status": 503, "latency_ms": 12.4},
        "failed": ["status == 200"],
        "evidence": [],
        "finding": None,
        "started_at": "2026-11-20T09:00:03.000Z",
        "ended_at": None,
        "muted_by": None,
        "flapping": False,
        "occurrences": 3,
        "cost": None,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "links": {
            "page": "http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865",
            "watch": "http://127.0.0.1:8787/watches/shop",
        },
    }
    updated = firing | {"summary": "shop: latency_ms < 300 does not hold (latency_ms = 812)", "occurrences": 9}
    updated |= {"values": {"latency_ms": 812.0}, "failed": ["latency_ms < 300"]}
    reminder = firing | {"reason": "reminder", "reason_text": "still firing after 4h", "occurrences": 480}
    resolved = firing | {"state": "resolved", "reason": "recovered", "reason_text": "ok 2 times in a row"}
    resolved |= {"ended_at": "2026-11-20T13:10:03.000Z", "failed": [], "values": {}}
    resolved |= {"summary": "shop: ok again; it was: status == 200 does not hold (status = 503)"}
    escalated = firing | {"reason": "escalated", "reason_text": "firing for 30m", "occurrences": 61}
    flapping = firing | {"reason": "flapping", "reason_text": "state changed in 34 % of the last 20 checks"}
    flapping |= {"flapping": True}
    bruteforce = firing | {"fingerprint": "1b5d0f6e7a894c23", "watch": "ssh", "rule": "bruteforce"}
    bruteforce |= {
        "links": {
            "page": "http://127.0.0.1:8787/alerts/1b5d0f6e7a894c23",
            "watch": "http://127.0.0.1:8787/watches/ssh",
        }
    }
    bruteforce |= {"reason": "matched", "reason_text": "5 lines within 10m", "occurrences": 5}
    bruteforce |= {"summary": "ssh: Failed password for root from 192.0.2.7", "failed": []}
    bruteforce |= {"labels": {"team": "web", "ip": "192.0.2.7"}, "values": {"ip": "192.0.2.7"}}
    bruteforce |= {
        "evidence": [
            {
                "file": "/var/log/auth.log",
                "offset": 1234,
                "line": "Nov 20 09:01:00 web-1 sshd[7]: Failed password for root from 192.0.2.7 port 7 ssh2",
            }
        ]
    }
    quiet = bruteforce | {"state": "resolved", "reason": "quiet", "reason_text": "nothing for 15m"}
    quiet |= {"ended_at": "2026-11-20T13:10:03.000Z"}
    group = {"schema": "agentd.group/1", "group": {"team": "web"}, "omitted": 0}
    group_firing = group | {"reason": "first", "firing": 2, "resolved": 0, "alerts": [firing, bruteforce]}
    group_resolved = group | {"reason": "all_clear", "firing": 0, "resolved": 2, "alerts": [resolved, quiet]}
    finding = {
        "status": "problem",
        "severity": "warning",
        "summary": "The payment service times out since the deployment of 05:40.",
        "claims": [{"text": "All 312 errors name the same upstream.", "evidence": ["e1", "e3"]}],
        "next_steps": ["Look at the connection pool of payment-2."],
        "confidence": 0.8,
        "unverified": False,
        "analysis": None,
        "sources": {"e1": "Log of payment: kinds of lines", "e3": "s1.2 http_get https://pay.example/health: 503"},
    }
    found = {
        "schema": "agentd.finding/1",
        "watch": "morning-review",
        "instance": "web-1",
        "run": "run_5f1c",
        "goal": "Review the errors of the last 24 hours.",
        "labels": {"team": "web"},
        "finding": finding,
        "cost": {"usd": 0.04, "tokens": 9120},
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "links": {
            "page": "http://127.0.0.1:8787/runs/run_5f1c",
            "watch": "http://127.0.0.1:8787/watches/morning-review",
            "run": "http://127.0.0.1:8787/runs/run_5f1c",
        },
    }
    told = [
        ("alert.firing", "2026-11-20T09:00:03.000Z", firing),
        ("alert.updated", "2026-11-20T09:03:03.000Z", updated),
        ("alert.escalated", "2026-11-20T09:30:03.000Z", escalated),
        ("alert.flapping", "2026-11-20T09:40:03.000Z", flapping),
        ("alert.reminder", "2026-11-20T13:00:03.000Z", reminder),
        ("alert.resolved", "2026-11-20T13:10:03.000Z", resolved),
        ("group.firing", "2026-11-20T09:00:13.000Z", group_firing),
        ("group.resolved", "2026-11-20T13:10:13.000Z", group_resolved),
        ("goal.finding", "2026-11-20T06:01:12.000Z", found),
        ("agentd.test", "2026-11-20T13:20:00.000Z", sample_test("audit", "web-1")),
    ]
    return [{"type": type, "timestamp": at, "data": data} for type, at, data in told]


def _labels(labels: Mapping[str, Any]) -> dict[str, str]:
    for limits in _LIMITS:
        named = _texts(labels, limits)
        if _size(named) <= MAX_LABELS_BYTES:
            break
    return named


def _links(links: Mapping[str, str] | None) -> dict[str, str]:
    """Whole ones alone: half an address leads elsewhere."""
    return {name: url for name, url in (links or {}).items() if len(url) <= _MOST_LINK_CHARS}


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _texts(texts: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    items = list(texts.items())[: limits.items]
    return {short(str(key), limits.chars): short(str(value), limits.chars) for key, value in items}


def _in_order(data: dict[str, Any]) -> dict[str, Any]:
    return {field.alias or name: data[field.alias or name] for name, field in AlertData.model_fields.items()}


def _size(data: dict[str, Any]) -> int:
    return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
