"""The courier: at least once, in order, and no webhook delays another."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from receiver import Answer, Receiver

from agentd.deliver.courier import LEASE, Courier
from agentd.deliver.payload import examples
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import ConfigError, StoreFull
from agentd.memory import outbox, webhooks
from agentd.memory.database import Database
from agentd.pacing import Uniform
from agentd.records import Delivery, EventType
from agentd.testing import FakeClock

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
DATA = json.dumps(examples()[0]["data"])
PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


class Longest:
    """Jitter that always waits as long as it may."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Stage:
    """A store, a courier over it, and what a test does with them."""

    def __init__(self, clock: FakeClock, state: Database) -> None:
        self.clock = clock
        self.state = state
        self.courier: Courier
        self._running: asyncio.Task[None] | None = None
        self._number = 0

    def start(self, tracer: Tracer | None = None, rng: Uniform | None = None, **urls: str | dict[str, Any]) -> None:
        settings = {
            name: WebhookSettings.model_validate({"url": given} if isinstance(given, str) else given)
            for name, given in urls.items()
        }
        self.courier = Courier(self.state, settings, clock=self.clock, instance="web-1", tracer=tracer, rng=rng)
        self._running = asyncio.create_task(self.courier.run())

    async def stop(self, timeout_s: float = 10) -> None:
        if self._running is not None:
            await self.courier.drain(timedelta(seconds=timeout_s))
            await self._running
            self._running = None

    async def kill(self) -> None:
        """As kill -9 would: nothing is given back, nothing more is recorded."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        self._running = None

    async def put(self, webhook: str, *lanes: str, type: EventType = EventType.FIRING, data: str = DATA) -> list[str]:
        """One message per lane, written in one transaction; returns their ids."""
        now = self.clock.now()
        deliveries = []
        for lane in lanes:
            self._number += 1
            id = f"msg_{self._number}"
            deliveries.append(Delivery(id, webhook, lane, type, data, now, now, traceparent=PARENT))

        def change(c: apsw.Connection) -> None:
            for delivery in deliveries:
                outbox.put(c, delivery)

        await self.state.write(change)
        if self._running is not None:
            self.courier.wake()
        await self.clock.settle()
        return [delivery.id for delivery in deliveries]

    async def rows(self, state: str | None = None) -> list[outbox.OutboxRow]:
        return await self.state.read(lambda c: outbox.rows(c, state=state, limit=100_000))


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], None]:
    """Run a story on a stage of its own, by the fake clock."""

    def run(story: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        clock = FakeClock()

        async def whole() -> None:
            state = await Database.open(tmp_path / "state.db", migrations="state", durable=True, clock=clock)
            clock.busy.append(lambda: state.pending > 0)
            stage = Stage(clock, state)
            try:
                await story(stage)
            finally:
                await stage.stop()
                await state.close()

        clock.run(whole())

    return run


Play = Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], None]


@asynccontextmanager
async def receivers(count: int) -> AsyncIterator[list[Receiver]]:
    made = [Receiver() for _ in range(count)]
    try:
        for receiver in made:
            await receiver.start()
        yield made
    finally:
        for receiver in made:
            await receiver.stop()


def test_what_one_group_opens_its_last_message_closes(play: Callable[..., None]) -> None:
    """A format must know the group: to PagerDuty an alert alone and the same among others are one incident."""
    told = {example["type"]: json.dumps(example["data"]) for example in examples()}

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(pager={"url": receiver.url, "format": "pagerduty", "routing_key": "k" * 32})
            for type in ("alert.firing", "group.firing", "alert.resolved"):
                await stage.put("pager", "group-a", type=EventType(type), data=told[type])
            await stage.put("pager", "group-b", data=told["alert.firing"])
            await stage.stop()

            one, two, three, other = [request.json for request in receiver.taken]
        assert one["dedup_key"] == two["dedup_key"] == three["dedup_key"] != other["dedup_key"]
        assert [each["event_action"] for each in (one, two, three, other)] == [
            "trigger",
            "trigger",
            "resolve",
            "trigger",
        ]

    play(story)


def test_a_message_is_signed_sent_and_gone(play: Play) -> None:
    """The straight road."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(audit={"url": receiver.url, "secret": SECRET})
            ids = await stage.put("audit", "shop")

            assert receiver.ids == ids
            payload = receiver.verify(receiver.taken[0], SECRET, now=stage.clock.now())
            assert payload["data"]["watch"] == "shop"
            assert await stage.rows() == []

    play(story)


