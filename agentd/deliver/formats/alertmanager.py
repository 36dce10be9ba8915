"""
Alertmanager, from both sides. `mode: webhook` speaks to whatever takes Alertmanager's webhooks (payload version 4);
`mode: api` is its client, and posts alerts to Alertmanager's own API v2, which then groups, mutes and tells.

Alertmanager takes an alert as over when its `endsAt` has passed, and knows nobody's promise to say so. So `endsAt` is
set as far ahead as news of what still fires may take to arrive: a reminder comes within 24 hours (unless they are
turned off, or the alert is acknowledged) and is under way for 72 at most. A further end was decided against: an alert
whose labels changed in the configuration would fire there for as long. It keeps alerts in memory only; after a
restart it learns of what fires by the next reminder. What begins and ends within its own `group_wait` it does not tell.

Promise: labels and annotations are such as every version takes, and an alert has the same labels in all its messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from agentd.clock import iso
from agentd.deliver.formats import Message, Rendered
from agentd.deliver.formats.digest import bounded, digest, name_of, one_line, stands
from agentd.records import EventType

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

LASTS = timedelta(hours=24 + 72)
FINDING_LASTS = timedelta(days=1)
TEST_LASTS = timedelta(minutes=5)
_NOT_YET = "0001-01-01T00:00:00Z"
_ALERTS = "/api/v2/alerts"
_NAME_CHARS = 128
_VALUE_CHARS = 1000
_MOST_ANNOTATIONS = 20
_FOREIGN = re.compile(r"[^a-zA-Z0-9_]")
_SEVERITIES = ("info", "warning", "critical")


def check(settings: WebhookSettings) -> None:
    """Who posts a webhook payload to the API of Alertmanager itself is told so here, and not by its 400."""
    if settings.mode is None and settings.url.literal and _path(settings.url.text).endswith(_ALERTS):
        raise ValueError("the url is Alertmanager's own API; write `mode: api` beside it")


def address(url: str, settings: WebhookSettings) -> str:
    """In `mode: api` the url may be that of Alertmanager itself."""
    if settings.mode != "api" or _path(url).endswith(_ALERTS):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + _ALERTS))


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    entries = _entries(message)
    body: Any
    if settings.mode == "api":
        body = [_postable(each, message.timestamp) for each in [*entries, *_outgrown(message, entries)]]
    else:
        body = _webhook(message, entries)
    return Rendered(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


@dataclass(frozen=True, slots=True)
class _Entry:
    """One alert in Alertmanager's words. ends: when it was over, or None. lasts: how long to believe that it fires."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts: str
    ends: str | None
    url: str
    fingerprint: str
    lasts: timedelta = LASTS


def _entries(message: Message) -> list[_Entry]:
    data = message.data
    if message.type is EventType.TEST:
        return [_test(message)]
    if message.type is EventType.FINDING:
        return [_finding(message)]
    return [_entry(message, each) for each in data.get("alerts") or [data]]


def _entry(message: Message, data: Mapping[str, Any]) -> _Entry:
    # In a group there is no telling whether a member is there because it flaps: its state says it.
    type = message.type if "alerts" not in message.data else EventType.FIRING
    told = digest(replace(message, type=type, data=data))
    starts = data["started_at"] or iso(message.timestamp)
    ends = None if stands(type, data) else max(data["ended_at"] or iso(message.timestamp), starts)
    own = {"alertname": name_of(data), "instance": data["instance"], "severity": data["severity"]}
    own |= {"watch": data["watch"], "rule": data["rule"] or "", "agentd_fingerprint": data["fingerprint"]}
    annotations = {
        "summary": told.summary,
        "description": data["reason_text"],
        "reason": data["reason"],
        "occurrences": str(data["occurrences"]),
        "flapping": "true" if data.get("flapping") else "",
        "does_not_hold": bounded(told.failed, _VALUE_CHARS),
        "lines": bounded(told.evidence, _VALUE_CHARS),
        "trace_id": data["trace_id"] or "",
    }
    if told.analysis is not None:
        annotations["analysis"] = bounded(
            [each for each in (told.analysis.heading, told.analysis.summary, *told.analysis.lines) if each],
            _VALUE_CHARS,
        )
    annotations |= {f"link_{name}": url for name, url in told.links[:5]}
    return _Entry(
        labels=_texts([*own.items(), *data["labels"].items()]),
        annotations=_texts(list(annotations.items())[:_MOST_ANNOTATIONS]),
        starts=starts,
        ends=ends,
        url=told.links[0][1] if told.links else "",
        fingerprint=str(data["fingerprint"]),
    )


