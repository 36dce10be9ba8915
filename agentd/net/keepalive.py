"""
A transport for httpx that keeps its connections and hands an answer on as it arrives.

In: `httpx.AsyncClient(transport=KeepAliveTransport())`. Out: ordinary httpx responses, their bodies not yet read.
Promise: a piece of an answer costs one turn of the loop and no task, lock or timer of its own, a quarter of what
httpx's own pool takes for it; whoever reads slowly makes the other side wait, not the memory grow; a response that is
closed before its end takes its connection along. HTTP/1.1 without proxies: for anything else httpx's own is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from agentd.net.address import NetFailure
from agentd.net.connection import Connection, Endpoint, Timings, connect
from agentd.net.http import ends_with_connection
from agentd.net.tls import TlsSettings, context_for

_MAX_HEADERS = 256
_MAX_FRAMING_BYTES = 65536
"""Of a head, and of what stands between two pieces of a body."""
_MAX_HELD_BYTES = 256 * 1024
_KEPT = 16
_KEEP_S = 60.0
_NOT_FORWARDED = frozenset({b"connection", b"transfer-encoding", b"content-length", b"keep-alive"})

Headers = list[tuple[bytes, bytes]]
_Place = tuple[str, str, int]


class KeepAliveTransport(httpx.AsyncBaseTransport):
    """
    keep: unused connections to one server that stay open; keep_s: for how long.

    Of httpx's timeouts `connect` covers resolving, connecting and the handshake, `read` each wait for bytes.
    """

    def __init__(self, *, tls: TlsSettings | None = None, keep: int = _KEPT, keep_s: float = _KEEP_S) -> None:
        self._tls = tls or TlsSettings(alpn=("http/1.1",))
        self._keep = keep
        self._keep_s = keep_s
        self._idle: dict[_Place, list[_Exchanges]] = {}
        self._open: set[_Exchanges] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx's TransportErrors."""
        data = _render(request, await request.aread())
        limits = request.extensions.get("timeout", {})
        connection = await self._connection(request, limits.get("connect"))
        try:
            async with asyncio.timeout(limits.get("read")):
                status, version, headers = await connection.ask(data, head_only=request.method == "HEAD")
        except TimeoutError:
            self._end(connection)
            raise httpx.ReadTimeout("no answer", request=request) from None
        except NetFailure as failure:
            self._end(connection)
            raise _as_httpx(failure, request) from failure
        except BaseException:
            self._end(connection)
            raise
        return httpx.Response(
            status,
            headers=headers,
            stream=_Body(self, connection, request, limits.get("read")),
            extensions={"http_version": b"HTTP/" + version.encode()},
        )

    async def aclose(self) -> None:
        self._idle.clear()
        for connection in tuple(self._open):
            self._end(connection)

    async def _connection(self, request: httpx.Request, within_s: float | None) -> _Exchanges:
        url = request.url
        secure = url.scheme == "https"
        if not secure and url.scheme != "http":
            raise httpx.UnsupportedProtocol(f"{url.scheme!r} is not spoken here", request=request)
        place = url.scheme, url.raw_host.decode("ascii"), url.port or (443 if secure else 80)
        now = asyncio.get_running_loop().time()
        idle = self._idle.get(place, [])
        while idle:
            connection = idle.pop()
            if not connection.closed and now - connection.idle_since <= self._keep_s:
                return connection
            self._end(connection)
        self._idle.pop(place, None)
        connection = _Exchanges(self, place)
        self._open.add(connection)
        endpoint = Endpoint.of(place[1], place[2], tls=self._tls if secure else None)
        timings = Timings()
        try:
            async with asyncio.timeout(within_s):
                if endpoint.tls is not None:
                    # Read now: no byte of the other side must come between connecting and the handshake.
                    await context_for(endpoint.tls)
                await connect(connection, endpoint, timings, 3600.0 if within_s is None else within_s)
        except TimeoutError:
            self._end(connection)
            raise httpx.ConnectTimeout(f"no answer from {endpoint}, {timings.step}", request=request) from None
        except NetFailure as failure:
            self._end(connection)
            raise httpx.ConnectError(str(failure), request=request) from failure
        except BaseException:
            self._end(connection)
            raise
        return connection

    def release(self, connection: _Exchanges) -> None:
        """Nobody reads this any more: it serves again, or ends."""
        idle = self._idle.setdefault(connection.place, [])
        now = asyncio.get_running_loop().time()
        # The oldest are at the front; those that nobody has wanted for so long will not be wanted.
        while idle and (idle[0].closed or now - idle[0].idle_since > self._keep_s):
            self._end(idle.pop(0))
        if connection.reusable and len(idle) < self._keep:
            connection.idle_since = now
            idle.append(connection)
        else:
            self._end(connection)
        if not idle:
            self._idle.pop(connection.place, None)

    def gone(self, connection: _Exchanges) -> None:
        """The other side has ended an unused connection."""
        idle = self._idle.get(connection.place, [])
        if connection in idle:
            idle.remove(connection)
        self._end(connection)

    def _end(self, connection: _Exchanges) -> None:
        self._open.discard(connection)
        connection.abandon()


class _NotHttp(NetFailure):
    """The other side does not keep to the protocol."""