def test_what_waited_from_an_earlier_life_is_sent_at_start(play: Play) -> None:
    """The outbox outlives the process."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            ids = await stage.put("audit", "a", "a", "b")
            stage.start(audit=receiver.url)
            await stage.clock.settle()

            assert sorted(receiver.ids) == ids

    play(story)


def test_what_was_written_while_the_clock_was_ahead_is_sent_at_start(play: Play) -> None:
    """The date was mended while agentd was down; the message would wait until the false date comes."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.clock.jump(timedelta(days=30))
            ids = await stage.put("audit", "shop")
            stage.clock.jump(timedelta(days=-30))
            ids += await stage.put("audit", "shop")
            stage.start(audit=receiver.url)
            await stage.clock.advance(5)

            assert receiver.ids == ids

    play(story)


def test_after_an_hour_down_everything_arrives_in_order(play: Play) -> None:
    """The promise that all of this exists for."""

    async def story(stage: Stage) -> None:
        receiver = Receiver()
        await receiver.start()
        stage.start(audit={"url": receiver.url, "secret": SECRET})
        await receiver.stop()
        sent: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        for _ in range(12):
            for lane, ids in sent.items():
                ids += await stage.put("audit", lane)
            await stage.clock.advance(300)
        assert not receiver.taken
        assert (await stage.courier.stats()).waiting == {"audit": 36}

        await receiver.start()
        await stage.clock.advance(3600)

        for ids in sent.values():
            assert [id for id in receiver.ids if id in ids] == ids
        assert len(receiver.ids) == 36
        assert await stage.rows() == []
        await receiver.stop()

    play(story)


def test_the_first_success_brings_everything_else_at_once(play: Play) -> None:
    """A receiver that is back must not wait for every lane's own back-off, up to an hour each."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            stage.start(audit=receiver.url, rng=Longest())
            await stage.put("audit", "a")
            await stage.clock.advance(600)
            await stage.put("audit", "b")
            await stage.clock.advance(4 * 3600)
            receiver.otherwise = 200
            while not receiver.taken:
                await stage.clock.advance(5)

            assert len(receiver.taken) == 2

    play(story)


def test_a_dead_receiver_is_tried_less_and_less(play: Play) -> None:
    """Twenty lanes that each retry on their own would hammer a receiver that struggles to get up."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            stage.start(audit=receiver.url)
            await stage.put("audit", *(f"lane{n}" for n in range(20)))
            await stage.clock.advance(3600)
            first_hour = len(receiver.requests)
            await stage.clock.advance(3600)

            assert first_hour < 40
            assert 5 < len(receiver.requests) - first_hour < 20

    play(story)


def test_a_resolve_never_overtakes_its_firing(play: Play) -> None:
    """`resolved` before `firing` leaves an incident open for ever on the other side."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(503, Answer(reset=True), 500, 404)
            stage.start(audit=receiver.url)
            firing = await stage.put("audit", "shop")
            resolve = await stage.put("audit", "shop", type=EventType.RESOLVED)
            await stage.clock.advance(600)

            assert receiver.ids == firing + resolve
            assert [request.id for request in receiver.requests[:4]] == firing * 4

    play(story)


def test_a_refused_message_is_buried_at_once_and_its_lane_goes_on(play: Play) -> None:
    """400 says the bytes are wrong: three days of retries would only hold up the resolve."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(400, body=b"no such channel"))
            stage.start(audit=receiver.url)
            bad, good = await stage.put("audit", "shop", "shop")

            assert receiver.ids == [good]
            (dead,) = await stage.rows("dead")
            assert (dead.delivery.id, dead.delivery.last_status) == (bad, 400)
            assert dead.delivery.last_error == "answered 400: no such channel"

    play(story)