def _finding(message: Message) -> _Entry:
    data = message.data
    told = digest(message)
    own = {"alertname": data.get("watch", ""), "instance": data.get("instance", ""), "severity": told.tone.value}
    if told.tone.value not in _SEVERITIES:
        own["severity"] = "info"
    said = told.analysis
    annotations = {
        "summary": f"{said.heading}: {said.summary}" if said else told.title,
        "description": bounded(said.lines, _VALUE_CHARS) if said else "",
    }
    return _Entry(
        labels=_texts([*own.items(), ("finding", "true"), *(data.get("labels") or {}).items()]),
        annotations=_texts(annotations.items()),
        starts=iso(message.timestamp),
        ends=None if told.stands else iso(message.timestamp),
        url=told.links[0][1] if told.links else "",
        fingerprint="",
        lasts=FINDING_LASTS,
    )


def _test(message: Message) -> _Entry:
    own = {"alertname": "AgentdTest", "instance": message.data["instance"], "severity": "info"}
    annotations = {"summary": message.data["summary"]}
    return _Entry(
        _texts(own.items()), _texts(annotations.items()), iso(message.timestamp), None, "", "", lasts=TEST_LASTS
    )


def _outgrown(message: Message, entries: Sequence[_Entry]) -> Iterator[_Entry]:
    """The severity is a label, so an alert that rose is another one there: the one that it was is over."""
    if message.type is not EventType.ESCALATED:
        return
    for each in entries:
        severity = each.labels.get("severity", "")
        for lower in _SEVERITIES[: _SEVERITIES.index(severity) if severity in _SEVERITIES else 0]:
            yield replace(each, labels=each.labels | {"severity": lower}, ends=max(each.starts, iso(message.timestamp)))


def _postable(entry: _Entry, at: datetime) -> dict[str, Any]:
    ends = entry.ends or max(entry.starts, iso(at + entry.lasts))
    alert = {"labels": entry.labels, "annotations": entry.annotations, "startsAt": entry.starts, "endsAt": ends}
    return alert | ({"generatorURL": entry.url} if entry.url else {})


def _webhook(message: Message, entries: Sequence[_Entry]) -> dict[str, Any]:
    group = _group_labels(message)
    firing = any(each.ends is None for each in entries)
    return {
        "receiver": message.webhook,
        "status": "firing" if firing else "resolved",
        "alerts": [
            {
                "status": "firing" if each.ends is None else "resolved",
                "labels": each.labels,
                "annotations": each.annotations,
                "startsAt": each.starts,
                "endsAt": each.ends or _NOT_YET,
                "generatorURL": each.url,
                "fingerprint": each.fingerprint,
            }
            for each in entries
        ],
        "groupLabels": group,
        "commonLabels": _common([each.labels for each in entries]),
        "commonAnnotations": _common([each.annotations for each in entries]),
        "externalURL": next((_origin(each.url) for each in entries if each.url), ""),
        "version": "4",
        "groupKey": "{}:{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(group.items())) + "}",
        "truncatedAlerts": int(message.data.get("omitted", 0)),
    }


def _group_labels(message: Message) -> dict[str, str]:
    try:
        group = json.loads(message.lane)
    except ValueError:
        group = message.data.get("group")
    if isinstance(group, dict):
        return _texts(group.items())
    return _texts([(name, message.data.get(name, "")) for name in ("fingerprint", "watch", "webhook")])


def _texts(pairs: Any) -> dict[str, str]:
    """Names as the data model of Prometheus has them, the first of two that become one; no empty values."""
    texts: dict[str, str] = {}
    for name, value in pairs:
        name = _FOREIGN.sub("_", str(name))[:_NAME_CHARS]
        name = f"_{name}" if not name or name[0].isdigit() else name
        if value := one_line(value)[:_VALUE_CHARS]:
            texts.setdefault(name, value)
    return texts


def _common(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = mappings or [{}]
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _path(url: str) -> str:
    return url.partition("?")[0].partition("#")[0].rstrip("/")
