"""A command of agentd on a terminal of its own (pty(7)), for tests of what people see and type."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from types import TracebackType


class Terminal:
    """
    with Terminal("task", "What is there?") as terminal:
        terminal.until("turn 1")
        terminal.type("\\x03")
        assert terminal.end() == 1

    seen: all that came so far.
    """

    def __init__(self, *words: str) -> None:
        self.ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", "COLUMNS": "100", "LINES": "40"}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "agentd", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(30)
        os.close(self.ours)

    def until(self, text: str, within_s: float = 30.0) -> str:
        """What has come so far, once this is in it."""
        until = time.monotonic() + within_s
        while text not in self.seen:
            assert time.monotonic() < until, f"no {text!r} in …{self.seen[-2000:]!r}"
            if not self._more():
                assert text in self.seen, f"it ended without {text!r}: …{self.seen[-2000:]!r}"
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def end(self) -> int:
        """Its exit code."""
        while self._more():
            pass
        return self.child.wait(30)

    def _more(self) -> bool:
        ready, _, _ = select.select([self.ours], [], [], 0.5)
        if not ready:
            return self.child.poll() is None
        try:
            found = os.read(self.ours, 65536)
        except OSError:
            return False
        self.seen += found.decode(errors="replace")
        return bool(found)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # or Ctrl-C would reach nobody
