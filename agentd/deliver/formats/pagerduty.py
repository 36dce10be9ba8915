"""
PagerDuty, Events API v2: one incident for each group, opened and closed by the same key.

What the configuration groups is one incident: its key is made of the instance, the webhook and the group, and not of an
alert, for a group's messages are about one alert today and about five tomorrow. Any news of a group in which something
fires is a `trigger`, which PagerDuty adds to the open incident; the all clear is its `resolve`. Who wants an incident
for each alert groups by `["..."]`. (One event for each alert of a message was decided against: what is cut from a large
group would never open, and a storm would page as often as it has alerts.) agentd never acknowledges for people.

Promise: sending again changes nothing, and no event exceeds what PagerDuty takes.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from agentd.clock import iso
from agentd.deliver.formats import Message, Rendered, Taken
from agentd.deliver.formats.digest import Digest, digest, one_line
from agentd.errors import DeliveryDelayed
from agentd.records import EventType
from agentd.secret import SecretMissing

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

# developer.pagerduty.com/docs/send-alert-event: 512 KB an event, summary 1024 characters, key 255.
MOST_BYTES = 512_000
SUMMARY_CHARS = 1024
_NAME_CHARS = 255
_TEXT_CHARS = 1000
_MOST_LINKS = 10
_MOST = 200
_KEY = re.compile(r"\S{32}")

CURE = "put the 32 characters of an Events API v2 integration there"


def check(settings: WebhookSettings) -> None:
    """It needs the key of an Events API v2 integration."""
    if settings.routing_key is None:
        raise ValueError("`format: pagerduty` needs `routing_key`: the integration key of Events API v2")
    if settings.routing_key.literal and not usable_key(settings.routing_key.text):
        raise ValueError(f"routing_key is no integration key; {CURE}")


def usable_key(key: str) -> bool:
    """PagerDuty answers 400 to any other, which would bury the message."""
    return _KEY.fullmatch(key.strip()) is not None


def judge(status: int, answer: bytes) -> Taken:
    """The 202 of PagerDuty itself says `"status": "success"`, or a short error."""
    try:
        said = json.loads(answer)
    except ValueError:
        return "taken"
    word = said.get("status", "success") if isinstance(said, dict) else "success"
    if word == "success":
        return "taken"
    return "never" if word == "invalid event" else "later"


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    assert settings.routing_key is not None, "checked at load"
    try:
        key = settings.routing_key.expand().strip()
    except SecretMissing as error:
        raise DeliveryDelayed(str(error)) from error
    if not usable_key(key):
        raise DeliveryDelayed(f"routing_key is no integration key; {CURE}")
    told = digest(message)
    event = {"routing_key": key, "dedup_key": incident(message)}
    resolve = _json(event | {"event_action": "resolve"})
    flapping = message.type is EventType.FLAPPING
    if bool(message.data.get("flapping")) if flapping else told.stands:
        return Rendered(_trigger(message, told, event))
    if message.type is EventType.TEST or _unheard(message):
        # Nobody is to close by hand what is not open any more.
        return Rendered(_trigger(message, told, event), more=(resolve,))
    return Rendered(resolve)


def incident(message: Message) -> str:
    """The key of the incident that this message is about: the same for all messages of its group."""
    data = message.data
    alerts = data.get("alerts") or [data]
    if message.type in (EventType.TEST, EventType.FINDING):
        about = f"{message.type.value} {data.get('watch', '')}"
    elif message.type is EventType.FLAPPING:
        # An incident of its own: its end must not close that of a group in which others fire.
        about = f"flapping {data.get('fingerprint', '')}"
    else:
        about = message.lane or data.get("fingerprint") or json.dumps(data.get("group"), sort_keys=True)
    names = [str(alerts[0].get("instance", "")), message.webhook, str(about)]
    return f"agentd/{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:40]}"


def _unheard(message: Message) -> bool:
    """One-off events, all over by the time that they are first told of: they still are an incident."""
    return message.type is EventType.GROUP_RESOLVED and message.data.get("reason") == "first"


def _trigger(message: Message, told: Digest, event: dict[str, Any]) -> bytes:
    data = message.data
    first = (data.get("alerts") or [data])[0]
    said = told.summary or (told.analysis.summary if told.analysis else "")
    if not said and told.members:
        said = "; ".join(f"{each.name}: {each.summary}" for each in told.members[:3])
    written = "by a language model: " if told.analysis and not told.summary else ""
    payload: dict[str, Any] = {
        "summary": _short(f"{told.title}: {written}{said}" if said else told.title, SUMMARY_CHARS),
        "source": _short(one_line(first.get("instance") or ""), _NAME_CHARS) or "agentd",
        "severity": told.tone.value if told.tone.value in ("critical", "warning", "info") else "info",
        "timestamp": first.get("started_at") or iso(message.timestamp),
        "class": message.type.value,
    }
    if "watch" in data:
        payload["component"] = _short(one_line(data["watch"]), _NAME_CHARS) or "agentd"
    if "group" in data:
        payload["group"] = _short(", ".join(f"{one_line(k)}={one_line(v)}" for k, v in data["group"].items()), 255)
    event = event | {"event_action": "trigger", "client": "agentd", "payload": payload}
    links = [{"href": url, "text": _short(name, _NAME_CHARS)} for name, url in told.links[:_MOST_LINKS]]
    if links:
        event |= {"links": links, "client_url": links[0]["href"]}
    for most in (_MOST, 20, 3, 0):
        payload["custom_details"] = _details(told, most)
        body = _json(event)
        if len(body) <= MOST_BYTES:
            break
    return body


def _details(told: Digest, most: int) -> dict[str, Any]:
    """What is shown as a table. most: of each kind of thing."""
    details: dict[str, Any] = {}
    for kind, pairs in (("", told.facts), ("value ", told.values)):
        details |= {
            f"{kind}{_short(name, _NAME_CHARS)}": _short(value, _TEXT_CHARS) for name, value in pairs[: most or 6]
        }
    lists = {
        "does not hold": told.failed,
        "lines": told.evidence,
        "alerts": tuple(f"{each.severity} {each.name}: {each.summary}" for each in told.members),
    }
    if told.analysis is not None:
        details[told.analysis.heading] = _short(told.analysis.summary, _TEXT_CHARS)
        lists[f"{told.analysis.heading}: details"] = told.analysis.lines
    details |= {name: [_short(each, _TEXT_CHARS) for each in lines[:most]] for name, lines in lists.items() if lines}
    if more := told.omitted + max(0, len(told.members) - most):
        details["and more alerts"] = more
    if told.origin:
        details["agentd"] = _short(" · ".join(told.origin), _NAME_CHARS)
    return details


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
