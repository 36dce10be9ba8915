"""
Drain the outbox: take due deliveries, send them, record the outcome.

In: rows written with the alert's transition.  Out: webhook calls, and rows gone, moved on or buried.
Promise: at least once, in order per (webhook, lane): a lane's next row is not touched before the one ahead is gone.
A crash between send and record sends again, so every delivery carries the same id each time. What one webhook does
delays no other: each has its own places, rate and breaker, and no more rows are held than there are places.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import apsw
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer

from agentd.clock import Clock
from agentd.deliver.formats import Message
from agentd.deliver.outcome import Outcomes
from agentd.deliver.outlet import Outlet, OutletHealth, make_outlet
from agentd.deliver.retry import CAP_S
from agentd.deliver.sender import Sent
from agentd.deliver.trial import Outcome, try_webhook
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import ConfigError, DeliveryDelayed, DeliveryRefused, StoreError
from agentd.memory import outbox, webhooks
from agentd.memory.database import Database
from agentd.pacing import Uniform, full_jitter
from agentd.records import Delivery
from agentd.telemetry.tally import OTHER
from agentd.telemetry.traces import context_from, traceparent

log = logging.getLogger(__name__)

T = TypeVar("T")

LEASE = timedelta(hours=1)
_LONGEST_WAIT = timedelta(seconds=CAP_S + 60)
LONGEST_REST_S = 60.0
_SHORTEST_REST_S = 0.001
ORPHANED_S = 3600.0
_STORE_RETRY_S = 1.0
_STORE_RETRY_CAP_S = 30.0
_BURY_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class CourierStats:
    """
    waiting, dead: rows in the outbox by webhook (waiting counts those under way). unrecorded: outcomes that the store
    would not take yet.
    """

    waiting: dict[str, int]
    dead: dict[str, int]
    in_flight: int
    unrecorded: int
    webhooks: dict[str, OutletHealth]


class _AllBut(Collection[str]):
    """Every webhook there can be, except some: what `skip` of the outbox takes."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name not in self._names

    def __iter__(self) -> Iterator[str]:
        raise TypeError("endless")

    def __len__(self) -> int:
        raise TypeError("endless")


