"""
The port between agents and language models: what is asked, what comes back, how it fails.

In: a `Request`. Out: `ModelEvent`s as they arrive, the last of them `Done` with the whole answer.
Promise: whatever a provider does is one of these events or a `ModelFailure` of a kind that a caller can act on.
Names of keys may stand here, keys never.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

from agentd.errors import AgentdError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """input_schema: JSON Schema, draft 2020-12, of an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    counted: int = field(default=0, init=False, repr=False, compare=False)
    """Its tokens, once somebody has counted them (`llm.tokens`); a run asks with the same tools again and again."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """
    One call that the model asks for.

    id: the provider's, or made by us where it gave none; unique within the run. arguments: JSON text as the model
    wrote it, perhaps broken: the loop reads it and tells the model what is wrong.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """
    One message of the conversation.

    name: of the tool, in a message of role `tool`. tool_call_id: which call that message answers.
    thinking: the model's reasoning text, for those who demand it back (`reasoning_content`).
    provider_data: what the provider must get back unchanged (Gemini's thought_signature); plain JSON, opaque to us.
    """

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    thinking: str | None = None
    provider_data: Mapping[str, Any] | None = None
    counted: int = field(default=0, init=False, repr=False, compare=False)
    """Its tokens, once somebody has counted them (`llm.tokens`)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens of one call, not cumulative. cached_tokens: those of input_tokens that were read from the provider's cache.

    cache_written_tokens: those of input_tokens that were put into it, where that has a price of its own.
    estimated: the provider did not say; counted from the text.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cache_written_tokens: int = 0

    @property
    def total(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
            self.cache_written_tokens + other.cache_written_tokens,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """
    One call.

    messages: the conversation, without the system prompt. tools: offered natively; empty for JSON actions.
    answer_schema: JSON Schema of the answer's text, sent as a grammar where the server takes one.
    timeout_s: from the call to the end of the answer, waits and retries included.
    """

    system_prompt: str
    messages: Sequence[ChatMessage]
    tools: Sequence[ToolSpec] = ()
    max_tokens: int = 4000
    temperature: float | None = None
    answer_schema: Mapping[str, Any] | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the reasoning that comes before the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of call `index` of this answer. id and name come once, with the first delta of a call."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class Remark:
    """What is happening to the question meanwhile, for people: no part of the answer."""

    text: str


StopReason = Literal["stop", "tool_calls", "length", "content_filter", "unknown"]


@dataclass(frozen=True, slots=True)
class Done:
    """
    The whole answer; always the last event.

    model: the model of the config that answered, by its name there; served_by: what the provider calls it.
    usd: what the call cost, None when no price is known: unknown, never zero.
    """

    message: ChatMessage
    usage: Usage
    stop_reason: StopReason = "stop"
    model: str = ""
    served_by: str = ""
    usd: float | None = None


ModelEvent = TextDelta | ThinkingDelta | ToolCallDelta | Remark | Done


class FailureKind(StrEnum):
    """What kind of failure a call ended with: what is done about it depends on this alone (`llm.failures`)."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CUT = "cut"
    GARBAGE = "garbage"
    BAD_KEY = "bad_key"
    QUOTA = "quota"
    CONTEXT_OVERFLOW = "context_overflow"
    BAD_REQUEST = "bad_request"
    FILTERED = "filtered"
    BUDGET = "budget"


class ModelFailure(AgentdError):
    """
    A call came to nothing.

    The message is for people and shows neither key nor more than a line of what the provider said.
    retry_after_s: what the provider asked for. received: some of the answer had come already.
    """

    def __init__(
        self,
        message: str,
        kind: FailureKind,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        received: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.received = received


class Model(Protocol):
    """
    One language model, ready to be asked.

    name: as the config calls it. native_tools: it takes `Request.tools`; otherwise tools are called by JSON actions.
    grammar: the server takes `Request.answer_schema`. context_tokens: of its window, input and answer together.
    The first answer may show that it takes no tools or no schema after all: read them anew before each request.
    """

    @property
    def name(self) -> str: ...

    @property
    def native_tools(self) -> bool: ...

    @property
    def grammar(self) -> bool: ...

    @property
    def context_tokens(self) -> int: ...

    def stream(self, request: Request) -> AsyncIterator[ModelEvent]:
        """
        Ask. Raises ModelFailure, from the first step of the iterator on.

        Closing the iterator (`aclose`) or cancelling whoever reads it closes the connection.
        """
        ...

    async def close(self) -> None: ...


async def complete(
    model: Model, system_prompt: str, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = (), **settings: Any
) -> Done:
    """Ask and wait for the whole answer. settings: further fields of `Request`. Raises ModelFailure."""
    return await collect(model, Request(system_prompt, messages, tools, **settings))


async def collect(model: Model, request: Request) -> Done:
    """The answer as a whole. Raises ModelFailure, also when a model ends without `Done`."""
    done: Done | None = None
    async for event in model.stream(request):
        if isinstance(event, Done):
            done = event
    if done is None:
        raise ModelFailure(f"model {model.name} ended without an answer", FailureKind.CUT)
    return done


@dataclass(slots=True)
class Collector:
    """Puts a message together from its deltas, for adapters: calls without an id get one, names come once."""

    prefix: str = "call"
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: dict[int, ToolCall] = field(default_factory=dict)

    def add(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> None:
        if isinstance(event, TextDelta):
            self.text.append(event.text)
        elif isinstance(event, ThinkingDelta):
            self.thinking.append(event.text)
        else:
            call = self.calls.get(event.index) or ToolCall(event.id or f"{self.prefix}_{event.index + 1}", "", "")
            self.calls[event.index] = replace(
                call, name=call.name or event.name or "", arguments=call.arguments + event.arguments
            )

    def message(self, provider_data: Mapping[str, Any] | None = None) -> ChatMessage:
        return ChatMessage(
            "assistant",
            "".join(self.text),
            tool_calls=tuple(self.calls[index] for index in sorted(self.calls)),
            thinking="".join(self.thinking) or None,
            provider_data=provider_data,
        )
