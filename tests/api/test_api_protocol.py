"""Connections as clients that mean harm make them: over real sockets, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from loopback import LOOPS, runner
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from agentd.api import protocol
from agentd.api.access import Peer
from agentd.api.protocol import PEER, GuardedProtocol, Limits, Places
from agentd.testing import FakeClock

GET = b"GET / HTTP/1.1\r\nHost: agentd\r\n\r\n"
POST_HALF = b"POST / HTTP/1.1\r\nHost: agentd\r\nContent-Length: 9\r\n\r\nhalf"
SLOW = GET.replace(b"/ ", b"/slow ", 1)
Story = Coroutine[Any, Any, None]


@dataclass
class App:
    """Notes what it is asked. /big answers without end, /early before the body has come, /slow when it is let go."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        path = scope["path"]
        if path == "/big":
            await self._endless(receive, send)
            return
        if path != "/early":
            await self._read(receive)
        if path == "/slow":
            await self.go.wait()
        body = path.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, receive: Receive) -> None:
        body = b""
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                self.ends.append("disconnected")
                return
            body += message["body"]
            if not message["more_body"]:
                self.bodies.append(body)
                return

    async def _endless(self, receive: Receive, send: Send) -> None:
        await self._read(receive)
        gone = asyncio.create_task(self._read(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)


@dataclass
class Site:
    """A server of connections as agentd's, on a unix socket or on TCP."""

    app: App
    places: Places
    listener: socket.socket

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.listener.family == socket.AF_UNIX:
            return await asyncio.open_unix_connection(self.listener.getsockname())
        return await asyncio.open_connection(*self.listener.getsockname())

    async def wait_for_answer(self) -> asyncio.StreamWriter:
        _, writer = await self.connect()
        writer.write(SLOW)
        return writer

    async def ask(self, *pieces: bytes) -> bytes:
        """All that comes back until the server ends the connection."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def serving(limits: Limits = Limits(), path: Path | None = None) -> AsyncIterator[Site]:  # noqa: B008  # frozen
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listener.bind(str(path) if path else ("127.0.0.1", 0))
    listener.listen(100)
    app, places = App(), Places(limits)
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    config.load()
    state = ServerState()

    def protocol() -> GuardedProtocol:
        return GuardedProtocol(config=config, server_state=state, app_state={}, places=places)

    server = await asyncio.get_running_loop().create_server(protocol, sock=listener)
    try:
        yield Site(app, places, listener)
    finally:
        server.close()
        app.go.set()
        for connection in list(state.connections):
            connection.transport.abort()
        while state.tasks or state.connections:
            await asyncio.sleep(0)


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    return problem


@pytest.fixture
def play() -> Callable[[Callable[[FakeClock], Story]], None]:
    def run(story: Callable[[FakeClock], Story]) -> None:
        clock = FakeClock()
        clock.run(story(clock))

    return run


Play = Callable[[Callable[[FakeClock], Story]], None]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_kernel_says_who_is_behind_a_unix_socket(loop: str, tmp_path: Path) -> None:
    """Users are told apart by this alone; on either loop that the daemon may run on."""

    async def story() -> None:
        async with serving(path=tmp_path / "api.sock") as site:
            answer = await site.ask(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

            assert answer.startswith(b"HTTP/1.1 200")
            peer = site.app.scopes[0][PEER]
            assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
            assert set(peer.groups) == set(os.getgroups())

    runner(loop)(story())


@pytest.mark.parametrize("loop", LOOPS)
def test_over_tcp_nobody_is_known(loop: str) -> None:
    """No header and no address may stand in for credentials."""

    async def story() -> None:
        async with serving() as site:
            await site.ask(b"GET / HTTP/1.1\r\nConnection: close\r\nagentd.peer: 0\r\n\r\n")

            assert site.app.scopes[0][PEER] is None

    runner(loop)(story())


@pytest.mark.parametrize("unix", [True, False])
def test_one_that_is_gone_at_once_leaves_nothing(unix: bool, tmp_path: Path, play: Play) -> None:
    """A port scan is full of them; a place that is not given back would be lost for ever."""

    async def story(clock: FakeClock) -> None:
        async with serving(path=tmp_path / "api.sock" if unix else None) as site:
            for _ in range(50):
                with socket.socket(site.listener.family) as client:
                    client.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(client, site.listener.getsockname())
                    if not unix:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.send(GET)
            await clock.settle()

            assert site.places.taken == 0
            assert (await site.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).endswith(b"/")
            assert all(scope[PEER] is None or scope[PEER].uid == os.getuid() for scope in site.app.scopes)

    play(story)


def test_peers_that_cannot_be_told_are_none() -> None:
    """Unknown is never root: whatever a socket says that is no unix socket's."""

    class Silent:
        def getsockopt(self, *args: int) -> bytes:
            raise OSError(107, "Transport endpoint is not connected")

    class Short(Silent):
        def getsockopt(self, *args: int) -> bytes:
            return b""

    class Minus(Silent):
        def getsockopt(self, *args: int) -> bytes:
            return struct.pack("=iII", 0, 2**32 - 1, 2**32 - 1)

    assert [protocol.peer_of(each) for each in (None, Silent(), Short(), Minus())] == [None] * 4


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * 1_000_000, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"y" * 1_000_000, 431),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 12, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT nowhere:80 HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_a_head_that_is_too_large_or_none_is_refused(
    request_: bytes, status: int, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """The parser itself would hold as much as it is sent. Who reaches the port can do this: no line in the log."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            with caplog.at_level(logging.DEBUG, "uvicorn"):
                reader, writer = await site.connect()
                writer.write(request_)
                await clock.settle()
                await clock.advance(3)

                assert problem_of(await reader.read())["status"] == status
                assert site.places.taken == site.places.lingering == 0
                writer.close()
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    play(story)


def test_a_head_as_large_as_allowed_is_taken(play: Play) -> None:
    """Behind a proxy, cookies and trace headers take some room."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            headers = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 300) for number in range(90))
            answer = await site.ask(b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nConnection: close\r\n" + headers + b"\r\n")

            assert answer.startswith(b"HTTP/1.1 200")
            assert len(site.app.scopes[0]["headers"]) == 91

    play(story)


def test_one_who_says_nothing_is_shown_the_door(play: Play) -> None:
    """Ten seconds on a new connection, fifteen between requests; no answer, for nothing was asked."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            silent, first = await site.connect()
            kept, second = await site.connect()
            second.write(GET)
            await clock.advance(9.9)
            assert site.places.taken == 2
            await clock.advance(0.2)
            assert await silent.read() == b""
            assert site.places.taken == 1
            await clock.advance(15)

            assert (await kept.read()).endswith(b"\r\n\r\n/")
            assert site.places.taken == 0
            first.close()
            second.close()

    play(story)


@pytest.mark.parametrize("first", [b"", GET])
def test_a_head_in_drips_is_not_waited_for(first: bytes, play: Play) -> None:
    """Slow loris: a byte each few seconds would hold a place for ever."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(first)
            await clock.settle()
            for byte in b"GET / HTTP/":
                writer.write(bytes((byte,)))
                await clock.advance(1)

            answer = (await reader.read()).removeprefix(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n/")
            assert problem_of(answer)["status"] == 408
            writer.close()
            await clock.advance(2)
            assert site.places.taken == site.places.lingering == 0

    play(story)


def test_empty_lines_do_not_buy_time(play: Play) -> None:
    """The parser skips them before a request; they are no request."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            for _ in range(11):
                writer.write(b"\r\n")
                await clock.advance(1)

            assert await reader.read() == b""
            writer.close()

    play(story)


def test_a_body_in_drips_is_not_waited_for(play: Play) -> None:
    """The handler that waits for it is let go, and hears that the client is gone."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(31):
                writer.write(b"x")
                await clock.advance(1)

            assert problem_of(await reader.read())["status"] == 408
            assert site.app.ends == ["disconnected"]
            writer.close()

    play(story)


def test_a_handler_may_take_its_time(play: Play) -> None:
    """Limits are for clients; an answer that takes minutes is our affair."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(b"POST /slow HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
            await clock.advance(3600)
            site.app.go.set()
            await clock.settle()

            assert (await reader.readuntil(b"/slow")).startswith(b"HTTP/1.1 200")
            writer.close()

    play(story)


@pytest.mark.parametrize("unix", [True, False])
def test_one_who_does_not_read_is_hung_up_on(unix: bool, tmp_path: Path, play: Play) -> None:
    """What it was sent is thrown away with it: a client that sleeps must not hold memory."""

    async def story(clock: FakeClock) -> None:
        async with serving(path=tmp_path / "api.sock" if unix else None) as site:
            with socket.socket(site.listener.family) as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, site.listener.getsockname())
                client.send(GET.replace(b"/", b"/big", 1))
                await clock.advance(29)
                assert site.places.taken == 1
                assert site.app.ends == []
                await clock.advance(2)

                assert site.places.taken == 0
                assert site.app.ends == ["disconnected"]

    play(story)


def test_one_who_reads_slowly_but_reads_is_served(play: Play) -> None:
    """A phone in a tunnel is no attacker."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(GET.replace(b"/", b"/big", 1))
            for _ in range(10):
                await clock.advance(20)
                for _ in range(100):
                    await reader.read(2**20)
                    await clock.settle()

            assert site.places.taken == 1
            assert site.app.ends == []
            writer.close()

    play(story)


def test_when_all_places_are_taken_the_next_is_told_to_come_back(play: Play) -> None:
    """A place that is given back is free again."""

    async def story(clock: FakeClock) -> None:
        async with serving(Limits(connections=2, share=2)) as site:
            held = [await site.wait_for_answer() for _ in range(2)]
            await clock.settle()
            answer = await site.ask(GET)
            assert b"\r\nretry-after: 5\r\n" in answer
            assert problem_of(answer)["status"] == 503
            assert [scope["path"] for scope in site.app.scopes] == ["/slow"] * 2
            held[0].close()
            site.app.go.set()
            await clock.settle()

            assert (await site.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(b"HTTP/1.1 200")
            held[1].close()

    play(story)


@pytest.mark.parametrize("begun", [b"", GET[:20], GET, POST_HALF])
def test_who_waits_longest_makes_room_for_who_comes(begun: bytes, play: Play) -> None:
    """Held by connections that ask for nothing, all of loopback would have no place for anybody with a key."""

    async def story(clock: FakeClock) -> None:
        async with serving(Limits(connections=4, share=3)) as site:
            answered = await site.wait_for_answer()
            await clock.settle()
            first, second = [await site.connect() for _ in range(2)]
            for _, writer in (first, second):
                writer.write(begun)
                await clock.settle()

            assert (await site.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(b"HTTP/1.1 200")

            assert site.places.taken == 2, "one of them waits for its answer"
            with contextlib.suppress(ConnectionResetError):
                await first[0].read()
            assert first[0].at_eof() or first[0].exception() is not None
            assert not second[0].at_eof()
            for writer in (answered, first[1], second[1]):
                writer.close()

    play(story)


def test_nobody_takes_all_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, play: Play) -> None:
    """One user of the machine must not lock out the others, and nobody locks out root."""
    uid = [1000]
    monkeypatch.setattr(protocol, "peer_of", lambda connection: Peer(1, uid[0], 100))

    async def story(clock: FakeClock) -> None:
        async with serving(Limits(connections=4, share=3), tmp_path / "api.sock") as site:
            closing = GET.replace(b"Host", b"Connection: close\r\nHost")
            held = [await site.wait_for_answer() for _ in range(3)]
            await clock.settle()
            assert problem_of(await site.ask(closing))["status"] == 503
            uid[0] = 1001
            assert (await site.ask(closing)).startswith(b"HTTP/1.1 200")
            held.append(await site.wait_for_answer())
            await clock.settle()
            assert problem_of(await site.ask(closing))["status"] == 503
            uid[0] = 0
            assert (await site.ask(closing)).startswith(b"HTTP/1.1 200")
            for writer in held:
                writer.close()

    play(story)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.9.9.9", True),
        ("127.0.0.1", "::1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_whose_place_it_is(one: str, other: str, same: bool) -> None:
    """Who has one IPv6 address has a network of them, and who is on this machine has all of 127.0.0.0/8."""
    assert (protocol.whose(one) == protocol.whose(other)) is same


def test_many_requests_on_one_connection_have_one_timer(play: Play) -> None:
    """A timer set and cancelled by each request would be most of what a small request costs."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            loop = asyncio.get_running_loop()
            for number in range(20):
                writer.write(b"POST /%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" % number)
                await reader.readuntil(b"/%d" % number)
                await clock.advance(1)

            assert site.app.bodies == [b"abc"] * 20
            assert len(loop._scheduled) <= 2  # type: ignore[attr-defined]  # the heap of timers
            writer.close()

    play(story)


def test_what_comes_behind_an_early_answer_is_not_swallowed_for_ever(play: Play) -> None:
    """The answer is not lost in a reset, and 10 GB behind it are not read."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(b"POST /early HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n")
            await reader.readuntil(b"/early")
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    writer.write(b"x" * 65536)
                    await writer.drain()
            await clock.settle()
            assert site.places.taken == 0
            writer.close()

    play(story)


def test_a_small_body_behind_an_early_answer_keeps_the_connection(play: Play) -> None:
    """A refusal that does not wait for the body is no reason to connect anew."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(b"POST /early HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
            await reader.readuntil(b"/early")
            writer.write(b"abc" + GET)
            await reader.readuntil(b"\r\n\r\n/")
            await clock.advance(14)
            assert site.places.taken == 1
            await clock.advance(2)

            assert site.places.taken == 0
            writer.close()

    play(story)


def test_requests_in_a_row_are_answered_in_their_order(play: Play) -> None:
    """Pipelining is allowed, a little of it."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            row = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(5))
            answer = await site.ask(row + b"GET /5 HTTP/1.1\r\nConnection: close\r\n\r\n")

            assert [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 ")[1:]] == [
                b"/%d" % number for number in range(6)
            ]

    play(story)


def test_a_queue_of_requests_is_short(play: Play) -> None:
    """In one read there is room for ten thousand, and each would hold its own state."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            _, writer = await site.connect()
            writer.write(b"GET /slow HTTP/1.1\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n" * 1000)
            await clock.settle()
            await clock.advance(3)

            assert site.places.taken == 0
            assert len(site.app.scopes) == 1
            writer.close()

    play(story)


def test_an_upgrade_that_we_do_not_know_is_answered_as_if_nobody_had_asked(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """curl --http2 asks for one with every request."""

    async def story(clock: FakeClock) -> None:
        async with serving() as site:
            reader, writer = await site.connect()
            writer.write(b"GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
            await clock.settle()

            assert (await reader.readuntil(b"/a")).startswith(b"HTTP/1.1 200")
            assert not caplog.records
            writer.close()

    play(story)


def test_no_bytes_break_it(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    """Mangled requests of all kinds: every place is given back, nothing is logged, and it serves on."""
    whole = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + GET
    dice = random.Random(7)

    async def story(clock: FakeClock) -> None:
        async with serving(replace(Limits(), head_bytes=200)) as site:
            for _ in range(300):
                mangled = bytearray(whole * dice.randint(1, 3))
                for _ in range(dice.randint(1, 8)):
                    place = dice.randrange(len(mangled))
                    kind = dice.randrange(3)
                    if kind == 0:
                        mangled[place] = dice.randrange(256)
                    elif kind == 1:
                        del mangled[place : place + dice.randint(1, 20)]
                    else:
                        mangled[place:place] = dice.randbytes(dice.randint(1, 20))
                    if not mangled:
                        break
                _, writer = await site.connect()
                cut = dice.randrange(len(mangled) + 1)
                writer.write(bytes(mangled[:cut]))
                await asyncio.sleep(0)
                writer.write(bytes(mangled[cut:]))
                writer.close()
            await clock.settle()
            await clock.advance(60)

            assert site.places.taken == site.places.lingering == 0
            assert (await site.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))).endswith(b"/")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    play(story)
