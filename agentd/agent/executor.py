"""
A graph in, results out: how, when, and how many at once.

In: a sound `TaskGraph`. Out: exactly one `Result` for each task, in the graph's order.
Promise: whatever is ready runs at once, as far as `max_parallel` and the pools allow; nothing is dropped, nothing
hangs. What failed is tried again by the table below and by nothing else; that a timeout is worth a second try is for
the supervisor to say. What one task hands to another has no secrets in it, as what a model is shown of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from agentd.agent.call import Call
from agentd.agent.graph import TaskGraph
from agentd.agent.references import BadReference, referred, resolved
from agentd.agent.worker import Pools, Worker
from agentd.fleet.messages import DEFAULT_TIMEOUT_S, ErrorKind, Result, Task
from agentd.pacing import Uniform, full_jitter
from agentd.telemetry.redact import redact_all

log = logging.getLogger("agentd.agent")

TRIED_AGAIN = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.TOOL_ERROR})
"""Kinds that are tried again, where the result says `again`: a tool's error does only if the tool says it may pass."""
LONGEST_WAIT_S = 30.0
"""Whoever asks for a longer wait than this gets none: the supervisor decides."""


class Watcher(Protocol):
    """
    Who is told of what happens to tasks; called from the loop, must not wait. One that raises harms nobody.

    Each task that starts is told once as started and once as ended, tries again being updates; one that never starts
    (what it depends on failed, or all was cancelled) has its result and nothing else.
    """

    def started(self, task: Task) -> None: ...

    def update(self, task: Task, text: str) -> None: ...

    def ended(self, task: Task, result: Result) -> None: ...


class Executor:
    """
    Runs graphs.

    retries: further tries of a task after its first. retry_delay_s: of the back-off, doubled with each try, up to
    `LONGEST_WAIT_S`. max_parallel: calls under way, all graphs together; may be set while they run. tool_timeout_s:
    the most a task may take, whatever it asks for; twice that from its second attempt on.
    """

    recorded = False

    def __init__(
        self,
        pools: Pools,
        *,
        retries: int = 3,
        retry_delay_s: float = 1.0,
        max_parallel: int = 8,
        tool_timeout_s: float = DEFAULT_TIMEOUT_S,
        rng: Uniform | None = None,
    ) -> None:
        self.pools = pools
        self.retries = retries
        self.retry_delay_s = retry_delay_s
        self.tool_timeout_s = tool_timeout_s
        self.rng = rng
        self.running = 0
        self._max_parallel = max(1, max_parallel)
        self._runs: list[_Run] = []

    @property
    def max_parallel(self) -> int:
        return self._max_parallel

    @max_parallel.setter
    def max_parallel(self, count: int) -> None:
        self._max_parallel = max(1, count)
        self.pump()

    async def run(self, graph: TaskGraph, watcher: Watcher | None = None) -> list[Result]:
        """
        All results, in the graph's order. Never raises for what a tool does.

        Cancelling the caller cancels every task, and returns as soon as these have ended or their grace is over.
        """
        if not len(graph):
            return []
        run = _Run(self, graph, watcher)
        self._runs.append(run)
        self.pools.tell_of_room(self.pump)
        try:
            run.begin()
            try:
                await asyncio.shield(run.finished)
            except asyncio.CancelledError:
                run.cancel("the run was cancelled")
                await run.finished
                raise
        finally:
            run.cancel("the run has ended")
            self._runs.remove(run)
            if not self._runs:
                self.pools.no_more_of_room(self.pump)
        return [result for result in run.results if result is not None]

    def cancel(self, task: str | None = None, reason: str = "") -> None:
        """End one task, by its id, or all. What has not begun ends now; what runs, at the latest after its grace."""
        for run in tuple(self._runs):
            if task is None:
                run.cancel(reason or "cancelled")
            else:
                run.cancel_one(task, reason or "cancelled")

    def pump(self) -> None:
        """Start whatever may start now."""
        for run in tuple(self._runs):
            run.pump()