def test_gone_disables_until_a_person_enables(play: Play) -> None:
    """The address is no more, but the alerts are: they wait, over a restart and a reload too."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(410)
            stage.start(audit=receiver.url)
            ids = await stage.put("audit", "a", "a", "b")
            await stage.clock.advance(3600)
            assert len(receiver.requests) <= 2
            assert stage.courier.health()["audit"].state == "disabled"

            taken = len(receiver.taken)
            await stage.stop()
            stage.start(audit=receiver.url)
            settings = WebhookSettings.model_validate({"url": receiver.url, "description": "changed"})
            await stage.courier.replace({"audit": settings})
            await stage.clock.advance(3600)
            assert len(receiver.taken) == taken
            assert "answered 410" in (stage.courier.health()["audit"].disabled or "")

            assert await stage.courier.enable("audit")
            await stage.clock.settle()
            assert sorted(receiver.ids) == ids
            assert await stage.state.read(webhooks.disabled) == {}

    play(story)


def test_what_fails_while_a_webhook_is_enabled_is_tried_when_the_next_message_arrives(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person has mended it; a message that failed a moment before must not wait an hour for its turn."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(500, 500, 500, Answer(500, delay_s=1))
            stage.start(rng=Longest(), audit=receiver.url)
            (failing,) = await stage.put("audit", "a")
            await stage.clock.advance(5 + 10 + 20)  # the fourth attempt is under way
            assert len(receiver.requests) == 4
            write, over = stage.state.write, asyncio.Event()

            async def slow(change: Callable[[apsw.Connection], Any]) -> Any:
                monkeypatch.setattr(stage.state, "write", write)
                done = await write(change)
                await over.wait()
                return done

            monkeypatch.setattr(stage.state, "write", slow)
            enabling = asyncio.create_task(stage.courier.enable("audit"))
            await stage.clock.advance(1)
            over.set()
            await enabling
            assert receiver.ids == []

            (other,) = await stage.put("audit", "b")
            await stage.clock.settle()
            assert receiver.ids == [other, failing]

    play(story)


def test_retry_after_holds_the_whole_webhook(play: Play) -> None:
    """A receiver that limits us means all of our messages."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(429, headers={"Retry-After": "120"}))
            stage.start(audit=receiver.url)
            await stage.put("audit", "a")
            await stage.put("audit", "b")
            await stage.clock.advance(119)
            assert len(receiver.requests) == 1
            assert stage.courier.health()["audit"].state == "waiting"

            await stage.clock.advance(10)
            assert len(receiver.taken) == 2

    play(story)


def test_a_crash_between_send_and_record_sends_the_same_id_again(play: Play) -> None:
    """At least once: the receiver knows the double by its id."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(200, delay_s=5))
            stage.start(audit=receiver.url)
            (id,) = await stage.put("audit", "shop")
            await stage.kill()
            assert [request.id for request in receiver.requests] == [id]
            assert (await stage.rows())[0].state == "claimed"

            stage.start(audit=receiver.url)
            await stage.clock.settle()

            assert [request.id for request in receiver.requests] == [id, id]
            assert receiver.requests[0].body == receiver.requests[1].body
            assert await stage.rows() == []

    play(story)


def test_a_slow_webhook_delays_nothing_but_itself(play: Play) -> None:
    """One receiver that hangs, with hundreds of messages waiting, must not hold up the pager."""

    async def story(stage: Stage) -> None:
        async with receivers(2) as (slow, quick):
            slow.otherwise = Answer(hang=True)
            stage.start(slow=slow.url, quick=quick.url)
            await stage.put("slow", *(f"lane{n}" for n in range(300)))
            started = stage.clock.monotonic()
            ids = await stage.put("quick", *(f"lane{n}" for n in range(50)))

            assert sorted(quick.ids) == sorted(ids)
            assert stage.clock.monotonic() == started
            assert slow.most_at_once == 4

    play(story)


def test_ten_thousand_waiting_rows_hold_no_memory(play: Play) -> None:
    """A receiver that is away for a weekend must not grow the daemon."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = Answer(hang=True)
            stage.start(audit=receiver.url)
            for _ in range(10):
                await stage.put("audit", *(f"lane{n}" for n in range(1000)))
            await stage.clock.advance(10)

            stats = await stage.courier.stats()
            assert stats.waiting == {"audit": 10_000}
            assert stats.in_flight == 4
            await stage.state.write(lambda _: None)  # the writer thread keeps its last change, which held our rows
            gc.collect()
            assert sum(isinstance(thing, Delivery) for thing in gc.get_objects()) < 50

    play(story)


