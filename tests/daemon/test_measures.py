"""The numbers themselves, taken from the real parts; and the whole of it, through the configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from house import BEAT, HOUR, House, Shop, Tell, http, tell, told
from loopback import serving
from opentelemetry.trace import NoOpTracer
from receiver import Receiver
from test_selfcheck import closed_port

from agentd.daemon import vitals
from agentd.daemon.measures import Measures
from agentd.daemon.selfwatch import SWEEP_S, SelfWatch
from agentd.deliver.courier import Courier
from agentd.deliver.webhook import WebhookSettings
from agentd.memory import outbox
from agentd.memory.store import Store
from agentd.pipeline import Pipeline
from agentd.records import AlertStatus, Delivery, EventType, Severity
from agentd.schedule.scheduler import Due, Scheduler
from agentd.schedule.triggers import Every
from agentd.testing import FakeClock

__all__ = ["tell"]  # the fixture, by its name


@dataclass
class Parts:
    clock: FakeClock
    store: Store
    scheduler: Scheduler
    measures: Measures
    held: str | None = None


async def with_parts(folder: Path, clock: FakeClock, story: Callable[[Parts], Coroutine[Any, Any, None]]) -> None:
    store = await Store.open(folder, clock=clock)
    clock.busy.append(lambda: store.pending > 0)
    scheduler = Scheduler(clock, guard_every_s=3600)
    hook = WebhookSettings.model_validate({"url": "http://127.0.0.1:9/"})
    courier = Courier(store.state, {"ops": hook}, clock=clock)
    keeper = Pipeline(
        state=store.state,
        clock=clock,
        instance="web-1",
        tracer=NoOpTracer(),
        record=lambda result: None,
        told=lambda: None,
    )
    parts: Parts
    measures = Measures(clock, scheduler, store, courier, keeper, lambda: parts.held)
    parts = Parts(clock, store, scheduler, measures)
    try:
        await story(parts)
    finally:
        await scheduler.stop(0)
        await store.close()


def message(clock: FakeClock, due_in: timedelta = timedelta(0)) -> Delivery:
    now = clock.now()
    return Delivery("msg_1", "ops", "lane", EventType.FIRING, "{}", created_at=now, due_at=now + due_in)


def test_all_is_well_at_the_start(tmp_path: Path) -> None:
    """The disk of this machine aside, nothing is wrong with what has just begun."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        found = await parts.measures.take()
        found.pop("disk_low")
        assert set(found.values()) == {None}
        assert {vitals.vital_of(rule).rule for rule in found} >= {"scheduler_late", "outbox_old", "webhook:", "clock"}

    clock.run(with_parts(tmp_path, clock, story))


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    """That little is left is no news beside it."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        parts.store.full = True
        found = await parts.measures.take()
        assert found["disk_full"] is not None
        assert "disk_low" not in found

    clock.run(with_parts(tmp_path, clock, story))


def test_a_message_that_nobody_sends_is_noticed(tmp_path: Path) -> None:
    """The webhook works and nothing goes out: then it is us."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        await parts.store.state.write(lambda c: outbox.put(c, message(clock)))
        clock.tick(vitals.OLD_MESSAGE - timedelta(seconds=1))
        assert (await parts.measures.take())["outbox_old"] is None
        clock.tick(2)
        assert "webhook ops has waited for 15m1s" in ((await parts.measures.take())["outbox_old"] or "")
        parts.held = "restored"
        assert (await parts.measures.take())["outbox_old"] is None, "a person holds it"

    clock.run(with_parts(tmp_path, clock, story))


def test_a_message_that_was_put_off_is_not_old_before_its_time(tmp_path: Path) -> None:
    """It waits because it is meant to."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        await parts.store.state.write(lambda c: outbox.put(c, message(clock, due_in=timedelta(hours=1))))
        clock.tick(timedelta(hours=1, minutes=14))
        assert (await parts.measures.take())["outbox_old"] is None
        clock.tick(timedelta(minutes=2))
        assert (await parts.measures.take())["outbox_old"] is not None

    clock.run(with_parts(tmp_path, clock, story))


def test_checks_that_begin_late_are_counted_for_a_minute(tmp_path: Path) -> None:
    """However short their interval is: a check that stands for ten that were missed is late by ten intervals."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        async def run(due: Due) -> None:
            pass

        parts.scheduler.add("shop", Every(timedelta(seconds=2), "shop"), run)
        parts.scheduler.start()
        await clock.advance(60)
        assert (await parts.measures.take())["scheduler_late"] is None
        clock.tick(40)  # nothing ran meanwhile, and no clock jumped
        await clock.advance(1)
        assert "of the last minute began more than 10s late" in ((await parts.measures.take())["scheduler_late"] or "")
        for _ in range(5):
            await clock.advance(SWEEP_S)
            after = (await parts.measures.take())["scheduler_late"]
        assert after is None

    clock.run(with_parts(tmp_path, clock, story))


