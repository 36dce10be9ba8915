"""
The HTTP surface of the daemon: the endpoints of all parts, behind the gate.

In: requests over the unix socket (people of this machine, through the CLI) and over TCP. Out: JSON, problem details
(RFC 9457) for errors, pages.
Promise: what a caller may is checked in one place, by what the endpoint declares; over TCP nobody unknown changes
anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from agentd.api.answers import on_agentd_error, on_defect, on_http_error
from agentd.api.door import Door
from agentd.api.endpoint import Endpoint
from agentd.api.gate import Crossing, Gate
from agentd.api.openapi import OpenApi
from agentd.api.parts import PageSet, Parts
from agentd.api.routes.alerts import AlertRoutes
from agentd.api.routes.daemon import DaemonRoutes
from agentd.api.routes.happenings import FeedRoutes
from agentd.api.routes.inbound import InboundRoutes
from agentd.api.routes.keys import KeyRoutes
from agentd.api.routes.outbox import OutboxRoutes
from agentd.api.routes.records import RecordRoutes
from agentd.api.routes.settings import SettingsRoutes
from agentd.api.routes.tasks import TaskRoutes
from agentd.api.routes.watches import WatchRoutes
from agentd.api.routing import RequestMeter, routes_of
from agentd.errors import AgentdError

_API = ("/api/", "/metrics", "/health")
_NO_PAGES = (*_API, "/badges/")


def make_app(parts: Parts, door: Door, *, local: bool) -> ASGIApp:
    """
    local: for the unix sockets, whose peers are known; else for TCP. Which of the two a request came by is known by
    the app that it reached, never by asking the connection: one that is reset at once has no peer any more.
    """
    pages = None if parts.pages is None else _Pages(parts.pages, parts.metering)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException | AgentdError)
        if pages is not None and _wants_page(request):
            return await (await pages.made()).refuse(request, error)
        return await (on_http_error if isinstance(error, HTTPException) else on_agentd_error)(request, error)

    routes: list[BaseRoute] = [*routes_of(endpoints_of(parts), parts.metering)]
    if pages is not None:
        routes.append(_Elsewhere("", app=pages))
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: failed, AgentdError: failed, Exception: on_defect},
    )
    app.router.redirect_slashes = False  # it would lead to whatever the caller writes for a Host
    return Crossing(Gate(app, door, local=local), door)


class _Elsewhere(Mount):
    """Not the paths of the API: its routes say which methods they take, and nobody has pages made by asking there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["path"].startswith(_API) else super().matches(scope)


class _Pages:
    """All paths that no other endpoint has: the pages, made when somebody asks for one."""

    def __init__(self, make: Callable[[], PageSet], meter: RequestMeter | None) -> None:
        self._make = make
        self._meter = meter
        self._making = asyncio.Lock()
        self._made: tuple[PageSet, Router] | None = None

    async def made(self) -> PageSet:
        return (await self._both())[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, router = await self._both()
        await router(scope, receive, send)

    async def _both(self) -> tuple[PageSet, Router]:
        async with self._making:
            if self._made is None:
                pages = await asyncio.to_thread(self._make)
                self._made = pages, Router(routes_of(pages.endpoints(), self._meter), redirect_slashes=False)
        return self._made


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(_NO_PAGES)


def endpoints_of(parts: Parts) -> list[Endpoint]:
    reading = None if parts.reading is None else parts.reading()
    found = [
        *DaemonRoutes(parts.service, parts.metering).endpoints(),
        *WatchRoutes(parts.service, reading).endpoints(),
        *AlertRoutes(parts.service, reading).endpoints(),
        *OutboxRoutes(parts.service).endpoints(),
        *InboundRoutes(parts.service).endpoints(),
    ]
    if parts.tasks is not None:
        found += TaskRoutes(parts.tasks).endpoints()
    if reading is not None:
        found += RecordRoutes(reading).endpoints()
    if parts.settings is not None:
        found += SettingsRoutes(parts.settings).endpoints()
    if parts.keys is not None:
        found += KeyRoutes(parts.keys).endpoints()
    if parts.feed is not None:
        found += FeedRoutes(parts.feed).endpoints()
    found.append(OpenApi(found).endpoint())
    return [*found, *parts.more]
