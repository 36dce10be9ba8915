"""The outbox: messages and the webhooks that they go to."""

from __future__ import annotations

from pydantic import Field
from starlette.responses import Response

from agentd.api import shapes
from agentd.api.abridged import abridged_delivery, abridged_message
from agentd.api.answers import JsonAnswer
from agentd.api.endpoint import Asked, Call, Endpoint, Nothing
from agentd.api.routes import params
from agentd.api.service import Service
from agentd.memory.outbox import STATES


class RetryBody(Asked):
    webhook: str | None = Field(
        default=None, max_length=200, description="The name of a webhook; left out: messages to all of them"
    )


class OutboxRoutes:
    def __init__(self, service: Service) -> None:
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        tag, one, hook = "outbox", "/api/v1/outbox/{id}", "/api/v1/webhooks/{name}"
        return [
            Endpoint(
                "GET",
                "/api/v1/outbox",
                self.outbox,
                "read",
                "Messages, oldest first",
                tag,
                params=(
                    params.choice("state", tuple(STATES), "Only those in this state"),
                    params.text("webhook", "Only those to this webhook"),
                    params.limit(100),
                ),
                problems=(404,),
                answer=shapes.Deliveries,
            ),
            Endpoint(
                "POST",
                "/api/v1/outbox/retry",
                self.retry_all,
                "operate",
                "Send all dead messages again",
                tag,
                body=RetryBody,
                problems=(404,),
                answer=shapes.Retried,
            ),
            Endpoint(
                "GET",
                one,
                self.delivery,
                "read",
                "One message, with what it says",
                tag,
                problems=(404,),
                answer=shapes.DeliveryWhole,
            ),
            Endpoint(
                "POST",
                f"{one}/retry",
                self.retry,
                "operate",
                "Send a message again, now",
                tag,
                body=Nothing,
                problems=(404, 409),
                answer=shapes.Retried,
            ),
            Endpoint(
                "DELETE",
                one,
                self.drop,
                "operate",
                "Drop a message, for good",
                tag,
                body=Nothing,
                problems=(404, 409),
                answer=shapes.Dropped,
            ),
            Endpoint(
                "POST",
                f"{hook}/test",
                self.test_webhook,
                "operate",
                "Send a marked sample to a webhook",
                tag,
                body=Nothing,
                problems=(404,),
                answer=shapes.WebhookTested,
            ),
            Endpoint(
                "POST",
                f"{hook}/enable",
                self.enable_webhook,
                "operate",
                "Enable a disabled webhook",
                tag,
                body=Nothing,
                problems=(404,),
                answer=shapes.WebhookEnabled,
            ),
        ]

    async def outbox(self, call: Call) -> Response:
        query = call.query
        found = await self._service.outbox(state=query.get("state"), webhook=query.get("webhook"), limit=query["limit"])
        if not call.caller.known:
            found = {**found, "deliveries": [abridged_delivery(row) for row in found["deliveries"]]}
        return JsonAnswer(found)

    async def delivery(self, call: Call) -> Response:
        view = await self._service.delivery(call.path["id"])
        return JsonAnswer(view if call.caller.known else abridged_message(view))

    async def retry(self, call: Call) -> Response:
        return JsonAnswer(await self._service.retry(call.path["id"], webhook=None, by=call.by))

    async def retry_all(self, call: Call) -> Response:
        said: RetryBody = call.asked
        return JsonAnswer(await self._service.retry(None, webhook=said.webhook, by=call.by))

    async def drop(self, call: Call) -> Response:
        return JsonAnswer(await self._service.drop(call.path["id"], by=call.by))

    async def test_webhook(self, call: Call) -> Response:
        return JsonAnswer(await self._service.test_webhook(call.path["name"], by=call.by))

    async def enable_webhook(self, call: Call) -> Response:
        return JsonAnswer(await self._service.enable_webhook(call.path["name"], by=call.by))
