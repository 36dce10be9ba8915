"""
Serve the HTTP surface inside the daemon's own loop.

In: sockets, inherited from systemd or opened here. Out: a uvicorn server that leaves signals and logging alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from agentd.errors import ConfigError

log = logging.getLogger("agentd.api")
logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its comings and goings are not news


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The daemon handles signals; uvicorn must not."""
        yield


class ApiServer:
    """One server over all sockets."""

    def __init__(self, app: Starlette, sockets: Sequence[socket.socket]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=15,
            limit_concurrency=500,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32 * 1024,
        )
        self._server = _Server(config)
        self._sockets = list(sockets)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the first request would be answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets), name="api")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise ConfigError("the API server ended at once; see the log")
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close the listeners first, then give open requests two seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def open_socket(address: str) -> socket.socket:
    """
    Listen on `unix:/path` or `host:port`.

    A unix socket left over by a dead process is replaced; one that answers is not. Raises ConfigError.
    """
    if address.startswith("unix:"):
        return _open_unix(Path(address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, proto, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"api.listen: cannot listen on {address}: {error}; free the port or choose another"
        ) from error
    listener.setblocking(False)
    return listener


def _open_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(str(path))
                except OSError:
                    path.unlink()
                else:
                    raise ConfigError(
                        f"api.listen: {path} is served by another process; stop it or choose another path"
                    )
        previous = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"api.listen: cannot listen on {path}: {error}; choose a path that this user may write"
        ) from error
    listener.setblocking(False)
    return listener