def test_the_widest_jump_between_two_looks_is_told_once(tmp_path: Path) -> None:
    """NTP may step twice; one event is enough, the worst."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        for jump in (timedelta(minutes=2), timedelta(minutes=-9), timedelta(minutes=3)):
            parts.measures.jumped(jump)
        assert "back by 9m" in ((await parts.measures.take())["clock"] or "")
        assert (await parts.measures.take())["clock"] is None

    clock.run(with_parts(tmp_path, clock, story))


def test_alerts_about_what_is_gone_end(tmp_path: Path) -> None:
    """The webhook or the log that the alert names is in no configuration any more."""
    clock = FakeClock()

    async def story(parts: Parts) -> None:
        keeper = parts.measures.keeper
        for rule in ("webhook:gone", "log_behind:gone", "disk_low"):
            await keeper.report_self(rule, "trouble", Severity.WARNING)
        found = await parts.measures.take()
        assert found["webhook:gone"] is None
        assert found["log_behind:gone"] is None

    clock.run(with_parts(tmp_path, clock, story))


def test_a_slow_stamp_shows_a_slow_store() -> None:
    """The stamp is a durable write like any other, and it is made anyway."""
    clock = FakeClock()
    told_of: dict[str, str | None] = {}

    async def slow() -> None:
        await asyncio.sleep(3)

    async def nothing() -> dict[str, str | None]:
        return {}

    async def report(rule: str, wrong: str | None, severity: Severity) -> None:
        told_of[rule] = wrong

    async def story() -> None:
        watch = SelfWatch(
            clock,
            memory_limit=0,
            measure=nothing,
            report=report,
            stamp=slow,
            restart=lambda why: None,
            resident=lambda: 0,
        )
        for _ in range(vitals.SLOW_SAMPLES + 1):
            sweep = asyncio.create_task(watch.sweep())
            await clock.advance(SWEEP_S)
            await sweep

    clock.run(story())
    assert "the store is slow" in (told_of["store_slow"] or "")


# Through the public configuration.


def rules(receiver: Receiver) -> list[str]:
    data = [request.json["data"] for request in receiver.taken]
    return [f"{each['rule']} {each['state']}" for each in data if each["watch"] == "agentd"]


def test_a_disk_that_fills_up_is_told_once_and_over_when_there_is_room(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before nothing fits any more; and not each time a log is rotated."""
    room = {"free": 0.5}

    def statvfs(path: object) -> os.statvfs_result:
        blocks = 10 * vitals.GIB // 4096
        free = int(blocks * room["free"])
        return os.statvfs_result((4096, 4096, blocks, free, free, 0, 0, 0, 0, 255))

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(BEAT, hook=receiver.url)
            async with house.living():
                monkeypatch.setattr("agentd.daemon.measures.os.statvfs", statvfs)
                await house.clock.advance(HOUR / 4)
                for free in (0.04, 0.06) * 10:
                    room["free"] = free
                    await house.clock.advance(120)
                assert rules(receiver) == ["disk_low firing"]
                await house.clock.advance(HOUR / 4)
                assert rules(receiver) == ["disk_low firing", "disk_low resolved"]

    tell(story)


def test_the_heartbeat_stops_when_no_webhook_works_and_goes_on_with_the_first(tell: Tell) -> None:
    """Then somebody else notices what nobody can be told."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as ops, Receiver() as switch, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), hook=ops.url, daemon={"heartbeat": {"url": switch.url}})
            async with house.living() as daemon:
                await house.clock.advance(300)
                assert len(switch.requests) == 6
                ops.otherwise = 503
                shop.up = False
                await house.clock.advance(HOUR)
                beaten = len(switch.requests)
                assert 15 <= beaten - 6 <= 18, "the patience of a quarter of an hour, then silence"
                assert "no webhook works" in str((await daemon.control.status())["trouble"])
                assert ops.taken == []
                ops.otherwise = 200
                await house.clock.advance(HOUR)
                assert len(switch.requests) >= beaten + 20
                assert told(ops) == ["shop alert.firing"], "nobody is told of a webhook through itself"
                assert (await daemon.control.status())["trouble"] == []

    tell(story)


def test_a_restart_does_not_make_the_heartbeat_lie(tell: Tell) -> None:
    """The webhook was broken before and nothing says that it is mended."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as ops, Receiver() as switch, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), hook=ops.url, daemon={"heartbeat": {"url": switch.url}})
            ops.answers(410)
            shop.up = False
            async with house.living():
                await house.clock.advance(300)
            beaten = len(switch.requests)
            async with house.living() as daemon:
                await house.clock.advance(300)
                assert len(switch.requests) == beaten
                house.write(http(served, fail_after=1), hook=ops.url)
                assert (await daemon.control.reload(by="eve"))["note"] == "", "a heartbeat needs no restart"

    tell(story)


def test_the_selfcheck_of_the_configuration_holds_back_the_alert(tell: Tell) -> None:
    """From the file to the message; and a reload changes the targets of a daemon that runs."""
    dead = str(closed_port())

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as ops, serving(shop.answer) as served:
            house.write(http(served, blind_after="2m"), hook=ops.url, daemon={"selfcheck": [dead]})
            async with house.living() as daemon:
                shop.up = False
                await house.clock.advance(300)
                (fired,) = [request.json["data"] for request in ops.taken]
                assert (fired["watch"], fired["rule"], fired["state"]) == ("shop", "blind", "firing")
                assert f"our own network: {dead} cannot be reached either" in fired["summary"]
                alert = daemon.pipeline.alerts[daemon.pipeline.watches["shop"].calm.fingerprint]
                assert alert.status is AlertStatus.PENDING

                house.write(http(served, blind_after="2m"), hook=ops.url, daemon={"selfcheck": []})
                assert (await daemon.control.reload(by="eve"))["note"] == ""
                await house.clock.advance(60)
                alert = daemon.pipeline.alerts[alert.fingerprint]
                assert alert.status is AlertStatus.FIRING, "the streak stayed: one look was enough"

    tell(story)
