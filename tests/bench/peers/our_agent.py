"""
agentd's agent as it runs in the agent host: a run for each goal, with its tools and its money, the models shared.

`calls` as the second argument: calls of the model instead of goals, through all that the model layer does for one.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from subject import ABOUT_LOOK, ABOUT_N, GOAL, SYSTEM, Pursue, Seen, looked, main

from agentd.agent.events import AgentEvent, Listeners, MessageUpdate
from agentd.agent.job import Job, Limits, Permissions
from agentd.agent.lending import Lending
from agentd.agent.port import Record, ToolContext
from agentd.agent.registry import Registry
from agentd.agent.run import run_job
from agentd.clock import SystemClock
from agentd.fleet.messages import WorkerClass
from agentd.llm.client import open_models
from agentd.llm.port import ChatMessage, Done, Request, TextDelta, ToolSpec, Usage
from agentd.llm.settings import ModelSettings
from agentd.llm.spend import Quote


class Desk:
    """Lets all be spent, and keeps no record."""

    async def reserve(self, quote: Quote) -> None:
        pass

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        pass

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        return None

    def record(self, record: Record) -> None:
        pass


class Look:
    name = "look"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        "look",
        ABOUT_LOOK,
        {"type": "object", "properties": {"n": {"type": "integer", "description": ABOUT_N}}, "required": ["n"]},
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        return looked(input["n"])


def settings(model: str, url: str) -> ModelSettings:
    return ModelSettings(provider="openai-compatible", model=model, base_url=f"{url}/v1")


@contextlib.asynccontextmanager
async def opens(url: str) -> AsyncIterator[Pursue]:
    registry, desk, numbers, lending = Registry([Look()]), Desk(), itertools.count(), Lending(SystemClock())

    async def pursue(model: str, seen: Seen) -> None:
        def hear(event: AgentEvent) -> None:
            if isinstance(event, MessageUpdate) and event.kind == "text":
                seen.pieces += 1

        listeners = Listeners()
        listeners.subscribe(hear)
        job = Job(
            run=f"run-{next(numbers)}",
            goal=GOAL,
            model="scripted",
            models={"scripted": settings(model, url)},
            permissions=Permissions(tools=("look",)),
            limits=Limits(time_s=600),
        )
        async with lending.models_of(job) as models:
            outcome = await run_job(job, desk, models=models, registry=registry, listeners=listeners)
        assert outcome.state == "completed", outcome
        seen.tools += outcome.tool_calls
        seen.said = outcome.answer

    try:
        yield pursue
    finally:
        await lending.close()


@contextlib.asynccontextmanager
async def opens_calls(url: str) -> AsyncIterator[Pursue]:
    names = ("text-10", "text-50", "text-50-1")
    models = open_models({name: settings(name, url) for name in names}, purse=Desk(), clock=SystemClock())
    request = Request(SYSTEM, (ChatMessage("user", GOAL),), (Look.spec,))

    async def pursue(model: str, seen: Seen) -> None:
        async for event in models.get(model).stream(request):
            if isinstance(event, TextDelta):
                seen.pieces += 1
            elif isinstance(event, Done):
                seen.said = event.message.content

    try:
        yield pursue
    finally:
        await models.close()


if __name__ == "__main__":
    main(opens_calls if sys.argv[2:] == ["calls"] else opens)
