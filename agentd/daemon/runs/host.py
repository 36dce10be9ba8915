"""
The agent host as the daemon sees it: something to connect to, that is there when it is needed.

In: calls of `connect`. Out: a `Wire` each. Under systemd the host is a unit of its own, started by the first
connection; elsewhere it is a child, started here in the same way: the daemon holds the listening socket.
Promise: a child never outlives the daemon, by its end or by kill -9, and is killed with all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentd.agent.caller import HostDied
from agentd.agent.kin import MARK, family_of, kill_marked, new_mark
from agentd.agent.wire import Wire

log = logging.getLogger("agentd.daemon")

SOCKET_VARIABLE = "AGENTD_AGENT_SOCKET"
"""Where the daemon's environment names the socket of a host that somebody else starts."""
_OURS = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
_CONNECT_S = 10.0
_BACKLOG = 128
_LIVED_S = 5.0
_PAUSE_S = 1.0


class AgentHost:
    """
    given: path of a listening socket that systemd holds; None: a child of this process, listening in `folder`.

    environment: what the child gets, where it finds its models' keys. options: further words of its command line.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        given: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self._path = given or folder / "agent.sock"
        self._is_child = given is None
        self._environment = {key: value for key, value in environment.items() if key not in _OURS}
        self._options = options
        self._family = family_of(folder)
        self._mark = ""
        self._listening: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._waiting = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def connect(self) -> Wire:
        """A fresh connection to a host that runs. Raises HostDied."""
        if self._closed:
            raise HostDied("the daemon is stopping")
        try:
            if self._is_child:
                await self._have_child()
            with _short(self._path) as address:
                async with asyncio.timeout(_CONNECT_S):
                    streams = await asyncio.open_unix_connection(address)
        except (OSError, TimeoutError) as error:
            raise HostDied(f"the agent host cannot be reached at {self._path}: {error or 'no answer'}") from error
        self._waiting += 1
        return Wire(*streams)

    def done(self) -> None:
        """A run that `connect` was called for is over."""
        self._waiting -= 1

    async def kill(self) -> None:
        """End the child with all that it started; runs in it are over. The next `connect` starts another."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        await asyncio.to_thread(_kill_tree, child.pid)
        await child.wait()
        await asyncio.to_thread(kill_marked, self._mark)

    async def clear_up(self) -> None:
        """At start, when the last daemon was interrupted: end what its host may have left behind."""
        if self._is_child and (found := await asyncio.to_thread(kill_marked, self._family)):
            log.warning("agent_processes_killed", extra={"count": found})

    async def close(self) -> None:
        """End it for good. Twice is once."""
        self._closed = True
        await self.kill()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._listening is not None:
            self._listening.close()
            self._path.unlink(missing_ok=True)
            self._listening = None
        if self._lifeline is not None:
            for fd in self._lifeline:
                os.close(fd)
            self._lifeline = None

    async def _have_child(self) -> None:
        if self._listening is None:
            self._listening = _listen(self._path)
            self._lifeline = os.pipe()
        if self.pid is None and (self._watching is None or self._watching.done()):
            self._watching = asyncio.create_task(self._keep(await self._start()), name="agent-host")

    async def _start(self) -> asyncio.subprocess.Process:
        assert self._listening is not None
        assert self._lifeline is not None
        fd, lifeline = self._listening.fileno(), self._lifeline[0]
        self._mark = new_mark(self._family)
        command = [sys.executable, "-m", "agentd.agent.host", "--fd", str(fd), "--lifeline", str(lifeline)]
        child = self._child = await asyncio.create_subprocess_exec(
            *command,
            *self._options,
            env={**self._environment, MARK: self._mark},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(fd, lifeline),
            start_new_session=True,
        )
        log.info("agent_host_started", extra={"host_pid": child.pid})
        return child

    async def _keep(self, child: asyncio.subprocess.Process) -> None:
        """A host may end at the very moment at which somebody connects: whoever waits gets the next one."""
        while True:
            began = time.monotonic()
            code = await child.wait()
            log.info("agent_host_ended", extra={"host_pid": child.pid, "exit_code": code})
            # However it ended: its commands have sessions of their own, and live on without it.
            await asyncio.to_thread(kill_marked, self._mark)
            if not self._waiting or self._closed:
                return
            if time.monotonic() - began < _LIVED_S:
                await asyncio.sleep(_PAUSE_S)
            child = await self._start()


def open_host(state_dir: Path, environment: Mapping[str, str]) -> AgentHost:
    """The host of this installation: the one that systemd holds a socket for, else a child."""
    given = environment.get(SOCKET_VARIABLE)
    return AgentHost(state_dir, environment, given=Path(given) if given else None)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.fchmod(listening.fileno(), 0o600)  # what bind makes has no other rights at any moment
    with _short(path) as address:
        listening.bind(address)
    listening.listen(_BACKLOG)
    return listening


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The same path in few characters: the kernel takes 107 (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _kill_tree(pid: int) -> None:
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        children = []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