def test_the_rate_is_kept_and_holds_no_rows(play: Play) -> None:
    """Slack takes one a second; what waits for its turn stays in the outbox, where a restart finds it."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(ops={"url": receiver.url, "rate": "2/s"})
            await stage.put("ops", *(f"lane{n}" for n in range(10)))
            assert len(receiver.taken) == 2
            assert {row.state for row in await stage.rows()} == {"waiting"}

            await stage.clock.advance(10)
            assert len(receiver.taken) == 10
            gaps = [request.at - receiver.taken[1].at for request in receiver.taken[2:]]
            assert gaps == pytest.approx([0.5 * n for n in range(1, 9)], abs=0.05)

    play(story)


def test_after_72_hours_it_is_buried_with_all_of_its_age(play: Play) -> None:
    """A receiver that is gone for good must not fill the disk; the dead letters can be sent again."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            stage.start(audit=receiver.url)
            old = await stage.put("audit", *["lane"] * 120)
            await stage.clock.advance(2 * 3600)
            stage.clock.jump(timedelta(hours=69))
            stage.courier.wake()
            new = await stage.put("audit", "lane", "other")
            assert len(await stage.rows("waiting")) == 122
            stage.clock.jump(timedelta(hours=1, minutes=1))
            await stage.clock.advance(2 * 3600)

            assert [row.delivery.id for row in await stage.rows("dead")] == old
            assert [row.delivery.id for row in await stage.rows("waiting")] == new
            assert "gave up after 3 days: answered 503" in ((await stage.rows("dead"))[0].delivery.last_error or "")

    play(story)


def test_a_jump_of_the_clock_buries_nothing(play: Play) -> None:
    """A machine that boots in 1970 and learns the date has no message that is older than a minute."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(503, 503, 503)
            stage.start(audit=receiver.url)
            ids = await stage.put("audit", "shop")
            stage.clock.jump(timedelta(days=20_000))
            stage.courier.wake()
            await stage.clock.advance(600)

            assert receiver.ids == ids
            assert await stage.rows() == []

    play(story)


def test_days_switched_off_and_a_short_outage_bury_nothing(play: Play) -> None:
    """A dozen rows fail a dozen times within minutes of the start; none of them had its chance yet."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            ids = await stage.put("audit", *(f"lane{n}" for n in range(30)))
            stage.clock.jump(timedelta(days=4))
            stage.start(audit={"url": receiver.url, "concurrency": 4})
            await stage.clock.advance(3000)
            assert len(receiver.requests) > 12
            assert await stage.rows("dead") == []

            receiver.otherwise = 200
            await stage.clock.advance(600)
            assert sorted(receiver.ids) == sorted(ids)
            assert await stage.rows() == []

    play(story)


def test_a_row_that_failed_often_before_days_off_gets_another_hour(play: Play) -> None:
    """Its attempts are those of an earlier life; they say nothing of the receiver of today."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            await stage.put("audit", "shop")
            await stage.state.write(lambda c: c.execute("UPDATE outbox SET attempts = 50"))
            stage.clock.jump(timedelta(days=4))
            receiver.answers(503)
            stage.start(audit=receiver.url, rng=Longest())
            await stage.clock.advance(10)
            assert await stage.rows("dead") == []

            await stage.clock.advance(3700)
            assert await stage.rows() == []

    play(story)


def test_a_message_that_alone_fails_is_buried_alone(play: Play) -> None:
    """A webhook that takes the others is not given up, yet what it never takes must not block its lane for ever."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            stage.start(audit=receiver.url, rng=Longest())
            poison, behind = await stage.put("audit", "poison", "poison")
            for _ in range(70):
                receiver.answers(200)
                await stage.put("audit", "other")
                await stage.clock.advance(60)
            assert [row.delivery.id for row in await stage.rows("waiting")] == [poison, behind]

            stage.clock.jump(timedelta(hours=72))
            receiver.answers(503, 200)
            stage.courier.wake()
            await stage.clock.advance(60)

            assert [row.delivery.id for row in await stage.rows()] == [poison]
            assert [row.delivery.id for row in await stage.rows("dead")] == [poison]
            assert receiver.ids[-1] == behind

    play(story)


