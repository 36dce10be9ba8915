"""
Discord webhooks: a line of content, which is what a phone shows, and one embed.

Promise: Discord's limits hold whatever the alert contains; text from targets and logs mentions nobody, links nothing
and is no markup. Discord confirms what it stored (`wait=true`): without that it says 204 also to what it drops.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from agentd.clock import iso
from agentd.deliver.formats import Message, Rendered
from agentd.deliver.formats.digest import Digest, Tone, bounded, digest

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

# discord.com/developers/docs/resources/message, "Embed Limits".
EMBED_CHARS = 6000
MOST_FIELDS = 25
_TITLE_CHARS = 256
_TEXT_CHARS = 3600
_LINKS_CHARS = 1200
_SUMMARY_CHARS = 1500
_VALUE_CHARS = 200
_NAME_CHARS = 100
_MOST_LINES = 10
_MOST_VALUES = 20
_MOST_ALERTS = 20

_COLOURS = {
    Tone.CRITICAL: 0xA30200,
    Tone.WARNING: 0xDAA038,
    Tone.INFO: 0x439FE0,
    Tone.GOOD: 0x2EB67D,
    Tone.NEUTRAL: 0x868E96,
}
_MARKUP = re.compile(r"([\\*_~`|<>\[\]#@])")
_INVITE = re.compile(r"(?i)(discord(?:app)?)(?=\.)")


def check(settings: WebhookSettings) -> None:
    """Discord's webhooks need nothing but their address."""


def address(url: str, settings: WebhookSettings) -> str:
    """The url that makes Discord answer only when it has the message; an operator's own `wait` stands."""
    parts = urlsplit(url)
    if any(name == "wait" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return url
    return urlunsplit(parts._replace(query=f"{parts.query}&wait=true" if parts.query else "wait=true"))


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    told = digest(message)
    embed: dict[str, Any] = {
        "color": _COLOURS[told.tone],
        "description": _description(told),
        "timestamp": iso(message.timestamp),
    }
    if told.origin:
        embed["footer"] = {"text": cut(" · ".join(told.origin), 300)}
    embed["fields"] = _fields(told, EMBED_CHARS - units(embed["description"]) - 300)
    body = {
        "content": f"**{escape(told.title, _TITLE_CHARS)}**",
        "embeds": [embed],
        "allowed_mentions": {"parse": []},
    }
    return Rendered(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def units(text: str) -> int:
    """Length in UTF-16: as the clients count, and never less than the characters."""
    return len(text.encode("utf-16-le")) // 2


def cut(text: str, limit: int) -> str:
    """At most `limit` UTF-16 units, the last one `…` when it was longer."""
    if units(text) <= limit:
        return text
    return text.encode("utf-16-le")[: 2 * (limit - 1)].decode("utf-16-le", "ignore") + "…"


def escape(text: str, limit: int) -> str:
    """Text that Discord shows as it is, at most `limit` UTF-16 units of its markup."""
    text = _MARKUP.sub(r"\\\1", _INVITE.sub("\\1\u200b", text[: limit + 1]).replace("://", ":\u200b//"))
    if units(text) <= limit:
        return text
    kept = cut(text, limit)[:-1]
    # A backslash that lost its character would escape what follows.
    slashes = len(kept) - len(kept.rstrip("\\"))
    return kept[: len(kept) - slashes % 2] + "…"


def _description(told: Digest) -> str:
    """Never empty: Discord refuses an embed that says nothing."""
    links: list[str] = []
    for name, url in told.links:
        link = f"[{escape(name, _NAME_CHARS) or 'link'}](<{url}>)"
        if units(" · ".join([*links, link])) <= _LINKS_CHARS:
            links.append(link)
    # A link of the markup, not of the embed: Discord refuses the whole message for an embed's url without a dot.
    last = " · ".join(links)
    room = _TEXT_CHARS - units(last)
    text = bounded(_lines(told, room), room, measure=units)
    return "\n".join(part for part in (text, last) if part) or "\u200b"


def _lines(told: Digest, room: int) -> list[str]:
    lines = [escape(told.summary, _SUMMARY_CHARS)] if told.summary else []
    lines += [f"does not hold: {_code(each)}" for each in told.failed[:_MOST_LINES]]
    lines += [f"{escape(name, _NAME_CHARS)} = {_code(value)}" for name, value in told.values[:_MOST_VALUES]]
    shown = 0
    for each in told.members[:_MOST_ALERTS]:
        line = f"**{escape(each.name, _NAME_CHARS)}** ({escape(each.severity, 20)}): "
        line += escape(each.summary, _VALUE_CHARS)
        if units("\n".join([*lines, line])) > room - 50:  # for what says how many more there are
            break
        lines.append(line)
        shown += 1
    if more := told.omitted + len(told.members) - shown:
        lines.append(f"and {more} more")
    if told.analysis is not None:
        lines.append(f"*{escape(told.analysis.heading, _VALUE_CHARS)}*")
        lines += [escape(told.analysis.summary, _SUMMARY_CHARS)] if told.analysis.summary else []
        lines += [f"• {escape(each, _VALUE_CHARS)}" for each in told.analysis.lines[:_MOST_LINES]]
    lines += [_code(line) for line in told.evidence[:_MOST_LINES]]
    if len(told.evidence) > _MOST_LINES:
        lines.append(f"and {len(told.evidence) - _MOST_LINES} more lines")
    return lines


def _fields(told: Digest, room: int) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = []
    for name, value in told.facts[:MOST_FIELDS]:
        name, value = escape(name, _NAME_CHARS), escape(value, _VALUE_CHARS)
        room -= units(name) + units(value)
        if room < 0:
            break
        fields.append({"name": name, "value": value, "inline": True})
    return fields


def _code(text: str) -> str:
    return f"`{cut(text.replace('`', chr(39)), _VALUE_CHARS) or ' '}`"
