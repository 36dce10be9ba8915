"""
What one call holds open: its responses, and for those who wait on threads, their way to our client on the loop.

In: requests of a library. Out: responses of our client.
Promise: letting go of a call ends its request at once, whatever the library has left to the garbage collector or to a
thread that cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from agentd.llm.destination import CONNECT_S

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

LINE: ContextVar[Line | None] = ContextVar("agentd_library_line", default=None)
"""The line of the call that is under way here; threads of the library inherit it."""


class Line:
    """One call. http, secret: our client and the key, for requests that come from threads (`send`)."""

    def __init__(self, http: httpx.AsyncClient, secret: str | None) -> None:
        self._http = http
        self._secret = secret
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: set[Future[Any]] = set()
        self._responses: list[Any] = []

    def hold(self, response: Any) -> None:
        """On the loop: a response, of either client library, that is closed with the call."""
        self._responses.append(response)

    def send(self, request: Any) -> Any:
        """On a thread: boto3's request, signed, for boto3's response. Raises what our client raises."""
        from botocore.awsrequest import AWSResponse

        response = self._on_loop(self._transmit(request))
        return AWSResponse(request.url, response.status_code, dict(response.headers), _Body(self, response))

    def next_bytes(self, body: AsyncIterator[bytes]) -> bytes:
        """On a thread: more of the body, nothing at its end."""
        return self._on_loop(_next(body))

    async def close(self) -> None:
        """On the loop: nothing of this call goes on."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for each in waiting:
            each.cancel()
        responses, self._responses = self._responses, []
        for response in responses:
            await response.aclose()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """What is done inside belongs to this call."""
        token = LINE.set(self)
        try:
            yield
        finally:
            LINE.reset(token)

    def _on_loop(self, step: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed:
                step.close()
                raise CancelledError
            future = asyncio.run_coroutine_threadsafe(step, self._loop)
            self._waiting.add(future)
        try:
            return future.result()
        finally:
            self._waiting.discard(future)

    async def _transmit(self, request: Any) -> httpx.Response:
        import httpx

        headers = {name: _text(value) for name, value in request.headers.items()} | {"Accept-Encoding": "identity"}
        if self._secret is not None:
            headers["Authorization"] = f"Bearer {self._secret}"
        sent = self._http.build_request(
            request.method,
            request.url,
            headers=headers,
            content=request.body,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
        )
        response = await self._http.send(sent, stream=True, follow_redirects=False)
        self.hold(response)
        return response


class _Body:
    """What boto3 reads an answer from."""

    def __init__(self, line: Line, response: httpx.Response) -> None:
        self._line = line
        self._response = response

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        body = self._response.aiter_bytes()
        while piece := self._line.next_bytes(body):
            yield piece

    def close(self) -> None:
        """The line closes the response, on the loop."""


async def _next(body: AsyncIterator[bytes]) -> bytes:
    async for piece in body:
        if piece:
            return piece
    return b""


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
