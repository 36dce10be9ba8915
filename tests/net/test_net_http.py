"""One exchange against servers of every temper, on both loops."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import httptools
import pytest
from loopback import LOOPS, Served, answering, free_port, plain, reset, runner, serving

from agentd.net import Endpoint, NetFailure, Timings
from agentd.net import address as address_module
from agentd.net.http import HttpConnection, Response, decoded, open_http

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


async def ask(
    port: int, *, head_only: bool = False, max_body: int = 1 << 20, timeout_s: float = 20, host: str = "127.0.0.1"
) -> Response:
    timings = Timings()
    async with asyncio.timeout(timeout_s):
        connection = await open_http(Endpoint.of(host, port), timings, timeout_s)
        try:
            return await connection.exchange(GET, timings, head_only=head_only, max_body=max_body)
        finally:
            connection.abandon()


def told(run: Run, answer: bytes, **options: Any) -> Response:
    """The response that a server's bytes are read as."""

    async def story() -> Response:
        async with serving(answering(answer)) as served:
            return await ask(served.port, **options)

    response: Response = run(story())
    return response


def test_a_body_with_a_length_is_read(run: Run) -> None:
    response = told(run, plain(b"hello", headers="X-One: 1\r\nx-one: 2\r\n"))

    assert (response.status, response.version, response.body) == (200, "1.1", b"hello")
    assert response.headers == {"x-one": "1, 2", "content-length": "5"}


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\nA: 1\r\n\r\nHTTP/1.1 103 Early\r\nB: 1\r\n\r\n" + plain(b"late"), b"late"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", b""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nnoise", b""),
        (plain(b"one") + plain(b"two"), b"one"),
        (plain(b"one") + b"trailing rubbish", b"one"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    ],
    ids=["chunked", "to the end", "1xx", "204", "304", "101", "two answers", "rubbish after", "no reason"],
)
def test_every_framing_ends_where_it_should(run: Run, answer: bytes, body: bytes) -> None:
    response = told(run, answer)

    assert response.body == body
    assert "a" not in response.headers


def test_an_answer_to_head_has_no_body(run: Run) -> None:
    """Its Content-Length speaks of what GET would bring; waiting for it would end in a timeout."""

    async def story() -> Response:
        async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", keep_open=True)) as served:
            return await ask(served.port, head_only=True)

    assert run(story()).body == b""


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "ended without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "inside the answer's head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "inside the body, after 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "inside the body"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n", "more than 256 headers"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000, "head is larger"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "head is larger"),
    ],
)
def test_a_broken_answer_is_the_server_s_failure(run: Run, answer: bytes, complaint: str) -> None:
    """Whatever comes is said in words; nothing hangs and nothing raises beyond NetFailure."""
    with pytest.raises(NetFailure, match=complaint) as failure:
        told(run, answer)

    assert not failure.value.blind


def test_a_reset_is_the_server_s_failure(run: Run) -> None:
    async def story() -> None:
        async with serving(reset) as served:
            await ask(served.port)

    with pytest.raises(NetFailure, match=r"reset|without an answer") as failure:
        run(story())
    assert not failure.value.blind


def test_a_closed_port_is_the_server_s_failure(run: Run) -> None:
    with pytest.raises(NetFailure, match=r"connection refused \(127\.0\.0\.1:") as failure:
        run(ask(free_port()))

    assert not failure.value.blind


def test_no_more_than_max_body_is_kept_and_the_rest_is_not_waited_for(run: Run) -> None:
    """A log file of 10 GiB behind a health URL must cost neither memory nor minutes."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def story() -> Response:
        async with serving(endless) as served:
            return await ask(served.port, max_body=100_000)

    response = run(story())
    assert (len(response.body), response.truncated) == (100_000, True)


def test_framing_without_content_is_cut_off(run: Run) -> None:
    """Chunk extensions may be of any length and count as nothing; they must not keep us busy to the deadline."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async def story() -> None:
        async with serving(endless) as served:
            await ask(served.port, max_body=1000)

    with pytest.raises(NetFailure, match="framing"):
        run(story())


def test_a_dripping_server_ends_with_the_deadline(run: Run) -> None:
    """A byte now and then keeps a timeout per read alive for ever."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in plain(b"x" * 10_000):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.005)

    async def story() -> None:
        async with serving(drip) as served:
            await ask(served.port, timeout_s=0.1)

    with pytest.raises(TimeoutError):
        run(story())


def test_cancelling_leaves_no_connection_behind(run: Run) -> None:
    """A reload cancels looks; a leaked socket each time would end in EMFILE after months."""

    async def story() -> None:
        silent = Served()
        arrived = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()

        async with serving(hold, served=silent):
            look = asyncio.ensure_future(ask(silent.port))
            await arrived.wait()
            look.cancel()
            with pytest.raises(asyncio.CancelledError):
                await look
            await asyncio.wait_for(silent.ended.wait(), 20)

    run(story())


def test_a_second_address_is_tried_when_the_first_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a dead IPv6 address and a live IPv4 one is up."""
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]
    )

    async def story() -> Response:
        async with serving(answering(plain(b"second"))) as served:
            return await ask(served.port, host="two.example")

    assert run(story()).body == b"second"


