"""
A program whose output is read as it comes.

In: argv. Out: bytes of its standard output, the last line of its standard error, its exit status.
Promise: no call here blocks, not even the start from a dead disk: that waits on a thread of its own. The program
leads a process group, and nothing of it is left after `end`; what leaves the group by a session of its own escapes.
What nobody reads stays in the pipe, and the program waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READ_BYTES = 64 * 1024
_STDERR_BYTES = 4096
_MOST_STDERR_READS = 4
_REAP_S = 0.05
_MOST_STUCK = 16

# Killed, but held by the kernel (a dead disk): to be reaped when it lets go.
_stuck: list[subprocess.Popen[bytes]] = []


class Child:
    """
    One run of the program, from its start on.

    trouble: why it could not be started, for people; known once `started` says so.
    """

    def __init__(self, argv: tuple[str, ...]) -> None:
        self.trouble: str | None = None
        self.at_end = False
        """Of its output."""
        self.returncode: int | None = None
        """Exit status, or minus the signal's number; None while it runs."""
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        self._stderr_at_end = False
        self._stderr = b""
        self._lock = threading.Lock()
        self._ended = False
        self._tried = threading.Event()
        _stuck[:] = [process for process in _stuck if process.poll() is None]
        if len(_stuck) >= _MOST_STUCK:
            self.trouble = f"{len(_stuck)} earlier programs are killed but stuck in the kernel; look for a dead disk"
            self._tried.set()
            return
        try:
            threading.Thread(target=self._start, name="start-command", daemon=True).start()
        except RuntimeError as error:
            self.trouble = f"cannot run {argv[0]}: {error}"
            self._tried.set()

    def _start(self) -> None:
        try:
            environment = {"PATH": os.environ.get("PATH") or _DEFAULT_PATH, "LANG": os.environ.get("LANG") or "C.UTF-8"}
            program = self._argv[0]
            if "/" not in program and shutil.which(program, path=environment["PATH"]) is None:
                self.trouble = f"cannot run {program}: not found in PATH; write its full path"
                return
            process = subprocess.Popen(
                self._argv,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
            with self._lock:
                self._process = process
                if self._ended:  # while it was on its way
                    self._put_away()
                    return
                for pipe in (process.stdout, process.stderr):
                    assert pipe is not None
                    os.set_blocking(pipe.fileno(), False)
                # A kernel before 5.3, or a sandbox without the call: then its end is seen at the next look.
                with contextlib.suppress(OSError):
                    self._pidfd = os.pidfd_open(process.pid)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.trouble = f"cannot run {self._argv[0]}: {what}"
        finally:
            self._tried.set()

    def started(self, wait_s: float) -> bool:
        """Whether it runs, or has failed to; waits for that up to `wait_s` seconds."""
        return self._tried.wait(wait_s)

    def bells(self) -> list[int]:
        """Descriptors that become readable when there is something to do. Only once started."""
        found = []
        if self._process is not None and not self._ended:
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            if not self.at_end:
                found.append(self._process.stdout.fileno())
            if not self._stderr_at_end:
                found.append(self._process.stderr.fileno())
            if self._pidfd is not None and self.returncode is None:
                found.append(self._pidfd)
        return found

    @property
    def rings_at_end(self) -> bool:
        """Whether one of the bells rings when it ends."""
        return self._pidfd is not None

    def take(self, most_bytes: int) -> bytes:
        """What stands in its output, up to so many bytes; fewer when there is no more for now."""
        process = self._process
        if process is None or self._ended or self.at_end:
            return b""
        assert process.stdout is not None
        taken = bytearray()
        while len(taken) < most_bytes:
            try:
                data = os.read(process.stdout.fileno(), min(_READ_BYTES, most_bytes - len(taken)))
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.at_end = True
                break
            taken += data
        return bytes(taken)

    def look(self) -> None:
        """See whether it has ended, and what it complained of."""
        process = self._process
        if process is None or self._ended:
            return
        if self.returncode is None:
            # WNOWAIT: it stays a zombie, so its number still names its group when we kill what is left of that.
            seen = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if seen is not None:
                self.returncode = seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status
                self.signal(signal.SIGKILL)
        assert process.stderr is not None
        for _ in range(_MOST_STDERR_READS):
            if self._stderr_at_end:
                break
            try:
                data = os.read(process.stderr.fileno(), _READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._stderr_at_end = not data
            self._stderr = (self._stderr + data)[-_STDERR_BYTES:]

    def complaint(self) -> str:
        """The last line of its standard error that is not empty; "" when there is none."""
        lines = [line for line in self._stderr.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:500] if lines else ""

    def signal(self, number: signal.Signals) -> None:
        """To all of its group."""
        # Members may have taken other rights (sudo): whom we may not kill is left to its own end.
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def end(self) -> None:
        """Kill what is left of the group and let go of everything. Twice is once."""
        with self._lock:
            if self._process is not None and not self._ended:
                self._put_away()
            self._ended = True

    def _put_away(self) -> None:
        process = self._process
        assert process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        try:
            process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            _stuck.append(process)
