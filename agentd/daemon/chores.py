"""
The daemon's background tasks, none of which dies unseen.

In: coroutines. Out: tasks of one group. Promise: a repeated chore that fails is told of once and goes on; a task that
ends by a defect ends the daemon in good order, so that the service manager starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agentd.errors import StoreError

log = logging.getLogger("agentd.daemon")


class Chores:
    """group: owns the tasks. on_crash: called with the name of a task that ended by a defect."""

    def __init__(self, group: asyncio.TaskGroup, on_crash: Callable[[str], None]) -> None:
        self._group = group
        self._on_crash = on_crash
        self._endless: list[asyncio.Task[None]] = []

    def keep(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run what goes on until `cancel`."""
        self._endless.append(self._group.create_task(self._watched(name, work), name=name))

    def repeat(self, name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Call `work` every `every_s` seconds until `cancel`, whether it fails or not."""
        self.keep(name, self._again_and_again(name, every_s, work))

    def finish(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run what comes to an end by itself; `cancel` leaves it alone."""
        self._group.create_task(attempt(name, work), name=name)

    def cancel(self) -> None:
        for task in self._endless:
            task.cancel()

    async def _watched(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.critical("task_crashed", extra={"task": name}, exc_info=True)
            self._on_crash(name)

    async def _again_and_again(self, name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        failing = False
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except Exception as error:
                if not failing:
                    # What the store says explains itself; anything else is a defect, whose place we want to see.
                    trace = None if isinstance(error, StoreError) else error
                    log.error("chore_failed", extra={"chore": name, "error": str(error)}, exc_info=trace)
                failing = True
            else:
                if failing:
                    log.info("chore_works_again", extra={"chore": name})
                failing = False


async def attempt(name: str, work: Awaitable[object]) -> None:
    """Do one step of many of which each has to be tried; a defect in it is told of and goes no further."""
    try:
        await work
    except Exception as error:
        log.error("step_failed", extra={"step": name, "error": str(error)}, exc_info=error)
