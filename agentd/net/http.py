"""
One HTTP/1.1 exchange: prepared bytes out, a parsed answer in.

In: an `Endpoint` and the bytes of a request. Out: `Response`, or `NetFailure`.
Promise: whatever the server sends costs at most `max_body` of memory plus a bounded head, decoded size included, and
the exchange ends once the body is complete or `max_body` of it was read.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from agentd.net.address import NetFailure
from agentd.net.connection import Connection, Endpoint, Timings, connect

_MAX_HEAD_BYTES = 65536
_MAX_HEADERS = 256
# Chunk sizes, extensions and trailers come on top of the body; one-byte chunks are six times their content.
_MAX_OVERHEAD = 8
_ENCODED = frozenset({"gzip", "x-gzip", "deflate"})

DEFAULT_MAX_BODY = 1024 * 1024


@dataclass(slots=True)
class Response:
    """
    An answer. headers: names in lower case, several of one name joined by a comma.

    body: as sent, at most `max_body` bytes; truncated: there was more. version: "1.1" or "1.0".
    reusable: the connection may carry another request.
    """

    status: int
    version: str
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    truncated: bool = False
    reusable: bool = False
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.raw_headers:
            name = raw_name.decode("latin-1").lower()
            value = raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.headers = headers


class HttpConnection(Connection):
    """A connection that carries requests, one after the other."""

    __slots__ = ("_body", "_body_bytes", "_head_bytes", "_head_only", "_headers", "_in_body", "_max_body", "_parser",
                 "_received_bytes", "first_byte_at", "response")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._parser: HttpResponseParser | None = None
        self.response: Response | None = None
        self.first_byte_at = 0.0

    async def exchange(self, request: bytes, timings: Timings, *, head_only: bool, max_body: int) -> Response:
        """
        Send the request and read the whole answer. Raises NetFailure.

        head_only: the request's method is HEAD, whose answer has no body whatever its headers say.
        """
        self._parser = HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = self._head_bytes = self._received_bytes = 0
        self._in_body = False
        self._head_only = head_only
        self._max_body = max_body
        self.response = None
        self.first_byte_at = 0.0
        timings.step = "waiting for the first byte"
        waiter = self.wait()
        sent_at = time.monotonic()
        self.write(request)
        try:
            await waiter
        finally:
            self._parser = None  # it holds our methods: a cycle per check otherwise
            if self.first_byte_at:
                timings.step = "reading the answer"
                timings.first_byte_ms += (self.first_byte_at - sent_at) * 1000
        response: Response | None = self.response
        assert response is not None
        return response

    # From the connection.

    def received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self.waiter is None:
            # Bytes that nobody asked for: this connection cannot be trusted with another request.
            self.abandon()
            return
        if not self.first_byte_at:
            self.first_byte_at = time.monotonic()
        self._received_bytes += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._finish()
            return
        except HttpParserError as error:
            if self.waiter is not None:
                reason = error.__context__ if isinstance(error.__context__, NetFailure) else None
                self.fail(reason or NetFailure(f"the answer is not HTTP: {error}"))
            return
        if self.waiter is None:
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.fail(NetFailure(f"the answer's head is larger than {_MAX_HEAD_BYTES} bytes"))
        elif self._received_bytes > _MAX_HEAD_BYTES + _MAX_OVERHEAD * (self._max_body + _MAX_HEAD_BYTES):
            self.fail(NetFailure("the answer's framing is far larger than its body"))

    def ended(self, failure: NetFailure | None) -> None:
        if self.waiter is None:
            return
        if failure is None and self._in_body and ends_with_connection(self._headers):
            self._finish()
            return
        if not self.first_byte_at:
            what = "the connection ended without an answer"
        elif not self._in_body:
            what = "the connection ended inside the answer's head"
        else:
            what = f"the connection ended inside the body, after {self._body_bytes} bytes"
        self.fail(NetFailure(what if failure is None else f"{what}: {failure}"))

    # From the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.waiter is None:
            return
        if len(self._headers) >= _MAX_HEADERS:
            raise NetFailure(f"the answer has more than {_MAX_HEADERS} headers")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.waiter is None:
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._headers = []
            return
        self._in_body = True
        self._head_bytes = 0
        if self._head_only:
            self._finish()

    def on_body(self, data: bytes) -> None:
        if self.waiter is None:
            return
        room = self._max_body - self._body_bytes
        if len(data) <= room:
            self._body_bytes += len(data)
            self._body.append(data)
        else:
            self._body_bytes = self._max_body
            self._body.append(data[:room])
            self._finish(truncated=True)

    def on_message_complete(self) -> None:
        if self._in_body and self.waiter is not None:
            self._finish(complete=True)

    def _finish(self, *, truncated: bool = False, complete: bool = False) -> None:
        parser = self._parser
        if parser is None or self.waiter is None:
            return
        self.response = Response(
            parser.get_status_code(),
            parser.get_http_version(),
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            truncated,
            (complete or self._head_only) and bool(parser.should_keep_alive()),
        )
        self.settle()


def ends_with_connection(headers: list[tuple[bytes, bytes]]) -> bool:
    """RFC 9112 §6.3: with neither a length nor chunks the body runs to the end of the connection."""
    for name, value in headers:
        name = name.lower()
        if name == b"content-length":
            return False
        if name == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked"):
            return False
    return True


async def open_http(endpoint: Endpoint, timings: Timings, timeout_s: float) -> HttpConnection:
    """A connection ready for requests. Raises NetFailure; leaves nothing open when it does not return."""
    connection = HttpConnection()
    try:
        await connect(connection, endpoint, timings, timeout_s)
    except BaseException:
        connection.abandon()
        raise
    return connection


def decoded(response: Response, max_body: int) -> tuple[bytes, bool]:
    """
    The body without its content encoding, and whether more was to come.

    At most `max_body` bytes are produced, whatever a few compressed bytes would blow up to. Raises NetFailure when
    the body is not what its `content-encoding` says. An encoding other than gzip and deflate is left as it is.
    """
    encodings = response.headers.get("content-encoding")
    body, truncated = response.body, response.truncated
    if encodings is None or not body:
        return body, truncated
    names = [name.strip().lower() for name in encodings.split(",")]
    if len(names) > 1 or names[0] not in _ENCODED:
        return body, truncated
    # 47: gzip or zlib by its first bytes; -15: the bare stream that some servers call deflate.
    bare = names[0] == "deflate" and (body[0] & 0x0F != 8 or len(body) < 2 or int.from_bytes(body[:2], "big") % 31 != 0)
    inflater = zlib.decompressobj(-15 if bare else 47)
    try:
        plain = inflater.decompress(body, max_body + 1)
    except zlib.error as error:
        raise NetFailure(f"the body is not {names[0]} as its content-encoding says") from error
    if len(plain) > max_body:
        return plain[:max_body], True
    if not inflater.eof and not truncated:
        raise NetFailure(f"the body's {names[0]} ends early")
    return plain, truncated
