"""The Standard Webhooks payload: `{"type", "timestamp", "data"}` as the published schema says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentd.deliver.formats import Message, Rendered
from agentd.deliver.payload import alert_payload

if TYPE_CHECKING:
    from agentd.deliver.webhook import WebhookSettings


def check(settings: WebhookSettings) -> None:
    """Nothing more is needed; without a secret the message goes unsigned."""


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    payload = alert_payload(message.type, message.data, at=message.timestamp)
    return Rendered(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
