"""One ring of events for all who listen: what it keeps, what they get, and what they cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentd.api import ring as ring_module
from agentd.api.ring import KEEP_ALIVE_S, MOST_EVENT_BYTES, TICK_S, Ring
from agentd.testing import FakeClock


class Listener:
    """Reads until the end, or until it is told to read nothing more."""

    def __init__(self, ring: Ring, last_id: str | None = None, *, known: bool = True) -> None:
        self.pieces: list[bytes] = []
        self._events: AsyncIterator[bytes] = ring.listen(last_id, known=known)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for piece in self._events:
            self.pieces.append(piece)

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """(kind, data) of each event."""
        return [
            (lines["event"], json.loads(lines["data"]))
            for block in b"".join(self.pieces).decode().split("\n\n")
            if "data" in (lines := dict(line.split(": ", 1) for line in block.split("\n") if ": " in line))
        ]

    @property
    def numbers(self) -> list[int]:
        return [data["n"] for kind, data in self.events if kind == "run"]

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def tell(ring: Ring, *numbers: int) -> None:
    for number in numbers:
        ring.tell("run", {"n": number})


def test_a_listener_gets_what_happens_from_now_on() -> None:
    """The page has read all that was before; told again, it would flicker."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        tell(ring, 1)
        listener = Listener(ring)
        await clock.settle()
        tell(ring, 2, 3)
        await clock.advance(TICK_S)

        assert listener.numbers == [2, 3]
        await listener.leave()
        assert ring.listeners == 0

    clock.run(story())


def test_who_comes_back_goes_on_where_the_line_broke() -> None:
    """A lost connection must lose no event."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        tell(ring, 1)
        seen = ring.last_id
        tell(ring, 2, 3)
        listener = Listener(ring, seen)
        await clock.settle()

        assert listener.numbers == [2, 3]
        ring.close()
        await listener.task

    clock.run(story())


@pytest.mark.parametrize("last_id", ["00000000-1", "{life}-99", "{life}-1", "nonsense", "x" * 10_000, "{life}-1\n"])
def test_who_missed_something_is_told_so(last_id: str) -> None:
    """It must read everything anew: of another life, of the future, out of the ring, or no id at all."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring(most=2)
        tell(ring, 1, 2, 3, 4)
        listener = Listener(ring, last_id.format(life=ring.life))
        await clock.settle()
        tell(ring, 5)
        await clock.advance(TICK_S)

        assert listener.events == [("reset", {}), ("run", {"n": 5})]
        ring.close()
        await listener.task

    clock.run(story())


def test_a_burst_wakes_nobody_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand alerts at once must not become two million wake-ups."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        listeners = [Listener(ring) for _ in range(200)]
        await clock.settle()
        tell(ring, *range(500))
        await clock.advance(TICK_S)
        tell(ring, *range(500, 1000))
        await clock.advance(TICK_S)

        assert listeners[0].numbers == list(range(1000))
        assert len(listeners[0].pieces) == 3  # the greeting, and one for each tenth of a second
        assert all(listener.pieces == listeners[0].pieces for listener in listeners)
        ring.close()
        await asyncio.wait([each.task for each in listeners])

    clock.run(story())


def test_one_who_never_reads_costs_nothing_and_is_told_of_the_gap() -> None:
    """20,000 events for 200 listeners: kept once, whoever sleeps; and the sleeper knows when it wakes."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring(most=1000)
        asleep = ring.listen(None, known=True)
        await anext(asleep)
        listeners = [Listener(ring) for _ in range(199)]
        await clock.settle()
        for begin in range(0, 20_000, 500):
            tell(ring, *range(begin, begin + 500))
            await clock.advance(TICK_S)

        assert len(ring) == 1000
        assert listeners[0].numbers == list(range(20_000))
        # All hold the same bytes: encoded once, joined once.
        for listener in listeners:
            assert [id(piece) for piece in listener.pieces] == [id(piece) for piece in listeners[0].pieces]
        assert b"event: reset" in await anext(asleep)
        await asleep.aclose()  # type: ignore[attr-defined]  # it is a generator
        ring.close()
        await asyncio.wait([each.task for each in listeners])

    clock.run(story())


def test_the_ring_is_bounded_in_bytes_and_an_event_too() -> None:
    """Summaries of hostile targets are long, and there may be many."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring(most_bytes=10_000)
        listener = Listener(ring)
        await clock.settle()
        for _ in range(100):
            ring.tell("watch", {"name": "shop", "summary": "x" * 1000})
        assert len(ring) == 9
        await clock.advance(TICK_S)
        ring.tell("watch", {"name": "shop", "summary": "x" * MOST_EVENT_BYTES})
        await clock.advance(TICK_S)

        assert listener.events[-1] == ("watch", {"left_out": True, "name": "shop"})
        ring.close()
        await listener.task

    clock.run(story())


def test_what_agents_said_is_for_known_callers() -> None:
    """Whoever reaches the port hears of an alert, not what an agent read in a log."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        known, unknown = Listener(ring), Listener(ring, known=False)
        await clock.settle()
        finding = {"status": "problem", "summary": "the disk is full", "claims": [{"quote": "root:x:0"}]}
        ring.tell("alert", {"fingerprint": "f", "finding": finding})
        await clock.advance(TICK_S)

        assert known.events == [("alert", {"fingerprint": "f", "finding": finding})]
        outline = {"status": "problem", "summary": "the disk is full"}
        assert unknown.events == [("alert", {"fingerprint": "f", "finding": outline})]
        ring.close()
        await asyncio.wait([known.task, unknown.task])

    clock.run(story())


def test_a_silent_line_is_kept_alive() -> None:
    """Proxies cut what says nothing; and only so does a server notice that a client is gone."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        listener = Listener(ring)
        await clock.advance(3 * KEEP_ALIVE_S)

        assert listener.pieces[1:] == [b":\n\n"] * 3
        await listener.leave()
        await clock.advance(2 * KEEP_ALIVE_S)
        assert ring_module.KEEP_ALIVE_S == KEEP_ALIVE_S
        assert ring._beat is None  # nobody listens, so nothing ticks

    clock.run(story())


@pytest.mark.parametrize(
    "text", ["a\nevent: alert\n\ndata: {}", "a\r\n\r\nb", "\u2028\u2029\x85", "\udcff", "</script>"]
)
def test_words_of_strangers_cannot_begin_an_event(text: str) -> None:
    """A line of a log with an empty line in it would be an event of its own."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        listener = Listener(ring)
        await clock.settle()
        ring.tell("watch", {"name": text, "summary": float("nan")})
        await clock.advance(TICK_S)

        ((kind, data),) = listener.events
        assert (kind, data) == ("watch", {"name": text.replace("\udcff", "?"), "summary": None})
        assert b"\r" not in b"".join(listener.pieces)
        ring.close()
        await listener.task

    clock.run(story())


def test_telling_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Who tells is in the middle of an alert's life."""
    ring = Ring()

    ring.tell("alert", {"value": object()})
    ring.close()
    ring.tell("alert", {})

    assert len(ring) == 0
    assert "event_not_told" in caplog.text


def test_the_end_of_the_daemon_ends_every_listener() -> None:
    """Or each stop would wait for browsers that never go away by themselves."""
    clock = FakeClock()

    async def story() -> None:
        ring = Ring()
        listeners = [Listener(ring) for _ in range(3)]
        await clock.settle()
        ring.close()
        await asyncio.wait([each.task for each in listeners])
        late = Listener(ring)
        await late.task

        assert all(each.task.exception() is None for each in (*listeners, late))
        assert not ring.heard.is_set()

    clock.run(story())
