"""The agent of openai-agents over chat completions, streaming, its tracing off."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from openai import AsyncOpenAI
from subject import ABOUT_LOOK, GOAL, SYSTEM, Pursue, Seen, looked, main

sdk: Any = importlib.import_module("agents")  # a file of our tests has this name too, and mypy would take that


@contextlib.asynccontextmanager
async def opens(url: str) -> AsyncIterator[Pursue]:
    sdk.set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    called = 0

    async def look(n: int) -> str:
        nonlocal called
        called += 1
        return looked(n)

    tool = sdk.function_tool(look, description_override=ABOUT_LOOK)

    @cache
    def agent(model: str) -> Any:
        return sdk.Agent(
            name="watchman", instructions=SYSTEM, tools=[tool], model=sdk.OpenAIChatCompletionsModel(model, client)
        )

    async def pursue(model: str, seen: Seen) -> None:
        before = called
        result = sdk.Runner.run_streamed(agent(model), GOAL, max_turns=100)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                seen.pieces += 1
        seen.said = str(result.final_output)
        seen.tools += called - before

    yield pursue


if __name__ == "__main__":
    main(opens)
