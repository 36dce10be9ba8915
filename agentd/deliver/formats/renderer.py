"""
The parent's side of the template child: started at the first template, kept for a minute, killed at the deadline.

In: a template and plain data, on a thread that may block. Out: text, or TemplateError, or RendererLost.
Promise: `render` returns within its deadline (and the half second a process takes to start) whatever the template does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from agentd.errors import AgentdError

DEADLINE_S = 2.0
START_S = 10.0
IDLE_S = 60.0
MAX_OUTPUT_BYTES = 256 * 1024

_CHILD = Path(__file__).with_name("template_child.py")


class TemplateError(AgentdError):
    """The template cannot make text of this data, as the child itself reports; the message says where and why."""


class RendererLost(AgentdError):
    """The child gave no answer: killed, or out of time. That may be the template's doing or the machine's."""


class Renderer:
    """One child process, used by one caller at a time; safe to call from any thread."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, idle_s: float = IDLE_S) -> None:
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._retire: threading.Timer | None = None

    def render(self, template: str, data: dict[str, Any]) -> str:
        """Raises TemplateError, RendererLost, or OSError when no process can be started."""
        request = json.dumps({"template": template, "data": data, "most": MAX_OUTPUT_BYTES}).encode() + b"\n"
        with self._lock:
            if self._retire is not None:
                self._retire.cancel()
            try:
                answer = self._exchange(request, self._deadline_s)
            finally:
                self._retire = threading.Timer(self._idle_s, self.close)
                self._retire.daemon = True
                self._retire.start()
        if "error" in answer:
            raise TemplateError(str(answer["error"]))
        return str(answer["text"])

    def close(self) -> None:
        """End the child; the next `render` starts another."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """The child's, while there is one."""
        return None if self._child is None else self._child.pid

    def _exchange(self, request: bytes, deadline_s: float) -> dict[str, Any]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._start()
        answer = self._ask(request, deadline_s)
        if answer is None:
            self._end()
            # Nobody knows whether the template or a machine short of memory or CPU is to blame.
            raise RendererLost(
                f"it took longer than {deadline_s:g} s, or its process was killed; is there a loop too many, or too "
                "little memory on this machine?"
            )
        return answer

    def _start(self) -> None:
        self._child = subprocess.Popen(
            # -S: the paths are handed over as they are here, so nothing has to look for them anew.
            [sys.executable, "-S", "-s", "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath},
            start_new_session=True,
        )
        if self._ask(b'{"template": "", "data": {}, "most": 1}\n', START_S) is None:
            self._end()
            raise OSError(0, "the template process does not start")

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
