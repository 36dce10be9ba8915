"""
A `Request` as the library's messages, tools and settings.

In: the request, of which model the answer is to be. Out: values of `pydantic_ai`.
Promise: a conversation that was begun with another model, that lost results of its calls, or that holds halves of
letters can be gone on with; what the provider signed goes back to it as it came, or not at all.

Results of calls come right after the answer that asked for them, in the order of the calls, before anything else that
is said: Anthropic, Gemini and Bedrock all refuse a conversation in which a call is left open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from agentd.llm.chat_answer import whole_letters
from agentd.llm.chat_request import ToolNames, call_as_text, names_of
from agentd.llm.library.kept import Kept, kept_of
from agentd.llm.port import ChatMessage, Request, ToolCall

_NOTHING = "(nothing)"
_NO_RESULT = "There is no result of this call."


@dataclass(frozen=True, slots=True)
class Question:
    messages: list[ModelMessage]
    parameters: ModelRequestParameters
    names: ToolNames


@dataclass(slots=True)
class _Turn:
    """What is said to the model between two of its answers."""

    results: dict[str, ChatMessage] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def question_of(request: Request, *, provider: str) -> Question:
    """provider: as the library calls it; what others have signed is not sent to it."""
    names = names_of(request)
    native = names if request.tools else None
    parameters = ModelRequestParameters(
        function_tools=[
            ToolDefinition(
                name=names.legal(tool.name),
                description=whole_letters(tool.description),
                parameters_json_schema=dict(tool.input_schema),
            )
            for tool in request.tools
        ],
        instruction_parts=[InstructionPart(content=whole_letters(request.system_prompt))]
        if request.system_prompt.strip()
        else [],
    )
    if request.answer_schema is not None and not request.tools:
        parameters.output_mode = "native"
        parameters.output_object = OutputObjectDefinition(json_schema=dict(request.answer_schema), name="answer")
    return Question(list(_messages(request.messages, native, provider)), parameters, names)


def _messages(messages: Sequence[ChatMessage], names: ToolNames | None, provider: str) -> Iterator[ModelMessage]:
    calls: tuple[ToolCall, ...] = ()
    turn = _Turn()
    begun = False
    for message in messages:
        if message.role == "assistant":
            # Whoever answers was asked: the first message must be the other side's.
            if not begun or calls or turn.said:
                yield _request(calls, turn, names)
            yield _response(message, names, provider)
            begun, calls, turn = True, message.tool_calls if names is not None else (), _Turn()
        elif message.role == "tool" and any(call.id == message.tool_call_id for call in calls):
            turn.results[message.tool_call_id or ""] = message
        elif message.role == "tool":
            turn.said.append(f"Result of {message.name or 'the tool'}:\n{message.content}")
        else:
            turn.said.append(message.content)
    if not begun or calls or turn.said:
        yield _request(calls, turn, names)


def _request(calls: Sequence[ToolCall], turn: _Turn, names: ToolNames | None) -> ModelRequest:
    parts: list[ModelRequestPart] = []
    for call in calls if names is not None else ():
        result = turn.results.get(call.id)
        content = _NO_RESULT if result is None else _text(result.content)
        name = names.legal(call.name or "unnamed") if names is not None else call.name
        parts.append(ToolReturnPart(tool_name=name, content=content, tool_call_id=call.id))
    parts += [UserPromptPart(content=_text(text)) for text in turn.said or ([] if parts else [""])]
    return ModelRequest(parts=parts)


def _response(message: ChatMessage, names: ToolNames | None, provider: str) -> ModelResponse:
    if names is None:
        text = "\n".join(filter(None, [message.content, *map(call_as_text, message.tool_calls)]))
        return ModelResponse(parts=[TextPart(content=_text(text))], provider_name=provider)
    kept = kept_of(message, provider)
    parts = list(_kept_parts(message, kept, names, provider) if kept is not None else _plain_parts(message, names))
    return ModelResponse(
        parts=parts or [TextPart(content=_NOTHING)],
        provider_name=provider,
        canonical_system=None if kept is None else kept.system,
    )


def _plain_parts(message: ChatMessage, names: ToolNames) -> Iterator[ModelResponsePart]:
    # Thoughts without a signature are no thoughts to any of these providers.
    if message.content.strip():
        yield TextPart(content=whole_letters(message.content))
    for call in message.tool_calls:
        yield ToolCallPart(
            tool_name=names.legal(call.name or "unnamed"), args=_arguments(call.arguments), tool_call_id=call.id
        )


def _kept_parts(message: ChatMessage, kept: Kept, names: ToolNames, provider: str) -> Iterator[ModelResponsePart]:
    thinking, text, calls = message.thinking or "", message.content, iter(message.tool_calls)
    for part in kept.parts:
        signer = provider if part.signature or part.details else None
        if part.kind == "thinking":
            said, thinking = thinking[: part.chars], thinking[part.chars :]
            yield ThinkingPart(
                content=said,
                id=part.id,
                signature=part.signature,
                provider_name=signer,
                provider_details=part.details,
            )
        elif part.kind == "text":
            said, text = text[: part.chars], text[part.chars :]
            if said.strip() or part.details:
                yield TextPart(content=whole_letters(said), provider_name=signer, provider_details=part.details)
        else:
            call = next(calls)
            yield ToolCallPart(
                tool_name=names.legal(call.name or "unnamed"),
                args=_arguments(call.arguments),
                tool_call_id=call.id,
                provider_name=signer,
                provider_details=part.details,
            )


def _arguments(arguments: str) -> dict[str, Any]:
    """The arguments as they were, if that is a JSON object: nothing else can be sent."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, Mapping):
        return dict(found)
    return {"unreadable": whole_letters(arguments[:2000])} if arguments.strip() else {}


def _text(text: str) -> str:
    """Empty texts are refused."""
    return whole_letters(text) if text.strip() else _NOTHING
