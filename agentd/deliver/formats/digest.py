"""
What a message says, in parts and in plain words: what every format shows, before any of them writes it its own way.

In: a message of any type, its data as an older version may have stored it. Out: a Digest: one-line texts without
control characters or direction marks. They are neither escaped nor cut: each format does that as its receiver needs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentd.deliver.formats import Message
from agentd.deliver.links import group_links
from agentd.records import EventType, Reason

_WORDS = {
    EventType.FIRING: "Firing",
    EventType.UPDATED: "Update",
    EventType.REMINDER: "Still firing",
    EventType.ESCALATED: "Escalated",
    EventType.RESOLVED: "Resolved",
    EventType.FLAPPING: "Flapping",
    EventType.GROUP_FIRING: "Firing",
    EventType.GROUP_RESOLVED: "Resolved",
    EventType.FINDING: "Finding",
    EventType.TEST: "Test",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINK = re.compile(r"https?://[^\s<>|\"\\^`{}()\[\]\x00-\x1f\x7f]{1,1000}", re.ASCII)


class Tone(StrEnum):
    """How bad it is at a glance; formats make a colour of it."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"
    GOOD = "good"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a language model wrote. heading: says so. lines: its claims and the next steps it proposes."""

    heading: str
    summary: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One alert of a group. severity: of a firing one, `resolved` of one that is over."""

    name: str
    severity: str
    summary: str


@dataclass(frozen=True, slots=True)
class Digest:
    """
    title: what happened to what. summary: one sentence, may be empty. facts: names and values.
    failed: the conditions that do not hold. values: what they read. evidence: log lines, unseen: how many more.
    members: of a group, the news first; omitted: how many more the message does not carry. origin: ids of the alert
    and of its trace. links: names and http addresses. stands: whether anything fires now that this was told.
    """

    title: str
    tone: Tone
    stands: bool
    summary: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    failed: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    evidence: tuple[str, ...] = ()
    analysis: Analysis | None = None
    members: tuple[Member, ...] = ()
    omitted: int = 0
    origin: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def digest(message: Message) -> Digest:
    """The parts of a message of any type."""
    if message.type is EventType.TEST:
        return _test(message.data)
    if message.type is EventType.FINDING:
        return _finding(message.data)
    if "alerts" in message.data:
        return _group(message)
    return _alert(message)


def one_line(text: object) -> str:
    """On one line, and with no character that a reader would not see as what it is."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else _CONTROL.sub("\ufffd", line)


def stands(type: EventType, data: Mapping[str, Any]) -> bool:
    """Whether an alert message leaves something open: it fires, or it has begun to flap."""
    if type is EventType.FLAPPING and data.get("flapping"):
        return True
    return bool(data.get("state") == "firing")


def name_of(alert: Mapping[str, Any]) -> str:
    """The watch, and its rule where it has one."""
    watch, rule = one_line(alert.get("watch", "")), alert.get("rule")
    return watch if rule is None else f"{watch} / {one_line(rule)}"


def whole_links(links: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and address of those links that are web addresses and can break out of no markup, each address once."""
    seen: set[str] = set()
    for name, url in links.items():
        if str(url) not in seen and _LINK.fullmatch(str(url)):
            seen.add(str(url))
            yield one_line(name), str(url)


def bounded(lines: Sequence[str], size: int, glue: str = "\n", measure: Any = len) -> str:
    """As many whole lines as fit into `size`, by `measure`: a cut in the middle of markup would break what follows."""
    text = ""
    for line in lines:
        longer = f"{text}{glue}{line}" if text else line
        if measure(longer) > size - measure(glue) - 1:
            return f"{text}{glue}…" if text else "…"
        text = longer
    return text


def _alert(message: Message) -> Digest:
    data = message.data
    standing = stands(message.type, data)
    word = _WORDS[message.type]
    if message.type is EventType.FLAPPING and not data.get("flapping"):
        word = "No longer flapping"
    facts = [
        ("Severity", data["severity"]),
        ("Instance", data["instance"]),
        ("Reason", _reason(data)),
        ("Since", _since(data)),
        ("Occurrences", data["occurrences"] or ""),
        ("Muted", data.get("muted_by") or ""),
        ("Run", _run_of(data)),
        *data["labels"].items(),
    ]
    return Digest(
        title=f"{word}: {name_of(data)}",
        tone=_tone(data["severity"]) if standing else Tone.GOOD,
        stands=standing,
        summary=one_line(data["summary"]),
        facts=_pairs(facts),
        failed=tuple(one_line(each) for each in data["failed"]) if standing else (),
        values=_pairs([(key, _shown(value)) for key, value in data["values"].items()]) if standing else (),
        evidence=tuple(one_line(each.get("line", "")) for each in data["evidence"]),
        analysis=_analysis(data.get("finding")),
        origin=_origin(data),
        links=tuple(whole_links(data["links"])),
    )