def test_a_lease_that_a_jump_ended_does_not_send_twice_at_once(play: Play) -> None:
    """A forward jump ends every lease while the requests are still under way."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(200, delay_s=10))
            stage.start(audit=receiver.url)
            await stage.put("audit", "shop")
            stage.clock.jump(2 * LEASE)
            stage.courier.wake()
            await stage.clock.advance(30)

            assert len(receiver.requests) == 1
            assert await stage.rows() == []

    play(story)


def test_a_full_disk_after_sending_sends_nothing_twice(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver has the message; that we cannot write it down is no reason to say it every second."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            real = stage.state.write
            full = False

            async def write(change: Callable[[apsw.Connection], Any]) -> Any:
                if full:
                    raise StoreFull("state.db: no room")
                return await real(change)

            monkeypatch.setattr(stage.state, "write", write)
            receiver.answers(Answer(200, delay_s=1))
            stage.start(audit=receiver.url)
            await stage.put("audit", "shop")
            full = True
            await stage.clock.advance(3600)
            assert len(receiver.requests) == 1
            assert (await stage.courier.stats()).unrecorded == 1
            answered = asyncio.create_task(stage.courier.answer())
            await stage.clock.settle()
            assert answered.done(), "a full disk is alive"

            full = False
            await stage.clock.advance(60)
            assert await stage.rows() == []
            assert len(receiver.requests) == 1
            assert len(await stage.put("audit", "shop")) == len(receiver.requests) - 1

    play(story)


def test_stopping_finishes_what_is_under_way_and_gives_back_the_rest(play: Play) -> None:
    """A restart must cause no doubles where it can wait, and no hang where it cannot."""

    async def story(stage: Stage) -> None:
        async with receivers(2) as (slow, stuck):
            slow.otherwise = Answer(200, delay_s=3)
            stuck.otherwise = Answer(hang=True)
            stage.start(slow=slow.url, stuck=stuck.url)
            await stage.put("slow", "a", "b")
            await stage.put("stuck", "a", "b")
            stopping = asyncio.create_task(stage.stop(5))
            await stage.clock.advance(4.9)
            assert len(slow.taken) == 2
            assert not stopping.done()
            await stage.clock.advance(0.2)

            assert stopping.done()
            rows = await stage.rows()
            assert {(row.delivery.webhook, row.state) for row in rows} == {("stuck", "waiting")}

    play(story)


def test_an_idle_courier_answers_for_its_life(play: Play) -> None:
    """The watchdog must not restart a daemon that simply has nothing to send."""

    async def story(stage: Stage) -> None:
        stage.start(audit="http://127.0.0.1:9/")
        await stage.clock.advance(3600)
        before = stage.state.counts.changes
        await asyncio.wait_for(stage.courier.answer(), 1)
        await stage.clock.settle()

        assert stage.state.counts.changes == before, "an answer costs no write"

    play(story)


def test_an_idle_courier_rests(play: Play) -> None:
    """Waking often to look at an empty outbox would cost battery and disk."""

    async def story(stage: Stage) -> None:
        stage.start(audit="http://127.0.0.1:9/")
        await stage.clock.settle()
        before = stage.state.counts.changes
        await stage.clock.advance(3600)

        assert stage.state.counts.changes - before <= 61

    play(story)


def test_a_changed_address_takes_effect_and_an_unchanged_webhook_keeps_its_connection(play: Play) -> None:
    """A reload must not cut what works."""

    async def story(stage: Stage) -> None:
        async with receivers(3) as (kept, old, new):
            stage.start(kept=kept.url, moved=old.url)
            await stage.put("kept", "a")
            await stage.put("moved", "a")
            settings = {
                "kept": WebhookSettings.model_validate({"url": kept.url}),
                "moved": WebhookSettings.model_validate({"url": new.url}),
            }
            await stage.courier.replace(settings)
            await stage.put("kept", "a")
            await stage.put("moved", "a")

            assert (len(kept.taken), kept.connections) == (2, 1)
            assert (len(old.taken), len(new.taken)) == (1, 1)

    play(story)


def test_a_changed_address_is_tried_at_once(play: Play) -> None:
    """A person who mends the address does not want to wait out the back-off of the wrong one."""

    async def story(stage: Stage) -> None:
        async with receivers(2) as (wrong, right):
            wrong.otherwise = 404
            stage.start(audit=wrong.url)
            ids = await stage.put("audit", "shop")
            await stage.clock.advance(6 * 3600)
            await stage.courier.replace({"audit": WebhookSettings.model_validate({"url": right.url})})
            await stage.clock.advance(1)

            assert right.ids == ids

    play(story)


async def reload_during_claim(stage: Stage, *steps: dict[str, Any]) -> None:
    """Wake the courier, and give it other webhooks while its claim waits behind another change."""
    claiming, go = threading.Event(), threading.Event()

    def hold(c: apsw.Connection) -> None:
        claiming.set()
        go.wait(10)

    holding = asyncio.create_task(stage.state.write(hold))
    await asyncio.to_thread(claiming.wait, 10)
    stage.courier.wake()
    for _ in range(10):
        await asyncio.sleep(0)
    for number, settings in enumerate(steps):
        await stage.courier.replace({name: WebhookSettings.model_validate(given) for name, given in settings.items()})
        if not number:
            go.set()
            await holding
            await stage.clock.settle()


async def put_unseen(stage: Stage, webhook: str, *lanes: str) -> list[str]:
    """Write messages without waking the courier."""
    now = stage.clock.now()
    made = [Delivery(f"{webhook}_{lane}", webhook, lane, EventType.FIRING, DATA, now, now) for lane in lanes]

    def change(c: apsw.Connection) -> None:
        for delivery in made:
            outbox.put(c, delivery)

    await stage.state.write(change)
    return [delivery.id for delivery in made]


def test_a_smaller_rate_that_comes_during_a_claim_stops_no_other_webhook(play: Play) -> None:
    """The claim was made for the old rate; to wait for tokens of the new one would take hours, for everybody."""

    async def story(stage: Stage) -> None:
        async with receivers(2) as (slow, other):
            stage.start(slow=slow.url, other=other.url)
            await stage.clock.settle()
            await put_unseen(stage, "slow", "a", "b", "c")
            await reload_during_claim(stage, {"slow": {"url": slow.url, "rate": "1/h"}, "other": {"url": other.url}})
            assert len(slow.ids) == 1
            rest = await stage.rows()
            assert [(row.state, row.delivery.attempts) for row in rest] == [("waiting", 0)] * 2
            ids = await stage.put("other", "x")
            assert other.ids == ids
            await asyncio.wait_for(stage.courier.answer(), 5)

            await stage.clock.advance(2 * 3600 + 60)
            assert len(slow.ids) == 3

    play(story)


def test_what_was_claimed_for_a_webhook_that_went_is_free_when_it_returns(play: Play) -> None:
    """A lease of an hour that nobody holds would keep an alert back for that hour."""

    async def story(stage: Stage) -> None:
        async with receivers(2) as (receiver, busy):
            busy.answers(Answer(hang=True))  # something under way, so that a reload frees no leases by itself
            stage.start(audit=receiver.url, busy={"url": busy.url, "timeout": "1m"})
            await stage.put("busy", "x")
            ids = await put_unseen(stage, "audit", "shop")
            kept = {"busy": {"url": busy.url, "timeout": "1m"}}
            await reload_during_claim(stage, kept, kept | {"audit": {"url": receiver.url}})
            await stage.clock.advance(1)

            assert receiver.ids == ids

    play(story)


def test_rows_of_a_webhook_that_is_gone_wait_an_hour_and_are_buried(play: Play) -> None:
    """A name that was mistyped on reload loses nothing; one that is gone for good does not fill the disk."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(other=receiver.url)
            await stage.put("gone", *(f"lane{n}" for n in range(120)))
            await stage.clock.advance(3500)
            assert len(await stage.rows("waiting")) == 120
            await stage.clock.advance(200)

            rows = await stage.rows()
            assert {row.state for row in rows} == {"dead"}
            assert "no such webhook" in (rows[0].delivery.last_error or "")

    play(story)


