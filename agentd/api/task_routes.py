"""
The routes of tasks and runs: from paths to the `TaskService` port.

In: requests that the gate let in. Out: JSON, and Server-Sent Events of a task under way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agentd.api.over_tcp import abridged_run
from agentd.api.tasks import TaskService, read_message, read_task
from agentd.memory.ledger import RunState

KEEP_ALIVE_S = 15.0

Body = Callable[[Request], Awaitable[dict[str, Any]]]
Answer = Callable[[Any, int], Response]


class TaskRoutes:
    """
    body: reads a request's JSON. who: whom the audit trail names. answer: JSON with a status. trusted: the caller may
    see what people asked.
    """

    def __init__(
        self,
        service: TaskService,
        *,
        body: Body,
        who: Callable[[dict[str, Any]], str],
        limit: Callable[[Request, int], int],
        answer: Answer,
        trusted: bool,
    ) -> None:
        self._service = service
        self._body = body
        self._who = who
        self._limit = limit
        self._answer = answer
        self._trusted = trusted

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/tasks", self.submit, methods=["POST"]),
            Route("/api/v1/tasks/{id}", self.task),
            Route("/api/v1/tasks/{id}", self.cancel, methods=["DELETE"]),
            Route("/api/v1/tasks/{id}/messages", self.say, methods=["POST"]),
            Route("/api/v1/tasks/{id}/events", self.events),
            Route("/api/v1/runs", self.runs),
            Route("/api/v1/runs/{id}", self.run),
            Route("/api/v1/tools", self.tools),
            Route("/api/v1/models", self.models),
        ]

    async def submit(self, request: Request) -> Response:
        body = await self._body(request)
        return self._answer(await self._service.submit(read_task(body), by=self._who(body)), 202)

    async def task(self, request: Request) -> Response:
        return self._answer(await self._service.task(request.path_params["id"]), 200)

    async def cancel(self, request: Request) -> Response:
        who = self._who(await self._body(request))
        return self._answer(await self._service.cancel(request.path_params["id"], by=who), 200)

    async def say(self, request: Request) -> Response:
        body = await self._body(request)
        answer = await self._service.say(request.path_params["id"], read_message(body), by=self._who(body))
        return self._answer(answer, 200)

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        if not last.isdecimal() or len(last) > 18:
            raise HTTPException(422, "Last-Event-ID: write the id of the last event that was seen")
        await self._service.task(request.path_params["id"])  # raises NotFound
        found = self._service.events(request.path_params["id"], int(last))
        return StreamingResponse(_stream(found), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def runs(self, request: Request) -> Response:
        query = request.query_params
        state = query.get("state")
        if state is not None and state not in list(RunState):
            raise HTTPException(422, f"state: write one of {', '.join(RunState)}")
        rows = await self._service.runs(watch=query.get("watch"), state=state, limit=self._limit(request, 100))
        return self._answer({"runs": rows if self._trusted else [abridged_run(row) for row in rows]}, 200)

    async def run(self, request: Request) -> Response:
        after = request.query_params.get("after", "-1")
        if after != "-1" and (not after.isdecimal() or len(after) > 18):
            raise HTTPException(422, "after: write the seq of the last line that was seen")
        return self._answer(await self._service.run(request.path_params["id"], int(after)), 200)

    async def tools(self, request: Request) -> Response:
        return self._answer({"tools": await self._service.tools()}, 200)

    async def models(self, request: Request) -> Response:
        return self._answer({"models": await self._service.models()}, 200)


async def _stream(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Server-Sent Events; a comment now and then, so that nobody in between takes the silence for the end."""
    coming: asyncio.Task[dict[str, Any] | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(events))
            done, _ = await asyncio.wait([coming], timeout=KEEP_ALIVE_S)
            if not done:
                yield b": still here\n\n"
                continue
            event, coming = coming.result(), None
            if event is None:
                break
            data = json.dumps(event, ensure_ascii=False, default=str).encode("utf-8", "replace")
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event["seq"], str(event["event"]).encode(), data)
        yield b"event: end\ndata: {}\n\n"
    finally:
        if coming is not None:
            coming.cancel()


async def _next(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(events, None)
