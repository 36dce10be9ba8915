"""
Every service that the Apprise library knows (extra `agentd[apprise]`): its URL says which, and holds its secrets.

The library runs in a child process (`apprise_child`): it takes a second and tens of megabytes to load, and its requests
block; a process can be killed at the webhook's timeout, a thread cannot. The URL goes there over a pipe.

Promise: one webhook is one service. (Several in one webhook were decided against: when one of them is down, the others
would be told again at every retry.) Text from targets and logs mentions nobody where a service looks for mentions.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from agentd.deliver.formats import Message, Show
from agentd.deliver.formats.child import Child, ChildLost
from agentd.deliver.formats.digest import Digest, Tone, bounded, digest
from agentd.errors import DeliveryDelayed, DeliveryRefused

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

TITLE_CHARS = 200
TEXT_CHARS = 3000
_SUMMARY_CHARS = 1500
_VALUE_CHARS = 300
_MOST_LINES = 10
_MOST_ALERTS = 20
_REFUSED = frozenset({400, 413, 422})

_TYPES = {
    Tone.CRITICAL: "failure",
    Tone.WARNING: "warning",
    Tone.INFO: "info",
    Tone.GOOD: "success",
    Tone.NEUTRAL: "info",
}
_MENTION = re.compile(r"@(?=\w)|<(?=[@!#])")


class _Hand:
    """The child of one webhook, and the thread that waits for it: a slow service delays no other webhook."""

    def __init__(self, webhook: str) -> None:
        # Where the machine keeps its own certificates, when somebody has said so.
        kept = {name: os.environ[name] for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if name in os.environ}
        self.child = Child("apprise_child.py", {"hello": True}, environment=kept)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"apprise-{webhook}")

    async def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self.child.ask, request, deadline_s)
        except asyncio.CancelledError:
            self.child.abandon()
            raise


_hands: dict[str, _Hand] = {}


def close() -> None:
    """End all children; the next message starts another."""
    for hand in _hands.values():
        hand.child.abandon()
        hand.child.close()


atexit.register(close)


def check(settings: WebhookSettings) -> None:
    """The library must be there, and what only our own HTTP can do is not asked of it."""
    from importlib.util import find_spec

    if find_spec("apprise") is None:
        raise ValueError("`format: apprise` needs the library; install it with: pip install 'agentd[apprise]'")
    if settings.secret or settings.headers:
        raise ValueError("Apprise sends in its own way: it neither signs nor adds headers; leave them out")
    if not settings.private_networks:
        raise ValueError("`private_networks: false` cannot be kept with Apprise, which connects by itself")
    if settings.url.literal and re.search(r"[\s,]\S*://", settings.url.text):
        raise ValueError("url names several services; write a webhook for each of them")


async def send(message: Message, settings: WebhookSettings, url: str, show: Show) -> str:
    told = digest(message)
    timeout_s = settings.timeout.total_seconds()
    request = {
        "url": url,
        "title": _plain(told.title, TITLE_CHARS),
        "body": bounded(_lines(told), TEXT_CHARS),
        "type": _TYPES[told.tone],
    }
    hand = _hands.get(message.webhook)
    if hand is None:
        hand = _hands[message.webhook] = _Hand(message.webhook)
    try:
        answer = await hand.ask(request, timeout_s)
    except ChildLost as error:
        raise DeliveryDelayed(f"Apprise gave no answer: {error}") from error
    except OSError as error:
        raise DeliveryDelayed(f"no process to run Apprise in: {error.strerror}") from error
    return _outcome(answer, show)


def _outcome(answer: dict[str, Any], show: Show) -> str:
    """The library says only whether it worked; the status that the service gave stands in its log."""
    said = show(str(answer.get("log", "")).encode())
    if answer.get("ok"):
        return said
    if answer.get("unknown"):
        raise DeliveryDelayed("Apprise knows no service by this url; look at the secret it names")
    statuses = {int(status) for status in answer.get("statuses", [])}
    status = max(statuses, default=None)
    text = f"Apprise could not deliver: {said or 'it does not say why'}"
    if status is not None:
        text = f"the service answered {status}: {said}"
    if statuses and statuses <= _REFUSED:
        raise DeliveryRefused(text, status=status)
    raise DeliveryDelayed(text, status=status)


def _lines(told: Digest) -> list[str]:
    lines = [_plain(told.summary, _SUMMARY_CHARS)] if told.summary else []
    lines += [f"{_plain(name, 100)}: {_plain(value, _VALUE_CHARS)}" for name, value in told.facts[:_MOST_ALERTS]]
    lines += [f"does not hold: {_plain(each, _VALUE_CHARS)}" for each in told.failed[:_MOST_LINES]]
    lines += [f"{_plain(name, 100)} = {_plain(value, _VALUE_CHARS)}" for name, value in told.values[:_MOST_LINES]]
    shown, room = 0, TEXT_CHARS - 100
    for each in told.members[:_MOST_ALERTS]:
        line = f"{_plain(each.name, 100)} ({_plain(each.severity, 20)}): {_plain(each.summary, _VALUE_CHARS)}"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
        shown += 1
    if more := told.omitted + len(told.members) - shown:
        lines.append(f"and {more} more")
    if told.analysis is not None:
        lines.append(f"{_plain(told.analysis.heading, _VALUE_CHARS)}:")
        lines += [_plain(told.analysis.summary, _SUMMARY_CHARS)] if told.analysis.summary else []
        lines += [f"- {_plain(each, _VALUE_CHARS)}" for each in told.analysis.lines[:_MOST_LINES]]
    lines += [f"> {_plain(each, _VALUE_CHARS)}" for each in told.evidence[:_MOST_LINES]]
    if len(told.evidence) > _MOST_LINES:
        lines.append(f"and {len(told.evidence) - _MOST_LINES} more lines")
    lines += [url for _, url in told.links[:1]]
    return lines or [_plain(told.title, TITLE_CHARS)]


def _plain(text: str, limit: int) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return _MENTION.sub(lambda match: f"{match[0]}\u200b", text)
