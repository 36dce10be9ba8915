"""
How a message is written for each kind of receiver: one file per format, one line in FORMATS.

A format is a module with `check(settings)` (at load: raises ValueError with what is missing or wrong) and
`async render(message, settings)`. It is imported at its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from agentd.records import EventType

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Message:
    """
    What is to be told, before any format.

    id: constant over all attempts. timestamp: when it happened, constant too. data: see `payload`.
    attempt: counted from 1.
    """

    id: str
    type: EventType
    timestamp: datetime
    data: Mapping[str, Any]
    attempt: int = 1
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request's body, and the headers that belong to it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


class Format(Protocol):
    def check(self, settings: WebhookSettings) -> None:
        """Raises ValueError when these settings cannot make messages."""
        ...

    async def render(self, message: Message, settings: WebhookSettings) -> Rendered:
        """Write the message. Raises DeliveryRefused when this message can never be written so."""
        ...


FORMATS = {
    "standard": "agentd.deliver.formats.standard",
    "slack": "agentd.deliver.formats.slack",
    "template": "agentd.deliver.formats.template",
}


def load(name: str) -> Format:
    """The format of that name. Raises KeyError."""
    return cast(Format, import_module(FORMATS[name]))