class _Exchanges(Connection):
    """
    A connection that carries exchanges, one after the other.

    reusable: the last answer has been read to its end, and nothing speaks against another. idle_since: seconds of the
    loop's clock.
    """

    __slots__ = (
        "_body",
        "_complete",
        "_failure",
        "_framing",
        "_head",
        "_head_only",
        "_headers",
        "_held",
        "_parser",
        "_paused",
        "_pool",
        "idle_since",
        "place",
        "reusable",
    )  # fmt: skip

    def __init__(self, pool: KeepAliveTransport, place: _Place) -> None:
        super().__init__()
        self._pool = pool
        self._parser: HttpResponseParser | None = None
        self._paused = False
        self.place = place
        self.reusable = False
        self.idle_since = 0.0

    async def ask(self, request: bytes, *, head_only: bool) -> tuple[int, str, Headers]:
        """Send the request; status, version and headers of the answer. Raises NetFailure."""
        self._parser = parser = HttpResponseParser(self)
        self._headers: Headers = []
        self._head_only = head_only
        self._head = self._complete = self.reusable = False
        self._body: list[bytes] = []
        self._held = self._framing = 0
        self._failure: NetFailure | None = None
        self.write(request)
        while not self._head:
            if self._failure is not None:
                raise self._failure
            await self.wait()
        return parser.get_status_code(), parser.get_http_version(), self._headers

    async def more(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises NetFailure."""
        while True:
            if self._body:
                body, self._body, self._held = self._body, [], 0
                if self._paused and self.transport is not None:
                    self._paused = False
                    self.transport.resume_reading()
                return body[0] if len(body) == 1 else b"".join(body)
            if self._complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self.wait()

    def abandon(self) -> None:
        parser, self._parser = self._parser, None  # it holds our methods: a cycle per exchange otherwise
        self.reusable = False
        if parser is not None and not self._complete:
            self._failure = self._failure or NetFailure("the connection was closed")
            self.settle()
        super().abandon()

    # From the connection.

    def received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._complete:
            # Bytes that nobody asked for: this connection cannot be trusted with another request.
            self._distrust()
            return
        if self._failure is not None:
            return
        self._framing += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._break(_NotHttp("the answer speaks another protocol"))
        except HttpParserError as error:
            reason = error.__context__ if isinstance(error.__context__, NetFailure) else None
            self._break(reason or _NotHttp(f"the answer is not HTTP: {error}"))
        else:
            if self._framing > _MAX_FRAMING_BYTES:
                self._break(_NotHttp(f"the answer's framing is larger than {_MAX_FRAMING_BYTES} bytes"))
            elif self._held > _MAX_HELD_BYTES and not self._paused and self.transport is not None:
                self._paused = True
                self.transport.pause_reading()
        self.settle()

    def ended(self, failure: NetFailure | None) -> None:
        if self._parser is None:
            return
        if self._complete:
            self._distrust()
            return
        if failure is None and self._head and ends_with_connection(self._headers):
            self._complete = True
        elif self._failure is None:
            where = "inside its body" if self._head else "before its head was whole"
            what = f"the connection ended {where}"
            self._failure = NetFailure(what if failure is None else f"{what}: {failure}")
            self._failure.__cause__ = failure
        self.settle()

    def _break(self, failure: NetFailure) -> None:
        # What came before it is still handed on.
        self._failure = self._failure or failure
        if self.transport is not None:
            self.transport.pause_reading()

    def _distrust(self) -> None:
        self.reusable = False
        self._pool.gone(self)

    # From the parser.

    def on_message_begin(self) -> None:
        self.reusable = False
        if self._complete:
            raise _NotHttp("another answer came that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head:
            return  # a trailer
        if len(self._headers) >= _MAX_HEADERS:
            raise _NotHttp(f"the answer has more than {_MAX_HEADERS} headers")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        if 100 <= parser.get_status_code() < 200:
            self._headers = []
            return
        self._head = True
        self._framing = 0
        if self._head_only:
            self._complete = True

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._framing = 0
            self._held += len(data)
            self._body.append(data)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None or not self._head or self._complete:
            return
        self._complete = True
        transport = self.transport
        # What is not sent yet of the request would be taken for the next.
        self.reusable = bool(parser.should_keep_alive()) and transport is not None and not unsent(transport)


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, pool: KeepAliveTransport, connection: _Exchanges, request: httpx.Request, within_s: float | None
    ) -> None:
        self._pool = pool
        self._connection: _Exchanges | None = connection
        self._request = request
        self._within_s = within_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (connection := self._connection) is not None:
                if self._within_s is None:
                    data = await connection.more()
                else:
                    async with asyncio.timeout(self._within_s):
                        data = await connection.more()
                if not data:
                    return
                yield data
        except TimeoutError:
            raise httpx.ReadTimeout("nothing more came", request=self._request) from None
        except NetFailure as failure:
            raise _as_httpx(failure, self._request) from failure

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


def _as_httpx(failure: NetFailure, request: httpx.Request) -> httpx.TransportError:
    # Callers take the one for a wrong address, the other for an outage.
    kind = httpx.RemoteProtocolError if isinstance(failure, _NotHttp) else httpx.ReadError
    return kind(str(failure), request=request)


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that wait to be sent."""
    return transport.get_write_buffer_size()


def _render(request: httpx.Request, body: bytes) -> bytes:
    head = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    head += [b"%s: %s" % (name, value) for name, value in request.headers.raw if name.lower() not in _NOT_FORWARDED]
    if body or request.method in ("POST", "PUT", "PATCH"):
        head.append(b"Content-Length: %d" % len(body))
    if any(b"\r" in line or b"\n" in line for line in head):
        raise httpx.LocalProtocolError("a header holds a line break", request=request)
    return b"\r\n".join(head) + b"\r\n\r\n" + body
