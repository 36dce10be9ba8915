"""
A built-in model and the server behind it, for the tests of the adapter.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from modelserver import ModelServer

from agentd.llm.openai_chat import OpenAIChat
from agentd.llm.port import ChatMessage, Done, ModelEvent, Request, ToolSpec
from agentd.llm.settings import ModelSettings

HTTP_GET = ToolSpec("http_get", "Fetch a page", {"type": "object", "properties": {"url": {"type": "string"}}})


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def asking(text: str = "what is up?", *before: ChatMessage, tools: Sequence[ToolSpec] = (), **more: Any) -> Request:
    return Request("Be brief.", [*before, user(text)], tools, **more)


@dataclass
class Setting:
    server: ModelServer
    http: httpx.AsyncClient

    def model(self, provider: str = "openai-compatible", **settings: Any) -> OpenAIChat:
        """A model of this server under whatever provider's name."""
        given = {"provider": provider, "model": "m-1", "base_url": self.server.url, "api_key": "key-1", **settings}
        return OpenAIChat("default", ModelSettings.model_validate(given), self.http)

    async def events(self, *script: Any, request: Request | None = None, **settings: Any) -> list[ModelEvent]:
        """All events of one answer."""
        self.server.answers(*script)
        return [event async for event in self.model(**settings).stream(request or asking())]

    async def done(self, *script: Any, request: Request | None = None, **settings: Any) -> Done:
        last = (await self.events(*script, request=request, **settings))[-1]
        assert isinstance(last, Done)
        return last


@contextlib.asynccontextmanager
async def setting() -> AsyncIterator[Setting]:
    async with ModelServer() as server, httpx.AsyncClient(trust_env=False, verify=False) as http:
        yield Setting(server, http)


def chunk(finish: str | None = None, /, usage: Any = None, **delta: Any) -> dict[str, Any]:
    """One event of a stream, as most servers send it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"choices": [choice], "model": "m-1-2026", **({} if usage is None else {"usage": usage})}


def call_delta(index: int | None, /, id: str | None = None, **function: Any) -> dict[str, Any]:
    """A chunk with one delta of one call."""
    delta: dict[str, Any] = {"function": function}
    if index is not None:
        delta["index"] = index
    if id is not None:
        delta["id"] = id
    return chunk(tool_calls=[delta])
