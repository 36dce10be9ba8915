"""
What everybody may see: the public status page, badges, and the files that pages are made with.

Promise: only what is marked `public: true`, and nothing that a target said; whether another watch exists is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from agentd.api.endpoint import Call, Endpoint, Param
from agentd.api.reading import Reading
from agentd.api.web import looks
from agentd.api.web.badges import state_badge, uptime_badge
from agentd.api.web.frame import Frame

Json = dict[str, Any]

BADGE_S = 60
"""For so long a badge may be kept by whoever shows it."""
_SPAN = Param("span", {"type": "string", "enum": ["24h", "7d", "30d"], "default": "30d"}, "Over how long")


class Public:
    def __init__(self, reading: Reading, frame: Frame) -> None:
        self._reading = reading
        self._frame = frame

    def endpoints(self) -> list[Endpoint]:
        svg = "image/svg+xml"
        return [
            Endpoint("GET", "/status", self._status, "open", documented=False, any_query=True, media="text/html"),
            Endpoint(
                "GET",
                "/badges/{watch}/uptime.svg",
                self._uptime,
                "open",
                "How much of the time a public watch was up, as a picture",
                "badges",
                params=(_SPAN,),
                media=svg,
                problems=(404,),
            ),
            Endpoint(
                "GET",
                "/badges/{watch}.svg",
                self._state,
                "open",
                "How a public watch is, as a picture",
                "badges",
                media=svg,
                problems=(404,),
            ),
            Endpoint("GET", "/static/{name}", self._static, "open", documented=False, any_query=True),
            Endpoint("GET", "/robots.txt", self._robots, "open", documented=False, any_query=True),
        ]

    async def _status(self, call: Call) -> Response:
        return await self._frame.page(call, self._build, live="poll", nav=False)

    async def _build(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        found = await self._reading.public()
        watches = [
            {
                "name": str(each["name"]),
                "state": (state := _state(each)),
                "word": "unknown" if state == "blind" else looks.WORDS.get(state, "unknown"),
                "uptime": each.get("uptime_30d"),
                "bars": list(each.get("bars") or ()),
            }
            for each in found.get("watches") or ()
        ]
        values = {
            "state": found.get("state"),
            "watches": watches,
            "more": found.get("more_watches") or 0,
            "instance": found.get("instance"),
        }
        return "status.html", "Status", values

    async def _state(self, call: Call) -> Response:
        found = await self._reading.public_watch(call.path["watch"])
        return _picture(state_badge(str(found["name"]), _state(found)))

    async def _uptime(self, call: Call) -> Response:
        span = call.query.get("span", "30d")
        found = await self._reading.public_watch(call.path["watch"])
        return _picture(uptime_badge(span, (found.get("uptime") or {}).get(span)))

    async def _static(self, call: Call) -> Response:
        found = await self._frame.static(call.path["name"])
        if found is None:
            raise HTTPException(404, "no such file")
        current = call.request.query_params.get("v") == found.tag
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if current else "public, max-age=300",
            "ETag": f'"{found.tag}"',
            "X-Content-Type-Options": "nosniff",
        }
        return Response(found.content, headers=headers, media_type=found.media)

    async def _robots(self, call: Call) -> Response:
        headers = {"Cache-Control": "max-age=3600"}
        return Response("User-agent: *\nDisallow: /\n", media_type="text/plain", headers=headers)


def _state(view: Json) -> str:
    state = str(view.get("state") or "")
    return {"unknown": "blind"}.get(state, state)


def _picture(svg: str) -> Response:
    headers = {
        "Cache-Control": f"public, max-age={BADGE_S}",
        "Content-Security-Policy": "default-src 'none'; style-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
        # A README elsewhere shows it.
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return Response(svg.encode("utf-8", "replace"), headers=headers, media_type="image/svg+xml")