class _Run:
    """One graph under way. All of it happens on the loop, in callbacks; no step waits."""

    def __init__(self, executor: Executor, graph: TaskGraph, watcher: Watcher | None) -> None:
        self.executor = executor
        self.graph = graph
        self.watcher = watcher
        self.results: list[Result | None] = [None] * len(graph)
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._place = {task.id: place for place, task in enumerate(graph.tasks)}
        self._tasks = list(graph.tasks)
        self._unmet = [len(task.depends_on) for task in graph.tasks]
        self._raw = dict(graph.known)
        self._outputs: dict[str, Any] = {}
        self._ready: dict[str, deque[int]] = {"io": deque(), "logic": deque()}
        self._calls: dict[int, tuple[Call, Worker]] = {}
        self._waits: dict[int, asyncio.TimerHandle] = {}
        self._started = [False] * len(graph)
        self._tries = [0] * len(graph)
        self._left = len(graph)
        self._pumping = False

    def begin(self) -> None:
        for place, unmet in enumerate(self._unmet):
            if not unmet:
                self._make_ready(place)
        self.pump()

    def pump(self) -> None:
        # What starts a task may end another and come back here; the outer pass sees to that.
        if self._pumping:
            return
        self._pumping = True
        try:
            executor = self.executor
            for kind, queue in self._ready.items():
                while queue and executor.running < executor.max_parallel:
                    place = queue[0]
                    if self.results[place] is not None:
                        queue.popleft()
                        continue
                    worker = executor.pools.acquire("logic" if kind == "logic" else "io")
                    if worker is None:
                        break
                    queue.popleft()
                    executor.running += 1
                    self._start(place, worker)
        finally:
            self._pumping = False

    def cancel(self, reason: str) -> None:
        for task in self._tasks:
            if not self._left:
                return
            self.cancel_one(task.id, reason)

    def cancel_one(self, id: str, reason: str) -> None:
        place = self._place.get(id)
        if place is None or self.results[place] is not None:
            return
        if place in self._calls:
            self._calls[place][0].cancel()
            return
        wait = self._waits.pop(place, None)
        if wait is not None:
            wait.cancel()
        self._end(place, self._not_run(place, ErrorKind.CANCELLED, reason))

    def _make_ready(self, place: int) -> None:
        self._ready["logic" if self._tasks[place].kind == "logic" else "io"].append(place)

    def _start(self, place: int, worker: Worker) -> None:
        task = self._tasks[place]
        if not self._started[place]:
            self._started[place] = True
            self._tell("started", task)
            if self.results[place] is not None:  # the watcher cancelled it
                self._give_back(task, worker)
                return
        try:
            if self.graph.refers(task.id) and not self._tries[place]:
                self._tasks[place] = task = replace(task, input=self._filled_in(task))
            call = worker.start(
                task,
                lambda result: self._came(place, worker, result),
                (lambda text: self._tell("update", task, text)) if self.watcher is not None else None,
                timeout_s=self._timeout_s(task),
            )
        except Exception as error:
            known = isinstance(error, BadReference)
            if not known:
                log.exception("task_not_begun", extra={"task": task.id, "tool": task.tool})
            self._give_back(task, worker)
            kind = ErrorKind.INVALID_INPUT if known else ErrorKind.TOOL_ERROR
            message = str(error) if known else f"{type(error).__name__}: {str(error)[:500]}"
            self._end(place, self._not_run(place, kind, message))
            return
        self._calls[place] = (call, worker)

    def _filled_in(self, task: Task) -> Mapping[str, Any]:
        """Its input with outputs in it. Only those that are spoken of are redacted: most are not, and it takes time."""
        for id in referred(task.input, self.graph.ids) & self._raw.keys():
            self._outputs[id] = redact_all(self._raw.pop(id))
        filled: Mapping[str, Any] = resolved(task.input, self._outputs, self.graph.ids)
        return filled

    def _timeout_s(self, task: Task) -> float:
        most = self.executor.tool_timeout_s * (1 if task.attempt - self._tries[self._place[task.id]] <= 1 else 2)
        asked = task.timeout_s
        return min(asked, most) if math.isfinite(asked) and asked > 0 else most

    def _came(self, place: int, worker: Worker, result: Result) -> None:
        """A call has ended, well or not."""
        del self._calls[place]
        self._give_back(self._tasks[place], worker, pump=False)
        wait_s = self._wait_before_next(place, result)
        if wait_s is None:
            self._end(place, result)
        else:
            self._try_again(place, result, wait_s)
        self.executor.pump()

    def _give_back(self, task: Task, worker: Worker, *, pump: bool = True) -> None:
        self.executor.running -= 1
        self.executor.pools.release("logic" if task.kind == "logic" else "io", worker)
        if pump:
            self.executor.pump()

    def _wait_before_next(self, place: int, result: Result) -> float | None:
        """Seconds until the task is tried again, None when it is not."""
        if result.ok or not result.again or result.error not in TRIED_AGAIN:
            return None
        tries = self._tries[place] + 1
        if tries > self.executor.retries:
            return None
        asked = result.retry_after_s
        if asked is not None and math.isfinite(asked):
            return max(asked, 0.0) if asked <= LONGEST_WAIT_S else None
        return full_jitter(tries, base_s=self.executor.retry_delay_s, cap_s=LONGEST_WAIT_S, rng=self.executor.rng)

    def _try_again(self, place: int, result: Result, wait_s: float) -> None:
        self._tries[place] += 1
        self._tasks[place] = task = replace(self._tasks[place], attempt=self._tasks[place].attempt + 1)
        self._waits[place] = asyncio.get_running_loop().call_later(wait_s, self._waited, place)
        why = str(result.error).replace("_", " ")
        self._tell("update", task, f"{why}: tried again in {wait_s:.1f} s (attempt {task.attempt})")

    def _waited(self, place: int) -> None:
        del self._waits[place]
        self._make_ready(place)
        self.executor.pump()

    def _end(self, place: int, result: Result) -> None:
        """The task has its result; those that waited for it may run, or have nothing to run for."""
        to_end = [(place, result)]
        while to_end:
            place, result = to_end.pop(0)
            if self.results[place] is not None:
                continue
            self.results[place] = result
            self._left -= 1
            task = self._tasks[place]
            if self._started[place]:
                self._tell("ended", task, result)
            if result.ok:
                self._raw[task.id] = result.output
            for id in self.graph.dependents(task.id):
                other = self._place[id]
                if not result.ok:
                    why = f"not run: {task.id} ({task.tool}), which it depends on, ended as {result.error}"
                    to_end.append((other, self._not_run(other, ErrorKind.CANCELLED, why)))
                    continue
                self._unmet[other] -= 1
                if not self._unmet[other] and self.results[other] is None:
                    self._make_ready(other)
        if not self._left and not self.finished.done():
            self.finished.set_result(None)

    def _not_run(self, place: int, kind: ErrorKind, message: str) -> Result:
        task = self._tasks[place]
        return Result(task.id, task.tool, error=kind, message=message[:2000], attempt=task.attempt)

    def _tell(self, what: str, task: Task, *more: Result | str) -> None:
        if self.watcher is None:
            return
        try:
            getattr(self.watcher, what)(task, *more)
        except Exception:
            log.exception("listener_failed", extra={"event": what})
