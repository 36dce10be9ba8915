"""
What happens, as it happens: Server-Sent Events for the page and for programs.

In: callers who may read. Out: the feed's events, for as long as each of them may.
Promise: who is revoked, logged out or expired hears nothing more; no caller holds so many streams that others find no
place to connect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from agentd.api import shapes
from agentd.api.endpoint import Call, Endpoint, Param
from agentd.api.feed import Feed
from agentd.api.gate import STILL
from agentd.api.protocol import SHARE
from agentd.api.service import TooMany

_OF_SHARE = 2 / 5
"""Of the connections of one address, how many may be streams of one caller; all whom nobody knows are one."""
_AGAIN_S = 30
_LAST_ID = Param(
    "Last-Event-ID", {"type": "string", "maxLength": 100}, "The id of the last event that was seen", where="header"
)


class FeedRoutes:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._streams: Counter[tuple[str, str]] = Counter()

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/events",
                self.events,
                "read",
                "What happens, as it happens (Server-Sent Events)",
                "events",
                params=(_LAST_ID,),
                media="text/event-stream",
                answer=shapes.Event,
            )
        ]

    async def events(self, call: Call) -> Response:
        # X-Accel-Buffering: nginx would keep events back until it has a buffer full of them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if call.request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        scope = call.request.scope
        whose = (call.caller.via, call.caller.name)
        most = max(1, int(scope.get(SHARE, 600) * _OF_SHARE))
        if self._streams[whose] >= most:
            raise TooMany(f"{call.caller.name} listens {most} times already; ask anew", retry_after_s=_AGAIN_S)
        events = self._feed.listen(call.query.get("Last-Event-ID"), known=call.caller.known)
        return _Stream(_while(events, scope[STILL]), headers, self._streams, whose)


class _Stream(StreamingResponse):
    """Counted from before it begins until it ends, whatever ends it."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: dict[str, str],
        streams: Counter[tuple[str, str]],
        whose: tuple[str, str],
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._streams = streams
        self._whose = whose
        streams[whose] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams[self._whose] -= 1
            if not self._streams[self._whose]:
                del self._streams[self._whose]


async def _while(events: AsyncIterator[bytes], still: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    async with aclosing(events) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            if not await still():
                return
            yield piece
