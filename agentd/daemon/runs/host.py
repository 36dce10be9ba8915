"""
The agent host as the daemon sees it: something to connect to, that is there when it is needed.

In: calls of `connect`. Out: a `Wire` each. Under systemd the host is a unit of its own, started by the first
connection; elsewhere it is a child, started here in the same way: the daemon holds the listening socket.
Promise: what `connect` returns is a host that is there and has begun nothing; one that dies before it says so is asked
again, for the socket may have waited for one that was just ending. A child never outlives the daemon, by its end or
by kill -9, and is killed with all that it started.
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agentd import __version__
from agentd.agent.caller import HostDied
from agentd.agent.kin import MARK, family_of, kill_marked, new_mark
from agentd.agent.wire import FROM_HOST, BrokenWire, Wire
from agentd.config.models import Config
from agentd.daemon.runs.environment import host_environment
from agentd.errors import AgentdError

log = logging.getLogger("agentd.daemon")

SOCKET_VARIABLE = "AGENTD_AGENT_SOCKET"
"""Where the daemon's environment names the socket of a host that somebody else starts."""
_OURS = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
SOCKET_UNIT = "agentd-agent.socket"
HOST_UNIT = "agentd-agent.service"
_CONNECT_S = 10.0
# It may have to end what it does before the next one is there.
_HELLO_S = 300.0
_PAUSES_S = (0.2, 1.0)
_BACKLOG = 128
_LIVED_S = 5.0


class NoHost(AgentdError):
    """No agent host is to be had; the message says how to mend it. Nothing was begun."""


class AgentHost:
    """
    given: path of a listening socket that systemd holds; None: a child of this process, listening in `folder`.

    environment: gives what a child gets, where it finds its models' keys; when that has changed, the next run begins in
    a fresh one, unless another is under way in the old. options: further words of its command line.
    """

    def __init__(
        self,
        folder: Path,
        environment: Callable[[], Mapping[str, str]],
        *,
        given: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self._path = given or folder / "agent.sock"
        self._is_child = given is None
        self._environment = environment
        self._handed: dict[str, str] = {}
        self._options = options
        self._family = family_of(folder)
        self._mark = ""
        self._listening: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._waiting = 0
        self._serving = 0
        self._retiring = False
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def connect(self) -> Wire:
        """A fresh connection to a host that runs, to be told of by `done`. Raises NoHost; HostDied while stopping."""
        self._waiting += 1
        try:
            for pause_s in (*_PAUSES_S, None):
                try:
                    wire = await self._connect_once()
                    self._serving += 1
                    return wire
                except NoHost as error:
                    if pause_s is None:
                        log.error("agent_host_missing", extra={"socket": str(self._path), "error": str(error)})
                        raise
                await asyncio.sleep(pause_s)
            raise AssertionError
        except BaseException:
            self._waiting -= 1
            raise

    async def _connect_once(self) -> Wire:
        if self._closed:
            raise HostDied("the daemon is stopping")
        try:
            if self._is_child:
                async with self._starting:
                    await self._have_child()
            with _short(self._path) as address:
                async with asyncio.timeout(_CONNECT_S):
                    wire = Wire(*await asyncio.open_unix_connection(address))
        except (OSError, TimeoutError) as error:
            raise NoHost(self._why_unreached(error)) from error
        try:
            async with asyncio.timeout(_HELLO_S):
                hello = await wire.read(FROM_HOST)
        except TimeoutError:
            wire.close()
            raise NoHost(f"the agent host says nothing for {_HELLO_S:g} s; {self._where_to_look}") from None
        except BrokenWire as error:
            wire.close()
            raise NoHost(f"the agent host does not speak as it should: {error}; {self._where_to_look}") from error
        except BaseException:
            wire.close()
            raise
        if hello is None:
            wire.close()
            raise NoHost(f"the agent host ends before it takes a run; {self._where_to_look}")
        if hello.get("version") != __version__:
            # Of an upgrade: what each of the two means by a job may have changed.
            wire.close()
            other = str(hello.get("version"))[:40]
            raise NoHost(f"the agent host is agentd {other}, and this {__version__}; restart both, agentd first")
        return wire

    def _why_unreached(self, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        if self._is_child:
            return f"the agent host cannot be started: {reason}"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return f"nobody listens at {self._path} for agents to be run; `systemctl enable --now {SOCKET_UNIT}`"
        return f"the agent host cannot be reached at {self._path}: {reason}; `systemctl status {SOCKET_UNIT}` says more"

    @property
    def _where_to_look(self) -> str:
        return "the log says more" if self._is_child else f"`journalctl -u {HOST_UNIT}` says why"

    def done(self) -> None:
        """A run that `connect` was called for is over."""
        self._waiting -= 1
        self._serving -= 1

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
            self._hang_up()
            self._path.unlink(missing_ok=True)
        if self._lifeline is not None:
            for fd in self._lifeline:
                os.close(fd)
            self._lifeline = None

    async def _have_child(self) -> None:
        if self.pid is not None and not self._serving and self._handed != self._wanted():
            log.info("agent_host_outdated", extra={"host_pid": self.pid})
            self._retiring = True
            try:
                await self.kill()
                if self._watching is not None:
                    await asyncio.wait([self._watching])
            finally:
                self._retiring = False
        if self._listening is None:
            self._listening = _listen(self._path)
        if self._lifeline is None:
            self._lifeline = os.pipe()
        if self.pid is None and (self._watching is None or self._watching.done()):
            self._watching = asyncio.create_task(self._keep(await self._start()), name="agent-host")

    async def _start(self) -> asyncio.subprocess.Process:
        assert self._listening is not None
        assert self._lifeline is not None
        fd, lifeline = self._listening.fileno(), self._lifeline[0]
        self._mark = new_mark(self._family)
        command = [sys.executable, "-m", "agentd.agent.host", "--fd", str(fd), "--lifeline", str(lifeline)]
        self._handed = self._wanted()
        child = self._child = await asyncio.create_subprocess_exec(
            *command,
            *self._options,
            env={**self._handed, MARK: self._mark},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(fd, lifeline),
            start_new_session=True,
        )
        log.info("agent_host_started", extra={"host_pid": child.pid})
        return child

    def _wanted(self) -> dict[str, str]:
        return {key: value for key, value in self._environment().items() if key not in _OURS}

    async def _keep(self, child: asyncio.subprocess.Process) -> None:
        """
        A host may end at the very moment at which somebody connects: whoever waits gets the next one. Of one that did
        not live for long whoever waits is told.
        """
        while True:
            began = time.monotonic()
            code = await child.wait()
            log.info("agent_host_ended", extra={"host_pid": child.pid, "exit_code": code})
            # However it ended: its commands have sessions of their own, and live on without it.
            await asyncio.to_thread(kill_marked, self._mark)
            if not self._waiting or self._closed or self._retiring:
                return
            if time.monotonic() - began < _LIVED_S:
                self._hang_up()
                return
            try:
                child = await self._start()
            except OSError as error:
                log.error("agent_host_not_started", extra={"error": str(error)})
                self._hang_up()
                return

    def _hang_up(self) -> None:
        """Whoever waits to be served is cut off; the next `connect` begins anew."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None


def open_host(state_dir: Path, environment: Mapping[str, str], config: Callable[[], Config]) -> AgentHost:
    """The host of this installation: the one that systemd holds a socket for, else a child. config: as it is now."""
    given = environment.get(SOCKET_VARIABLE)
    return AgentHost(state_dir, lambda: host_environment(environment, config()), given=Path(given) if given else None)


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
