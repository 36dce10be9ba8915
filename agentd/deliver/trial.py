"""
A test of a webhook: one marked sample, sent past the outbox, and how it went.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from agentd.clock import Clock
from agentd.deliver.formats import Message
from agentd.deliver.payload import sample_test
from agentd.deliver.sender import Sender
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.records import EventType


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    ok: the receiver took it. status: its HTTP status, None when there was none. latency_s: until the outcome.
    answer: the beginning of what it said. error: why not, without address or secret; "" when ok.
    """

    ok: bool
    status: int | None
    latency_s: float
    answer: str = ""
    error: str = ""


async def try_webhook(name: str, sender: Sender, *, instance: str, clock: Clock) -> Outcome:
    """Send `agentd.test` once, without retry, rate or breaker."""
    data = sample_test(name, instance)
    message = Message(f"msg_{uuid.uuid4().hex}", EventType.TEST, clock.now(), data, webhook=name)
    started = clock.monotonic()
    try:
        sent = await sender.send(message)
    except (DeliveryDelayed, DeliveryRefused) as error:
        return Outcome(False, error.status, clock.monotonic() - started, error=str(error))
    return Outcome(True, sent.status, sent.latency_s, sent.answer)


async def send_test(name: str, settings: WebhookSettings, *, instance: str, clock: Clock) -> Outcome:
    """The same where no courier runs: for the command line without a daemon."""
    sender = Sender(settings, clock=clock)
    try:
        return await try_webhook(name, sender, instance=instance, clock=clock)
    finally:
        await sender.close()
