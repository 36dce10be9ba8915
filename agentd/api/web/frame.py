"""
What all pages have: who looks on, the way to the other pages, what was just done, and what to say when one fails.

In: a call and what makes its page. Out: the page, made at most once a second for all who see the same.
Promise: what is asked for beyond the parameters that a page reads makes no page of its own. Those that are being made
are bounded, most narrowly for callers who may not read: whoever comes beyond that is told to come again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentd.api.caller import NOBODY, Caller
from agentd.api.endpoint import Call
from agentd.api.gate import CALLER
from agentd.api.service import Conflict, Forbidden, NoSecret, NotFound, Service, TooMany
from agentd.api.web.cache import PageCache
from agentd.api.web.forms import after, notice, own_path
from agentd.api.web.rendering import HEADERS, Renderer, StaticFile, answer, bare
from agentd.errors import AgentdError, ConfigError, StoreError

log = logging.getLogger("agentd.api")

Json = dict[str, Any]
Build = Callable[[Call, Mapping[str, str]], Awaitable[tuple[str, str, Json]]]
"""A page's template, title and values, by the call and the parameters that the page reads."""

_STATUS_S = 1.0
_MOST_QUERY = 1000
MOST_UNDER_WAY = 100
MOST_OF_UNKNOWN = 50
MOST_OF_STRANGERS = 8
"""Pages that are being made at a time: of all, of callers whom nobody knows, of those who may not read."""

_PATH_CHARS = "/:@!$&'()*+,;=~-._"
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
        self._under_way = {MOST_UNDER_WAY: 0, MOST_OF_UNKNOWN: 0, MOST_OF_STRANGERS: 0}

    async def page(
        self, call: Call, build: Build, reads: Sequence[str] = (), *, live: str = "events", nav: bool = True
    ) -> Response:
        """
        The page that `build` makes, or one that says why there is none.

        reads: the parameters that it is given; by others no page differs.
        """
        request, caller = call.request, call.caller
        given = request.query_params
        query = {name: given[name] for name in reads if name in given}
        here = _address(request, urlencode(query))
        said = _notice(request) if nav else None
        who = (caller.scope, bool(caller.csrf), caller.known, caller.may("read"))

        async def make() -> bytes:
            with self._room(caller):
                template, title, values = await build(call, query)
                page = await self._about(here, caller, said, live=live, nav=nav)
                return await self._render(template, title, values, page)

        try:
            page = await (self._pages.get((here, said, who, nav), make) if len(here) <= _MOST_QUERY else make())
        except (AgentdError, HTTPException) as error:
            return await self.problem(request, error)
        return answer(self._renderer.for_caller(page, caller))

    async def own(self, call: Call, template: str, title: str, values: Json, *, status: int = 200) -> Response:
        """A page that is for one caller alone."""
        return await self._alone(call.request, call.caller, template, title, values, status)

    async def _alone(
        self,
        request: Request,
        caller: Caller,
        template: str,
        title: str,
        values: Json,
        status: int,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        here = _address(request, request.scope["query_string"].decode("latin-1"))
        try:
            with self._room(caller):
                about = await self._about(here, caller, _notice(request), live="none", nav=caller.may("read"))
                page = await self._render(template, title, values, about)
        except HTTPException as error:
            return answer(bare(_HEADINGS[503], str(error.detail)), error.status_code, error.headers)
        return answer(self._renderer.for_caller(page, caller), status, headers)

    @contextlib.contextmanager
    def _room(self, caller: Caller) -> Iterator[None]:
        """For one page more. Raises HTTPException (503)."""
        mine = [MOST_UNDER_WAY]
        if not caller.known:
            mine.append(MOST_OF_UNKNOWN if caller.may("read") else MOST_OF_STRANGERS)
        if any(self._under_way[most] >= most for most in mine):
            raise HTTPException(503, "too many pages are asked for; come again in a moment", {"Retry-After": "1"})
        for most in mine:
            self._under_way[most] += 1
        try:
            yield
        finally:
            for most in mine:
                self._under_way[most] -= 1

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
        return await self._alone(request, caller, "problem.html", heading, values, status, headers)

    async def _render(self, template: str, title: str, values: Json, page: Json) -> bytes:
        return await self._renderer.render(template, {**values, "title": title, "page": page}, now=self._now())

    async def _about(self, here: str, caller: Caller, said: str | None, *, live: str, nav: bool) -> Json:
        """here: the page's own address. said: the notice."""
        status: Json = {}
        if caller.may("read"):
            try:
                status = await self.status()
            except AgentdError:
                log.warning("page_status_unavailable", exc_info=True)
        path = here.partition("?")[0]
        address = own_path(here)
        is_login = path in ("/login", "/logout")
        is_open = not nav and not caller.known  # what everybody sees alike
        return {
            "instance": str(status.get("instance") or ""),
            "version": self._version if caller.may("read") and not is_open else "",
            "live": live if caller.may("read") or live == "poll" else "none",
            "nav": self._nav(path, caller, status) if nav and caller.may("read") else [],
            "known": caller.known,
            "session": bool(caller.csrf),
            "records": caller.may("records"),
            # Without a session there is nothing that proves a form to be ours.
            "act": caller.may("operate") and bool(caller.csrf),
            "login": f"/login?next={quote(address)}" if self._sessions and not is_login and not is_open else None,
            "notice": said,
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
            *([("/memory", "Memory", 0, "", ""), ("/audit", "Audit", 0, "", "")] if caller.may("records") else []),
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


def _address(request: Request, query: str) -> str:
    """
    Path and query of a request, without what a notice is made of. Not by `request.url`: that is made of the Host too.
    """
    path = quote(request.scope["path"], safe=_PATH_CHARS, errors="replace")
    kept = "&".join(part for part in query.split("&") if part and part.partition("=")[0] not in ("done", "n"))
    return f"{path}?{kept}" if kept else path


def _notice(request: Request) -> str | None:
    return notice(request.query_params.get("done"), request.query_params.get("n"))


def _is_here(href: str, here: str) -> bool:
    """Watches have no list of their own: they stand on the overview."""
    return here == href or here.startswith("/watches/" if href == "/" else f"{href}/")
