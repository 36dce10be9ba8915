"""
Work that may block (files, archives, searches), on threads of its own.

In: a function that is given a `Stop`. Out: what it returns.
Promise: the loop never waits in it; a call that was cancelled or timed out is told to stop, and a dead disk holds at
most eight threads, which nobody waits for at the end of the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from agentd.agent.port import ToolFailure
from agentd.fleet.messages import ErrorKind
from agentd.watch.threads import DaemonThreads

T = TypeVar("T")
_threads = DaemonThreads(8, "tool")


class Stop:
    """Asked now and then by work that takes long. left_s: seconds after which it should end with what it has."""

    def __init__(self, left_s: float) -> None:
        self._until = time.monotonic() + left_s
        self._asked = False

    def ask(self) -> None:
        self._asked = True

    @property
    def now(self) -> bool:
        """Nobody waits for it any more, or its time is over."""
        return self._asked or time.monotonic() >= self._until


async def on_thread(call: Callable[[Stop], T], *, timeout_s: float) -> T:
    """
    Do it elsewhere.

    timeout_s: the whole time of the call; the work is told to end after nine tenths of it. Whatever it raises as
    OSError becomes a ToolFailure.
    """
    stop = Stop(timeout_s * 0.9)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, call, stop)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = f"{error.filename}: " if isinstance(error.filename, str) else ""
        kind = ErrorKind.DENIED if isinstance(error, PermissionError) else ErrorKind.TOOL_ERROR
        raise ToolFailure(f"{what}{'there is no such file' if missing else error.strerror or error}", kind) from error
    finally:
        stop.ask()
