"""
A language model that says what a script tells it to.

    model = ScriptedModel(
        {"type": "ToolCall", "tool": "http_get", "input": {"url": "https://shop.example/"}},
        ModelFailure("overloaded", FailureKind.OVERLOADED),
        lambda request: f"you asked {len(request.messages)} things",
        {"type": "Final", "answer": "the shop is up"},
    )

In: one step of the script for each call. Out: events as a real model streams them.
Promise: requests are kept in their order; a call for which the script has no step fails the test with a clear error.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentd.llm.port import (
    ChatMessage,
    Collector,
    Done,
    ModelEvent,
    ModelFailure,
    Request,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from agentd.llm.tokens import count_message, count_request

Part = str | Mapping[str, Any] | ToolCall | ThinkingDelta | ModelFailure
"""Text, an action, a native call, reasoning, or the failure that cuts the answer off at this point."""

Answer = Part | list[Part] | ChatMessage | Done
Step = Answer | Callable[[Request], Answer | Awaitable[Answer]]


class ScriptExhausted(AssertionError):
    """The model was called more often than its script has steps."""


@dataclass(frozen=True, slots=True)
class _Said:
    """One answer as it will be streamed. failure: what comes after the events, in place of their end."""

    events: list[TextDelta | ThinkingDelta | ToolCallDelta]
    failure: ModelFailure | None = None
    done: Done | None = None
    provider_data: Mapping[str, Any] | None = None


class ScriptedModel:
    """
    Answers with its steps in turn.

    script: text; an action as a dict (JSON text, or native calls when `native_tools`); `ToolCall`s; a whole
    `ChatMessage` or `Done`; a `ModelFailure` to raise; a list of such parts, where a failure cuts the answer off in
    its middle; or a function, plain or async, of the request that gives any of these. It may be called for ever with
    `otherwise`, a step for when the script is at its end.
    chunk: characters of a delta; None: the whole at once. usage, usd: of each call; usage None: counted from the text.
    gate: each answer waits until it is set.
    requests: what was asked. under_way: calls that are being answered. cancelled: those not read to their end.
    """

    def __init__(
        self,
        *script: Step,
        name: str = "scripted",
        native_tools: bool = False,
        grammar: bool = False,
        context_tokens: int = 32768,
        otherwise: Step | None = None,
        chunk: int | None = None,
        usage: Usage | None = None,
        usd: float | None = 0.0,
        gate: asyncio.Event | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ValueError(f"a chunk of {chunk} characters never ends; give 1 or more, or None")
        self.name = name
        self.native_tools = native_tools
        self.grammar = grammar
        self.context_tokens = context_tokens
        self.otherwise = otherwise
        self.chunk = chunk
        self.usage = usage
        self.usd = usd
        self.gate = gate
        self.requests: list[Request] = []
        self.under_way = 0
        self.cancelled = 0
        self.closed = False
        self._script: deque[Step] = deque(script)
        self._calls = 0
        self._news = asyncio.Event()

    def says(self, *script: Step) -> None:
        """Further steps, after those that are left."""
        self._script.extend(script)

    @property
    def left(self) -> int:
        """Steps not yet taken."""
        return len(self._script)

    async def asked(self, count: int = 1, within_s: float = 30.0) -> None:
        """Until it was called so many times. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()

    async def close(self) -> None:
        self.closed = True

    async def stream(self, request: Request) -> AsyncIterator[ModelEvent]:
        self.requests.append(request)
        # Taken before the first wait: calls that run at once get their steps in the order in which they came.
        step = self._next()
        self._news.set()
        self.under_way += 1
        ended = False
        try:
            if self.gate is not None:
                await self.gate.wait()
            said = await self._answer(step, request)
            collector = Collector()
            for event in self._chunks(said.events):
                collector.add(event)
                yield event
            ended = True
            if said.failure is not None:
                raise _fresh(said.failure, received=bool(said.events))
            yield said.done or self._done(request, collector.message(said.provider_data))
        finally:
            self.cancelled += not ended
            self.under_way -= 1

    def _next(self) -> Step:
        if self._script:
            return self._script.popleft()
        if self.otherwise is not None:
            return self.otherwise
        raise ScriptExhausted(
            f"model {self.name} was called {len(self.requests)} times, its script has fewer steps; "
            "add steps, or `otherwise=` for the rest"
        )

    async def _answer(self, step: Step, request: Request) -> _Said:
        if callable(step):
            given = step(request)
            answer = await given if inspect.isawaitable(given) else given
        else:
            answer = step
        if isinstance(answer, Done):
            return _Said(_deltas_of(answer.message), done=answer)
        if isinstance(answer, ChatMessage):
            # As given, name and call ids included.
            return _Said(_deltas_of(answer), provider_data=answer.provider_data)
        events: list[TextDelta | ThinkingDelta | ToolCallDelta] = []
        for part in answer if isinstance(answer, list) else [answer]:
            if isinstance(part, ModelFailure):
                return _Said(events, failure=part)
            events += self._events(part, sum(isinstance(event, ToolCallDelta) for event in events))
        return _Said(events)

    def _events(
        self, part: str | Mapping[str, Any] | ToolCall | ThinkingDelta, index: int
    ) -> list[TextDelta | ThinkingDelta | ToolCallDelta]:
        if isinstance(part, str):
            return [TextDelta(part)] if part else []
        if isinstance(part, ThinkingDelta):
            return [part]
        if isinstance(part, ToolCall):
            return [ToolCallDelta(index, part.id, part.name, part.arguments)]
        calls = list(self._native(part)) if self.native_tools else []
        if not calls:
            text = part["answer"] if self.native_tools and _is_text_answer(part) else json.dumps(part)
            return [TextDelta(text)]
        return [ToolCallDelta(index + n, call.id, call.name, call.arguments) for n, call in enumerate(calls)]

    def _native(self, action: Mapping[str, Any]) -> Iterator[ToolCall]:
        """The calls by which a model with native tools says this action; none for what it says as text."""
        kind = action.get("type")
        if kind == "ToolCall":
            yield self._call(action.get("tool") or action.get("tool_name") or "", action.get("input", {}))
        elif kind == "Parallel":
            for each in action.get("actions", ()):
                yield from self._native(each)
        elif kind == "Graph":
            yield self._call("run_graph", {"tasks": action.get("tasks", [])})
        elif kind == "Plan":
            yield self._call("plan", {key: value for key, value in action.items() if key not in ("type", "actions")})
            for each in action.get("actions", ()):
                yield from self._native(each)
        elif kind == "Final" and not _is_text_answer(action):
            yield self._call("finish", action.get("answer"))

    def _call(self, tool: str, arguments: Any) -> ToolCall:
        self._calls += 1
        return ToolCall(f"{self.name}_{self._calls}", tool, json.dumps(arguments))

    def _chunks(
        self, events: list[TextDelta | ThinkingDelta | ToolCallDelta]
    ) -> Iterator[TextDelta | ThinkingDelta | ToolCallDelta]:
        if self.chunk is None:
            yield from events
            return
        for event in events:
            text = event.arguments if isinstance(event, ToolCallDelta) else event.text
            for start in range(0, max(1, len(text)), self.chunk):
                piece = text[start : start + self.chunk]
                if not isinstance(event, ToolCallDelta):
                    yield replace(event, text=piece)
                elif start == 0:
                    yield replace(event, arguments=piece)
                else:
                    yield ToolCallDelta(event.index, None, None, piece)

    def _done(self, request: Request, message: ChatMessage) -> Done:
        usage = self.usage or Usage(count_request(request), count_message(message), estimated=True)
        reason: StopReason = "tool_calls" if message.tool_calls else "stop"
        return Done(message, usage, reason, model=self.name, served_by=self.name, usd=self.usd)


def _is_text_answer(action: Mapping[str, Any]) -> bool:
    return action.get("type") == "Final" and isinstance(action.get("answer"), str)


def _deltas_of(message: ChatMessage) -> list[TextDelta | ThinkingDelta | ToolCallDelta]:
    found: list[TextDelta | ThinkingDelta | ToolCallDelta] = []
    if message.thinking:
        found.append(ThinkingDelta(message.thinking))
    if message.content:
        found.append(TextDelta(message.content))
    return found + [
        ToolCallDelta(index, call.id, call.name, call.arguments) for index, call in enumerate(message.tool_calls)
    ]


def _fresh(failure: ModelFailure, *, received: bool) -> ModelFailure:
    # One script may raise the same failure many times: a raised exception carries its traceback along.
    return ModelFailure(
        str(failure),
        failure.kind,
        status=failure.status,
        retry_after_s=failure.retry_after_s,
        received=failure.received or received,
    )
