"""Tasks and runs of agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from agentd.api import shapes_tasks as shapes
from agentd.api.abridged import abridged_run
from agentd.api.answers import JsonAnswer
from agentd.api.endpoint import Asked, Call, Endpoint, Nothing, Param
from agentd.api.routes import params
from agentd.api.tasks import STATUSES, BatchAsked, Message, TaskAsked, TaskService
from agentd.memory.ledger import RunState

KEEP_ALIVE_S = 15.0

_SEQ = {"type": "integer", "minimum": -1, "maximum": 10**17}
_LAST_ID = Param(
    "Last-Event-ID",
    {"type": "string", "maxLength": 18, "pattern": "^[0-9]{1,18}$"},
    "write the id of the last event that was seen",
    where="header",
)


class TaskBody(TaskAsked, Asked):
    pass


class BatchBody(BatchAsked, Asked):
    pass


class MessageBody(Message, Asked):
    pass


class TaskRoutes:
    def __init__(self, service: TaskService) -> None:
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        tag, one, run = "tasks", "/api/v1/tasks/{id}", "/api/v1/runs/{id}"
        return [
            Endpoint(
                "POST",
                "/api/v1/tasks",
                self.submit,
                "operate",
                "Ask an agent",
                tag,
                body=TaskBody,
                status=202,
                also=(200,),
                problems=(409, 503),
                answer=shapes.Task,
            ),
            Endpoint(
                "POST",
                "/api/v1/tasks/batch",
                self.submit_batch,
                "operate",
                "Ask for several things, all or none",
                tag,
                body=BatchBody,
                status=202,
                also=(200,),
                problems=(409, 503),
                answer=shapes.Batch,
            ),
            Endpoint(
                "GET",
                "/api/v1/tasks",
                self.tasks,
                "records",
                "What people asked for, newest first",
                tag,
                params=(
                    params.choice("status", tuple(STATUSES), "Only those in this state"),
                    params.BEFORE_ID,
                    params.limit(100),
                ),
                problems=(404,),
                answer=shapes.Tasks,
            ),
            Endpoint(
                "GET",
                one,
                self.task,
                "records",
                "A task, with what came of it",
                tag,
                problems=(404,),
                answer=shapes.Task,
            ),
            Endpoint(
                "DELETE",
                one,
                self.cancel,
                "operate",
                "Cancel a task",
                tag,
                body=Nothing,
                problems=(404, 409),
                answer=shapes.Task,
            ),
            Endpoint(
                "POST",
                f"{one}/messages",
                self.say,
                "operate",
                "Say something to a task under way",
                tag,
                body=MessageBody,
                problems=(404, 409),
                answer=shapes.Task,
            ),
            Endpoint(
                "GET",
                f"{one}/events",
                self.events,
                "records",
                "What the agent of a task does, as it does it",
                tag,
                params=(
                    _LAST_ID,
                    Param("after", {"type": "integer", "minimum": 0, "maximum": 10**17}, "As that header"),
                ),
                media="text/event-stream",
                problems=(404,),
                answer=shapes.TaskEvent,
            ),
            Endpoint(
                "GET",
                "/api/v1/runs",
                self.runs,
                "read",
                "Runs, newest first",
                tag,
                params=(
                    params.text("watch", "Of this watch only"),
                    params.choice("state", tuple(RunState), "Only those in this state"),
                    params.BEFORE_ID,
                    params.limit(100),
                ),
                problems=(404,),
                answer=shapes.Runs,
            ),
            Endpoint(
                "GET",
                run,
                self.run,
                "records",
                "One run, with its record line by line",
                tag,
                params=(Param("after", {**_SEQ, "default": -1}, "the seq of the last line that was seen"),),
                problems=(404, 409),
                answer=shapes.RunWhole,
            ),
            Endpoint(
                "GET", "/api/v1/tools", self.tools, "read", "Tools that agents may be given", tag, answer=shapes.Tools
            ),
            Endpoint(
                "GET", "/api/v1/models", self.models, "read", "Models, without their keys", tag, answer=shapes.Models
            ),
        ]

    async def submit(self, call: Call) -> Response:
        return _taken(await self._service.submit(call.asked, by=call.by))

    async def submit_batch(self, call: Call) -> Response:
        return _taken(await self._service.submit_batch(call.asked, by=call.by))

    async def tasks(self, call: Call) -> Response:
        query = call.query
        found = await self._service.tasks(status=query.get("status"), limit=query["limit"], before=query.get("before"))
        return JsonAnswer(found)

    async def task(self, call: Call) -> Response:
        return JsonAnswer(await self._service.task(call.path["id"]))

    async def cancel(self, call: Call) -> Response:
        return JsonAnswer(await self._service.cancel(call.path["id"], by=call.by))

    async def say(self, call: Call) -> Response:
        return JsonAnswer(await self._service.say(call.path["id"], call.asked, by=call.by))

    async def events(self, call: Call) -> Response:
        last = call.query.get("Last-Event-ID", call.query.get("after", 0))
        await self._service.task(call.path["id"])  # raises NotFound
        found = self._service.events(call.path["id"], int(last))
        # X-Accel-Buffering: nginx would keep events back until it has a buffer full of them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(found), media_type="text/event-stream", headers=headers)

    async def runs(self, call: Call) -> Response:
        query = call.query
        limit = query["limit"]
        rows = await self._service.runs(
            watch=query.get("watch"), state=query.get("state"), limit=limit, before=query.get("before")
        )
        shown = rows if call.caller.known else [abridged_run(row) for row in rows]
        return JsonAnswer({"runs": shown, "next": rows[-1]["id"] if len(rows) == limit else None})

    async def run(self, call: Call) -> Response:
        return JsonAnswer(await self._service.run(call.path["id"], call.query["after"]))

    async def tools(self, call: Call) -> Response:
        return JsonAnswer({"tools": await self._service.tools()})

    async def models(self, call: Call) -> Response:
        return JsonAnswer({"models": await self._service.models()})


def _taken(view: dict[str, Any]) -> Response:
    """200 for what was taken before: asking again is not asking twice."""
    return JsonAnswer(view, 200 if view.get("repeated") else 202)


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
