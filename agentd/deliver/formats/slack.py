"""
Slack incoming webhooks: one coloured attachment of Block Kit blocks.

Promise: Slack's limits hold whatever the alert contains, and text from targets and logs stays text: it links
nothing, mentions nobody and unfurls nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentd.deliver.formats import Message, Rendered
from agentd.records import EventType

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

# docs.slack.dev/reference/block-kit/blocks: header 150, section text 3000, 50 blocks a message.
HEADER_CHARS = 150
TEXT_CHARS = 3000
_SUMMARY_CHARS = 2000
_VALUE_CHARS = 300
_MOST_VALUES = 20
_MOST_LINES = 10
_MOST_ALERTS = 20

_COLOURS = {"critical": "#a30200", "warning": "#daa038", "info": "#439fe0"}
_RESOLVED = "#2eb67d"
_NEUTRAL = "#868e96"
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

_MENTION = re.compile(r"@(?=(?:here|channel|everyone)\b)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_CUT_ENTITY = re.compile(r"&[a-z]{0,3}$")


def check(settings: WebhookSettings) -> None:
    """Slack's webhooks need nothing but their address."""


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    word = _WORDS[message.type]
    if message.type is EventType.TEST:
        title, colour, blocks = _test(message.data)
    elif "alerts" in message.data:
        title, colour, blocks = _group(word, message.data)
    else:
        title, colour, blocks = _alert(word, message.data)
    body = {
        "text": title,
        "attachments": [{"color": colour, "fallback": title, "blocks": [_header(title), *blocks]}],
        "unfurl_links": False,
        "unfurl_media": False,
        "link_names": False,
        "parse": "none",
    }
    return Rendered(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def escape(text: str, limit: int) -> str:
    """Text that Slack shows as it is, at most `limit` characters of its markup (docs.slack.dev: escaping text)."""
    text = _MENTION.sub("@\u200b", _CONTROL.sub("\ufffd", text[: limit + 1]))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(text) <= limit:
        return text
    return _CUT_ENTITY.sub("", text[: limit - 1]) + "…"


def _alert(word: str, data: Mapping[str, Any]) -> tuple[str, str, list[dict[str, Any]]]:
    resolved = data["state"] == "resolved"
    name = data["watch"] if data["rule"] is None else f"{data['watch']} / {data['rule']}"
    title = escape(f"{word}: {_one_line(name)}", HEADER_CHARS)
    blocks = []
    if data["summary"]:
        blocks.append(_section(escape(_one_line(data["summary"]), _SUMMARY_CHARS)))
    facts = [
        ("Severity", data["severity"]),
        ("Instance", data["instance"]),
        ("Reason", data["reason_text"]),
        ("Since", _since(data)),
        ("Occurrences", str(data["occurrences"])),
    ]
    facts += [(key, value) for key, value in list(data["labels"].items())[:_MOST_VALUES]]
    lines = [
        f"*{escape(_one_line(key), 100)}:* {escape(_one_line(value), _VALUE_CHARS)}" for key, value in facts if value
    ]
    blocks.append(_section(_joined(lines)))
    if not resolved:
        blocks += _details(data)
    blocks += _evidence(data["evidence"])
    blocks.append(_context(data))
    return title, _RESOLVED if resolved else _COLOURS.get(data["severity"], _NEUTRAL), blocks


def _details(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = list(data["values"].items())[:_MOST_VALUES]
    lines = [f"does not hold: {_code(condition)}" for condition in data["failed"][:_MOST_LINES]]
    lines += [f"{escape(_one_line(key), 100)} = {_code(_shown(value))}" for key, value in values]
    return [_section(_joined(lines))] if lines else []


def _evidence(evidence: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    lines = [_code(str(item.get("line", ""))) for item in evidence[:_MOST_LINES]]
    if len(evidence) > _MOST_LINES:
        lines.append(f"and {len(evidence) - _MOST_LINES} more lines")
    return [_section(_joined(lines))] if lines else []


def _context(data: Mapping[str, Any]) -> dict[str, Any]:
    parts = [f"{escape(_one_line(data['fingerprint']), 100)}"]
    if data["trace_id"]:
        parts.append(f"trace {escape(_one_line(data['trace_id']), 100)}")
    parts += [link for name, url in data["links"].items() if (link := _link(name, url))]
    text = _joined(parts, " · ")
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}


def _group(word: str, data: Mapping[str, Any]) -> tuple[str, str, list[dict[str, Any]]]:
    alerts = data["alerts"]
    shared = ", ".join(f"{key}={value}" for key, value in data["group"].items())
    title = escape(f"{word}: {len(alerts)} alerts {_one_line(shared)}".rstrip(), HEADER_CHARS)
    lines = [
        f"*{escape(_one_line(alert['watch']), 100)}* ({escape(alert['severity'], 20)}): "
        + escape(_one_line(alert["summary"]), _VALUE_CHARS)
        for alert in alerts[:_MOST_ALERTS]
    ]
    if len(alerts) > _MOST_ALERTS:
        lines.append(f"and {len(alerts) - _MOST_ALERTS} more")
    firing = [alert["severity"] for alert in alerts if alert["state"] != "resolved"]
    worst = next((severity for severity in _COLOURS if severity in firing), None)
    return title, _COLOURS[worst] if worst else _RESOLVED, [_section(line) for line in lines]


def _test(data: Mapping[str, Any]) -> tuple[str, str, list[dict[str, Any]]]:
    title = escape(f"Test: agentd on {_one_line(data['instance'])}", HEADER_CHARS)
    return title, _NEUTRAL, [_section(escape(_one_line(data["summary"]), _SUMMARY_CHARS))]


def _header(title: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}


def _section(text: str) -> dict[str, Any]:
    # verbatim: Slack must not make links and mentions of what looks like them.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text or " ", "verbatim": True}}


def _code(text: str) -> str:
    quoted = _one_line(text).replace("`", "'")
    return f"`{escape(quoted, _VALUE_CHARS) or ' '}`"


def _link(name: str, url: str) -> str | None:
    if not re.fullmatch(r"https?://[^\s<>|]{1,1000}", url):
        return None
    return f"<{url.replace('&', '&amp;')}|{escape(_one_line(name).replace('|', '/'), 100)}>"


def _joined(lines: Sequence[str], glue: str = "\n") -> str:
    """As many whole lines as fit: a cut in the middle of markup would break what follows."""
    text = ""
    for line in lines:
        longer = f"{text}{glue}{line}" if text else line
        if len(longer) > TEXT_CHARS - 2:
            return f"{text}{glue}…"
        text = longer
    return text


def _since(data: Mapping[str, Any]) -> str:
    if data["started_at"] is None:
        return ""
    until = f" to {data['ended_at']}" if data["ended_at"] else ""
    return f"{data['started_at']}{until}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
