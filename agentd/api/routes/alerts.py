"""Alerts, their history, acknowledgements and silences."""

from __future__ import annotations

from starlette.responses import Response

from agentd.api import shapes, shapes_whole
from agentd.api.abridged import abridged_alert, abridged_alert_page, abridged_event
from agentd.api.answers import JsonAnswer, listed
from agentd.api.endpoint import Call, Endpoint, Nothing
from agentd.api.reading import Reading
from agentd.api.routes import params
from agentd.api.service import Service
from agentd.api.silence import MAX_REASON_CHARS, AckBody, SilenceBody, one_line


class AlertRoutes:
    def __init__(self, service: Service, reading: Reading | None) -> None:
        self._service = service
        self._reading = reading

    def endpoints(self) -> list[Endpoint]:
        tag = "alerts"
        mine = [
            Endpoint(
                "GET",
                "/api/v1/alerts",
                self.alerts,
                "read",
                "Alerts that are pending or firing",
                tag,
                params=(params.EVERYTHING,),
                answer=shapes.Alerts,
            ),
            Endpoint(
                "POST",
                "/api/v1/alerts/ack",
                self.ack,
                "operate",
                "Acknowledge alerts: somebody is on them",
                tag,
                body=AckBody,
                problems=(404, 409),
                answer=shapes.Alerts,
            ),
            Endpoint(
                "GET",
                "/api/v1/silences",
                self.silences,
                "read",
                "Silences that are active or planned",
                tag,
                params=(params.EVERYTHING,),
                answer=shapes.Silences,
            ),
            Endpoint(
                "POST",
                "/api/v1/silences",
                self.silence,
                "operate",
                "Mute alerts for a time",
                tag,
                body=SilenceBody,
                problems=(409,),
                answer=shapes.Silenced,
            ),
            Endpoint(
                "DELETE",
                "/api/v1/silences/{id}",
                self.end_silence,
                "operate",
                "End a silence before its time",
                tag,
                body=Nothing,
                problems=(404, 409),
                answer=shapes.Silenced,
            ),
        ]
        if self._reading is not None:
            mine += [
                Endpoint(
                    "GET",
                    "/api/v1/alerts/{fingerprint}",
                    self.alert,
                    "read",
                    "One alert, with its history and what was told of it",
                    tag,
                    problems=(404,),
                    answer=shapes_whole.AlertWhole,
                ),
                Endpoint(
                    "GET",
                    "/api/v1/history",
                    self.history,
                    "read",
                    "What alerts did, newest first",
                    tag,
                    params=(
                        params.text("watch", "Of this watch only"),
                        params.text("fingerprint", "Of this alert only"),
                        params.BEFORE_NUMBER,
                        params.limit(100),
                    ),
                    answer=shapes_whole.History,
                ),
            ]
        return mine

    async def alerts(self, call: Call) -> Response:
        rows = await self._service.alerts(everything=call.query["all"])
        return listed("alerts", rows if call.caller.known else [abridged_alert(row) for row in rows])

    async def alert(self, call: Call) -> Response:
        assert self._reading is not None
        view = await self._reading.alert(call.path["fingerprint"])
        return JsonAnswer(view if call.caller.known else abridged_alert_page(view))

    async def history(self, call: Call) -> Response:
        assert self._reading is not None
        query = call.query
        found = await self._reading.history(
            watch=query.get("watch"),
            fingerprint=query.get("fingerprint"),
            before=query.get("before"),
            limit=query["limit"],
        )
        if not call.caller.known:
            found = {**found, "events": [abridged_event(each) for each in found["events"]]}
        return JsonAnswer(found)

    async def ack(self, call: Call) -> Response:
        said: AckBody = call.asked
        comment = one_line(said.comment)[:MAX_REASON_CHARS]
        return JsonAnswer(await self._service.ack(said.alerts, by=call.by, comment=comment, undo=said.undo))

    async def silences(self, call: Call) -> Response:
        return listed("silences", await self._service.silences(everything=call.query["all"]))

    async def silence(self, call: Call) -> Response:
        said: SilenceBody = call.asked
        return JsonAnswer(await self._service.silence(said.asked(), by=call.by))

    async def end_silence(self, call: Call) -> Response:
        return JsonAnswer(await self._service.end_silence(call.path["id"], by=call.by))
