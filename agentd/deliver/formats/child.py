"""
A process of our own beside the daemon, for work that may hang, grow or break: one JSON line in, one JSON line out.

In: a script of this folder, requests. Out: its answers, or ChildLost.
Promise: `ask` returns within its deadline (and the half second a process takes to start) whatever the child does. The
child is started at the first request, kept for a minute, and killed at the deadline: its memory is not the daemon's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentd.errors import AgentdError

START_S = 10.0
IDLE_S = 60.0


class ChildLost(AgentdError):
    """The child gave no answer: killed, or out of time. That may be the request's doing or the machine's."""


class Child:
    """
    One process, used by one caller at a time; safe to call from any thread.

    script: a file beside this one. hello: a request that it answers at once. environment: beyond PATH and PYTHONPATH.
    """

    def __init__(
        self,
        script: str,
        hello: Mapping[str, Any],
        *,
        idle_s: float = IDLE_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._script = Path(__file__).with_name(script)
        self._hello = hello
        self._idle_s = idle_s
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._retire: threading.Timer | None = None

    def ask(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Raises ChildLost, or OSError when no process can be started."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            if self._retire is not None:
                self._retire.cancel()
            try:
                return self._exchange(line, deadline_s)
            finally:
                self._retire = threading.Timer(self._idle_s, self.close)
                self._retire.daemon = True
                self._retire.start()

    def close(self) -> None:
        """End the child; the next `ask` starts another."""
        with self._lock:
            self._end()

    def abandon(self) -> None:
        """Nobody waits for the answer any more: end the child at once, so that whoever asked is free."""
        child = self._child
        if child is not None:
            child.kill()

    @property
    def pid(self) -> int | None:
        """The child's, while there is one."""
        return None if self._child is None else self._child.pid

    def _exchange(self, line: bytes, deadline_s: float) -> dict[str, Any]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._start()
        answer = self._ask(line, deadline_s)
        if answer is None:
            self._end()
            raise ChildLost(f"it took longer than {deadline_s:g} s, or its process was killed")
        return answer

    def _start(self) -> None:
        self._child = subprocess.Popen(
            # -S: the paths are handed over as they are here, so nothing has to look for them anew.
            [sys.executable, "-S", "-s", "-P", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "PATH": os.defpath,
                **self._environment,
            },
            start_new_session=True,
        )
        if self._ask(json.dumps(self._hello).encode() + b"\n", START_S) is None:
            self._end()
            raise OSError(0, "its process does not start")

    def _ask(self, request: bytes, deadline_s: float) -> dict[str, Any] | None:
        """None when the child died or was killed at the deadline."""
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        alarm = threading.Timer(deadline_s, child.kill)
        alarm.daemon = True
        alarm.start()
        try:
            child.stdin.write(request)
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:
            return None
        finally:
            alarm.cancel()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            return None
        return answer

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                # What was left to write goes with the child.
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()
