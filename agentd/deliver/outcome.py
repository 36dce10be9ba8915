"""
What came of an attempt, written down: the row goes, waits, or is buried; the webhook worked, failed, or is disabled.

In: an outlet, a delivery, and how sending it ended.  Out: one transaction of the state store.
Promise: an outcome is written as long as it takes; meanwhile the row stays leased, so a full disk sends nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import apsw

from agentd.clock import Clock
from agentd.deliver.outlet import Outlet
from agentd.deliver.retry import MAX_AGE, expired, hopeless, retry_in_s
from agentd.deliver.sender import Sent
from agentd.errors import DeliveryDelayed, DeliveryRefused, StoreError
from agentd.memory import outbox, webhooks
from agentd.memory.database import Database
from agentd.pacing import Uniform
from agentd.records import Delivery
from agentd.telemetry.tally import WAIT_S, WORK_S, Spreads, Tally

log = logging.getLogger(__name__)

T = TypeVar("T")

OUTCOMES = ("delivered", "delayed", "expired", "refused", "disabled")
"""Of attempts. expired: delayed for the last time. disabled: refused, and so is all that comes after it."""

_RETRY_S = 1.0
_RETRY_CAP_S = 30.0
_BURY_AT_ONCE = 50


class Outcomes:
    """
    unrecorded: outcomes that the store has not taken yet.

    attempts: by webhook and outcome; retries, buried: by webhook. took_s: from request to status, waited_s: from the
    making of a message to its delivery, by webhook.
    """

    def __init__(self, state: Database, clock: Clock, rng: Uniform | None = None) -> None:
        self._state = state
        self._clock = clock
        self._rng = rng
        self.unrecorded = 0
        self.attempts, self.retries, self.buried = Tally(), Tally(), Tally()
        self.took_s, self.waited_s = Spreads(WORK_S), Spreads(WAIT_S)

    def _tried(self, outlet: Outlet, delivery: Delivery, outcome: str) -> None:
        self.attempts.add((outlet.name, outcome))
        if delivery.attempts > 1:
            self.retries.add((outlet.name,))

    async def delivered(self, outlet: Outlet, delivery: Delivery, sent: Sent) -> None:
        came_back = outlet.succeeded()
        now = self._clock.now()
        self._tried(outlet, delivery, "delivered")
        self.took_s.add((outlet.name,), sent.latency_s)
        self.waited_s.add((outlet.name,), max(0.0, (now - delivery.created_at).total_seconds()))

        def change(c: apsw.Connection) -> None:
            outbox.done(c, delivery.id, now, sent.status)
            webhooks.worked(c, outlet.name, now)
            if came_back:
                outbox.hurry(c, outlet.name, now)

        await self._record(change)
        log.info(
            "delivered",
            extra={
                "webhook": outlet.name,
                "id": delivery.id,
                "attempt": delivery.attempts,
                "latency_ms": round(sent.latency_s * 1000, 1),
            },
        )

    async def delayed(self, outlet: Outlet, delivery: Delivery, error: DeliveryDelayed) -> None:
        hold_s = error.retry_after_s if error.status in (429, 503) else None
        now_s = self._clock.monotonic()
        outlet.delayed(str(error), now_s, hold_s=hold_s)
        now = self._clock.now()
        extra: dict[str, Any] = {"webhook": outlet.name, "id": delivery.id, "error": str(error)}
        extra |= {"attempt": delivery.attempts, "status": error.status}
        dead = hopeless(outlet.breaker.failures, outlet.failing_s(now_s))
        over = expired(delivery, now, hopeless=dead, trying_s=outlet.trying_s(now_s))
        self._tried(outlet, delivery, "expired" if over else "delayed")
        if over:
            text = f"gave up after {MAX_AGE.days} days: {error}"
            await self._bury(outlet, delivery, text, error.status, others=dead)
            log.error("delivery_expired", extra=extra)
            return
        wait_s = retry_in_s(delivery.attempts, error.retry_after_s, self._rng)

        def change(c: apsw.Connection) -> None:
            due_at = now + timedelta(seconds=wait_s)
            outbox.delay(c, delivery.id, due_at=due_at, error=str(error), status=error.status)
            webhooks.failed(c, outlet.name, now)

        await self._record(change)
        log.warning("delivery_delayed", extra=extra | {"retry_in_s": round(wait_s, 1)})

    async def refused(self, outlet: Outlet, delivery: Delivery, error: DeliveryRefused) -> None:
        extra = {"webhook": outlet.name, "id": delivery.id, "error": str(error), "status": error.status}
        self._tried(outlet, delivery, "disabled" if error.disable else "refused")
        if not error.disable:
            outlet.refused(str(error))
            self.buried.add((outlet.name,))
            now = self._clock.now()
            await self._record(lambda c: outbox.bury(c, delivery.id, now=now, error=str(error), status=error.status))
            log.error("delivery_refused", extra=extra)
            return
        outlet.disabled = str(error)
        now = self._clock.now()

        def change(c: apsw.Connection) -> None:
            webhooks.disable(c, outlet.name, str(error), now)
            outbox.delay(c, delivery.id, due_at=now, error=str(error), status=error.status)

        await self._record(change)
        log.error("webhook_disabled", extra=extra | {"cure": f"agentd webhook enable {outlet.name}"})

    async def _bury(self, outlet: Outlet, delivery: Delivery, error: str, status: int | None, *, others: bool) -> None:
        """Bury this row. others: everything else of the webhook that is as old too, for it would fail the same way."""
        now = self._clock.now()

        def change(c: apsw.Connection) -> int:
            outbox.bury(c, delivery.id, now=now, error=error, status=status)
            webhooks.failed(c, outlet.name, now)
            if not others:
                return 0
            buried = 0
            for row in outbox.rows(c, state="waiting", webhook=outlet.name, limit=_BURY_AT_ONCE):
                if row.state == "waiting" and now - row.delivery.created_at >= MAX_AGE:
                    outbox.bury(c, row.delivery.id, now=now, error=error, status=status)
                    buried += 1
            return buried

        self.buried.add((outlet.name,))
        while more := await self._record(change):
            self.buried.add((outlet.name,), more)

    async def _record(self, change: Callable[[apsw.Connection], T]) -> T:
        attempt = 0
        self.unrecorded += 1
        try:
            while True:
                try:
                    return await self._state.write(change)
                except StoreError as error:
                    attempt += 1
                    if attempt == 1:
                        log.error("delivery_not_recorded", extra={"error": str(error)})
                    await asyncio.sleep(min(_RETRY_CAP_S, _RETRY_S * 2.0 ** min(attempt - 1, 10)))
        finally:
            self.unrecorded -= 1
