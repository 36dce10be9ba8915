"""
One question to the model, streamed as events.

In: a request. Out: the whole answer, while those who listen see it come.
Promise: the message that began is ended, and so is its span, also when the answer breaks off or nobody wants it any
more; the connection is closed before this returns.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from agentd.agent.events import Listeners, MessageEnd, MessageStart, MessageUpdate
from agentd.agent.spans import Spans
from agentd.llm.port import (
    Done,
    FailureKind,
    Model,
    ModelFailure,
    Remark,
    Request,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from agentd.llm.spend import BudgetSpent


async def put(model: Model, request: Request, listeners: Listeners, spans: Spans) -> Done:
    """Ask, and hand on what comes. Raises ModelFailure, BudgetSpent."""
    span = spans.chat(model.name, request)
    listeners.tell(MessageStart("assistant"))
    text: list[str] = []
    try:
        done = await _read(model, request, listeners, text)
    except BaseException as error:
        listeners.tell(MessageEnd("assistant", "".join(text), model.name))
        spans.failed(span, _kind_of(error), str(error))
        raise
    usage = asdict(done.usage) if listeners else None
    listeners.tell(MessageEnd("assistant", done.message.content, done.model or model.name, usage, done.usd))
    spans.answered(span, done)
    return done


async def _read(model: Model, request: Request, listeners: Listeners, text: list[str]) -> Done:
    events = model.stream(request)
    try:
        async for event in events:
            if isinstance(event, Done):
                return event
            if isinstance(event, TextDelta):
                text.append(event.text)
            if listeners:
                listeners.tell(_update(event))
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
    raise ModelFailure(f"model {model.name} ended without an answer", FailureKind.CUT)


def _update(event: TextDelta | ThinkingDelta | ToolCallDelta | Remark) -> MessageUpdate:
    if isinstance(event, Remark):
        return MessageUpdate("remark", event.text)
    if isinstance(event, ToolCallDelta):
        return MessageUpdate("tool_call", (event.name or "") + event.arguments)
    return MessageUpdate("text" if isinstance(event, TextDelta) else "thinking", event.text)


def _kind_of(error: BaseException) -> str:
    if isinstance(error, ModelFailure):
        return error.kind.value
    if isinstance(error, BudgetSpent):
        return FailureKind.BUDGET.value
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
