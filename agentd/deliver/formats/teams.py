"""
Microsoft Teams by a Workflows webhook ("When a Teams webhook request is received"): an Adaptive Card in a message.

Promise: the message stays below the 28 KB that Teams takes, by whichever encoding it counts. Text from targets and logs
stands in text runs, which know no markup, and the card names no mention, so `<at>` is four letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentd.deliver.formats import Message, Rendered, Taken
from agentd.deliver.formats.digest import Digest, Tone, digest

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

# learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using: 28 KB a message.
# Some of the services on the way count it as UTF-16.
MOST_BYTES = 28_000
MOST_ACTIONS = 4
_TITLE_CHARS = 200
_SUMMARY_CHARS = 1000
_VALUE_CHARS = 200
_NAME_CHARS = 80
_MOST_FACTS = 16
_MOST_LINES = 8
_MOST_VALUES = 10

_STYLES = {
    Tone.CRITICAL: "attention",
    Tone.WARNING: "warning",
    Tone.INFO: "accent",
    Tone.GOOD: "good",
    Tone.NEUTRAL: "emphasis",
}
# Clients turn {{DATE(…)}} into a date wherever it stands, and ${…} belongs to card templates.
_FUNCTION = re.compile(r"[{$](?=\{)")
# What the retired connectors answered with 200, and some gateways still do.
_FAILED = re.compile(rb"endpoint returned HTTP error (\d{3})")


def check(settings: WebhookSettings) -> None:
    """A Workflows webhook needs nothing but its address."""


def judge(status: int, answer: bytes) -> Taken:
    """
    A workflow says 202 when it has begun, and no word of how it ended. A failure told with a good status is one:
    too large or wrong will not get better, anything else may.
    """
    failed = _FAILED.search(answer)
    if failed is None:
        return "taken"
    return "never" if failed[1] in (b"400", b"413", b"422") else "later"


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    told = digest(message)
    title = _text(told.title, _TITLE_CHARS)
    blocks = [
        {
            "type": "Container",
            "style": _STYLES[told.tone],
            "bleed": True,
            "items": [_line(_run(title, weight="Bolder", size="Medium"))],
        }
    ]
    blocks += _blocks(told)
    members = [
        _line(
            _run(_text(each.name, _NAME_CHARS), weight="Bolder"),
            _run(f" ({_text(each.severity, 20)}): {_text(each.summary, _VALUE_CHARS)}"),
        )
        for each in told.members
    ]
    last = [_line(_run(_text(" · ".join(told.origin), 300), isSubtle=True, size="Small"))] if told.origin else []
    actions = [
        {"type": "Action.OpenUrl", "title": _text(name, _NAME_CHARS) or "link", "url": url}
        for name, url in told.links[:MOST_ACTIONS]
    ]
    return Rendered(
        _fitting(title, blocks, members, told.omitted, last, actions),
        {"Content-Type": "application/json; charset=utf-8"},
    )


def _blocks(told: Digest) -> list[dict[str, Any]]:
    blocks = [_line(_run(_text(told.summary, _SUMMARY_CHARS)))] if told.summary else []
    blocks += [_named(name, value) for name, value in told.facts[:_MOST_FACTS]]
    blocks += [_named("does not hold", each, code=True) for each in told.failed[:_MOST_LINES]]
    blocks += [_named(name, value, code=True) for name, value in told.values[:_MOST_VALUES]]
    if told.analysis is not None:
        blocks.append(_line(_run(_text(told.analysis.heading, _VALUE_CHARS), italic=True)))
        if told.analysis.summary:
            blocks.append(_line(_run(_text(told.analysis.summary, _SUMMARY_CHARS))))
        blocks += [_line(_run(f"• {_text(each, _VALUE_CHARS)}")) for each in told.analysis.lines[:_MOST_LINES]]
    blocks += [_line(_code(each)) for each in told.evidence[:_MOST_LINES]]
    if len(told.evidence) > _MOST_LINES:
        blocks.append(_line(_run(f"and {len(told.evidence) - _MOST_LINES} more lines")))
    return blocks


def _fitting(
    title: str,
    blocks: Sequence[dict[str, Any]],
    members: Sequence[dict[str, Any]],
    omitted: int,
    last: Sequence[dict[str, Any]],
    actions: Sequence[dict[str, Any]],
) -> bytes:
    """The message of as many blocks and members as there is room for, in their order; of members it says how many."""
    room = MOST_BYTES - _size(_message(title, list(last), actions)) - 300
    kept: list[dict[str, Any]] = []
    for block in blocks:
        room -= _size(block) + 2
        if room < 0:
            kept.append(_line(_run("…")))
            break
        kept.append(block)
    shown = 0
    for member in members:
        room -= _size(member) + 2
        if room < 0:
            break
        kept.append(member)
        shown += 1
    if more := omitted + len(members) - shown:
        kept.append(_line(_run(f"and {more} more")))
    return _json(_message(title, [*kept, *last], actions))


def _message(title: str, body: Sequence[dict[str, Any]], actions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": title,
        "msteams": {"width": "Full"},
        "body": body,
    }
    if actions:
        card["actions"] = actions
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _named(name: str, value: str, *, code: bool = False) -> dict[str, Any]:
    shown = _code(value) if code else _run(_text(value, _VALUE_CHARS))
    return _line(_run(f"{_text(name, _NAME_CHARS)}: ", weight="Bolder"), shown)


def _line(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "spacing": "Small", "inlines": list(runs)}


def _run(text: str, **look: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": text or " ", **look}


def _code(text: str) -> dict[str, Any]:
    return _run(_text(text, _VALUE_CHARS), fontType="Monospace")


def _text(text: str, limit: int) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return _FUNCTION.sub(lambda match: f"{match[0]}\u200b", text)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _size(value: Any) -> int:
    text = _json(value).decode()
    return max(len(text.encode()), len(text.encode("utf-16-le")))
