"""What others say to us: heartbeats of jobs, and webhooks. Each is let in by a secret of its own."""

from __future__ import annotations

from starlette.responses import Response

from agentd.api import shapes
from agentd.api.answers import JsonAnswer
from agentd.api.beat import read_beat
from agentd.api.bodies import limited
from agentd.api.caller import Caller
from agentd.api.endpoint import Call, Endpoint
from agentd.api.hook import MAX_BODY_BYTES as MAX_HOOK_BYTES
from agentd.api.service import Service

_ANY_BODY: dict[str, object] = {"content": {"*/*": {"schema": {}}}}


class InboundRoutes:
    def __init__(self, service: Service) -> None:
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        beat = "/api/v1/heartbeat/{name}"
        problems = (401, 403, 404, 409, 413, 422, 429, 503)
        return [
            *(
                Endpoint(
                    method,
                    beat,
                    self.beat,
                    "own",
                    "A job says that it lives",
                    "inbound",
                    problems=problems,
                    any_query=True,
                    raw_body=_ANY_BODY,
                    answer=shapes.Beaten,
                )
                for method in ("POST", "PUT")
            ),
            Endpoint(
                "POST",
                "/api/v1/hooks/{name}",
                self.hook,
                "own",
                "Something happened elsewhere",
                "inbound",
                status=202,
                also=(200,),
                problems=problems,
                any_query=True,
                raw_body=_ANY_BODY,
                answer=shapes.Hooked,
            ),
        ]

    async def beat(self, call: Call) -> Response:
        request = call.request
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else request.query_params.get("token")
        ok, message = read_beat(await limited(request), request.query_params.multi_items())
        answer = await self._service.beat(
            call.path["name"], token=token, ok=ok, message=message[:1000], trusted=_is_trusted(call.caller)
        )
        return JsonAnswer(answer)

    async def hook(self, call: Call) -> Response:
        answer = await self._service.hook(
            call.path["name"],
            headers=call.request.headers,
            body=lambda: limited(call.request, MAX_HOOK_BYTES),
            trusted=_is_trusted(call.caller),
        )
        return JsonAnswer(answer, 202 if answer["accepted"] else 200)


def _is_trusted(caller: Caller) -> bool:
    """Whether it needs no secret: somebody of this machine who may operate the daemon."""
    return caller.via == "socket" and caller.may("operate")
