"""The stream of events over HTTP: who may hear it for how long, and how many at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from test_api_gate import KEYS, Place, placed, settings

from agentd.api.ring import Ring

EVENTS = "/api/v1/events"


@pytest.fixture
def ring() -> Ring:
    return Ring()


@contextlib.asynccontextmanager
async def place_of(ring: Ring) -> AsyncIterator[Place]:
    async with placed(feed=ring) as place:
        try:
            yield place
        finally:
            ring.close()


class Stream:
    """What a client of the stream has heard; `ended`: when it is told that there is no more."""

    def __init__(self, place: Place, headers: dict[str, str]) -> None:
        self.heard = b""
        self.begun = asyncio.Event()
        self.ended = asyncio.create_task(self._read(place, headers))

    async def _read(self, place: Place, headers: dict[str, str]) -> None:
        async with place.http.stream("GET", EVENTS, headers=headers, timeout=10) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                self.heard += piece
                self.begun.set()

    async def hears(self, what: bytes) -> None:
        async with asyncio.timeout(10):
            while what not in self.heard:
                assert not self.ended.done()
                await asyncio.sleep(0)


async def listening(place: Place, headers: dict[str, str]) -> Stream:
    stream = Stream(place, headers)
    await asyncio.wait_for(stream.begun.wait(), 10)
    return stream


@pytest.mark.parametrize("how", ["key", "session", "logout"])
async def test_who_is_known_no_more_hears_nothing_more(ring: Ring, how: str) -> None:
    """A leaked key is revoked so that whoever has it learns nothing from then on."""
    async with place_of(ring) as place:
        signed_in, _ = await place.sign_in("read")
        stream = await listening(place, place.bearer("read") if how == "key" else signed_in)
        other = await listening(place, place.bearer("admin"))
        ring.tell("run", {"n": 1})

        if how == "logout":
            place.door.sessions.close(signed_in["Cookie"].partition("=")[2])
        else:
            (name, (_, hashed)) = next((name, made) for name, made in KEYS.items() if name == "admin")
            place.door.go_over_to(settings(keys=[{"name": name, "hash": hashed, "scope": "admin"}]))
        ring.tell("run", {"n": 2})
        await asyncio.wait_for(stream.ended, 10)
        ring.close()
        await asyncio.wait_for(other.ended, 10)

    assert b'"n":2' not in stream.heard
    assert b'"n":2' in other.heard


async def test_a_stream_that_goes_on_takes_nothing_from_the_rate_of_its_key(ring: Ring) -> None:
    """It is one call, however much it tells."""
    async with placed(feed=ring, rate_limiting={"requests_per_minute": 1, "burst_size": 1}) as place:
        stream = await listening(place, place.bearer("read"))
        for number in range(3):
            ring.tell("run", {"n": number})
            await stream.hears(b'"n":%d' % number)
        ring.close()
        await asyncio.wait_for(stream.ended, 10)


async def test_callers_whom_nobody_knows_hold_so_many_streams_together(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of loopback shares its places: held by streams without a key, no key would find one."""
    monkeypatch.setattr("agentd.api.routes.happenings._OF_SHARE", 0.005)
    async with place_of(ring) as place:
        streams = [await listening(place, {}) for _ in range(3)]
        refused = await place.http.get(EVENTS)
        known = await listening(place, place.bearer("read"))
        streams[0].ended.cancel()
        await asyncio.wait([streams[0].ended])
        async with asyncio.timeout(10):
            while ring.listeners > 3:
                await asyncio.sleep(0)
        again = await listening(place, {})
        ring.close()
        await asyncio.wait([each.ended for each in (*streams[1:], known, again)])

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "30"
    assert again.ended.exception() is None


async def test_asked_for_its_head_alone_the_stream_ends_at_once(ring: Ring) -> None:
    """It would be held open for nothing, and nobody would notice that the client has left."""
    async with place_of(ring) as place:
        answer: httpx.Response = await asyncio.wait_for(place.http.head(EVENTS), 10)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert ring.joined == 0
