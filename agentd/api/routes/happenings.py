"""What happens, as it happens: Server-Sent Events for the page and for programs."""

from __future__ import annotations

from starlette.responses import Response, StreamingResponse

from agentd.api import shapes
from agentd.api.endpoint import Call, Endpoint, Param
from agentd.api.feed import Feed

_LAST_ID = Param(
    "Last-Event-ID", {"type": "string", "maxLength": 100}, "The id of the last event that was seen", where="header"
)


class FeedRoutes:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed

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
        events = self._feed.listen(call.query.get("Last-Event-ID"), known=call.caller.known)
        # X-Accel-Buffering: nginx would keep events back until it has a buffer full of them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