def test_one_refusal_outweighs_an_unreachable_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IPv6 of our own, every dual-stack host that is down would otherwise be reported as blindness."""
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (host, 0)) for host in ("255.255.255.255", "127.0.0.1")]
    )
    with pytest.raises(NetFailure, match="refused") as failure:
        run(ask(free_port(), host="two.example"))
    assert not failure.value.blind


def test_an_unreachable_address_alone_is_blind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    really = address_module.classify
    seen: list[OSError] = []

    def note(error: OSError, address: str | None = None) -> Any:
        seen.append(error)
        return really(error, address)

    monkeypatch.setattr("agentd.net.connection.classify", note)
    with pytest.raises(NetFailure) as failure:
        run(ask(80, host="255.255.255.255"))  # EACCES or ENETUNREACH: broadcasts are not connected to
    assert failure.value.blind
    assert seen


def test_a_checked_endpoint_does_not_reach_inside(run: Run) -> None:
    """The check must hold for literals too, which skip the resolver."""

    async def story() -> None:
        async with serving(answering(plain())) as served:
            try:
                await open_http(Endpoint.of("127.0.0.1", served.port, private=False), Timings(), 5)
            finally:
                assert served.connections == 0

    with pytest.raises(NetFailure, match="not a public address"):
        run(story())


def test_a_connection_carries_several_requests(run: Run) -> None:
    async def story() -> tuple[list[bytes], int]:
        async with serving(answering(plain(b"one"), plain(b"two"), keep_open=True)) as served:
            connection = await open_http(Endpoint.of("127.0.0.1", served.port), Timings(), 5)
            bodies = []
            for _ in range(2):
                response = await connection.exchange(GET, Timings(), head_only=False, max_body=1000)
                assert response.reusable
                bodies.append(response.body)
            connection.abandon()
            return bodies, served.connections

    assert run(story()) == ([b"one", b"two"], 1)


def test_bytes_nobody_asked_for_end_a_kept_connection(run: Run) -> None:
    """They would be taken for the next answer: response splitting across looks."""

    async def story() -> None:
        async with serving(answering(plain(b"one"), keep_open=True)) as served:
            connection = await open_http(Endpoint.of("127.0.0.1", served.port), Timings(), 5)
            await connection.exchange(GET, Timings(), head_only=False, max_body=1000)
            connection.data_received(plain(b"forged"))
            with pytest.raises(NetFailure, match=r"closed|ended"):
                await connection.exchange(GET, Timings(), head_only=False, max_body=1000)

    run(story())


def test_timings_add_up(run: Run) -> None:
    async def story() -> Timings:
        timings = Timings()
        async with serving(answering(plain())) as served:
            connection = await open_http(Endpoint.of("localhost", served.port, family=socket.AF_INET), timings, 5)
            await connection.exchange(GET, timings, head_only=False, max_body=1000)
            connection.abandon()
        return timings

    timings = run(story())
    assert min(timings.dns_ms, timings.connect_ms, timings.first_byte_ms) > 0
    assert timings.tls_ms == 0


def test_a_look_leaves_nothing_for_the_collector(run: Run) -> None:
    """At 500 checks a second cycles would make the garbage collector a cost of its own."""

    async def story() -> int:
        async with serving(answering(plain())) as served:
            await ask(served.port)
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await ask(served.port)
                await asyncio.sleep(0)
                return sum(
                    isinstance(thing, HttpConnection | httptools.HttpResponseParser) for thing in gc.get_objects()
                )
            finally:
                gc.enable()

    assert run(story()) <= 1  # the last one's transport may still be closing


def response_with(body: bytes, encoding: str, *, truncated: bool = False) -> Response:
    return Response(200, "1.1", [(b"Content-Encoding", encoding.encode())], body, truncated)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("Deflate", raw_deflate)],
)
def test_a_packed_body_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = b"hello hello hello" * 10

    assert decoded(response_with(pack(body), encoding), 10_000) == (body, False)


def test_a_bomb_is_unpacked_no_further_than_max_body() -> None:
    """A megabyte of gzip makes a gigabyte of zeros."""
    bomb = response_with(gzip.compress(b"\0" * 50_000_000), "gzip")

    tracemalloc.start()
    try:
        body, truncated = decoded(bomb, 100_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (len(body), truncated) == (100_000, True)
    assert peak_bytes < 1_000_000


def test_a_body_that_is_not_packed_as_it_says_is_a_failure() -> None:
    with pytest.raises(NetFailure, match="not gzip"):
        decoded(response_with(b"plain text", "gzip"), 1000)
    with pytest.raises(NetFailure, match="ends early"):
        decoded(response_with(gzip.compress(b"hello" * 100)[:-12], "gzip"), 1000)


def test_a_cut_body_is_unpacked_as_far_as_it_goes() -> None:
    body, truncated = decoded(response_with(gzip.compress(bytes(range(256)) * 50)[:100], "gzip", truncated=True), 1000)

    assert truncated
    assert body.startswith(bytes(range(16)))


def test_an_encoding_we_do_not_know_is_left_as_it_is() -> None:
    assert decoded(response_with(b"\x1b", "br"), 1000) == (b"\x1b", False)
