"""Watches: the list, one with what was measured, check now, pause and resume."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from agentd.api import shapes, shapes_whole
from agentd.api.abridged import abridged_templates, abridged_watch, abridged_watch_row
from agentd.api.answers import JsonAnswer, joined
from agentd.api.endpoint import Asked, Call, Endpoint, Nothing, Param
from agentd.api.reading import Reading
from agentd.api.routes import params
from agentd.api.service import Service
from agentd.api.shared import Shared
from agentd.api.silence import MAX_REASON_CHARS, one_line

_SPAN = Param("span", {"type": "string", "enum": ["1h", "24h", "7d", "30d"], "default": "24h"}, "How far back")


class PauseBody(Asked):
    for_s: float | None = Field(
        default=None,
        gt=0,
        lt=1e10,
        allow_inf_nan=False,
        description="A number of seconds above 0 after which it resumes by itself; left out: when somebody resumes it",
    )
    reason: str = Field(default="", max_length=10_000, description="Why")


class WatchRoutes:
    def __init__(self, service: Service, reading: Reading | None) -> None:
        self._service = service
        self._reading = reading
        self._watches = Shared(self._make_watches)
        self._abridged = Shared(self._make_abridged)

    def endpoints(self) -> list[Endpoint]:
        tag, one = "watches", "/api/v1/watches/{name}"
        mine = [
            Endpoint("GET", "/api/v1/watches", self.watches, "read", "All watches", tag, answer=shapes.Watches),
            Endpoint(
                "GET",
                f"{one}/templates",
                self.templates,
                "read",
                "The kinds of lines in the log that a watch follows",
                tag,
                params=(params.limit(1000),),
                problems=(404,),
                answer=shapes.Templates,
            ),
            Endpoint(
                "POST",
                f"{one}/check",
                self.check_now,
                "operate",
                "Check a watch now, and wait for what comes of it",
                tag,
                body=Nothing,
                problems=(404, 409, 429),
                answer=shapes.Checked,
            ),
            Endpoint(
                "POST",
                f"{one}/pause",
                self.pause,
                "operate",
                "Pause a watch, for a time or until somebody resumes it",
                tag,
                body=PauseBody,
                problems=(404,),
                answer=shapes.Paused,
            ),
            Endpoint(
                "POST",
                f"{one}/resume",
                self.resume,
                "operate",
                "Resume a paused watch",
                tag,
                body=Nothing,
                problems=(404, 409),
                answer=shapes.Watch,
            ),
        ]
        if self._reading is not None:
            mine += [
                Endpoint(
                    "GET",
                    one,
                    self.watch,
                    "read",
                    "One watch, with its settings and alerts",
                    tag,
                    problems=(404,),
                    answer=shapes_whole.WatchWhole,
                ),
                Endpoint(
                    "GET",
                    f"{one}/results",
                    self.series,
                    "read",
                    "What a watch measured, as points of a plot",
                    tag,
                    params=(_SPAN,),
                    problems=(404,),
                    answer=shapes_whole.Series,
                ),
            ]
        return mine

    async def watches(self, call: Call) -> Response:
        shared = self._watches if call.caller.known else self._abridged
        return Response(await shared.newest(), media_type=JsonAnswer.media_type)

    async def _make_watches(self) -> bytes:
        return await joined("watches", await self._service.watches())

    async def _make_abridged(self) -> bytes:
        return await joined("watches", [abridged_watch_row(view) for view in await self._service.watches()])

    async def watch(self, call: Call) -> Response:
        assert self._reading is not None
        view = await self._reading.watch(call.path["name"])
        return JsonAnswer(view if call.caller.known else abridged_watch(view))

    async def series(self, call: Call) -> Response:
        assert self._reading is not None
        return JsonAnswer(await self._reading.series(call.path["name"], call.query["span"]))

    async def check_now(self, call: Call) -> Response:
        return JsonAnswer(await self._service.check_now(call.path["name"], by=call.by))

    async def pause(self, call: Call) -> Response:
        said: PauseBody = call.asked
        reason = one_line(said.reason)[:MAX_REASON_CHARS]
        return JsonAnswer(await self._service.pause(call.path["name"], by=call.by, for_s=said.for_s, reason=reason))

    async def resume(self, call: Call) -> Response:
        return JsonAnswer(await self._service.resume(call.path["name"], by=call.by))

    async def templates(self, call: Call) -> Response:
        found = await self._service.templates(call.path["name"], limit=call.query["limit"])
        return JsonAnswer(found if call.caller.known else abridged_templates(found))
