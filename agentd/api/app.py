"""
The HTTP surface of the daemon: the endpoints of all parts, behind the gate.

In: requests over the unix socket (people of this machine, through the CLI) and over TCP. Out: JSON, problem details
(RFC 9457) for errors, pages.
Promise: what a caller may is checked in one place, by what the endpoint declares; over TCP nobody unknown changes
anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from agentd.api.answers import on_agentd_error, on_defect, on_http_error
from agentd.api.door import Door
from agentd.api.endpoint import Endpoint
from agentd.api.feed import Feed
from agentd.api.gate import Crossing, Gate
from agentd.api.metering_port import Metering
from agentd.api.openapi import OpenApi
from agentd.api.reading import Reading
from agentd.api.routes.alerts import AlertRoutes
from agentd.api.routes.daemon import DaemonRoutes
from agentd.api.routes.happenings import FeedRoutes
from agentd.api.routes.inbound import InboundRoutes
from agentd.api.routes.outbox import OutboxRoutes
from agentd.api.routes.records import RecordRoutes
from agentd.api.routes.settings import SettingsRoutes
from agentd.api.routes.tasks import TaskRoutes
from agentd.api.routes.watches import WatchRoutes
from agentd.api.routing import routes_of
from agentd.api.service import Service
from agentd.api.settings_port import SettingsService
from agentd.api.tasks import TaskService
from agentd.errors import AgentdError


Refuse = Callable[[Request, HTTPException | AgentdError], Awaitable[Response]]
_NO_PAGES = ("/api/", "/metrics", "/health", "/badges/")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the surface stands on. None: there are no endpoints for that part. more: of the page.

    refuse: what makes a page of an error, for browsers."""

    service: Service
    tasks: TaskService | None = None
    reading: Reading | None = None
    settings: SettingsService | None = None
    feed: Feed | None = None
    metering: Metering | None = None
    more: Sequence[Endpoint] = ()
    refuse: Refuse | None = None

    def endpoints(self) -> list[Endpoint]:
        found = [
            *DaemonRoutes(self.service, self.metering).endpoints(),
            *WatchRoutes(self.service, self.reading).endpoints(),
            *AlertRoutes(self.service, self.reading).endpoints(),
            *OutboxRoutes(self.service).endpoints(),
            *InboundRoutes(self.service).endpoints(),
        ]
        if self.tasks is not None:
            found += TaskRoutes(self.tasks).endpoints()
        if self.reading is not None:
            found += RecordRoutes(self.reading).endpoints()
        if self.settings is not None:
            found += SettingsRoutes(self.settings).endpoints()
        if self.feed is not None:
            found += FeedRoutes(self.feed).endpoints()
        found.append(OpenApi(found).endpoint())
        return [*found, *self.more]


def make_app(parts: Parts, door: Door, *, local: bool) -> ASGIApp:
    """
    local: for the unix sockets, whose peers are known; else for TCP. Which of the two a request came by is known by
    the app that it reached, never by asking the connection: one that is reset at once has no peer any more.
    """
    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException | AgentdError)
        if parts.refuse is not None and _wants_page(request):
            return await parts.refuse(request, error)
        return await (on_http_error if isinstance(error, HTTPException) else on_agentd_error)(request, error)

    app = Starlette(
        routes=routes_of(parts.endpoints(), parts.metering),
        exception_handlers={HTTPException: failed, AgentdError: failed, Exception: on_defect},
    )
    return Crossing(Gate(app, door, local=local), door)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(_NO_PAGES)