def test_a_webhook_that_returns_within_the_hour_gets_its_messages(play: Play) -> None:
    """The typo was mended."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(other=receiver.url)
            ids = await stage.put("audit", "a")
            await stage.clock.advance(3000)
            await stage.courier.replace({"audit": WebhookSettings.model_validate({"url": receiver.url})})
            await stage.clock.advance(3600)

            assert receiver.ids == ids

    play(story)


def test_a_damaged_row_is_buried_and_the_lane_goes_on(play: Play) -> None:
    """One row that cannot be read must not stop the others for ever."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(audit=receiver.url)
            await stage.put("audit", "a", data="{broken")
            good = await stage.put("audit", "a")

            assert receiver.ids == good
            assert len(await stage.rows("dead")) == 1

    play(story)


def test_each_attempt_is_a_span_of_the_trace_that_made_the_message(play: Play) -> None:
    """One trace from the check to the receiver, and the receiver can continue it."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(503)
            stage.start(tracer=provider.get_tracer("test"), audit=receiver.url)
            await stage.put("audit", "a")
            await stage.clock.advance(60)

            failed, good = spans.get_finished_spans()
            for span, request in zip((failed, good), receiver.requests, strict=True):
                assert span.context is not None
                assert request.headers["traceparent"] == f"00-{'ab' * 16}-{span.context.span_id:016x}-01"
            assert (failed.status.is_ok, good.status.is_ok) == (False, True)
            assert failed.status.description == "answered 503: ok"
            assert receiver.url not in failed.to_json() + good.to_json()

    play(story)


def test_a_test_message_goes_past_queue_and_breaker(play: Play) -> None:
    """A person who asks wants to know now, also of a webhook that is disabled."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.answers(410)
            stage.start(audit=receiver.url)
            await stage.put("audit", "a")
            outcome = await stage.courier.send_test("audit")

            assert (outcome.ok, outcome.status) == (True, 200)
            assert receiver.taken[0].json["type"] == "agentd.test"
            with pytest.raises(ConfigError, match="no webhook 'adit'; the configuration names audit"):
                await stage.courier.send_test("adit")

    play(story)


