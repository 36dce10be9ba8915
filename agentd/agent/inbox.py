"""
What people, and time, say to a run while it works.

In: steering and follow-up messages, cancelling, the end of its time. Out: the work under way is stopped at once, and
the supervisor reads what was said before it goes on.
Promise: nothing said is lost up to a bound; whatever is stopped is given up after a moment, so that no tool and no
connection that will not end holds up its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal, TypeVar

from agentd.errors import AgentdError

T = TypeVar("T")

MOST_WAITING = 64
GIVE_UP_S = 0.08
Stop = Literal["cancel", "time"]


class Interrupted(Exception):
    """The work under way was stopped; `Inbox.stopped` and `Inbox.steering` say why."""


class InboxFull(AgentdError):
    """More messages wait than a run keeps."""


class Inbox:
    """One for each run; all of it belongs to the loop's thread."""

    def __init__(self) -> None:
        self.steering: deque[str] = deque()
        self.following: deque[str] = deque()
        self.stopped: Stop | None = None
        self.reason = ""
        self._halt: Callable[[], object] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._left: set[asyncio.Task[Any]] = set()

    def steer(self, text: str) -> None:
        """Stop what is under way; this comes next. Raises InboxFull."""
        _put(self.steering, text)
        self._interrupt()

    def follow_up(self, text: str) -> None:
        """This comes when all that was asked before is done. Raises InboxFull."""
        _put(self.following, text)

    def stop(self, why: Stop, reason: str = "") -> None:
        """Stop what is under way, and all that would follow it."""
        if self.stopped is None or why == "cancel":
            self.stopped, self.reason = why, reason
        self._interrupt()

    def reopen(self) -> None:
        """What was cancelled has ended, and the next may begin; time that is over stays so."""
        if self.stopped == "cancel":
            self.stopped, self.reason = None, ""

    @property
    def calls_for_attention(self) -> bool:
        return self.stopped is not None or bool(self.steering)

    async def heed(self, work: Coroutine[Any, Any, T], *, halt: Callable[[], object] | None = None) -> T:
        """
        Do the work, unless somebody speaks. Raises Interrupted.

        halt: what stops it from within, so that it still returns what it has; without it, it is cancelled.
        """
        if self.stopped is not None:
            work.close()
            raise Interrupted
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._halt = halt or task.cancel
        waiter = self._waiter = loop.create_future()
        task.add_done_callback(lambda _: _wake(waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            task.cancel()
            self._leave(task)
            raise
        finally:
            self._halt = self._waiter = None
        if not task.done():
            task.cancel()
            self._leave(task)
            raise Interrupted
        if task.cancelled():
            raise Interrupted
        return task.result()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, whoever steers, unless all is stopped. Raises Interrupted."""
        if self.stopped is not None:
            work.close()
            raise Interrupted
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        try:
            while not task.done() and self.stopped is None:
                waiter = loop.create_future()
                self._halt = functools.partial(_wake, waiter)
                task.add_done_callback(functools.partial(_woken, waiter))
                await waiter
        finally:
            self._halt = None
            if not task.done():
                task.cancel()
                self._leave(task)
        if not task.done():
            raise Interrupted
        return task.result()

    @contextlib.contextmanager
    def halting(self, halt: Callable[[], object]) -> Iterator[None]:
        """For work that must stay in its caller's own task: whoever speaks within calls `halt`."""
        self._halt = halt
        try:
            yield
        finally:
            self._halt = None

    async def close(self, within_s: float = 5.0) -> None:
        """Wait for what was given up and still cleans up behind itself."""
        if self._left:
            await asyncio.wait(self._left, timeout=within_s)

    def _interrupt(self) -> None:
        if self._halt is not None:
            # From the loop: who speaks may be called from within the very work that is stopped.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._halt)
            if self._waiter is not None:
                loop.call_later(GIVE_UP_S, _wake, self._waiter)

    def _leave(self, task: asyncio.Task[Any]) -> None:
        if not task.done():
            self._left.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()


def _put(messages: deque[str], text: str) -> None:
    if len(messages) >= MOST_WAITING:
        raise InboxFull(f"{MOST_WAITING} messages wait already; say it again when the agent has read them")
    messages.append(text)


def _woken(waiter: asyncio.Future[None], task: asyncio.Task[Any]) -> None:
    _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
