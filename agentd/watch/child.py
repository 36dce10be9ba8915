"""
A bounded child process: run a program, keep some of its output, and leave nothing of it behind.

In: argv, a complete environment, limits and a time. Out: an `Ended`, or `CannotStart` when it never ran.
Promise: the child leads a session of its own, and when the look ends, by its exit, its time or a cancelled task,
everything in its process group is dead. Its output never fills our memory, nor more than a little of our time.

What leaves the group by a session of its own escapes; only a control group could hold that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from agentd.errors import AgentdError
from agentd.watch.threads import DaemonThreads

TERM_GRACE_S = 2.0
_KILL_WAIT_S = 1.0
_KILL_NOW_S = 0.02
_POLL_S = 0.02
_MAX_STUCK = 16
_READ_BYTES = 65536
# Once the cap is reached, one pipe's worth is thrown away per pause: a child that writes without end then
# waits for us, instead of keeping our loop busy until its time is up.
_DISCARD_PAUSE_S = 0.005

# Starting waits until the child has called exec, which may hang on a dead network file system; not in our loop.
_starters = DaemonThreads(4, "start-child")

# Killed, but held by the kernel (a dead disk): to be reaped when it lets go.
_stuck: list[subprocess.Popen[bytes]] = []


class CannotStart(AgentdError):
    """The program could not be run here; nothing is known of what it would have looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """memory_bytes: of address space. cpu_s: seconds of CPU, at least 1. open_files: descriptors. None: as ours."""

    memory_bytes: int | None = None
    cpu_s: int | None = None
    open_files: int | None = None

    def launcher(self) -> list[str]:
        """
        The words before argv that set the limits.

        Set by `prlimit` of util-linux in the child itself: a function between fork and exec is not safe beside our
        threads, setting them from outside is late by a moment in which the child may have forked, and an
        interpreter of our own as launcher costs 15 ms a check. Raises CannotStart where there is no prlimit.
        """
        flags = [
            f"--{name}={value}"
            for name, value in (("as", self.memory_bytes), ("cpu", self.cpu_s), ("nofile", self.open_files))
            if value is not None
        ]
        if not flags:
            return []
        prlimit = shutil.which("prlimit")
        if prlimit is None:
            raise CannotStart("limits need the program prlimit, which is not installed; it is part of util-linux")
        return [prlimit, "--core=0", *flags, "--"]


