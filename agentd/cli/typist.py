"""
Lines as a person types them, while others print.

In: the keyboard, or a pipe. Out: lines on a queue, None at the end.
Promise: what is printed meanwhile does not tear what is being typed; the terminal is left as it was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from types import ModuleType

import click

from agentd.cli.errand import is_terminal, written

PROMPT = "agentd> "
_MOST_BYTES = 64 * 1024
_CLEAR_LINE = "\r\x1b[K"


class Typist:
    """
    Use as a context, on the loop. `lines`: what was typed; `go_on` asks for the first one, and after each for the next.

    is_terminal: somebody types, with history and editing where readline is there.
    """

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.is_terminal = is_terminal()
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Semaphore(0)
        self._prompting = False
        self._over = False
        self._readline: ModuleType | None = None
        self._terminal: list[object] | None = None

    def __enter__(self) -> Typist:
        if self.is_terminal:
            import termios

            with contextlib.suppress(termios.error):
                self._terminal = termios.tcgetattr(sys.stdin.fileno())
            with contextlib.suppress(ImportError):
                import readline

                self._readline = readline
        # A daemon thread: nothing wakes somebody who waits for a key.
        threading.Thread(target=self._read, name="typist", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._wanted.release()
        if self._prompting:
            click.echo()
        if self._terminal is not None:
            import termios

            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._terminal)  # type: ignore[arg-type]  # as it was given

    def go_on(self) -> None:
        """The last line, if there was one, is understood; read the next."""
        self._wanted.release()

    def print(self, text: str) -> None:
        """Above what is being typed."""
        if not (self.is_terminal and self._prompting):
            click.echo(text)
            return
        typed = self._readline.get_line_buffer() if self._readline is not None else ""
        sys.stdout.write(f"{_CLEAR_LINE}{text}\n{PROMPT}{typed}")
        sys.stdout.flush()

    def _read(self) -> None:
        try:
            if self.is_terminal:
                self._read_terminal()
            else:
                self._read_pipe()
        finally:
            self._put(None)

    def _read_terminal(self) -> None:
        while self._may_go_on():
            self._prompting = True
            try:
                line = input(PROMPT)
            except (EOFError, OSError):
                return
            finally:
                self._prompting = False
            self._put(written(line))

    def _read_pipe(self) -> None:
        """Not by sys.stdin: a thread that waits in there holds a lock that the end of the process wants."""
        waiting = b""
        while True:
            chunk = os.read(sys.stdin.fileno(), _MOST_BYTES)
            *lines, waiting = (waiting + chunk).split(b"\n")
            if not chunk or len(waiting) > _MOST_BYTES:
                lines, waiting = [*lines, *filter(None, [waiting])], b""
            for line in lines:
                if not self._may_go_on():
                    return
                self._put(line.decode(errors="replace"))
            if not chunk:
                return

    def _may_go_on(self) -> bool:
        self._wanted.acquire()
        return not self._over

    def _put(self, line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self.lines.put_nowait, line)
