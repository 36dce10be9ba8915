"""pydantic-ai's Agent, streaming."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from pydantic_ai import Agent, AgentRunResultEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta, Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from subject import ABOUT_LOOK, GOAL, SYSTEM, Pursue, Seen, looked, main


@contextlib.asynccontextmanager
async def opens(url: str) -> AsyncIterator[Pursue]:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    called = 0

    async def look(n: int) -> str:
        nonlocal called
        called += 1
        return looked(n)

    @cache
    def agent(model: str) -> Any:
        tool = Tool(look, description=ABOUT_LOOK)
        return Agent(OpenAIChatModel(model, provider=provider), system_prompt=SYSTEM, tools=[tool])

    async def pursue(model: str, seen: Seen) -> None:
        before = called
        async with agent(model).run_stream_events(GOAL) as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent):
                    seen.pieces += isinstance(event.delta, TextPartDelta)
                elif isinstance(event, PartStartEvent):
                    seen.pieces += isinstance(event.part, TextPart)
                elif isinstance(event, AgentRunResultEvent):
                    seen.said = event.result.output
        seen.tools += called - before

    yield pursue


if __name__ == "__main__":
    main(opens)
