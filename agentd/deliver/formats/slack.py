"""
Slack incoming webhooks: one coloured attachment of Block Kit blocks.

Promise: Slack's limits hold whatever the alert contains, and text from targets and logs stays text: it links
nothing, mentions nobody and unfurls nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentd.deliver.formats import Message, Rendered, Taken
from agentd.deliver.formats.digest import Digest, Member, Tone, bounded, digest

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

# docs.slack.dev/reference/block-kit/blocks: header 150, section text 3000, 50 blocks a message.
HEADER_CHARS = 150
TEXT_CHARS = 3000
_SUMMARY_CHARS = 2000
_VALUE_CHARS = 300
_MOST_FACTS = 26
_MOST_VALUES = 20
_MOST_LINES = 10
_MOST_ALERTS = 20

_COLOURS = {
    Tone.CRITICAL: "#a30200",
    Tone.WARNING: "#daa038",
    Tone.INFO: "#439fe0",
    Tone.GOOD: "#2eb67d",
    Tone.NEUTRAL: "#868e96",
}

_MENTION = re.compile(r"@(?=(?:here|channel|everyone)\b)", re.IGNORECASE)
_CUT_ENTITY = re.compile(r"&[a-z]{0,3}$")


def check(settings: WebhookSettings) -> None:
    """Slack's webhooks need nothing but their address."""


def judge(status: int, answer: bytes) -> Taken:
    """
    An incoming webhook says `ok`; the Web API says 200 to everything and `"ok": false` when it did nothing. What else
    is said by one of the many that take Slack's messages is taken as given.
    """
    try:
        said = json.loads(answer)
    except ValueError:
        return "taken"
    return "later" if isinstance(said, dict) and said.get("ok", True) is False else "taken"


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    told = digest(message)
    title = escape(told.title, HEADER_CHARS)
    blocks = [_header(title), *_said(told), *_members(told.members, told.omitted), *_context(told)]
    body = {
        "text": title,
        "attachments": [{"color": _COLOURS[told.tone], "fallback": title, "blocks": blocks}],
        "unfurl_links": False,
        "unfurl_media": False,
        "link_names": False,
        "parse": "none",
    }
    return Rendered(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def escape(text: str, limit: int) -> str:
    """Text that Slack shows as it is, at most `limit` characters of its markup (docs.slack.dev: escaping text)."""
    text = _MENTION.sub("@\u200b", text[: limit + 1])
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(text) <= limit:
        return text
    return _CUT_ENTITY.sub("", text[: limit - 1]) + "…"


def _said(told: Digest) -> list[dict[str, Any]]:
    """Everything but the members of a group, a section for each kind of thing."""
    details = [f"does not hold: {_code(condition)}" for condition in told.failed[:_MOST_LINES]]
    details += [f"{escape(name, 100)} = {_code(value)}" for name, value in told.values[:_MOST_VALUES]]
    evidence = [_code(line) for line in told.evidence[:_MOST_LINES]]
    if len(told.evidence) > _MOST_LINES:
        evidence.append(f"and {len(told.evidence) - _MOST_LINES} more lines")
    facts = [f"*{escape(name, 100)}:* {escape(value, _VALUE_CHARS)}" for name, value in told.facts[:_MOST_FACTS]]
    parts = [[escape(told.summary, _SUMMARY_CHARS)] if told.summary else [], facts, details, evidence, _analysis(told)]
    return [_section(bounded(lines, TEXT_CHARS)) for lines in parts if lines]


def _analysis(told: Digest) -> list[str]:
    if told.analysis is None:
        return []
    lines = [f"_{escape(told.analysis.heading, 200)}_"]
    if told.analysis.summary:
        lines.append(escape(told.analysis.summary, _SUMMARY_CHARS))
    return lines + [f"• {escape(line, _VALUE_CHARS)}" for line in told.analysis.lines[:_MOST_LINES]]


def _members(members: Sequence[Member], omitted: int) -> list[dict[str, Any]]:
    lines = [
        f"*{escape(each.name, 100)}* ({escape(each.severity, 20)}): {escape(each.summary, _VALUE_CHARS)}"
        for each in members[:_MOST_ALERTS]
    ]
    more = omitted + max(0, len(members) - _MOST_ALERTS)
    if more:
        lines.append(f"and {more} more")
    return [_section(line) for line in lines]


def _context(told: Digest) -> list[dict[str, Any]]:
    parts = [escape(each, 150) for each in told.origin]
    parts += [_link(name, url) for name, url in told.links]
    if not parts:
        return []
    text = bounded(parts, TEXT_CHARS, " · ")
    return [{"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}]


def _header(title: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}


def _section(text: str) -> dict[str, Any]:
    # verbatim: Slack must not make links and mentions of what looks like them.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text or " ", "verbatim": True}}


def _code(text: str) -> str:
    quoted = text.replace("`", "'")
    return f"`{escape(quoted, _VALUE_CHARS) or ' '}`"


def _link(name: str, url: str) -> str:
    return f"<{url.replace('&', '&amp;')}|{escape(name.replace('|', '/'), 100)}>"
