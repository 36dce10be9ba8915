"""The daemon itself: health, status, metrics, reload, release after a restore."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from agentd.api import shapes, shapes_whole
from agentd.api.answers import JsonAnswer
from agentd.api.encoding import encoded
from agentd.api.endpoint import Asked, Call, Endpoint, Nothing
from agentd.api.metering_port import Metering
from agentd.api.service import Service
from agentd.api.shared import Shared


class ReloadBody(Asked):
    why: str = Field(default="", max_length=200, description="What for, for the audit trail")


class DaemonRoutes:
    def __init__(self, service: Service, metering: Metering | None) -> None:
        self._service = service
        self._metering = metering
        self._status = Shared(self._make_status)

    def endpoints(self) -> list[Endpoint]:
        tag = "daemon"
        mine = [
            Endpoint(
                "GET",
                "/health",
                self.health,
                "open",
                "Whether the daemon runs",
                tag,
                also=(503,),
                answer=shapes.Health,
            ),
            Endpoint(
                "GET", "/api/v1/status", self.status, "read", "How it stands with everything", tag, answer=shapes.Status
            ),
            Endpoint(
                "POST",
                "/api/v1/reload",
                self.reload,
                "admin",
                "Read the configuration again",
                tag,
                body=ReloadBody,
                problems=(422, 503),
                answer=shapes.Reloaded,
            ),
            Endpoint(
                "POST",
                "/api/v1/doctor/resume",
                self.release,
                "admin",
                "Send what a restore holds back",
                tag,
                body=Nothing,
                problems=(409, 503),
                answer=shapes.Released,
            ),
        ]
        if self._metering is not None:
            mine += [
                Endpoint(
                    "GET",
                    "/metrics",
                    self.metrics,
                    "read",
                    "Metrics in Prometheus's text format",
                    tag,
                    media="text/plain",
                ),
                Endpoint(
                    "GET",
                    "/api/v1/metrics",
                    self.metrics_json,
                    "read",
                    "The same metrics as JSON",
                    tag,
                    answer=shapes_whole.Metrics,
                ),
            ]
        return mine

    async def health(self, call: Call) -> Response:
        state = self._service.state()
        healthy = state == "running"
        return JsonAnswer({"status": "ok" if healthy else state}, 200 if healthy else 503)

    async def status(self, call: Call) -> Response:
        return Response(await self._status.newest(), media_type=JsonAnswer.media_type)

    async def _make_status(self) -> bytes:
        return encoded(await self._service.status())

    async def reload(self, call: Call) -> Response:
        return JsonAnswer(await self._service.reload(by=call.by, why=call.asked.why))

    async def release(self, call: Call) -> Response:
        return JsonAnswer(await self._service.release(by=call.by))

    async def metrics(self, call: Call) -> Response:
        assert self._metering is not None
        body, kind = await self._metering.prometheus()
        return Response(body, headers={"Content-Type": kind})

    async def metrics_json(self, call: Call) -> Response:
        assert self._metering is not None
        return JsonAnswer(await self._metering.json())
