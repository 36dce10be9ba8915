"""
From endpoints to routes: who calls is checked, then what comes, then the handler works.

In: `Endpoint`s. Out: one Starlette route a path, which knows all its methods.
Promise: no handler runs for a caller who may not, or on input that is not as declared.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentd.api.answers import status_of
from agentd.api.bodies import read_body, read_form, read_query
from agentd.api.caller import NOBODY, Caller
from agentd.api.endpoint import Call, Endpoint
from agentd.api.gate import CALLER, MISDIRECTED, ORIGIN
from agentd.api.silence import one_line
from agentd.errors import AgentdError

_SAFE = frozenset({"GET", "HEAD"})
_WHO_CHARS = 100


class RequestMeter(Protocol):
    def request_begun(self) -> None: ...

    def request_done(self, route: str, method: str, status: int, duration_s: float) -> None:
        """route: the path's template."""
        ...


def routes_of(endpoints: Iterable[Endpoint], meter: RequestMeter | None = None) -> list[Route]:
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        methods = by_path.setdefault(endpoint.path, {})
        assert endpoint.method not in methods, f"{endpoint.method} {endpoint.path} twice"
        methods[endpoint.method] = endpoint
    return [_route(path, methods, meter) for path, methods in by_path.items()]


def _route(path: str, methods: dict[str, Endpoint], meter: RequestMeter | None) -> Route:
    if "GET" in methods:
        methods.setdefault("HEAD", methods["GET"])

    async def serve(request: Request) -> Response:
        return await _serve(methods[request.method], request)

    async def measured(request: Request) -> Response:
        assert meter is not None
        began_s, status = time.perf_counter(), 500
        meter.request_begun()
        try:
            response = await serve(request)
            status = response.status_code
            return response
        except (HTTPException, AgentdError) as error:
            status = status_of(error)
            raise
        finally:
            meter.request_done(path, request.method, status, time.perf_counter() - began_s)

    return Route(path, serve if meter is None else measured, methods=list(methods))


async def _serve(endpoint: Endpoint, request: Request) -> Response:
    caller: Caller = request.scope.get(CALLER) or NOBODY
    if not caller.may(endpoint.access):
        raise _refusal(endpoint, caller, request)
    changing = request.method not in _SAFE
    if changing and endpoint.access != "own":
        _check_origin(endpoint, caller, request)
    query = read_query(request, endpoint.params, any_query=endpoint.any_query)
    asked: Any = None
    if endpoint.form is not None:
        asked, token = await read_form(request, endpoint.form)
        _check_csrf(caller, token)
    else:
        if changing and caller.via == "session":
            _check_csrf(caller, request.headers.get("x-csrf-token", ""))
        if endpoint.body is not None:
            asked = await read_body(request, endpoint.body, endpoint.most_bytes)
    by = _who(caller, getattr(asked, "by", None))
    return await endpoint.handle(Call(request, caller, request.path_params, query, asked, by))


def _refusal(endpoint: Endpoint, caller: Caller, request: Request) -> HTTPException:
    if caller.via == "socket" and not caller.known:
        may = "may only look on" if caller.near else "may not speak to this daemon"
        return HTTPException(403, f"{caller.name} {may}; api.socket_access must name this user for more, or use sudo")
    if caller.known:
        may = f"{caller.name} may {caller.scope}"
        cure = "api.socket_access gives more" if caller.via == "socket" else "a key of that scope is needed"
        return HTTPException(403, f"{may}, this asks for {endpoint.access}; {cure}")
    if (name := request.scope.get(MISDIRECTED)) is not None:
        return HTTPException(421, f"this daemon does not answer to the name {name!r}; api.hosts adds names")
    cure = "show a key: `Authorization: Bearer …` (made by `agentd key new`), or use the command line on the machine"
    return HTTPException(401, f"this is not for everybody; {cure}", {"WWW-Authenticate": "Bearer"})


def _check_origin(endpoint: Endpoint, caller: Caller, request: Request) -> None:
    """
    A page elsewhere may make a browser send what needs no key, and that is work too. Pages that `api.cors` names come
    with a key of their own; they have no forms and no sessions.
    """
    origin = request.scope.get(ORIGIN, "own")
    with_key_only = endpoint.form is None and caller.via != "session"
    if origin == "foreign" or (origin == "named" and not with_key_only):
        cure = "; `api.cors.allowed_origins` names those that may call" if with_key_only else ""
        raise HTTPException(403, f"this came from a page of another origin{cure}")


def _check_csrf(caller: Caller, token: str) -> None:
    if caller.via == "session" and not secrets.compare_digest(token.encode(), caller.csrf.encode()):
        raise HTTPException(403, "the form is of another session; load the page anew")


def _who(caller: Caller, said: str | None) -> str:
    """Whom the audit trail names. Who may do everything here may speak for others: sudo does, and the CLI says so."""
    if caller.via == "socket":
        return one_line(said)[:_WHO_CHARS] if said and caller.scope == "admin" else caller.name
    return f"key {caller.name}" if caller.known else caller.name
