"""The outgoing heartbeat: somebody else hears that we live, and hears nothing when we are no use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from pydantic import ValidationError
from receiver import Answer, Receiver

from agentd.config.service import OutgoingHeartbeat
from agentd.daemon.notify import ServiceManager
from agentd.daemon.pulse import TIMEOUT_S, Pulse
from agentd.daemon.watchdog import Watchdog
from agentd.testing import FakeClock

PING = "/ping/4f7d1a"


class Conscience:
    """Says why no beat may go out, if so."""

    def __init__(self) -> None:
        self.why: str | Exception | None = None

    async def asked(self) -> str | None:
        if isinstance(self.why, Exception):
            raise self.why
        return self.why


def settings(receiver: Receiver, every_s: float = 60) -> OutgoingHeartbeat:
    return OutgoingHeartbeat.model_validate(
        {"url": f"http://127.0.0.1:{receiver.port}{PING}", "every": timedelta(seconds=every_s)}
    )


@asynccontextmanager
async def beating(pulse: Pulse, clock: FakeClock) -> AsyncIterator[Pulse]:
    task = asyncio.create_task(pulse.run())
    await clock.settle()
    try:
        yield pulse
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def times(receiver: Receiver) -> list[float]:
    """When beats came in, in whole seconds since the first."""
    return [round(request.at - receiver.requests[0].at) for request in receiver.requests]


def test_it_beats_at_once_and_then_at_its_pace() -> None:
    """After a restart the other side must not wait a whole round for us."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver, beating(Pulse(settings(receiver), Conscience().asked), clock):
            await clock.advance(180)
            assert times(receiver) == [0, 60, 120, 180]
            first = receiver.requests[0]
            assert (first.method, first.path, first.body) == ("GET", PING, b"")
            assert first.headers["user-agent"].startswith("agentd/")

    clock.run(story())


def test_nothing_goes_out_while_it_must_be_withheld(caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat of a daemon that can tell nobody would be a lie."""
    clock, conscience = FakeClock(), Conscience()
    caplog.set_level(logging.INFO, logger="agentd.heartbeat")

    async def story() -> None:
        async with Receiver() as receiver, beating(Pulse(settings(receiver), conscience.asked), clock) as pulse:
            conscience.why = "no webhook works"
            await clock.advance(600)
            assert len(receiver.requests) == 1
            assert "no webhook works" in (pulse.trouble or "")
            conscience.why = OSError("the store cannot be read")
            await clock.advance(600)
            assert len(receiver.requests) == 1, "not to know is no reason to boast"
            conscience.why = None
            await clock.advance(60)
            assert len(receiver.requests) == 2
            assert pulse.trouble is None

    clock.run(story())
    assert [record.msg for record in caplog.records] == ["heartbeat_withheld", "heartbeat_goes_on"]


def test_a_receiver_that_fails_is_tried_soon_then_less_often_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One lost beat must not look like our death, and a receiver that is down must not be hammered."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.otherwise = 503
            async with beating(Pulse(settings(receiver), Conscience().asked), clock):
                await clock.advance(200)
                assert times(receiver) == [0, 5, 15, 35, 75, 135, 195]
                receiver.otherwise = 200
                await clock.advance(120)
                assert times(receiver)[7:] == [255, 315]

    clock.run(story())
    assert [record.msg for record in caplog.records] == ["heartbeat_failed"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(301, headers={"Location": "https://elsewhere.example/"}), "answered 301"),
        (Answer(404), "answered 404"),
        (Answer(reset=True), "without a proper answer"),
        (Answer(raw=b"nonsense\r\n\r\n"), "without a proper answer"),
    ],
    ids=["redirection", "unknown", "reset", "nonsense"],
)
def test_what_hinders_it_is_said_without_the_address(
    answer: Answer, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the address can pretend that we live."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.otherwise = answer
            async with beating(Pulse(settings(receiver), Conscience().asked), clock) as pulse:
                assert words in (pulse.trouble or "")
                assert len(receiver.requests) == 1, "nothing is followed"

    clock.run(story())
    assert PING not in caplog.text + str([record.__dict__ for record in caplog.records])


def test_a_receiver_that_hangs_costs_one_beat() -> None:
    """It is ours to be on time with the next."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(hang=True))
            async with beating(Pulse(settings(receiver), Conscience().asked), clock) as pulse:
                await clock.advance(TIMEOUT_S + 0.1)
                assert pulse.trouble is None, "tried again at once, and taken"
                assert len(receiver.taken) == 1

    clock.run(story())


def test_a_body_without_end_is_not_read() -> None:
    """The status has been given; whoever answers must not be able to hold us."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.otherwise = Answer(endless=True)
            async with beating(Pulse(settings(receiver), Conscience().asked), clock) as pulse:
                await clock.advance(61)
                assert len(receiver.requests) == 2
                assert pulse.trouble is None

    clock.run(story())


def test_a_secret_that_is_gone_is_named() -> None:
    """`${file:…}` may vanish while we run."""
    clock = FakeClock()

    async def story() -> None:
        given = OutgoingHeartbeat.model_validate({"url": "${env:AGENTD_NO_SUCH_PING}"})
        async with beating(Pulse(given, Conscience().asked), clock) as pulse:
            assert "AGENTD_NO_SUCH_PING is not set" in (pulse.trouble or "")

    clock.run(story())


def test_a_reload_changes_where_to_and_how_often() -> None:
    """Without a restart; and what did not change keeps its pace."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as old, Receiver() as new, beating(Pulse(None, Conscience().asked), clock) as pulse:
            await clock.advance(600)
            pulse.replace(settings(old))
            await clock.advance(30)
            assert times(old) == [0]
            pulse.replace(settings(old))
            await clock.advance(31)
            assert times(old) == [0, 60]
            pulse.replace(settings(new, every_s=10))
            await clock.advance(20)
            assert times(new) == [0, 10, 20]
            pulse.replace(None)
            await clock.advance(600)
            assert (len(old.requests), len(new.requests)) == (2, 3)

    clock.run(story())


@pytest.mark.parametrize("given", [{"url": "hc.example/ping"}, {"url": "https://hc.example/p", "every": "1s"}])
def test_a_heartbeat_that_cannot_be_meant_is_refused(given: dict[str, str]) -> None:
    """At load, not in the night."""
    with pytest.raises(ValidationError, match=r"begins with https|write 5s or more"):
        OutgoingHeartbeat.model_validate(given)


def test_the_watchdog_names_the_silent_without_systemd() -> None:
    """The heartbeat is withheld by the same tokens that feed systemd's watchdog."""
    clock = FakeClock()

    async def alive() -> None:
        pass

    async def dead() -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        watchdog = Watchdog(ServiceManager({}), clock, {"store": alive, "courier": dead, "scheduler": dead})
        asked = asyncio.create_task(watchdog.silent(10))
        await clock.advance(10.1)
        assert await asked == ["courier", "scheduler"]
        assert await Watchdog(ServiceManager({}), clock, {"store": alive}).silent(10) == []

    clock.run(story())
