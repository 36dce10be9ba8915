"""
A run on the test's desk: whoever keeps its records, tools made of functions, a model that says what it was told.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentd.agent.events import AgentEvent, Listeners
from agentd.agent.job import Job, Limits, Outcome, Permissions
from agentd.agent.port import Record, ToolContext, ToolFailure
from agentd.agent.registry import Registry
from agentd.agent.run import Running
from agentd.clock import Clock
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import Model, ToolSpec, Usage
from agentd.llm.spend import Quote

Answer = Callable[[Mapping[str, Any], ToolContext], Any | Awaitable[Any]]


class Keeper:
    """What a run has from outside: keeps its records, lets it spend."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reserved: list[Quote] = []
        self.settled: list[tuple[Quote, Usage, float | None]] = []

    async def reserve(self, quote: Quote) -> None:
        self.reserved.append(quote)

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        self.settled.append((quote, usage, usd))

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        raise ToolFailure(f"nobody answers {what}")

    def record(self, record: Record) -> None:
        self.records.append(record)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Data of the records of one kind."""
        return [record.data for record in self.records if record.kind == kind]


class FunctionTool:
    """A tool that is a function, plain or async."""

    def __init__(
        self,
        name: str,
        answer: Answer,
        *,
        kind: WorkerClass = "io",
        repeatable: bool = True,
        properties: Mapping[str, Any] | None = None,
        required: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.kind: WorkerClass = kind
        self.repeatable = repeatable
        self._answer = answer
        schema = {"type": "object", "properties": dict(properties or {}), "required": list(required)}
        self.spec = ToolSpec(name, f"The tool {name}", schema)

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        given = self._answer(input, context)
        return await given if inspect.isawaitable(given) else given


class OneModel:
    """Models, of which there is one, under whatever name."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def get(self, name: str) -> Model:
        return self._model


def says(text: str) -> FunctionTool:
    """`look`, that shows this."""
    return FunctionTool("look", lambda input, context: text, properties={"at": {"type": "string"}})


def hanging(name: str = "hang") -> FunctionTool:
    async def hang(input: Mapping[str, Any], context: ToolContext) -> Any:
        await asyncio.get_running_loop().create_future()

    return FunctionTool(name, hang)


def call(tool: str, **input: Any) -> dict[str, Any]:
    """A call as a JSON action."""
    return {"type": "ToolCall", "tool": tool, "input": input}


def final(answer: Any) -> dict[str, Any]:
    return {"type": "Final", "answer": answer}


def job(goal: str = "Find out why the shop fails.", *, tools: Sequence[FunctionTool] = (), **changes: Any) -> Job:
    """A goal that may use these tools. limits: given as a dict."""
    limits = Limits(**{"retry_delay_s": 0.0, **changes.pop("limits", {})})
    given: dict[str, Any] = {"run": "run-1", "goal": goal, "watch": "shop", "kind": "goal", "model": "scripted"}
    given |= {"permissions": Permissions(tools=tuple(tool.name for tool in tools)), "limits": limits}
    return Job(**{**given, **changes})


class Desk:
    """
    One run, ready to begin.

    keeper: its records. events: what listeners were told. running: to be controlled while `run` is under way.
    """

    def __init__(
        self,
        model: Model | None,
        *tools: FunctionTool,
        asked: Job | None = None,
        clock: Clock | None = None,
        **changes: Any,
    ) -> None:
        self.keeper = Keeper()
        self.events: list[AgentEvent] = []
        self.listeners = Listeners()
        self.listeners.subscribe(self.events.append)
        self.job = asked or job(tools=tools, **{"model": None if model is None else "scripted", **changes})
        self.registry = Registry(tools)
        self.models = None if model is None else OneModel(model)
        self.clock = clock
        self.running = Running(
            self.job,
            self.keeper,
            models=self.models,
            registry=self.registry,
            clock=clock,
            listeners=self.listeners,
        )

    async def run(self) -> Outcome:
        return await self.running.run()

    def told(self, kind: type[Any]) -> list[Any]:
        """Events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
