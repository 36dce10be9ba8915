"""
The transport that keeps connections and streams: what a server may do to it, over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from agentd.net.keepalive import KeepAliveTransport

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of its answers; an answer None ends the connection."""

    def __init__(self, *answers: bytes | None, after: Serve | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.news = asyncio.Event()
        self.url = ""
        self._after = after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
                self.requests.append(head + await reader.readexactly(int(length)))
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    break
                writer.write(answer)
                if self._after is not None:
                    await self._after(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed += 1
            self.news.set()

    async def until_closed(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.closed < count:
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def serving(server: Server, **settings: float) -> AsyncIterator[httpx.AsyncClient]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1?x=1"
    async with (
        listening,
        httpx.AsyncClient(transport=KeepAliveTransport(**settings), timeout=20) as http,  # type: ignore[arg-type]  # keep, keep_s
    ):
        yield http


async def test_one_connection_carries_many_requests() -> None:
    """A handshake for each call of a model would cost more than the call."""
    server = Server()
    async with serving(server) as http:
        answers = [await http.post(server.url, content=b"{}") for _ in range(3)]

    assert [answer.text for answer in answers] == ["ok"] * 3
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /v1?x=1 HTTP/1.1\r\n")
    assert server.requests[0].endswith(b"\r\n\r\n{}")


async def test_requests_at_once_have_a_connection_each() -> None:
    """Answers of two runs must never mix."""
    met = asyncio.Barrier(2)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await met.wait()

    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"
    server = Server(head + b"a", head + b"b", after=meet)
    async with serving(server) as http:
        answers = await asyncio.gather(http.get(server.url), http.get(server.url))

    assert sorted(answer.text for answer in answers) == ["a", "b"]
    assert server.connections == 2


async def test_pieces_are_handed_on_as_they_come() -> None:
    """Whoever watches a run reads along; nothing waits for the end."""
    seen = asyncio.Event()

    async def pause(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.wait_for(seen.wait(), 20)
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    server = Server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n", after=pause)
    async with serving(server) as http, http.stream("GET", server.url) as response:
        body = response.aiter_raw()
        assert await anext(body) == b"one"
        seen.set()
        assert await anext(body) == b"two"
        with pytest.raises(StopAsyncIteration):
            await anext(body)


async def test_a_response_closed_before_its_end_takes_its_connection_along() -> None:
    """What a model still says costs money until its connection is gone; the rest of it is no answer to the next."""
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    async with serving(server) as http:
        async with http.stream("GET", server.url) as response:
            assert await anext(response.aiter_raw()) == b"half"
        await server.until_closed(1)
        assert (await http.get(server.url)).text == "ok"

    assert server.connections == 2


async def test_cancelling_closes_the_connection() -> None:
    """A run that was cancelled leaves nothing behind."""
    server = Server(b"")
    async with serving(server) as http:
        going = asyncio.create_task(http.get(server.url))
        async with asyncio.timeout(20):
            while not server.requests:
                await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await server.until_closed(1)


async def test_a_body_without_length_ends_with_its_connection() -> None:
    """RFC 9112 §6.3; small servers do so."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = Server(b"HTTP/1.1 200 OK\r\n\r\nall there is", after=close)
    async with serving(server) as http:
        assert (await http.get(server.url)).text == "all there is"
        assert (await http.get(server.url)).text == "ok"

    assert server.connections == 2


async def test_a_server_that_ends_an_unused_connection_is_connected_to_anew() -> None:
    """Most servers do after some seconds; a request on it would be lost."""
    ended = asyncio.Event()

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        ended.set()

    server = Server(OK, OK, after=close)
    async with serving(server) as http:
        assert (await http.get(server.url)).text == "ok"
        await server.until_closed(1)
        await asyncio.sleep(0)
        assert (await http.get(server.url)).text == "ok"

    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "ended before its head was whole"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, "framing"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n", "headers"),
        (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "not HTTP"),
    ],
)
async def test_what_is_no_answer_is_an_error_of_httpx(answer: bytes | None, said: str) -> None:
    """Callers know httpx's errors and no others; memory stays bounded."""
    server = Server(answer)
    async with serving(server) as http:
        with pytest.raises(httpx.ReadError if answer is None else httpx.RemoteProtocolError, match=said):
            await http.get(server.url)
        assert (await http.get(server.url)).text == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n5;" + b"x" * 100_000,
    ],
)
async def test_what_came_before_an_answer_broke_is_handed_on(answer: bytes) -> None:
    """The tokens were paid for, and the caller must know that it is not all."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = Server(answer, after=close)
    async with serving(server) as http, http.stream("GET", server.url) as response:
        body = response.aiter_raw()
        assert await anext(body) == b"half"
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await anext(body)


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    """They would be taken for the answer to the next request: another run's."""
    server = Server(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", OK)
    async with serving(server) as http:
        assert (await http.get(server.url)).text == "ok"
        assert (await http.get(server.url)).text == "ok"

    assert server.connections == 2


async def test_interim_answers_are_passed_over() -> None:
    """RFC 9110 §15.2: proxies send 102 and 103 while a model thinks."""
    server = Server(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)
    async with serving(server) as http:
        answer = await http.get(server.url)

    assert (answer.text, answer.headers.get("link")) == ("ok", None)


async def test_a_slow_reader_makes_the_server_wait() -> None:
    """An answer without end must not fill the memory of whoever is slow to read it."""
    sent = 0
    stuck = asyncio.Event()
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 2000:
            writer.write(piece)
            sent += 1
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                stuck.set()
                await writer.drain()
        writer.write(b"0\r\n\r\n")

    server = Server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", after=flood)
    async with serving(server) as http, http.stream("GET", server.url) as response:
        await asyncio.wait_for(stuck.wait(), 30)
        assert sent < 1000
        read = sum([len(data) async for data in response.aiter_raw()])

    assert read == 2000 * 65536


async def test_no_more_than_a_few_unused_connections_stay_open() -> None:
    """A thousand runs at once leave no thousand sockets behind."""
    server = Server()
    async with serving(server, keep=2) as http:
        await asyncio.gather(*(http.get(server.url) for _ in range(8)))
        await server.until_closed(server.connections - 2)

    assert server.connections >= 3


async def test_an_unused_connection_is_let_go_after_its_time() -> None:
    """Whoever comes later may find that a firewall has forgotten it."""
    server = Server()
    async with serving(server, keep_s=-1) as http:
        await http.get(server.url)
        await http.get(server.url)

    assert server.connections == 2


async def test_closing_the_transport_ends_what_waits() -> None:
    """A process that stops must not wait for a model that says nothing."""
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    async with serving(server) as http, http.stream("GET", server.url) as response:
        body = response.aiter_raw()
        assert await anext(body) == b"half"
        waiting = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0)
        await http.aclose()
        with pytest.raises(httpx.ReadError):
            await waiting


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "ftp://127.0.0.1/"])
async def test_what_cannot_be_reached_is_an_error_of_httpx(url: str) -> None:
    """The policy decides by their kind whether another try is worth it."""
    async with httpx.AsyncClient(transport=KeepAliveTransport()) as http:
        with pytest.raises((httpx.ConnectError, httpx.UnsupportedProtocol)):
            await http.get(url)
