"""
One deadline for many steps: what `asyncio.timeout` does, with one timer for all of them.

In: awaitables, one after the other. Out: what they give, or TimeoutError from the deadline on.
Promise: a cancellation from elsewhere stays one. An answer comes in hundreds of pieces, and a timer for each of them
costs as much as reading it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Deadline:
    """left_s: from entering it, zero or more. The steps may be waited for in different tasks, never two at once."""

    def __init__(self, left_s: float) -> None:
        self._left_s = max(0.0, left_s)
        self._passed = False
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Deadline:
        self._timer = asyncio.get_running_loop().call_later(self._left_s, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, step: Awaitable[T]) -> T:
        """What the step gives. Raises TimeoutError when it would wait beyond the deadline."""
        task = asyncio.current_task()
        assert task is not None
        if self._passed:
            # Not a cancellation here and now: a step that need not wait would leave it behind for others.
            asyncio.get_running_loop().call_soon(self._pass)
        others = task.cancelling()
        self._waiting = task
        try:
            return await step
        except asyncio.CancelledError as error:
            if self._cancelled and task.cancelling() <= others + 1:
                raise TimeoutError from error
            raise
        finally:
            self._waiting = None
            if self._cancelled:
                self._cancelled = False
                task.uncancel()

    def _pass(self) -> None:
        self._passed = True
        if self._waiting is not None:
            self._cancelled = True
            self._waiting.cancel()
