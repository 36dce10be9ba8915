"""
An MCP server over streamable HTTP: the client that the library speaks through.

Promise: no proxy from the environment; redirects only within the server's own origin (the library's rule); an answer
is at most `MAX_ANSWER` bytes and is not unpacked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER = 8 * 1024 * 1024
_CONNECT_S = 10.0
_READ_S = 300.0


def http_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """headers: as configured, such as Authorization."""
    import httpx2

    class Counted(httpx2.AsyncByteStream):
        def __init__(self, stream: httpx2.AsyncByteStream) -> None:
            self._stream = stream
            self._bytes = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self._stream:
                self._bytes += len(piece)
                if self._bytes > MAX_ANSWER:
                    raise httpx2.ReadError(f"the answer is longer than {MAX_ANSWER} bytes")
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Bounded(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                await response.aclose()
                raise httpx2.ReadError("the server packs its answers, though it was asked not to")
            # A stream of events has no end; the library bounds each of them.
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                assert isinstance(response.stream, httpx2.AsyncByteStream)
                response.stream = Counted(response.stream)
            return response

    return httpx2.AsyncClient(
        transport=Bounded(),
        trust_env=False,
        headers={"Accept-Encoding": "identity", **headers},
        timeout=httpx2.Timeout(_CONNECT_S, read=_READ_S),
    )
