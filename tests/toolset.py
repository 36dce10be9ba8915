"""Tools made of a function, and a watcher that writes down what it is told: for tests of the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentd.agent.executor import Executor
from agentd.agent.job import Permissions
from agentd.agent.port import Asking, ToolContext, ToolFailure
from agentd.agent.registry import Registry
from agentd.agent.worker import Pools
from agentd.clock import Clock, SystemClock
from agentd.fleet.messages import Result, Task, WorkerClass
from agentd.llm.port import ToolSpec

Does = Callable[[Mapping[str, Any], ToolContext], Awaitable[Any]]
ANYTHING: Mapping[str, Any] = {"type": "object"}


class FakeTool:
    """Does what it is told to; keeps the inputs it was called with."""

    def __init__(
        self,
        name: str,
        does: Does | None = None,
        *,
        schema: Mapping[str, Any] = ANYTHING,
        kind: WorkerClass = "io",
        repeatable: bool = True,
    ) -> None:
        self.name = name
        self.spec = ToolSpec(name, f"does {name}", schema)
        self.kind: WorkerClass = kind
        self.repeatable = repeatable
        self._does = does
        self.inputs: list[Mapping[str, Any]] = []

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        self.inputs.append(input)
        return {"did": self.name} if self._does is None else await self._does(input, context)


class NoAnswers:
    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        raise ToolFailure(f"nobody answers {what}")


def context_maker(*allowed: str, clock: Clock | None = None, max_output: int = 1000) -> Callable[[Task], ToolContext]:
    permissions = Permissions(tools=allowed)
    asking: Asking = NoAnswers()
    return lambda task: ToolContext(task.id, permissions, clock or SystemClock(), asking, max_output=max_output)


def pools_of(*tools: FakeTool, io: int = 16, logic: int = 2) -> Pools:
    """Pools that may call all of these tools."""
    return Pools(Registry(tools), context_maker(*(tool.name for tool in tools)), io=io, logic=logic)


def executor_of(*tools: FakeTool, io: int = 16, logic: int = 2, **settings: Any) -> Executor:
    return Executor(pools_of(*tools, io=io, logic=logic), **settings)


class Noted:
    """A watcher; `told` holds what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def started(self, task: Task) -> None:
        self.told.append(("started", task.id, ""))

    def update(self, task: Task, text: str) -> None:
        self.told.append(("update", task.id, text))

    def ended(self, task: Task, result: Result) -> None:
        self.told.append(("ended", task.id, str(result.error or "ok")))
