"""What people say about alerts, on a real store: silences and acknowledgements, who may, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from agentd.alert.escalation import ack
from agentd.alert.muting import Muting
from agentd.api.service import Conflict, NotFound
from agentd.api.silence import SilenceAsked
from agentd.daemon.people import People
from agentd.errors import ConfigError, StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import audit, silences
from agentd.memory.silences import SilenceRow
from agentd.memory.store import Store
from agentd.pipeline import Pipeline
from agentd.records import Alert, AlertStatus, Severity
from agentd.testing import FakeClock

HOUR = timedelta(hours=1)


@dataclass
class Bench:
    clock: FakeClock
    store: Store
    pipeline: Pipeline
    people: People

    async def fires(self, watch: str, identity: str, **more: Any) -> Alert:
        """An alert as the store would give it back."""
        status = more.pop("status", AlertStatus.FIRING)
        alert = Alert(identity, "web-1", watch, Severity.WARNING, status=status, started_at=self.clock.now(), **more)
        await self.store.state.write(lambda c: alert_rows.save(c, alert))
        await self.pipeline.load()
        return alert

    def held(self, identity: str) -> Alert:
        return self.pipeline.alerts[identity]

    async def stored(self, identity: str) -> Alert:
        found = await self.store.state.read(lambda c: alert_rows.get(c, identity))
        assert found is not None
        return found

    async def deeds(self) -> list[tuple[str, str, str]]:
        """Newest first."""
        return [(deed.who, deed.action, deed.detail) for deed in await self.store.state.read(audit.rows)]

    def muted(self) -> dict[str, str]:
        return self.people.muting.reasons(self.pipeline.alerts, self.clock.now())


Story = Callable[[Bench], Coroutine[Any, Any, None]]
Tell = Callable[[Story], None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    def run(story: Story) -> None:
        clock = FakeClock()

        async def whole() -> None:
            store = await Store.open(tmp_path, clock=clock)
            clock.busy.append(lambda: store.pending > 0)
            pipeline = Pipeline(
                state=store.state,
                clock=clock,
                instance="web-1",
                tracer=NoOpTracer(),
                record=lambda result: None,
                told=lambda: None,
            )
            people = People(pipeline, store.state, clock, Muting())
            try:
                await pipeline.load()
                await people.restore()
                await story(Bench(clock, store, pipeline, people))
            finally:
                await store.close()

        clock.run(whole())

    return run


def asked(*matchers: str, **more: Any) -> SilenceAsked:
    return SilenceAsked(matchers, more.pop("lasting", HOUR), more.pop("reason", "new disks"), **more)


def test_a_silence_holds_at_once_and_over_a_restart(tell: Tell) -> None:
    async def story(b: Bench) -> None:
        await b.fires("shop", "f1")

        answer = await b.people.silence(asked("watch=shop"), by="anna")

        identity = answer["silence"]["id"]
        assert answer["alerts"] == 1
        assert answer["note"] == "no watch is called shop"
        text = f"silence {identity} by anna until 2026-01-05T13:00:00.000Z: new disks"
        assert b.muted() == {"f1": text}
        after = People(b.pipeline, b.store.state, b.clock, Muting())
        await after.restore()
        assert after.muting.reasons(b.pipeline.alerts, b.clock.now()) == {"f1": text}
        after.go_over_to(muting := Muting())
        assert [each.id for each in muting.silences] == [identity], "a reload keeps it"
        detail = "watch=shop from 2026-01-05T12:00:00.000Z until 2026-01-05T13:00:00.000Z: new disks"
        assert await b.deeds() == [("anna", "silence", detail)]

    tell(story)


def test_a_silence_is_ended_by_the_begin_of_its_id(tell: Tell) -> None:
    async def story(b: Bench) -> None:
        await b.fires("shop", "f1")
        identity = (await b.people.silence(asked("watch=shop"), by="anna"))["silence"]["id"]
        b.clock.tick(60)

        answer = await b.people.end_silence(identity[:5], by="eve")

        assert (answer["silence"]["state"], answer["silence"]["ended_by"], answer["alerts"]) == ("ended", "eve", 1)
        assert b.muted() == {}
        assert await b.people.silences(everything=False) == []
        (view,) = await b.people.silences(everything=True)
        assert view["ends_at"] == "2026-01-05T12:01:00.000Z"
        with pytest.raises(Conflict, match="ended at 2026-01-05T12:01"):
            await b.people.end_silence(identity, by="eve")
        for wrong in ("x", "", "%"):
            with pytest.raises(NotFound, match="agentd silence list"):
                await b.people.end_silence(wrong, by="eve")
        assert [deed[:2] for deed in await b.deeds()] == [("eve", "end silence"), ("anna", "silence")]

    tell(story)


def test_an_id_that_is_not_clear_ends_nothing(tell: Tell) -> None:
    async def story(b: Bench) -> None:
        now = b.clock.now()
        for identity in ("4f2a", "4f2", "4f3b"):
            row = SilenceRow(identity, ("watch=shop",), now, now + HOUR, "anna")
            await b.store.state.write(lambda c, row=row: silences.add(c, row))  # type: ignore[misc]  # bound now

        with pytest.raises(Conflict, match="begins the ids of 3 silences"):
            await b.people.end_silence("4f", by="eve")
        assert (await b.people.end_silence("4f2", by="eve"))["silence"]["id"] == "4f2", "a whole id is clear"

    tell(story)


def test_one_that_begins_later_waits(tell: Tell) -> None:
    async def story(b: Bench) -> None:
        await b.fires("shop", "f1")
        begin = b.clock.now() + HOUR

        answer = await b.people.silence(asked("watch=shop", starts_at=begin), by="anna")

        assert answer["silence"]["state"] == "planned"
        assert b.muted() == {}
        assert b.people.muting.next_change(b.clock.now()) == begin
        b.clock.tick(3600)
        assert set(b.muted()) == {"f1"}
        assert [view["state"] for view in await b.people.silences(everything=False)] == ["active"]

    tell(story)


def test_what_cannot_be_meant_is_refused(tell: Tell) -> None:
    """And nothing of it stays."""

    async def story(b: Bench) -> None:
        now = b.clock.now()
        far = datetime.max.replace(tzinfo=now.tzinfo)
        for wrong, words in (
            (asked(), "--all"),
            (asked("watch!=x"), "--all"),
            (asked("shop"), "cannot read the matcher"),
            (asked("watch=shop", starts_at=now - 2 * HOUR), "would have ended"),
            (asked("watch=shop", starts_at=far), "within ten years"),
            (asked("watch=shop", starts_at=far.replace(year=1)), "within ten years"),
        ):
            with pytest.raises(ConfigError, match=words):
                await b.people.silence(wrong, by="anna")
        assert await b.people.silences(everything=True) == []
        assert await b.deeds() == []
        answer = await b.people.silence(asked(everything=True), by="anna")
        assert answer["silence"]["matchers"] == []

    tell(story)


def test_there_is_a_bound(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each silence is asked about each alert."""
    monkeypatch.setattr(silences, "MAX_OPEN", 2)

    async def story(b: Bench) -> None:
        for _ in range(2):
            await b.people.silence(asked("watch=shop"), by="script")
        with pytest.raises(Conflict, match="2 silences are open"):
            await b.people.silence(asked("watch=shop"), by="script")

    tell(story)