def _group(message: Message) -> Digest:
    data = message.data
    alerts = data["alerts"]
    firing = [each for each in alerts if each["state"] == "firing"]
    omitted = int(data.get("omitted", 0))
    n_firing = int(data.get("firing", len(firing)))
    n_resolved = int(data.get("resolved", len(alerts) - len(firing)))
    standing = message.type is EventType.GROUP_FIRING
    if standing:
        word = "Still firing" if data.get("reason") == "repeat" else "Firing"
        counts = f"{n_firing} {'alert' if n_firing == 1 else 'alerts'}"
        counts += f", {n_resolved} resolved" if n_resolved else ""
    else:
        word, counts = "Resolved", f"{n_resolved} {'alert' if n_resolved == 1 else 'alerts'}"
    shared = ", ".join(f"{one_line(key)}={one_line(value)}" for key, value in data["group"].items() if value)
    severities = {each["severity"] for each in (firing or alerts)}
    worst = next((each for each in ("critical", "warning", "info") if each in severities), "")
    return Digest(
        title=f"{word}: {counts}" + (f" ({shared})" if shared else ""),
        tone=_tone(worst) if standing else Tone.GOOD,
        stands=standing,
        members=tuple(
            Member(
                name_of(each),
                one_line(each["severity"]) if each["state"] == "firing" else "resolved",
                one_line(each["summary"]),
            )
            for each in alerts
        ),
        omitted=omitted,
        links=tuple(whole_links(alerts[0]["links"] if len(alerts) == 1 else group_links(alerts))),
    )


def _finding(data: Mapping[str, Any]) -> Digest:
    found = data.get("finding") or {}
    severity = str(found.get("severity", "info"))
    status = one_line(found.get("status", ""))
    return Digest(
        title=f"Finding: {one_line(data.get('watch', ''))}",
        tone=Tone.GOOD if status == "ok" else _tone(severity),
        stands=status != "ok",
        facts=_pairs(
            [
                ("Severity", severity),
                ("Status", status),
                ("Instance", data.get("instance", "")),
                ("Goal", data.get("goal") or ""),
                ("Run", data.get("run") or ""),
                *(data.get("labels") or {}).items(),
            ]
        ),
        analysis=_analysis(found),
        origin=_origin(data),
        links=tuple(whole_links(data.get("links") or {})),
    )


def _test(data: Mapping[str, Any]) -> Digest:
    return Digest(
        title=f"Test: agentd on {one_line(data['instance'])}",
        tone=Tone.NEUTRAL,
        stands=False,
        summary=one_line(data["summary"]),
    )


def _analysis(finding: Any) -> Analysis | None:
    """Nothing here trusts the shape: a finding may be cut, and it began as a model's answer."""
    if not isinstance(finding, Mapping) or not finding:
        return None
    heading = "Analysis by a language model"
    if finding.get("unverified"):
        heading += ", unverified"
    confidence = finding.get("confidence")
    if isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0 <= confidence <= 1:
        heading += f", confidence {confidence:.0%}"
    unavailable = finding.get("analysis")
    if isinstance(unavailable, str):
        heading = f"No analysis: {one_line(unavailable)}"
    lines = [f"claim: {_said(each)}" for each in _list(finding.get("claims"))]
    lines += [f"next: {_said(each)}" for each in _list(finding.get("next_steps"))]
    return Analysis(heading, one_line(finding.get("summary") or ""), tuple(lines))


def _said(item: Any) -> str:
    if isinstance(item, Mapping):
        text = item.get("text") or item.get("claim") or ""
        sources = ", ".join(one_line(each) for each in _list(item.get("evidence")))
        quotes = "".join(f" “{one_line(each)}”" for each in _list(item.get("quotes")))
        unverified = " (unverified)" if item.get("unverified") else ""
        return one_line(text) + unverified + (f" [{sources}]" if sources else "") + quotes
    return one_line(item)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else []


def _tone(severity: str) -> Tone:
    return Tone(severity) if severity in ("critical", "warning", "info") else Tone.NEUTRAL


def _pairs(pairs: Sequence[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    lines = [(one_line(name), one_line(value)) for name, value in pairs]
    return tuple((name, value) for name, value in lines if name and value)


def _origin(data: Mapping[str, Any]) -> tuple[str, ...]:
    origin = [one_line(data["fingerprint"])] if data.get("fingerprint") else []
    if data.get("trace_id"):
        origin.append(f"trace {one_line(data['trace_id'])}")
    return tuple(origin)


def _reason(data: Mapping[str, Any]) -> str:
    """What an agent found stands below, with what it rests on: once is enough."""
    if data["reason"] == Reason.FINDING and isinstance(data.get("finding"), Mapping):
        return "an agent looked into it"
    return str(data["reason_text"])


def _run_of(data: Mapping[str, Any]) -> str:
    """The run that the finding came of, for `agentd runs`."""
    cost = data.get("cost") if data.get("finding") else None
    return str(cost.get("run") or "") if isinstance(cost, Mapping) else ""


def _since(data: Mapping[str, Any]) -> str:
    if data["started_at"] is None:
        return ""
    until = f" to {data['ended_at']}" if data["ended_at"] else ""
    return f"{data['started_at']}{until}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
