"""When everything seems down, it is mostly our own network: nobody is woken for that as if it were theirs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import serving
from opentelemetry.trace import NoOpTracer

from agentd.alert.lifecycle import Policy
from agentd.config.values import Target
from agentd.daemon.selfcheck import AGAIN_AFTER_S, TIMEOUT_S, SelfCheck
from agentd.memory.store import Store
from agentd.pipeline import Pipeline, ProbeWatch, open_watch
from agentd.records import AlertStatus, Observation, Verdict
from agentd.testing import FakeClock


class Down:
    """A probe whose target never answers."""

    async def look(self, timeout_s: float) -> Observation:
        return Observation(error="connection refused")

    async def close(self) -> None:
        pass


def watch(name: str = "shop", kind: str = "http", needed: int = 2) -> ProbeWatch:
    policy = Policy(needed=needed, of=needed, recover_after=1)
    return open_watch(name, kind, Down(), (), policy, instance="web-1", notify=["ops"], timeout_s=10)


class Uplink:
    """A server that stands for the far side of our network; counts who came."""

    def __init__(self) -> None:
        self.looks = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.looks += 1
        await reader.read()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port at which nobody ever answers: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filling = []
        for _ in range(3):
            filling.append(socket.socket())
            filling[-1].setblocking(False)
            filling[-1].connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for each in filling:
                each.close()


def closed_port() -> Target:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Target("127.0.0.1", probe.getsockname()[1])


def test_one_target_that_answers_is_enough() -> None:
    """The others may have an outage of their own."""
    clock, uplink = FakeClock(), Uplink()

    async def story() -> None:
        async with serving(uplink.answer) as served:
            check = SelfCheck(clock, [closed_port(), Target("127.0.0.1", served.port)])
            assert await check(watch()) is None

    clock.run(story())


def test_when_none_answers_the_failure_is_ours_and_says_so() -> None:
    """The person who reads it must see at once where to look."""
    clock = FakeClock()
    first, second = closed_port(), closed_port()

    async def story() -> None:
        why = await SelfCheck(clock, [first, second])(watch())
        assert why == f"our own network: {first}, {second} cannot be reached either"

    clock.run(story())


def test_silence_counts_as_no_answer_after_three_seconds() -> None:
    """A check that waits for its confirmation holds back its own alert."""
    clock = FakeClock()

    async def story(port: int) -> None:
        asked = asyncio.create_task(SelfCheck(clock, [Target("127.0.0.1", port)])(watch()))
        await clock.advance(TIMEOUT_S - 0.1)
        assert not asked.done()
        await clock.advance(0.2)
        assert "cannot be reached either" in (await asked or "")

    with silent_port() as port:
        clock.run(story(port))


def test_five_hundred_failing_watches_ask_once_in_five_seconds() -> None:
    """The storm in which it matters must not become a storm of ours."""
    clock, uplink = FakeClock(), Uplink()

    async def story() -> None:
        async with serving(uplink.answer) as served:
            check = SelfCheck(clock, [Target("127.0.0.1", served.port)])
            await asyncio.gather(*(check(watch(f"shop-{n}")) for n in range(500)))
            await clock.advance(AGAIN_AFTER_S - 1)
            await check(watch())
            await clock.settle()
            assert uplink.looks == 1
            await clock.advance(1)
            await check(watch())
            await clock.settle()
            assert uplink.looks == 2

    clock.run(story())


def test_one_who_asks_and_goes_away_leaves_the_look_to_the_next() -> None:
    """A check that is cancelled in the middle must not leave an answer that nobody found."""
    clock = FakeClock()

    async def story(port: int) -> None:
        check = SelfCheck(clock, [Target("127.0.0.1", port)])
        gone = asyncio.create_task(check(watch("gone")))
        await clock.advance(1)
        gone.cancel()
        next_one = asyncio.create_task(check(watch()))
        await clock.advance(TIMEOUT_S)
        assert "cannot be reached either" in (await next_one or "")

    with silent_port() as port:
        clock.run(story(port))


@pytest.mark.parametrize("kind", ["command", "host", "systemd", "heartbeat", "a-plugin"])
def test_what_needs_no_network_is_believed(kind: str) -> None:
    """A full disk is full with and without an uplink."""
    clock = FakeClock()

    async def story() -> None:
        assert await SelfCheck(clock, [closed_port()])(watch(kind=kind)) is None

    clock.run(story())


def test_other_targets_are_asked_at_once() -> None:
    """After a reload the old targets' answer is nobody's."""
    clock = FakeClock()

    async def story() -> None:
        check = SelfCheck(clock, [closed_port()])
        assert await check(watch()) is not None
        check.targets = ()
        assert await check(watch()) is None
        check.targets = (other := closed_port(),)
        assert str(other) in (await check(watch()) or "")

    clock.run(story())


def test_a_watch_stays_pending_while_our_network_is_down_and_fires_after(tmp_path: Path) -> None:
    """The streak stays: when the network is back and they are still down, it takes one look and not three."""
    clock, uplink = FakeClock(), Uplink()

    async def story() -> None:
        store = await Store.open(tmp_path, clock=clock)
        pipeline = Pipeline(
            state=store.state,
            clock=clock,
            instance="web-1",
            tracer=NoOpTracer(),
            record=lambda result: None,
            told=lambda: None,
        )
        pipeline.confirm = check = SelfCheck(clock, [closed_port()])
        pipeline.watches["shop"] = shop = watch(needed=3)
        try:
            seen = []
            for _ in range(4):
                seen.append((await pipeline.check(shop)).judgement)
                clock.tick(60)
            assert [each.verdict.value for each in seen] == ["failing", "failing", "blind", "blind"]
            assert "our own network" in seen[-1].summary
            assert "connection refused" in seen[-1].summary
            assert pipeline.alerts[shop.calm.fingerprint].status is AlertStatus.PENDING

            async with serving(uplink.answer) as served:
                check.targets = (Target("127.0.0.1", served.port),)
                done = await pipeline.check(shop)
            assert done.judgement.verdict is Verdict.FAILING
            assert pipeline.alerts[shop.calm.fingerprint].status is AlertStatus.FIRING
            looks = uplink.looks
            clock.tick(60)
            assert (await pipeline.check(shop)).judgement.verdict is Verdict.FAILING
            assert uplink.looks == looks, "what fires already is not asked about"
        finally:
            await store.close()

    clock.run(story())