class Courier:
    """
    Carries messages from the outbox to the webhooks, from `run` to `drain`.

    settings: the webhooks by name; `replace` changes them. tracer: for one span per attempt, or None.
    outcomes: what came of attempts, counted.
    """

    def __init__(
        self,
        state: Database,
        settings: Mapping[str, WebhookSettings],
        *,
        clock: Clock,
        instance: str = "",
        tracer: Tracer | None = None,
        rng: Uniform | None = None,
    ) -> None:
        self._state = state
        self._clock = clock
        self._instance = instance
        self._tracer = tracer
        self._rng = rng
        self._outlets = {name: make_outlet(name, given, clock) for name, given in settings.items()}
        self._fresh = set(self._outlets)
        self._names_since = clock.monotonic()
        self._woken = asyncio.Event()
        self._look = True
        self._stopping = False
        self._begun = False
        self._asked: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[str] = set()
        self._unplaced: list[str] = []  # claimed, and no room for them any more
        self.outcomes = Outcomes(state, clock, rng)
        self._store_failures = 0
        self.moved: Callable[[], None] = lambda: None
        """Called when rows may have come, gone, or changed their state."""

    # What others call.

    def wake(self) -> None:
        """There may be something to send: rows were written, a clock jumped."""
        self.moved()
        self._look = True
        self._woken.set()

    async def answer(self) -> None:
        """Return once the loop has turned: the proof of life for the watchdog. Waits for ever when it is stuck."""
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._woken.set()
        await asked

    async def replace(self, settings: Mapping[str, WebhookSettings]) -> None:
        """
        Take other webhooks; those that did not change keep their connections, breaker and rate.

        What is under way ends as it began. Rows of a webhook that is gone wait an hour for its return, then are buried.
        """
        if settings.keys() != self._outlets.keys():
            self._names_since = self._clock.monotonic()
        disabled = {name: outlet.disabled for name, outlet in self._outlets.items()}
        outlets = {}
        for name, given in settings.items():
            known = self._outlets.get(name)
            if known is not None and known.settings == given:
                outlets[name] = known
                continue
            outlets[name] = make_outlet(name, given, self._clock)
            outlets[name].disabled = disabled.get(name)
            self._fresh.add(name)
        retired = [outlet for outlet in self._outlets.values() if outlets.get(outlet.name) is not outlet]
        self._outlets = outlets
        self._begun = False  # a webhook that is new here may have been disabled in an earlier life
        for outlet in retired:
            outlet.retired = True
            if not outlet.in_flight:
                await outlet.sender.close()
        self.wake()

    async def enable(self, name: str) -> bool:
        """Send to a disabled webhook again, beginning with what waits. False when it was not disabled."""

        def change(c: apsw.Connection) -> bool:
            was_disabled = webhooks.enable(c, name)
            outbox.hurry(c, name, now)
            return was_disabled

        now = self._clock.now()
        if outlet := self._outlets.get(name):
            # Before the rows: what fails while these are written is hurried by the next success, which must see it.
            outlet.breaker.succeed()
        was_disabled = await self._state.write(change)
        if outlet := self._outlets.get(name):
            outlet.disabled = None
        self.wake()
        return was_disabled

    async def send_test(self, name: str) -> Outcome:
        """Send a marked sample now, past the outbox, and tell how it went. Raises ConfigError for an unknown name."""
        outlet = self._outlets.get(name)
        if outlet is None:
            known = ", ".join(sorted(self._outlets)) or "none"
            raise ConfigError(f"no webhook {name!r}; the configuration names {known}")
        return await try_webhook(name, outlet.sender, instance=self._instance, clock=self._clock)

    async def stats(self) -> CourierStats:
        """Raises StoreError."""
        counts = await self._state.read(outbox.counts)
        return CourierStats(
            {name: count.waiting for name, count in counts.items()},
            {name: count.dead for name, count in counts.items()},
            len(self._tasks),
            self.outcomes.unrecorded,
            self.health(),
        )

    def health(self) -> dict[str, OutletHealth]:
        """By webhook, without asking the store."""
        now = self._clock.monotonic()
        return {name: outlet.health(now) for name, outlet in self._outlets.items()}

    # The loop.

    async def run(self) -> None:
        """Carry until `drain`. Never raises for what a receiver or the store does."""
        next_look = 0.0
        try:
            async with asyncio.TaskGroup() as group:
                while not self._stopping:
                    self._woken.clear()
                    self._give_answers()
                    # A timer may come a rounding error early; another one for what is left would spin.
                    if self._look or self._clock.monotonic() >= next_look - _SHORTEST_REST_S / 2:
                        self._look = False
                        rest_s = await self._round(group)
                        next_look = self._clock.monotonic() + rest_s
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, next_look - self._clock.monotonic())):
                            await self._woken.wait()
        finally:
            self._give_answers()
            for outlet in self._outlets.values():
                await outlet.sender.close()

    async def drain(self, timeout: timedelta) -> None:
        """
        Stop taking rows, let what is under way finish within `timeout`, give the rest back, and let `run` return.

        What was sent but not recorded by then will be sent again, with the same id.
        """
        self._stopping = True
        self._woken.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout.total_seconds())
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(StoreError):
            await self._state.write(outbox.release_all)

    def _give_answers(self) -> None:
        asked, self._asked = self._asked, []
        for future in asked:
            if not future.done():
                future.set_result(None)

    async def _round(self, group: asyncio.TaskGroup) -> float:
        """Start what may be sent now; returns the seconds until the next look."""
        now_s = self._clock.monotonic()
        try:
            if not self._begun:
                await self._begin()
            await self._give_back()
            await self._sweep_orphans(now_s)
            rooms = {name: room for name, outlet in self._outlets.items() if (room := outlet.room(now_s)) > 0}
            claimed, due = await self._claim(rooms)
            for delivery in claimed:
                await self._start(group, delivery)
            await self._give_back()
        except StoreError as error:
            return self._store_failed("courier_cannot_claim", error)
        except Exception:
            log.exception("courier_defect")
            return _STORE_RETRY_CAP_S
        self._store_failures = 0
        opening = [at - now_s for outlet in self._outlets.values() if (at := outlet.opens_at(now_s)) is not None]
        if due is not None:
            opening.append((due - self._clock.now()).total_seconds())
        # The cap lets a jump of the wall clock cost a minute at most.
        return min(max(_SHORTEST_REST_S, min(opening, default=LONGEST_REST_S)), LONGEST_REST_S)

    async def _start(self, group: asyncio.TaskGroup, delivery: Delivery) -> None:
        outlet = self._outlets.get(delivery.webhook)
        # A jump of the wall clock ends leases early: what is under way already is not sent twice at once.
        if self._stopping or delivery.id in self._under_way:
            return
        # A reload while the claim was written: another outlet, or none, and what it has room for is another matter.
        if outlet is None or not outlet.room(self._clock.monotonic()):
            self._unplaced.append(delivery.id)
            return
        if outlet.bucket is not None:
            await outlet.bucket.take()  # never waits: `room` has just seen a token
        self._under_way.add(delivery.id)
        outlet.in_flight += 1
        outlet.breaker.admit(self._clock.monotonic())
        task = group.create_task(self._carry(outlet, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self) -> None:
        """End the leases of what found no room; what the store does not take is given back in the next round."""
        unplaced = list(self._unplaced)
        if not unplaced:
            return

        def change(c: apsw.Connection) -> None:
            for id in unplaced:
                outbox.give_back(c, id)

        await self._state.write(change)
        del self._unplaced[: len(unplaced)]

    async def _begin(self) -> None:
        """
        At start and after a reload: which webhooks are disabled; no lease is anybody's where nothing is under way; what
        a clock that was ahead put far off is due now; and what a webhook failed to take before it was changed is tried
        at once: a person may have mended it.
        """
        now = self._clock.now()
        fresh = set(self._fresh)

        def change(c: apsw.Connection) -> dict[str, str]:
            if not self._tasks:
                outbox.release_all(c)
            outbox.pull_in(c, now, longest=_LONGEST_WAIT)
            for name in fresh:
                outbox.hurry(c, name, now)
            return webhooks.disabled(c)

        disabled = await self._state.write(change)
        self._fresh -= fresh
        for name, outlet in self._outlets.items():
            outlet.disabled = disabled.get(name)
        self._begun = True

    async def _claim(self, rooms: Mapping[str, int]) -> tuple[list[Delivery], datetime | None]:
        """Rows to send now, at most as many as there is room; and when the next of those with room left is due."""
        if not rooms:
            return [], None
        now = self._clock.now()

        def change(c: apsw.Connection) -> tuple[list[Delivery], datetime | None]:
            claimed: list[Delivery] = []
            hungry = set()
            for name, room in rooms.items():
                taken = outbox.claim(c, now=now, lease_until=now + LEASE, skip=_AllBut((name,)), limit=room)
                claimed += taken
                if len(taken) < room:
                    hungry.add(name)
            return claimed, outbox.next_due(c, skip=_AllBut(hungry)) if hungry else None

        return await self._state.write(change)

    async def _sweep_orphans(self, now_s: float) -> None:
        """Bury what waits for webhooks that the configuration has not named for an hour."""
        if now_s - self._names_since < ORPHANED_S:
            return
        self._names_since = now_s
        names = set(self._outlets)
        now = self._clock.now()
        error = "no such webhook in the configuration; `agentd outbox retry` sends it once there is one again"

        def change(c: apsw.Connection) -> int:
            found = outbox.claim(c, now=now, lease_until=now, skip=names, limit=_BURY_AT_ONCE)
            for delivery in found:
                outbox.bury(c, delivery.id, now=now, error=error)
            return len(found)

        buried = await self._repeat(change)
        if buried:
            self.outcomes.buried.add((OTHER,), buried)
            log.warning("deliveries_orphaned", extra={"buried": buried})

    async def _repeat(self, change: Callable[[apsw.Connection], int]) -> int:
        """Run a bounded change until there is nothing left for it; short transactions keep the writer free."""
        total = 0
        while count := await self._state.write(change):
            total += count
        return total

    # One delivery.

    async def _carry(self, outlet: Outlet, delivery: Delivery) -> None:
        try:
            with self._span(delivery) as span:
                try:
                    sent = await self._send(outlet, delivery, span)
                except DeliveryRefused as error:
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                    await self.outcomes.refused(outlet, delivery, error)
                except DeliveryDelayed as error:
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                    await self.outcomes.delayed(outlet, delivery, error)
                else:
                    span.set_attribute("http.response.status_code", sent.status)
                    await self.outcomes.delivered(outlet, delivery, sent)
        except asyncio.CancelledError:
            outlet.breaker.abandon(self._clock.monotonic())
            raise
        except Exception:
            # A defect of ours must not stop the others; the row is tried again when its lease ends.
            log.exception("delivery_defect", extra={"webhook": outlet.name, "id": delivery.id})
        finally:
            self._under_way.discard(delivery.id)
            outlet.in_flight -= 1
            if outlet.retired and not outlet.in_flight:
                await outlet.sender.close()
            self.wake()

    async def _send(self, outlet: Outlet, delivery: Delivery, span: Span) -> Sent:
        try:
            data = json.loads(delivery.data)
        except ValueError as error:
            raise DeliveryRefused("the stored message is damaged") from error
        parent = traceparent(span) if span.get_span_context().is_valid else delivery.traceparent
        attempt = max(1, delivery.attempts)
        message = Message(
            delivery.id, delivery.type, delivery.created_at, data, attempt, parent, delivery.webhook, delivery.lane
        )
        try:
            return await outlet.sender.send(message)
        except (DeliveryDelayed, DeliveryRefused):
            raise
        except Exception as error:
            # A defect of ours must neither lose the message nor stop the others.
            log.exception("delivery_defect", extra={"webhook": outlet.name, "id": delivery.id})
            raise DeliveryDelayed(f"a defect in agentd: {type(error).__name__}; the log says more") from error

    def _store_failed(self, event: str, error: StoreError) -> float:
        self._store_failures += 1
        if self._store_failures == 1:
            log.error(event, extra={"error": str(error)})
        wait_s = full_jitter(self._store_failures, base_s=_STORE_RETRY_S, cap_s=_STORE_RETRY_CAP_S, rng=self._rng)
        return max(_STORE_RETRY_S, wait_s)

    @contextlib.contextmanager
    def _span(self, delivery: Delivery) -> Iterator[Span]:
        """A child of the run that made the message: one trace from the check to the receiver."""
        if self._tracer is None:
            yield INVALID_SPAN
            return
        attributes: dict[str, str | int] = {
            "agentd.webhook": delivery.webhook,
            "agentd.message.id": delivery.id,
            "agentd.message.type": delivery.type.value,
            "agentd.attempt": delivery.attempts,
        }
        context = context_from(delivery.traceparent)
        with self._tracer.start_as_current_span(
            "delivery", context=context, kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            yield span
