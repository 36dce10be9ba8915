"""
How a message is written for each kind of receiver: one file per format, one line in FORMATS.

A format is a module with `check(settings)` (at load: raises ValueError with what is missing or wrong) and
`async render(message, settings)`; where its receiver is peculiar also with `address`, `judge` or `send`, see Format.
It is imported at its first use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from agentd.records import EventType

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Message:
    """
    What is to be told, before any format.

    id: constant over all attempts. timestamp: when it happened, constant too. data: see `payload`.
    attempt: counted from 1. webhook: the receiver's name. lane: names the group that it is news of, the same over
    all messages about it; "" for a message of no group.
    """

    id: str
    type: EventType
    timestamp: datetime
    data: Mapping[str, Any]
    attempt: int = 1
    traceparent: str | None = None
    webhook: str = ""
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """
    A request's body, and the headers that belong to it.

    more: bodies of further requests, each sent when the one before it was taken. When one of them fails, all are sent
    again: only for receivers that know a repeated one.
    """

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    more: tuple[bytes, ...] = ()


Taken = Literal["taken", "later", "never"]
"""What an answer comes to: the message is delivered, is to be sent again, or can never be."""

Show = Callable[[bytes], str]
"""What may be shown of an answer: one line without secrets."""


def _as_it_is(url: str, settings: WebhookSettings) -> str:
    return url


def _any_2xx(status: int, answer: bytes) -> Taken:
    return "taken"


@dataclass(frozen=True, slots=True)
class Format:
    """
    check: at load; raises ValueError when these settings cannot make messages.
    render: write the message; raises DeliveryRefused when it can never be written so.
    address: where to send, from the url of the settings.
    judge: what an answer with a 2xx status means, from the status and the beginning of its body.
    send: for a format that does not send over HTTP itself: deliver the message to the url, and return what was said;
    raises DeliveryRefused and DeliveryDelayed. Then nothing else of it but `check` is used.
    """

    check: Callable[[WebhookSettings], None]
    render: Callable[[Message, WebhookSettings], Awaitable[Rendered]] | None = None
    address: Callable[[str, WebhookSettings], str] = _as_it_is
    judge: Callable[[int, bytes], Taken] = _any_2xx
    send: Callable[[Message, WebhookSettings, str, Show], Awaitable[str]] | None = None


FORMATS = {
    "standard": "agentd.deliver.formats.standard",
    "slack": "agentd.deliver.formats.slack",
    "discord": "agentd.deliver.formats.discord",
    "teams": "agentd.deliver.formats.teams",
    "pagerduty": "agentd.deliver.formats.pagerduty",
    "alertmanager": "agentd.deliver.formats.alertmanager",
    "apprise": "agentd.deliver.formats.apprise",
    "template": "agentd.deliver.formats.template",
}


@cache
def load(name: str) -> Format:
    """The format of that name. Raises KeyError."""
    module = import_module(FORMATS[name])
    parts = ("check", "render", "address", "judge", "send")
    return Format(**{part: getattr(module, part) for part in parts if hasattr(module, part)})
