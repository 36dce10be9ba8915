"""
The gate before all routes: finds out who calls.

In: the unix socket's peer; over TCP a key, a session's cookie, or neither. Out: `scope["agentd.caller"]`, and
`scope["agentd.still"]`, for answers that go on for hours.
Promise: a key that is wrong is told so and is not taken for no key. Over TCP nobody is believed for where it comes
from: who shows nothing may read at most, on loopback, under a name of ours (a page elsewhere could name us by its own
DNS), and not through a proxy, behind which everybody on the internet comes over loopback, unless the configuration
names what the proxy calls us.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentd.api.answers import problem, problem_of
from agentd.api.caller import NOBODY, Caller
from agentd.api.door import Door
from agentd.api.sessions import cookies_in
from agentd.errors import AgentdError

CALLER = "agentd.caller"
STILL = "agentd.still"
"""In the scope: `async () -> bool`, whether the caller is now who it was: not revoked, logged out, expired."""
ORIGIN = "agentd.origin"
"""
In the scope: of what page a browser says that the request comes. own: of ours, or no browser says anything. named: of
one that `api.cors` names. foreign: of any other.
"""
MISDIRECTED = "agentd.misdirected"
"""In the scope: under which foreign name the caller came, if that is why it may not read."""
_OF_PROXIES = (b"forwarded", b"x-forwarded", b"x-real-ip", b"x-client-ip", b"x-original-", b"via", b"cdn-loop", b"cf-")
"""
What headers begin with that proxies add: RFC 7239, RFC 8586, RFC 9110 section 7.6.3, and what nginx, Caddy, Traefik,
HAProxy and Cloudflare write.
"""
_OF_ORIGIN = frozenset({b"host", b"origin", b"sec-fetch-site"})
_PORTS = (("http://", ":80"), ("https://", ":443"))
_LEAST_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class Gate:
    """local: of the unix sockets. Which of the two a request came by is known by the app that it reached."""

    def __init__(self, app: ASGIApp, door: Door, *, local: bool) -> None:
        self._app = app
        self._door = door
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = None
        scope[ORIGIN] = _origin(scope["headers"], self._door)
        try:
            caller = await self._caller(scope)
        except AgentdError as error:
            answer = problem_of(error)
        else:
            if caller is None:
                answer = problem(401, "the key is not one of this daemon's", {"WWW-Authenticate": "Bearer"})
            else:
                scope[CALLER] = caller
                scope[STILL] = partial(self._is_still, scope, caller)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in _LEAST_HEADERS if header[0] not in present),
                ]
            await send(message)

        await (answer or self._app)(scope, receive, guarded)

    async def _is_still(self, scope: Scope, caller: Caller) -> bool:
        try:
            return await self._caller(scope, again=True) == caller
        except AgentdError:
            return False

    async def _caller(self, scope: Scope, *, again: bool = False) -> Caller | None:
        """None: a key that is none of ours. again: it is no new call. Raises TooMany."""
        if self._local:
            return await self._door.by_peer(scope.get("agentd.peer"))
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        shown = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        # A heartbeat or a hook brings a secret of its own in the same place.
        if shown and not _has_own_secret(scope["path"]):
            scheme, _, token = shown[0].partition(" ")
            return (
                await self._door.by_key(token.strip(), again=again)
                if len(shown) == 1 and scheme.lower() == "bearer"
                else None
            )
        for cookie in cookies_in(headers):
            if (caller := await self._door.by_cookie(cookie, again=again)) is not None:
                return caller
        return self._unknown(scope, headers)

    def _unknown(self, scope: Scope, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        if not (_is_loopback(scope.get("server")) and _is_loopback(scope.get("client"))):
            return NOBODY
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        name = _name_of(hosts[0]) if len(hosts) == 1 else ""
        proxied = any(header.startswith(_OF_PROXIES) for header, _ in headers)
        if name in (self._door.trusted if proxied else self._door.hosts):
            return Caller("nobody", None, "nobody", near=True)
        if name not in self._door.known_as and not proxied:
            scope[MISDIRECTED] = name[:100]
        return NOBODY


class Crossing:
    """Lets pages of other origins call, if the configuration names them: never with the cookie."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door
        self._origins: tuple[str, ...] = ()
        self._with_cors = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._door.origins != self._origins:
            self._origins = self._door.origins
            self._with_cors = CORSMiddleware(
                self._app,
                allow_origins=self._origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
                expose_headers=["Retry-After"],
            )
        await (self._with_cors if self._origins else self._app)(scope, receive, send)


def _origin(headers: Iterable[tuple[bytes, bytes]], door: Door) -> Literal["own", "named", "foreign"]:
    """
    By Fetch Metadata (W3C), which browsers send themselves, and the Origin header (RFC 6454), for those that do not.

    A proxy may speak TLS for us, so of an origin the scheme is known only where `public_url` says it.
    """
    said = {name: value.decode("latin-1") for name, value in headers if name in _OF_ORIGIN}
    origin, site = said.get(b"origin"), said.get(b"sec-fetch-site", "none")
    if origin is not None and origin in door.origins:
        return "named"
    if site not in ("same-origin", "none"):
        return "foreign"
    if origin is None:
        return "own"
    host = said.get(b"host", "")
    own = {scheme + host for scheme in ("http://", "https://")} | {
        scheme + host.removesuffix(port) for scheme, port in _PORTS if host.endswith(port)
    }
    if door.public_origin is not None and door.public_origin in own:
        own = {door.public_origin}
    return "own" if host and origin.lower() in {each.lower() for each in own} else "foreign"


def _has_own_secret(path: str) -> bool:
    return path.startswith(("/api/v1/heartbeat/", "/api/v1/hooks/"))


def _name_of(host: str) -> str:
    """A Host header without its port."""
    return host[1:].split("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host


def _is_loopback(address: Any) -> bool:
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except (TypeError, ValueError, IndexError):
        return False
