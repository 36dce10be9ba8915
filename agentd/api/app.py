"""
The HTTP surface of the daemon: routes from paths to the `Service` port.

In: requests over the unix socket (people of this machine, through the CLI) and over TCP (reading, and heartbeats and
hooks with their secret). Out: JSON, problem details (RFC 9457) for errors, one page.
Promise: over TCP nothing is changed but by a heartbeat's or a hook's secret, nothing is shown that agents read, and
only a known Host is answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentd.api.beat import read_beat
from agentd.api.hook import MAX_BODY_BYTES as MAX_HOOK_BYTES
from agentd.api.over_tcp import REFUSED, abridged_alert, abridged_message, is_record
from agentd.api.page import STYLE, render_overview
from agentd.api.service import Conflict, Forbidden, NoSecret, NotFound, Service, TooMany
from agentd.api.silence import MAX_REASON_CHARS, one_line, read_ack, read_silence
from agentd.api.task_routes import TaskRoutes
from agentd.api.tasks import TaskService
from agentd.errors import AgentdError, ConfigError, StoreError
from agentd.memory.outbox import STATES as OUTBOX_STATES

MAX_BODY_BYTES = 64 * 1024
_ROWS_AT_ONCE = 200
_OPEN = ("/api/v1/heartbeat/", "/api/v1/hooks/")
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(service: Service, *, hosts: Collection[str] | None, tasks: TaskService | None = None) -> Starlette:
    """
    tasks: runs of agents; None: there are no routes for them.
    hosts: for TCP, the names (without port) that a Host header may carry; None for the unix socket, whose
    permissions have let the caller in. Which of the two a request came by is known by the app that it reached,
    never by asking the connection: one that is reset at once has no peer any more.
    """
    routes = _Routes(service, trusted=hosts is None)
    more: list[Route] = []
    if tasks is not None:
        how = TaskRoutes(tasks, body=_body, who=_who, limit=_limit, answer=_Json, trusted=hosts is None)
        more = how.routes()
    app = Starlette(
        routes=[
            Route("/", routes.page),
            Route("/style.css", routes.style),
            Route("/health", routes.health),
            Route("/api/v1/status", routes.status),
            Route("/api/v1/watches", routes.watches),
            Route("/api/v1/watches/{name}/check", routes.check_now, methods=["POST"]),
            Route("/api/v1/watches/{name}/pause", routes.pause, methods=["POST"]),
            Route("/api/v1/watches/{name}/resume", routes.resume, methods=["POST"]),
            Route("/api/v1/alerts", routes.alerts),
            Route("/api/v1/alerts/ack", routes.ack, methods=["POST"]),
            Route("/api/v1/silences", routes.silences),
            Route("/api/v1/silences", routes.silence, methods=["POST"]),
            Route("/api/v1/silences/{id}", routes.end_silence, methods=["DELETE"]),
            Route("/api/v1/outbox", routes.outbox),
            Route("/api/v1/outbox/retry", routes.retry_all, methods=["POST"]),
            Route("/api/v1/outbox/{id}", routes.delivery),
            Route("/api/v1/outbox/{id}", routes.drop, methods=["DELETE"]),
            Route("/api/v1/watches/{name}/templates", routes.templates),
            Route("/api/v1/outbox/{id}/retry", routes.retry, methods=["POST"]),
            Route("/api/v1/webhooks/{name}/test", routes.test_webhook, methods=["POST"]),
            Route("/api/v1/webhooks/{name}/enable", routes.enable_webhook, methods=["POST"]),
            Route("/api/v1/heartbeat/{name}", routes.beat, methods=["POST", "PUT"]),
            Route("/api/v1/hooks/{name}", routes.hook, methods=["POST"]),
            Route("/api/v1/reload", routes.reload, methods=["POST"]),
            Route("/api/v1/doctor/resume", routes.release, methods=["POST"]),
            *more,
        ],
        exception_handlers={HTTPException: _http_problem, AgentdError: _agentd_problem, Exception: _defect},
    )
    if hosts is not None:
        app.add_middleware(_Gate, hosts=frozenset(host.lower() for host in hosts))
    return app


class _Gate:
    """
    Over TCP: a known Host only (a page elsewhere could name us by its own DNS), and reading only; not even that
    of what agents did.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[1:].split("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host
        reading = scope["method"] in ("GET", "HEAD")
        if name not in self._hosts:
            answer = _problem(421, "Misdirected request", f"this daemon does not answer to the name {name[:100]!r}")
        elif not reading and not scope["path"].startswith(_OPEN):
            answer = _problem(
                403, "Forbidden", "over TCP one may only read; use the command line on the machine itself"
            )
        elif is_record(scope["path"]):
            answer = _problem(403, "Forbidden", REFUSED)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


class _Json(Response):
    """An answer in JSON. What UTF-8 or JSON cannot hold is replaced, wherever it came from."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encoded(content)


class _Routes:
    def __init__(self, service: Service, *, trusted: bool) -> None:
        self._service = service
        self._trusted = trusted
        self._style_tag = hashlib.sha256(STYLE.encode()).hexdigest()[:16]

    async def page(self, request: Request) -> Response:
        page = render_overview(await self._service.overview(), style=f"/style.css?{self._style_tag}")
        return HTMLResponse(
            page.encode("utf-8", "replace"),
            headers={
                "Content-Security-Policy": _POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
            },
        )

    async def style(self, request: Request) -> Response:
        return Response(STYLE, media_type="text/css", headers={"Cache-Control": "max-age=86400"})

    async def health(self, request: Request) -> Response:
        status = await self._service.status()
        healthy = status["state"] == "running"
        return _Json({"status": "ok" if healthy else status["state"]}, 200 if healthy else 503)

    async def status(self, request: Request) -> Response:
        return _Json(await self._service.status())

    async def watches(self, request: Request) -> Response:
        return _listed("watches", await self._service.watches())

    async def alerts(self, request: Request) -> Response:
        everything = request.query_params.get("all") in ("1", "true")
        rows = await self._service.alerts(everything=everything)
        return _listed("alerts", rows if self._trusted else [abridged_alert(row) for row in rows])

    async def ack(self, request: Request) -> Response:
        body = await _body(request)
        alerts, comment = read_ack(body)
        undo = body.get("undo") is True
        return _Json(await self._service.ack(alerts, by=_who(body), comment=comment, undo=undo))

    async def silences(self, request: Request) -> Response:
        everything = request.query_params.get("all") in ("1", "true")
        return _listed("silences", await self._service.silences(everything=everything))

    async def silence(self, request: Request) -> Response:
        body = await _body(request)
        return _Json(await self._service.silence(read_silence(body), by=_who(body)))

    async def end_silence(self, request: Request) -> Response:
        who = _who(await _body(request))
        return _Json(await self._service.end_silence(request.path_params["id"], by=who))

    async def check_now(self, request: Request) -> Response:
        return _Json(await self._service.check_now(request.path_params["name"]))

    async def pause(self, request: Request) -> Response:
        body = await _body(request)
        for_s = body.get("for_s")
        if for_s is not None and (
            not isinstance(for_s, int | float) or isinstance(for_s, bool) or not 0 < for_s < 1e10
        ):
            raise HTTPException(422, "for_s: write a number of seconds above 0")
        answer = await self._service.pause(
            request.path_params["name"],
            by=_who(body),
            for_s=for_s,
            reason=one_line(body.get("reason", ""))[:MAX_REASON_CHARS],
        )
        return _Json(answer)

    async def resume(self, request: Request) -> Response:
        return _Json(await self._service.resume(request.path_params["name"], by=_who(await _body(request))))

    async def templates(self, request: Request) -> Response:
        limit = _limit(request, default=1000)
        return _Json(await self._service.templates(request.path_params["name"], limit=limit))

    async def outbox(self, request: Request) -> Response:
        query = request.query_params
        limit = _limit(request, default=100)
        if query.get("state") not in (None, *OUTBOX_STATES):
            raise HTTPException(422, f"state: write one of {', '.join(OUTBOX_STATES)}")
        rows = await self._service.outbox(state=query.get("state"), webhook=query.get("webhook"), limit=limit)
        return _Json(rows)

    async def delivery(self, request: Request) -> Response:
        view = await self._service.delivery(request.path_params["id"])
        return _Json(view if self._trusted else abridged_message(view))

    async def retry(self, request: Request) -> Response:
        who = _who(await _body(request))
        return _Json(await self._service.retry(request.path_params["id"], webhook=None, by=who))

    async def retry_all(self, request: Request) -> Response:
        body = await _body(request)
        webhook = body.get("webhook")
        if webhook is not None and not isinstance(webhook, str):
            raise HTTPException(422, "webhook: write its name, or leave it out")
        return _Json(await self._service.retry(None, webhook=webhook, by=_who(body)))

    async def drop(self, request: Request) -> Response:
        return _Json(await self._service.drop(request.path_params["id"], by=_who(await _body(request))))

    async def test_webhook(self, request: Request) -> Response:
        who = _who(await _body(request))
        return _Json(await self._service.test_webhook(request.path_params["name"], by=who))

    async def enable_webhook(self, request: Request) -> Response:
        who = _who(await _body(request))
        return _Json(await self._service.enable_webhook(request.path_params["name"], by=who))

    async def beat(self, request: Request) -> Response:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else request.query_params.get("token")
        ok, message = read_beat(await _limited(request), request.query_params.multi_items())
        answer = await self._service.beat(
            request.path_params["name"], token=token, ok=ok, message=message[:1000], trusted=self._trusted
        )
        return _Json(answer)

    async def hook(self, request: Request) -> Response:
        answer = await self._service.hook(
            request.path_params["name"],
            headers=request.headers,
            body=lambda: _limited(request, MAX_HOOK_BYTES),
            trusted=self._trusted,
        )
        return _Json(answer, 202 if answer["accepted"] else 200)

    async def reload(self, request: Request) -> Response:
        return _Json(await self._service.reload(by=_who(await _body(request))))

    async def release(self, request: Request) -> Response:
        return _Json(await self._service.release(by=_who(await _body(request))))


async def _limited(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(413, f"the body is larger than {most} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended before the body did") from None
    return bytes(body)


async def _body(request: Request) -> dict[str, Any]:
    raw = await _limited(request)
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    if not _is_text(value):
        raise HTTPException(422, "the body holds a lone surrogate, such as \\ud800; write whole characters")
    return value


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _limit(request: Request, default: int) -> int:
    try:
        return min(1000, max(1, int(request.query_params.get("limit", default))))
    except ValueError:
        raise HTTPException(422, "limit: write a whole number from 1 to 1000") from None


def _who(body: dict[str, Any]) -> str:
    """Whom the audit trail names. Only the unix socket gets here; its permissions are what is trusted."""
    return one_line(body.get("by", "socket"))[:100]


def _listed(key: str, rows: Sequence[Any]) -> Response:
    """`{key: rows}`; many are encoded some at a time, so that the loop gets its turn between."""
    if len(rows) <= _ROWS_AT_ONCE:
        return _Json({key: rows})

    async def parts() -> AsyncIterator[bytes]:
        yield f'{{"{key}":['.encode()
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            yield (b"," if begin else b"") + _encoded(rows[begin : begin + _ROWS_AT_ONCE])[1:-1]
            await asyncio.sleep(0)
        yield b"]}"

    return StreamingResponse(parts(), media_type="application/json")


def _encoded(value: Any) -> bytes:
    """JSON of a value: lone surrogates (undecodable bytes of the outside) become `?`, NaN and infinities null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return _Json(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status,
        headers=headers,
        media_type="application/problem+json",
    )


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, "Request refused", error.detail)


async def _defect(request: Request, error: Exception) -> Response:
    return _problem(500, "Internal error", "a defect in agentd; its log says more")


async def _agentd_problem(request: Request, error: Exception) -> Response:
    status, title = 500, "Internal error"
    if isinstance(error, TooMany):
        return _problem(429, "Too many requests", str(error), {"Retry-After": str(error.retry_after_s)})
    if isinstance(error, NotFound):
        status, title = 404, "Not found"
    elif isinstance(error, Forbidden):
        status, title = 403, "Forbidden"
    elif isinstance(error, Conflict):
        status, title = 409, "Conflict"
    elif isinstance(error, ConfigError):
        status, title = 422, "Configuration refused"
    elif isinstance(error, StoreError):
        status, title = 503, "Store unavailable"
    elif isinstance(error, NoSecret):
        status, title = 503, "Secret unavailable"
    return _problem(status, title, str(error))


def same_token(given: str | None, expected: str) -> bool:
    """Compare in constant time. An empty token fits nothing: it comes of an empty file."""
    return hmac.compare_digest((given or "").encode(), expected.encode(errors="surrogateescape")) and bool(expected)