@dataclass(frozen=True, slots=True)
class Ended:
    """
    How a child ended.

    returncode: its exit status, or minus the signal's number. timed_out: its time was up, and it was killed.
    discarded_bytes: output beyond the cap. duration_s: from its start to its exit.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    discarded_bytes: int
    duration_s: float
    timed_out: bool = False


async def run_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: str | None = None,
    stdin: bytes = b"",
    max_output: int = _READ_BYTES,
    limits: Limits | None = None,
) -> Ended:
    """
    Run a program to its end, or kill its whole group after `timeout_s` seconds (SIGTERM, two seconds later SIGKILL).

    env: all that the child gets. max_output: bytes kept of each of stdout and stderr. Raises CannotStart.
    """
    started = time.monotonic()
    child = await _start(argv, env, cwd, stdin, limits or Limits(), timeout_s)
    running = _Running(child, max_output)
    try:
        timed_out = not await running.exits_within(max(0.0, timeout_s - (time.monotonic() - started)))
        if timed_out:
            running.signal(signal.SIGTERM)
            await running.exits_within(TERM_GRACE_S)
        duration_s = time.monotonic() - started
    finally:
        returncode = await running.end()
    outputs = running.outputs
    ended = Ended(
        returncode=returncode,
        stdout=bytes(outputs[0].kept),
        stderr=bytes(outputs[1].kept),
        discarded_bytes=outputs[0].discarded + outputs[1].discarded,
        duration_s=duration_s,
        timed_out=timed_out,
    )
    if limits is not None and ended.stderr.startswith(b"prlimit: failed to "):
        raise CannotStart(ended.stderr.decode(errors="replace").split("\n")[0])
    return ended


async def _start(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    stdin: bytes,
    limits: Limits,
    timeout_s: float,
) -> subprocess.Popen[bytes]:
    _stuck[:] = [child for child in _stuck if child.poll() is None]
    if len(_stuck) >= _MAX_STUCK:
        raise CannotStart(f"{len(_stuck)} earlier programs are killed but stuck in the kernel; look for a dead disk")
    start = _Start(argv, env, cwd, stdin, limits)
    starting = asyncio.get_running_loop().run_in_executor(_starters, start.run)
    try:
        async with asyncio.timeout(timeout_s):
            return await starting
    except TimeoutError:
        raise CannotStart(f"{argv[0]} could not be started within {timeout_s:g} s; is its disk dead?") from None
    except OSError as error:
        what = cwd if cwd is not None and error.filename == cwd else argv[0]
        raise CannotStart(f"cannot run {what}: {error.strerror}") from error
    except (ValueError, subprocess.SubprocessError) as error:
        raise CannotStart(f"cannot run {argv[0]}: {error}") from error
    finally:
        if not starting.done() or starting.cancelled():
            start.abandon()


class _Start:
    """Starting, in a thread, a child that nobody may be waiting for any more once it is there."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, stdin: bytes, limits: Limits
    ) -> None:
        self._argv = argv
        self._env = dict(env)
        self._cwd = cwd
        self._stdin = stdin
        self._limits = limits
        self._lock = threading.Lock()
        self._abandoned = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> subprocess.Popen[bytes]:
        program = _found(self._argv[0], self._env.get("PATH", os.defpath), self._cwd)
        command = [*self._limits.launcher(), program, *self._argv[1:]]
        with _source(self._stdin) as source:
            child = subprocess.Popen(
                command,
                env=self._env,
                cwd=self._cwd,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        with self._lock:
            self._child = child
            if self._abandoned:
                _put_away(child)
        return child

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._child is not None:
                _put_away(self._child)


def _found(program: str, path: str, cwd: str | None) -> str:
    # Found here and not by exec, so that a missing program is told from one that exits with 127 under a launcher.
    if "/" in program:
        where = os.path.join(cwd or ".", program)
        try:
            found_mode = os.stat(where).st_mode
        except PermissionError:
            raise CannotStart(
                f"cannot run {program}: permission denied; a folder on its path is closed to us"
            ) from None
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "there is no such file" if missing else f"{error.strerror}"
            raise CannotStart(f"cannot run {program}: {why}") from None
        if stat.S_ISDIR(found_mode) or not os.access(where, os.X_OK):
            raise CannotStart(f"cannot run {program}: it is not executable for us")
        return program
    found = shutil.which(program, path=path)
    if found is None:
        raise CannotStart(f"cannot run {program}: not found in PATH; write its full path")
    return found


def _source(stdin: bytes) -> IO[bytes]:
    # A file and not a pipe, so that nobody has to feed it while the child runs; in memory, for it may be secret.
    if not stdin:
        return open(os.devnull, "rb")
    source = os.fdopen(os.memfd_create("stdin"), "w+b")
    source.write(stdin)
    source.seek(0)
    return source


def _put_away(child: subprocess.Popen[bytes]) -> None:
    """Kill and reap it, or remember to reap it once the kernel lets it go."""
    _kill_group(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(_KILL_NOW_S)
    except subprocess.TimeoutExpired:
        _stuck.append(child)


def _kill_group(pid: int, number: signal.Signals) -> None:
    # Members may have taken other rights (sudo): whom we may not kill is left to its own end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


class _Output:
    """One pipe of the child: keeps the head, counts the rest."""

    def __init__(self, fd: int, max_bytes: int) -> None:
        os.set_blocking(fd, False)
        self.kept = bytearray()
        self.discarded = 0
        self._fd = fd
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        if not self._read():
            self._loop.remove_reader(self._fd)
        elif self.discarded:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(_DISCARD_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> bool:
        """Whether there may be more later."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        room = self._max_bytes - len(self.kept)
        self.kept += data[:room]
        self.discarded += max(0, len(data) - room)
        return bool(data)

    def close(self) -> None:
        """Take what is still in the pipe, at most what a pipe holds, and stop."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        for _ in range(2):
            if not self._read():
                break


class _Running:
    def __init__(self, child: subprocess.Popen[bytes], max_output: int) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._poll: asyncio.TimerHandle | None = None
        self.outputs = [_Output(pipe.fileno(), max_output) for pipe in (child.stdout, child.stderr)]
        try:
            self._pidfd: int | None = os.pidfd_open(child.pid)
            self._loop.add_reader(self._pidfd, self._on_exit)
        except OSError:  # a kernel before 5.3, or a sandbox without the call
            self._pidfd = None
            self._look_for_exit()

    def _on_exit(self) -> None:
        assert self._pidfd is not None
        self._loop.remove_reader(self._pidfd)
        self._exited.set()

    def _look_for_exit(self) -> None:
        # WNOWAIT: it stays a zombie, so its number still names its group when we kill what is left of that.
        if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            self._exited.set()
        else:
            self._poll = self._loop.call_later(_POLL_S, self._look_for_exit)

    async def exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return self._exited.is_set()
        return True

    def signal(self, number: signal.Signals) -> None:
        _kill_group(self._child.pid, number)

    async def end(self) -> int:
        """Kill what is left of the group, reap the leader, let go of everything. Its returncode."""
        # Before the leader is reaped: afterwards its number may belong to somebody else.
        self.signal(signal.SIGKILL)
        try:
            await self.exits_within(_KILL_WAIT_S)
        finally:
            self._close()
        if not self._exited.is_set():
            return -signal.SIGKILL
        return self._child.wait()

    def _close(self) -> None:
        for output in self.outputs:
            output.close()
        for pipe in (self._child.stdout, self._child.stderr):
            assert pipe is not None
            pipe.close()
        if self._poll is not None:
            self._poll.cancel()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        if not self._exited.is_set():
            _stuck.append(self._child)