def test_a_defect_of_a_format_costs_one_attempt(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours must be retried after the next upgrade, not end the courier."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            stage.start(audit=receiver.url)
            await stage.clock.settle()
            sender = stage.courier._outlets["audit"].sender
            real = sender.send

            async def send(message: Any) -> Any:
                monkeypatch.setattr(sender, "send", real)
                raise RuntimeError("a defect")

            monkeypatch.setattr(sender, "send", send)
            ids = await stage.put("audit", "a")
            assert "a defect in agentd: RuntimeError" in str((await stage.rows())[0].delivery.last_error)
            await stage.clock.advance(10)

            assert receiver.ids == ids

    play(story)


def test_a_reminder_that_waits_is_replaced_by_the_newer(play: Play) -> None:
    """After a night down one reminder is enough."""

    async def story(stage: Stage) -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            stage.start(audit=receiver.url)
            await stage.put("audit", "shop")
            for n in range(5):
                now = stage.clock.now()
                reminder = Delivery(f"rem_{n}", "audit", "shop", EventType.REMINDER, DATA, now, now, fingerprint="f")
                await stage.state.write(partial(outbox.put, delivery=reminder))
                await stage.clock.advance(600)
            receiver.otherwise = 200
            await stage.clock.advance(3600)

            assert receiver.ids == ["msg_1", "rem_4"]

    play(story)
