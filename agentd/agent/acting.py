"""
Acting: calls become a graph, the executor runs it, and what fails is decided about.

In: tasks. Out: one result for each, and what it came to. Between them: retries of a part, fewer at once.
Promise: every task that was asked for has a result; every execution that began is ended for those who listen; each
decision is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from opentelemetry.trace import Span

from agentd.agent.account import Account
from agentd.agent.cleaning import Said, cleaned, is_small, threads
from agentd.agent.decisions import Decision, decide
from agentd.agent.events import Listeners, ToolExecutionEnd, ToolExecutionStart, ToolExecutionUpdate
from agentd.agent.evidence import Fence
from agentd.agent.executor import Watcher
from agentd.agent.graph import TaskGraph
from agentd.agent.inbox import Inbox, Interrupted
from agentd.agent.spans import Spans
from agentd.fleet.messages import ErrorKind, Result, Task, WorkerClass
from agentd.llm.actions import ToolUse
from agentd.telemetry.redact import redact, redact_all

log = logging.getLogger("agentd.agent")

_MOST_ROUNDS = 10
_MOST_KNOWN = 32
_SHOWN = 2000
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.\-]{1,200})\}")


class Executes(Protocol):
    """
    What runs graphs: the executor, or in a replay what its records say.

    recorded: its results were recorded, and so cleaned, before.
    """

    recorded: bool
    max_parallel: int

    async def run(self, graph: TaskGraph, watcher: Watcher) -> list[Result]: ...

    def cancel(self, task: str | None = None) -> None: ...


@dataclass(slots=True)
class Acted:
    """
    results: the last of each task, in the graph's order; texts: what they said, cleaned, by the task's id.
    decision, reason: what is to be done now.
    """

    results: list[Result] = field(default_factory=list)
    texts: dict[str, Said] = field(default_factory=dict)
    decision: str = "continue"
    reason: str = ""


class Hands:
    """Runs graphs for one run."""

    def __init__(
        self,
        executor: Executes,
        *,
        account: Account,
        listeners: Listeners,
        spans: Spans,
        inbox: Inbox,
        fence: Fence,
        output_bytes: int,
    ) -> None:
        self._executor = executor
        self._most_parallel = executor.max_parallel
        self.recorded = executor.recorded
        self.fence = fence
        self.account = account
        self.listeners = listeners
        self.spans = spans
        self._inbox = inbox
        self.output_bytes = output_bytes
        self.under_way: dict[str, str] = {}
        self._known: deque[Result] = deque(maxlen=_MOST_KNOWN)
        self._failed_in_a_row = 0

    async def carry_out(
        self, tasks: Sequence[Task], *, purpose: str = "step", begins: Callable[[], None] = lambda: None
    ) -> Acted:
        """begins: called before the first of them runs. Raises GraphError: what depends on what makes no sense."""
        graph = TaskGraph(tasks, known=self._known)
        begins()
        self.account.record("steps", purpose=purpose, shape=graph.shape, tasks=[_task_json(task) for task in graph])
        last: dict[str, Result] = {}
        acted = Acted()
        for tries in range(_MOST_ROUNDS):
            last.update((result.task, result) for result in await self._round(graph, acted.texts))
            acted.results = [last[task.id] for task in tasks]
            if self._inbox.calls_for_attention:
                acted.decision, acted.reason = "interrupted", "somebody spoke while tools were at work"
                break
            decision = decide(
                graph,
                acted.results,
                tries,
                max_parallel=self._executor.max_parallel,
                most_parallel=self._most_parallel,
                failed_before=self._failed_in_a_row,
            )
            self._note(decision, tries)
            acted.decision, acted.reason = decision.kind, decision.reason
            if decision.max_parallel is not None:
                self._executor.max_parallel = decision.max_parallel
            if decision.kind not in ("retry", "reduce_concurrency"):
                break
            graph = graph.after(decision.tasks, acted.results)
        good = [result for result in acted.results if result.ok]
        self._known.extend(good)
        self._failed_in_a_row = 0 if good else self._failed_in_a_row + 1
        return acted

    async def _round(self, graph: TaskGraph, texts: dict[str, Said]) -> list[Result]:
        watch = _Watch(self, graph, texts)
        try:
            await self._inbox.heed(self._run(graph, watch), halt=self._executor.cancel)
        except Interrupted:
            # Who steers wants to have what has come already; who cancels wants an end.
            with contextlib.suppress(Interrupted):
                await self._inbox.unless_stopped(watch.cleaned())
        except Exception as error:
            log.exception("executor_failed")
            watch.defect = f"a defect in agentd: {type(error).__name__}: {error}"
        finally:
            results = watch.close()
        return results

    async def _run(self, graph: TaskGraph, watch: _Watch) -> None:
        for result in await self._executor.run(graph, watch):
            if result.task in graph:
                watch.ended(graph[result.task], result)
        await watch.cleaned()

    def _note(self, decision: Decision, tries: int) -> None:
        self.account.record(
            "decision",
            decision=decision.kind,
            reason=decision.reason,
            tries=tries,
            tasks=list(decision.tasks),
            max_parallel=decision.max_parallel,
        )


class _Watch:
    """
    Tells listeners, spans and the record what one run of a graph does, until it is closed.

    texts: where it puts what the results said.
    """

    def __init__(self, hands: Hands, graph: TaskGraph, texts: dict[str, Said]) -> None:
        self._hands = hands
        self._graph = graph
        self._texts = texts
        self._cleaning: dict[str, asyncio.Future[tuple[Result, Said]]] = {}
        self._open: dict[str, tuple[Task, Span]] = {}
        self._ended: dict[str, Result] = {}
        self._closed = False
        self.defect = ""

    def started(self, task: Task) -> None:
        if self._closed or task.id in self._open:
            return
        hands = self._hands
        self._open[task.id] = (task, hands.spans.tool(task))
        hands.under_way[task.id] = task.tool
        hands.account.tool_calls += 1
        shown = redact_all(task.input)
        hands.account.record("task", task=task.id, tool=task.tool, input=shown, attempt=task.attempt, kind=task.kind)
        if hands.listeners:
            hands.listeners.tell(ToolExecutionStart(task.id, task.tool, shown, task.depends_on))

    def update(self, task: Task, text: str) -> None:
        if not self._closed and task.id in self._open and self._hands.listeners:
            self._hands.listeners.tell(ToolExecutionUpdate(task.id, task.tool, redact(text[:_SHOWN])))

    def ended(self, task: Task, result: Result) -> None:
        if self._closed or task.id in self._ended or task.id in self._cleaning:
            return
        hands = self._hands
        hands.under_way.pop(task.id, None)
        if hands.recorded or is_small(result.output):
            self._tell(task, *cleaned(result, hands.output_bytes, hands.fence, recorded=hands.recorded))
            return
        loop = asyncio.get_running_loop()
        self._cleaning[task.id] = work = loop.run_in_executor(
            threads(), cleaned, result, hands.output_bytes, hands.fence
        )
        work.add_done_callback(functools.partial(self._cleaned, task))

    async def cleaned(self) -> None:
        """Wait until all that has ended so far is told."""
        while self._cleaning:
            await asyncio.wait(self._cleaning.values())

    def _cleaned(self, task: Task, work: asyncio.Future[tuple[Result, Said]]) -> None:
        self._cleaning.pop(task.id, None)
        if self._closed or work.cancelled():
            return
        if (error := work.exception()) is not None:
            log.error("cleaning_failed", exc_info=error)
            self._tell_of_defect(task, f"a defect in agentd: {type(error).__name__}")
        else:
            self._tell(task, *work.result())

    def _tell_of_defect(self, task: Task, message: str, kind: ErrorKind = ErrorKind.TOOL_ERROR) -> None:
        result = Result(task.id, task.tool, None, kind, message, task.attempt)
        self._tell(task, *cleaned(result, self._hands.output_bytes, self._hands.fence))

    def _tell(self, task: Task, result: Result, text: Said) -> None:
        hands = self._hands
        hands.under_way.pop(task.id, None)
        self._ended[task.id], self._texts[task.id] = result, text
        hands.account.record("result", **_result_json(result))
        if (began := self._open.pop(task.id, None)) is None:
            return
        hands.spans.ended(began[1], result)
        if hands.listeners:
            error = result.error.value if result.error else None
            shown = text.text[:_SHOWN] if result.ok and result.output is not None else ""
            hands.listeners.tell(ToolExecutionEnd(task.id, task.tool, shown, error, result.message, result.duration_s))

    def close(self) -> list[Result]:
        """One result for each task of the graph, in its order; whatever began is ended."""
        for task in self._graph:
            if (work := self._cleaning.get(task.id)) is not None:
                work.cancel()
            if task.id not in self._ended:
                kind = ErrorKind.TOOL_ERROR if self.defect else ErrorKind.CANCELLED
                self._tell_of_defect(task, self.defect or "stopped: the run was interrupted", kind)
        self._closed = True
        return [self._ended[task.id] for task in self._graph]


def _task_json(task: Task) -> dict[str, Any]:
    """Without a deep copy, which `asdict` makes."""
    return {
        "id": task.id,
        "tool": task.tool,
        "input": redact_all(task.input),
        "timeout_s": task.timeout_s,
        "depends_on": task.depends_on,
        "kind": task.kind,
        "call_id": task.call_id,
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "task": result.task,
        "tool": result.tool,
        "output": result.output,
        "error": result.error.value if result.error else None,
        "message": result.message,
        "attempt": result.attempt,
        "duration_s": round(result.duration_s, 6),
        "worker": result.worker,
        "retry_after_s": result.retry_after_s,
        "again": result.again,
    }


def tasks_of(
    calls: Sequence[ToolUse], step: int, *, timeout_s: float, longest_s: float, kind_of: Callable[[str], WorkerClass],
    run: str = "", traceparent: str | None = None,
) -> list[Task]:  # fmt: skip
    """
    Tasks under ids of the run (`s3.1`), for calls that the model may have named itself.

    What they say of each other, in `depends_on` and as `${name}`, comes along. timeout_s: where a call names none;
    longest_s: at most.
    """
    own = {call.id: f"s{step}.{place}" for place, call in enumerate(calls, 1) if call.id}
    return [
        Task(
            f"s{step}.{place}",
            call.tool,
            _renamed(call.input, own) if own else call.input,
            min(call.timeout_s or timeout_s, longest_s),
            tuple(own.get(other, other) for other in call.depends_on),
            kind=kind_of(call.tool),
            run=run,
            call_id=call.call_id,
            traceparent=traceparent,
        )
        for place, call in enumerate(calls, 1)
    ]


def _renamed(value: Any, own: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _reference(match[1], own), value) if "${" in value else value
    if isinstance(value, list):
        return [_renamed(each, own) for each in value]
    if isinstance(value, Mapping):
        return {key: _renamed(each, own) for key, each in value.items()}
    return value


def _reference(name: str, own: Mapping[str, str]) -> str:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (known := own.get(".".join(parts[:end]))) is not None:
            return "${" + ".".join([known, *parts[end:]]) + "}"
    return "${" + name + "}"
