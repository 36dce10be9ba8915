"""
Serve the HTTP surface inside the daemon's own loop.

In: sockets, inherited from systemd or opened here. Out: a uvicorn server that leaves signals and logging alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from agentd.api.door import Door
from agentd.api.parts import Parts
from agentd.api.protocol import GuardedProtocol, Limits, Places
from agentd.errors import AgentdError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("agentd.api")
logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its comings and goings are not news


DEFAULTS = Limits()
_MOST_TCP = 1000
_MOST_LOCAL = 500
_SHARE = 3 / 5
"""Of all connections, for one address or user: enough for a proxy in front of us, and never all."""


class CannotListen(AgentdError):
    """An address of `api.listen` is taken, or not ours to take; another moment or another address may do."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.exit_asked = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon handles signals; uvicorn must not."""
        yield

    async def main_loop(self) -> None:
        """uvicorn looks ten times a second whether it is to end, and writes down the date; an idle daemon sleeps."""
        await self.exit_asked.wait()


class ApiServer:
    """One server over all sockets. limits: of its connections."""

    def __init__(self, app: ASGIApp, sockets: Sequence[socket.socket], limits: Limits = DEFAULTS) -> None:
        protocol = partial(GuardedProtocol, places=Places(limits))
        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]  # all that is done with it is to call it
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._sockets = list(sockets)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the first request would be answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets), name="api")
        self._task.add_done_callback(self._ended)
        while not self._server.started:
            if self._task.done():
                await self._task
                raise CannotListen("the API server ended at once; see the log")
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close the listeners first, then give open requests two seconds."""
        self._server.should_exit = True
        self._server.exit_asked.set()
        if self._task is not None:
            await self._task
        for connection in list(self._server.server_state.connections):
            # One that was being accepted at that very moment; uvicorn has looked past it.
            if (transport := connection.transport) is not None:
                transport.abort()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._server.should_exit and not task.cancelled():
            log.critical("api_ended", exc_info=task.exception())


class _AtFirstRequest:
    """
    The app, made on a thread when somebody asks for the first time.

    All routes, what they take and what they answer are some four MiB that a daemon nobody asks does not need.
    """

    def __init__(self, parts: Parts, door: Door, *, local: bool) -> None:
        self._make = partial(_make, parts, door, local=local)
        self._making = asyncio.Lock()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or await self._made())(scope, receive, send)

    async def _made(self) -> ASGIApp:
        async with self._making:
            if self._app is None:
                self._app = await asyncio.to_thread(self._make)
            return self._app


def _make(parts: Parts, door: Door, *, local: bool) -> ASGIApp:
    from agentd.api.app import make_app

    return make_app(parts, door, local=local)


def make_servers(parts: Parts, sockets: Sequence[socket.socket], door: Door) -> list[ApiServer]:
    """One server for the unix sockets, whose callers are known by their peers, and one for TCP."""
    local = [each for each in sockets if each.family == socket.AF_UNIX]
    tcp = [each for each in sockets if each.family != socket.AF_UNIX]
    servers = []
    if local:
        servers.append(ApiServer(_AtFirstRequest(parts, door, local=True), local, limits_for(_MOST_LOCAL, 1 / 6)))
    if tcp:
        servers.append(ApiServer(_AtFirstRequest(parts, door, local=False), tcp, limits_for(_MOST_TCP, 1 / 3)))
    return servers


def limits_for(connections: int, of_files: float) -> Limits:
    """At most so many at once, and of the files that this process may open at most that part: checks need theirs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        connections = max(1, min(connections, int(soft * of_files)))
    return Limits(connections=connections, share=max(1, int(connections * _SHARE)))


def open_socket(address: str) -> socket.socket:
    """
    Listen on `unix:/path` or `host:port`. Whoever reaches the path may connect: what they may, their credentials say.

    A unix socket left over by a dead process is replaced; one that answers is not. Raises CannotListen.
    """
    with contextlib.ExitStack() as stack:
        if address.startswith("unix:"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            _bind_unix(listener, Path(address.removeprefix("unix:")))
        else:
            host, _, port = address.rpartition(":")
            try:
                family, kind, proto, _, where = socket.getaddrinfo(
                    host.strip("[]"), int(port), type=socket.SOCK_STREAM
                )[0]
                listener = stack.enter_context(socket.socket(family, kind, proto))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
            except (OSError, ValueError) as error:
                raise CannotListen(
                    f"api.listen: cannot listen on {address}: {error}; free the port or choose another"
                ) from error
        listener.listen(128)
        listener.setblocking(False)
        stack.pop_all()
    return listener


def _bind_unix(listener: socket.socket, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            if _is_served(path):
                raise CannotListen(f"api.listen: {path} is served by another process; stop it or choose another path")
            path.unlink()
        previous = os.umask(0o111)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
    except OSError as error:
        raise CannotListen(
            f"api.listen: cannot listen on {path}: {error}; choose a path that this user may write"
        ) from error


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One that is too busy to take a connection is alive all the same.
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
