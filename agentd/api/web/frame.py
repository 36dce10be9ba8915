"""
What all pages have: who looks on, the way to the other pages, what was just done, and what to say when one fails.

In: a call and what makes its page. Out: the page, made at most once a second for all who see the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentd.api.caller import NOBODY, Caller
from agentd.api.endpoint import Call
from agentd.api.gate import CALLER
from agentd.api.service import Conflict, Forbidden, NoSecret, NotFound, Service, TooMany
from agentd.api.web.cache import PageCache
from agentd.api.web.forms import after, notice, own_path
from agentd.api.web.rendering import HEADERS, Renderer, StaticFile, answer
from agentd.errors import AgentdError, ConfigError, StoreError

log = logging.getLogger("agentd.api")

Json = dict[str, Any]
Build = Callable[[Call], Awaitable[tuple[str, str, Json]]]

_STATUS_S = 1.0
_MOST_QUERY = 1000
_SIGN_IN = "What agents read and said, and whatever changes something, is for known callers: sign in with a key."
_HEADINGS = {
    400: "That was not understood",
    401: "This is for those who sign in",
    403: "This is not for you",
    404: "There is no such thing",
    405: "That cannot be done here",
    409: "That does not fit",
    413: "That is too much",
    421: "Not under this name",
    422: "That was not understood",
    429: "Too much at once",
    503: "Not now",
}
_STATUSES: tuple[tuple[type[AgentdError], int], ...] = (
    (NotFound, 404),
    (Forbidden, 403),
    (Conflict, 409),
    (ConfigError, 422),
    (TooMany, 429),
    (StoreError, 503),
    (NoSecret, 503),
)


class Frame:
    """sessions, runs, settings: whether there is a way to sign in, and pages of these."""

    def __init__(
        self,
        service: Service,
        *,
        version: str,
        now: Callable[[], datetime],
        sessions: bool,
        runs: bool,
        settings: bool,
    ) -> None:
        self._service = service
        self._version = version
        self._now = now
        self._sessions = sessions
        self._runs = runs
        self._settings = settings
        self._renderer = Renderer(version)
        self._pages: PageCache[bytes] = PageCache(len)
        self._status: Json = {}
        self._status_s: float | None = None

    async def page(self, call: Call, build: Build, *, live: str = "events", nav: bool = True) -> Response:
        """The page that `build` makes, or one that says why there is none."""
        request, caller = call.request, call.caller
        query = request.url.query
        key = (request.url.path, query, caller.scope, bool(caller.csrf), caller.known, nav)

        async def make() -> bytes:
            template, title, values = await build(call)
            return await self._render(request, caller, template, title, values, live=live, nav=nav)

        try:
            page = await (self._pages.get(key, make) if len(query) <= _MOST_QUERY else make())
        except (AgentdError, HTTPException) as error:
            return await self.problem(request, error)
        return answer(self._renderer.for_caller(page, caller))

    async def own(self, call: Call, template: str, title: str, values: Json, *, status: int = 200) -> Response:
        """A page that is for one caller alone."""
        request, caller = call.request, call.caller
        page = await self._render(request, caller, template, title, values, live="none", nav=caller.may("read"))
        return answer(self._renderer.for_caller(page, caller), status)

    async def problem(self, request: Request, error: HTTPException | AgentdError) -> Response:
        caller: Caller = request.scope.get(CALLER) or NOBODY
        headers: dict[str, str] = {}
        if isinstance(error, HTTPException):
            status, detail = error.status_code, str(error.detail)
            known = error.headers or {}
            headers |= {name: value for name, value in known.items() if name.lower() in ("retry-after", "allow")}
        else:
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
            detail = str(error)
            if isinstance(error, TooMany):
                headers["Retry-After"] = str(error.retry_after_s)
        heading = _HEADINGS.get(status) or HTTPStatus(status).phrase
        if status == 401:
            # As 403: 401 would have to name a scheme, and a browser cannot send a bearer.
            status, detail = 403, _SIGN_IN
        back = own_path(request.headers.get("referer", "").partition(request.headers.get("host") or "\0")[2], "/")
        values = {"heading": heading, "detail": detail, "back": back}
        page = await self._render(request, caller, "problem.html", heading, values, live="none", nav=caller.may("read"))
        return answer(self._renderer.for_caller(page, caller), status, headers)

    async def _render(
        self, request: Request, caller: Caller, template: str, title: str, values: Json, *, live: str, nav: bool
    ) -> bytes:
        status: Json = {}
        if caller.may("read"):
            try:
                status = await self.status()
            except AgentdError:
                log.warning("page_status_unavailable", exc_info=True)
        page = self._about(request, caller, status, live=live, nav=nav)
        return await self._renderer.render(template, {**values, "title": title, "page": page}, now=self._now())

    def _about(self, request: Request, caller: Caller, status: Json, *, live: str, nav: bool) -> Json:
        query = request.query_params
        here = request.url.path
        kept = "&".join(
            part for part in request.url.query.split("&") if part and part.partition("=")[0] not in ("done", "n")
        )
        address = own_path(f"{here}?{kept}" if kept else here)
        is_login = here in ("/login", "/logout")
        return {
            "instance": str(status.get("instance") or ""),
            "version": self._version if caller.may("read") else "",
            "live": live if caller.may("read") or live == "poll" else "none",
            "nav": self._nav(here, caller, status) if nav and caller.may("read") else [],
            "known": caller.known,
            "session": bool(caller.csrf),
            "records": caller.may("records"),
            # Without a session there is nothing that proves a form to be ours.
            "act": caller.may("operate") and bool(caller.csrf),
            "login": f"/login?next={quote(address)}" if self._sessions and not is_login else None,
            "notice": notice(query.get("done"), query.get("n")),
            "here": address,
            "made_at": self._now().isoformat(),
        }

    def _nav(self, here: str, caller: Caller, status: Json) -> list[Json]:
        alerts, outbox = status.get("alerts") or {}, status.get("outbox") or {}
        firing, dead = alerts.get("firing") or 0, outbox.get("dead") or 0
        items = [
            ("/", "Overview", 0, "", ""),
            ("/alerts", "Alerts", firing, "bad", f"{firing} firing"),
            *([("/runs", "Runs", 0, "", "")] if self._runs else []),
            ("/outbox", "Outbox", dead, "bad", f"{dead} undeliverable"),
            *([("/memory", "Memory", 0, "", "")] if caller.may("records") else []),
            *([("/settings", "Settings", 0, "", "")] if self._settings else []),
        ]
        return [
            {
                "href": href,
                "text": text,
                "count": count,
                "kind": kind,
                "count_text": said,
                "here": _is_here(href, here),
            }
            for href, text, count, kind, said in items
        ]

    async def status(self) -> Json:
        """As `Service.status` gives it; at most a second old."""
        now_s = time.monotonic()
        if self._status_s is None or now_s - self._status_s > _STATUS_S:
            self._status = await self._service.status()
            self._status_s = now_s
        return self._status

    def changed(self) -> None:
        """What pages show is not so any more."""
        self._pages.clear()
        self._status_s = None

    def go_on(self, path: str, code: str, count: int | None = None, *, otherwise: str = "/") -> Response:
        """To the page, which says what was done. path: as a form sent it."""
        self.changed()
        return self.redirect(after(own_path(path, otherwise), code, count))

    def redirect(self, path: str) -> Response:
        kept = {name: HEADERS[name] for name in ("Cache-Control", "X-Robots-Tag", "Referrer-Policy")}
        return RedirectResponse(path, 303, headers=kept)

    async def static(self, name: str) -> StaticFile | None:
        return await self._renderer.static(name)


def _is_here(href: str, here: str) -> bool:
    """Watches have no list of their own: they stand on the overview."""
    return here == href or here.startswith("/watches/" if href == "/" else f"{href}/")