def test_a_silence_that_cannot_be_read_mutes_nothing(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    """One of a newer version, or of a damaged store; the others hold."""

    async def story(b: Bench) -> None:
        now = b.clock.now()
        for identity, matcher in (("bad", "watch<shop"), ("good", "watch=shop")):
            row = SilenceRow(identity, (matcher,), now, now + HOUR, "anna")
            await b.store.state.write(lambda c, row=row: silences.add(c, row))  # type: ignore[misc]  # bound now

        await b.people.restore()

        assert [each.id for each in b.people.muting.silences] == ["good"]
        assert "silence_unreadable" in caplog.text

    tell(story)


def test_who_is_on_it_is_kept_with_the_alert(tell: Tell) -> None:
    async def story(b: Bench) -> None:
        await b.fires("shop", "f1aa" + "0" * 28)
        await b.fires("shop", "f1ab" + "0" * 28, rule="errors")
        await b.fires("other", "f1ac" + "0" * 28)

        answer = await b.people.ack(["shop"], by="anna", comment="on it", undo=False)

        assert {view["acked_by"] for view in answer["alerts"]} == {"anna: on it"}
        assert len(answer["alerts"]) == 2
        assert b.held("f1aa" + "0" * 28).acked_by == "anna: on it"
        assert (await b.stored("f1ab" + "0" * 28)).acked_by == "anna: on it"
        assert b.held("f1ac" + "0" * 28).acked_by is None
        await b.people.ack(["shop/errors"], by="eve", comment="", undo=True)
        assert (await b.stored("f1ab" + "0" * 28)).acked_by is None
        assert (await b.stored("f1aa" + "0" * 28)).acked_by == "anna: on it"
        await b.people.ack(["f1ac", "f1ac0"], by="eve", comment="", undo=False)
        assert (await b.stored("f1ac" + "0" * 28)).acked_by == "eve"
        assert [deed[:2] for deed in await b.deeds()] == [
            ("eve", "ack"),
            ("eve", "unack"),
            ("anna", "ack"),
            ("anna", "ack"),
        ]

    tell(story)


def test_what_cannot_be_acknowledged_is_told(tell: Tell) -> None:
    """And with one wrong name among several nothing is done."""

    async def story(b: Bench) -> None:
        await b.fires("shop", "f1aa")
        await b.fires("till", "f1ab1", status=AlertStatus.PENDING)
        await b.fires("till2", "f1ab2")
        await b.fires("calm", "f1ac", status=AlertStatus.RESOLVED)
        for name, error, words in (
            ("nothing", NotFound, "agentd alerts"),
            ("calm", NotFound, "no alert"),
            ("f1a", NotFound, "no alert"),
            ("f1ab", Conflict, "begins the fingerprints of 2 alerts"),
            ("till", Conflict, "till is pending"),
        ):
            with pytest.raises(error, match=words):
                await b.people.ack(["shop", name], by="anna", comment="", undo=False)
        with pytest.raises(Conflict, match="not acknowledged"):
            await b.people.ack(["shop"], by="anna", comment="", undo=True)
        assert b.held("f1aa").acked_by is None
        assert await b.deeds() == []

    tell(story)


def test_what_the_store_refuses_is_said(tell: Tell) -> None:
    """Nobody may believe that it is silent when it is not, or that somebody is on it."""

    async def story(b: Bench) -> None:
        await b.fires("shop", "f1aa")

        def refuse(c: Any) -> None:
            c.execute("CREATE TEMP TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END")

        await b.store.state.alone(refuse)
        with pytest.raises(StoreError):
            await b.people.ack(["shop"], by="anna", comment="", undo=False)
        assert b.held("f1aa").acked_by is None
        with pytest.raises(StoreError):
            await b.people.silence(asked("watch=shop"), by="anna")
        assert b.muted() == {}
        assert await b.people.silences(everything=True) == []

    tell(story)


def test_an_alert_that_ended_meanwhile_is_left_alone(tell: Tell) -> None:
    """Between the look and the lock it may have resolved."""

    async def story(b: Bench) -> None:
        alert = await b.fires("shop", "f1aa")
        lock = b.pipeline.alone("shop")
        async with lock:
            task = asyncio.create_task(b.people.ack(["shop"], by="anna", comment="", undo=False))
            await asyncio.sleep(0)
            b.pipeline.alerts["f1aa"] = replace(alert, status=AlertStatus.RESOLVED)

        assert (await task)["alerts"] == []
        assert ack(b.held("f1aa"), "anna").alert.acked_by is None
        assert await b.deeds() == []

    tell(story)
