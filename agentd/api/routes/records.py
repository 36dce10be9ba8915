"""What is remembered: a run as a timeline, notes of agents, deeds of operators; and what anybody may see."""

from __future__ import annotations

from starlette.responses import Response

from agentd.api import shapes_whole
from agentd.api.answers import JsonAnswer
from agentd.api.endpoint import Call, Endpoint
from agentd.api.reading import Reading
from agentd.api.routes import params


class RecordRoutes:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def endpoints(self) -> list[Endpoint]:
        found = params.text("q", "Notes that have all these words", most=500)
        return [
            Endpoint(
                "GET",
                "/api/v1/runs/{id}/timeline",
                self.timeline,
                "records",
                "One run as a timeline of its graph, with what it cost",
                "tasks",
                problems=(404,),
                answer=shapes_whole.Timeline,
            ),
            Endpoint(
                "GET",
                "/api/v1/memory",
                self.memory,
                "records",
                "What agents remember",
                "memory",
                params=(found, params.limit(50)),
                answer=shapes_whole.Memory,
            ),
            Endpoint(
                "GET",
                "/api/v1/audit",
                self.audit,
                "records",
                "What operators did, newest first",
                "daemon",
                params=(params.BEFORE_NUMBER, params.limit(100)),
                answer=shapes_whole.Audit,
            ),
            Endpoint(
                "GET",
                "/api/v1/public",
                self.public,
                "open",
                "What anybody may see",
                "public",
                answer=shapes_whole.Public,
            ),
            Endpoint(
                "GET",
                "/api/v1/public/{name}",
                self.public_watch,
                "open",
                "One watch that anybody may see",
                "public",
                problems=(404,),
                answer=shapes_whole.PublicWatchWhole,
            ),
        ]

    async def timeline(self, call: Call) -> Response:
        return JsonAnswer(await self._reading.run_page(call.path["id"]))

    async def memory(self, call: Call) -> Response:
        return JsonAnswer(await self._reading.memory(call.query.get("q"), call.query["limit"]))

    async def audit(self, call: Call) -> Response:
        return JsonAnswer(await self._reading.audit(call.query.get("before"), call.query["limit"]))

    async def public(self, call: Call) -> Response:
        return JsonAnswer(await self._reading.public())

    async def public_watch(self, call: Call) -> Response:
        return JsonAnswer(await self._reading.public_watch(call.path["name"]))
