"""
The logs that are being followed: one task for each watch of a log, all blocking work on one thread.

In: watches of logs, started, stopped and replaced by the daemon's life and by people. Out: running tasks.
Promise: no two tasks ever follow for one watch: the next begins when the one before has stored where it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from agentd.errors import StoreError
from agentd.memory import logs as log_rows
from agentd.memory import templates
from agentd.memory.store import Store
from agentd.pipeline.keeper import Keeper
from agentd.pipeline.logs import LogPath
from agentd.pipeline.watches import LogWatch

log = logging.getLogger("agentd.daemon")


class Following:
    """
    store: where positions and templates go. crashed: told the name of a task that ended by a defect.
    """

    def __init__(self, keeper: Keeper, store: Store, crashed: Callable[[str], None]) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._path = LogPath(keeper, self._thread, store.history)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._crashed = crashed
        self._closed = False

    def start(self, watch: LogWatch) -> None:
        """Follow the watch's log from where it was left; once more is not twice."""
        if watch.name in self._tasks or self._closed:
            return
        task = asyncio.create_task(self._path.run(watch), name=f"log:{watch.name}")
        self._tasks[watch.name] = task
        task.add_done_callback(lambda done: self._ended(watch.name, done))

    async def stop(self, *names: str) -> None:
        """Let go of these logs, and return when where they stand is stored."""
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Let go of all of them, and of the thread. Twice is once."""
        self._closed = True
        await self.stop(*self._tasks)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def forget_others(self, watches: Iterable[str]) -> None:
        """Drop what is kept of logs of watches that are not among these."""
        names = set(watches)
        with contextlib.suppress(StoreError):  # the next reload or start tries again
            await self._store.state.write(lambda c: log_rows.forget_others(c, names))
        self._store.history.post(lambda c: templates.forget_others(c, names))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("task_crashed", extra={"task": task.get_name()}, exc_info=error)
            self._crashed(task.get_name())
