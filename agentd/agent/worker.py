"""
Workers, and the pools that lend them.

A worker runs one tool for a task, and nothing else: it keeps nothing between tasks, plans nothing, asks no model.
In: a `Task`. Out: exactly one `Result`, whatever the tool does, its output plain JSON of bounded size.

A pool has the workers of one class. Promise: never more calls of a class than its cap, each given to the worker that
has the fewest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentd.agent.call import Call, Ended, MakeContext, Update
from agentd.agent.registry import Registry
from agentd.fleet.messages import Result, Task, WorkerClass

IO_AT_ONCE = 16
LOGIC_AT_ONCE = 2
_PER_WORKER = 4


class Worker:
    """
    Runs tools, many at once. name: shown in results. in_use: calls under way, kept by its pool.

    make_context: what a task's tool is given; its `permissions.tools` say what may be called at all. Id, time and
    `report` of it are set here.
    """

    __slots__ = ("abandoned", "in_use", "make_context", "name", "registry")

    def __init__(self, name: str, registry: Registry, make_context: MakeContext) -> None:
        self.name = name
        self.registry = registry
        self.make_context = make_context
        self.in_use = 0
        self.abandoned: set[asyncio.Task[Result]] = set()

    def start(self, task: Task, ended: Ended, update: Update | None = None, *, timeout_s: float | None = None) -> Call:
        """
        Begin. `ended` is called once, later, never from within; `update` with what the tool reports meanwhile.

        timeout_s: instead of the task's own.
        """
        return Call(self, task, ended, update, task.timeout_s if timeout_s is None else timeout_s)

    async def run(self, task: Task, update: Update | None = None) -> Result:
        """Do it all and wait. Cancelling the caller cancels the tool."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        call = self.start(task, lambda result: None if done.done() else done.set_result(result), update)
        try:
            return await done
        finally:
            call.cancel()


class Pool:
    """Workers of one class. cap: calls at once, of all of them together."""

    __slots__ = ("cap", "in_use", "workers")

    def __init__(self, kind: WorkerClass, cap: int, registry: Registry, make_context: MakeContext) -> None:
        if cap < 1:
            raise ValueError(f"a pool has room for at least one call, not {cap}")
        self.cap = cap
        self.in_use = 0
        count = -(-cap // _PER_WORKER)
        self.workers = [Worker(f"{kind}-{number}", registry, make_context) for number in range(1, count + 1)]


class Pools:
    """The pools of a run, by class. io, logic: calls at once of each."""

    def __init__(
        self,
        registry: Registry,
        make_context: MakeContext,
        *,
        io: int = IO_AT_ONCE,
        logic: int = LOGIC_AT_ONCE,
    ) -> None:
        self.registry = registry
        self._pools: dict[str, Pool] = {
            "io": Pool("io", io, registry, make_context),
            "logic": Pool("logic", logic, registry, make_context),
        }
        self._waiting: dict[Callable[[], None], None] = {}

    def acquire(self, kind: WorkerClass) -> Worker | None:
        """The worker of this class that has the fewest calls, one more in use now; None while the class is full."""
        pool = self._pools.get(kind) or self._pools["io"]
        if pool.in_use >= pool.cap:
            return None
        workers = pool.workers
        worker = workers[0] if len(workers) == 1 else min(workers, key=_in_use)
        worker.in_use += 1
        pool.in_use += 1
        return worker

    def release(self, kind: WorkerClass, worker: Worker) -> None:
        """Give back what `acquire` gave, once; those who said so are told that there is room."""
        pool = self._pools.get(kind) or self._pools["io"]
        worker.in_use -= 1
        pool.in_use -= 1
        for told in tuple(self._waiting):
            told()

    def tell_of_room(self, told: Callable[[], None]) -> None:
        """Call this after each release, until `no_more_of_room`."""
        self._waiting[told] = None

    def no_more_of_room(self, told: Callable[[], None]) -> None:
        self._waiting.pop(told, None)

    def in_use(self) -> dict[str, int]:
        """Calls under way, by class."""
        return {kind: pool.in_use for kind, pool in self._pools.items()}

    def workers(self) -> list[Worker]:
        return [worker for pool in self._pools.values() for worker in pool.workers]

    @property
    def abandoned(self) -> int:
        """Calls that were given up and have not ended yet."""
        return sum(len(worker.abandoned) for worker in self.workers())


def _in_use(worker: Worker) -> int:
    return worker.in_use
