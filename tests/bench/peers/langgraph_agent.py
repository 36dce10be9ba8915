"""LangGraph's ReAct agent (`create_agent`, what `create_react_agent` has become) with langchain-openai, streaming."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from subject import ABOUT_LOOK, GOAL, SYSTEM, Pursue, Seen, looked, main


@contextlib.asynccontextmanager
async def opens(url: str) -> AsyncIterator[Pursue]:
    called = 0

    async def look(n: int) -> str:
        nonlocal called
        called += 1
        return looked(n)

    @cache
    def agent(model: str) -> Any:
        chat = ChatOpenAI(
            model=model,
            base_url=f"{url}/v1",
            api_key="none",
            streaming=True,
            stream_usage=True,
            use_responses_api=False,
        )
        tool = StructuredTool.from_function(coroutine=look, name="look", description=ABOUT_LOOK)
        return create_agent(chat, [tool], system_prompt=SYSTEM)

    async def pursue(model: str, seen: Seen) -> None:
        before, said = called, ""
        asked = {"messages": [{"role": "user", "content": GOAL}]}
        async for chunk, _ in agent(model).astream(asked, {"recursion_limit": 100}, stream_mode="messages"):
            if isinstance(chunk, AIMessageChunk) and chunk.content:
                seen.pieces += 1
                said += str(chunk.content)
        seen.said = said
        seen.tools += called - before

    yield pursue


if __name__ == "__main__":
    main(opens)
