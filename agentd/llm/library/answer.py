"""
The events of the library's streamed answer as ours.

In: what `pydantic_ai` yields, and at the end its whole response. Out: `ModelEvent`s, the last of them `Done`.
Promise: an answer is bounded in text and calls, its ids are unique in the conversation, its text can be stored.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from agentd.llm.chat_answer import MAX_CALLS, MAX_CHARS, TooLong, whole_letters
from agentd.llm.library.kept import keep
from agentd.llm.port import (
    ChatMessage,
    Done,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_MAX_NAME = 256
_MOST_TOKENS = 1_000_000_000

_STOPS: dict[str | None, StopReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_call": "tool_calls",
}

Delta = TextDelta | ThinkingDelta | ToolCallDelta


@dataclass(slots=True)
class _Call:
    place: int
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class LibraryAnswer:
    """taken_ids: of the calls before in this conversation. ours: the tool's own name for one the model wrote."""

    def __init__(self, taken_ids: Iterable[str] = (), ours: Callable[[str], str] = str) -> None:
        self._taken = set(taken_ids)
        self._ours = ours
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._chars = 0

    @property
    def begun(self) -> bool:
        return bool(self._text or self._thinking or self._calls)

    def take(self, event: Any) -> Delta | None:
        """None for what says nothing new. Raises TooLong."""
        if event.event_kind == "part_start":
            part = event.part
            if part.part_kind == "text":
                return self._add_text(part.content)
            if part.part_kind == "thinking":
                return self._add_thinking(part.content)
            if part.part_kind == "tool-call":
                return self._begin_call(event.index, part)
        elif event.event_kind == "part_delta":
            delta = event.delta
            if delta.part_delta_kind == "text":
                return self._add_text(delta.content_delta)
            if delta.part_delta_kind == "thinking":
                return self._add_thinking(delta.content_delta)
            if (call := self._calls.get(event.index)) is not None:
                return self._add_arguments(call, delta.args_delta)
        return None

    def done(self, response: Any, name: str, estimate: Callable[[str], int], input_tokens: Callable[[], int]) -> Done:
        """
        The whole. response: the library's. name: of the model in the config.

        estimate: tokens of a text, input_tokens: of the question, both asked only where the provider did not say.
        """
        message = ChatMessage(
            "assistant",
            "".join(self._text),
            tool_calls=tuple(
                ToolCall(call.id, call.name, "".join(call.arguments) or "{}") for call in self._calls.values()
            ),
            thinking="".join(self._thinking) or None,
            provider_data=keep(response),
        )
        stop = _STOPS.get(response.finish_reason, "unknown")
        if message.tool_calls and stop in ("stop", "unknown"):
            stop = "tool_calls"
        elif not message.tool_calls and stop == "tool_calls":
            stop = "stop"
        usage = self._usage(response.usage, message, estimate, input_tokens)
        return Done(message, usage, stop, name, str(response.model_name or "")[:200])

    def _usage(
        self, told: Any, message: ChatMessage, estimate: Callable[[str], int], input_tokens: Callable[[], int]
    ) -> Usage:
        read, written, cached, kept = (
            min(max(0, tokens or 0), _MOST_TOKENS)
            for tokens in (told.input_tokens, told.output_tokens, told.cache_read_tokens, told.cache_write_tokens)
        )
        # No question is empty: a zero is what was not told.
        estimated = not read or (not written and self.begun)
        if not written and self.begun:
            parts = [message.content, message.thinking or "", *(c.name + c.arguments for c in message.tool_calls)]
            written = sum(estimate(part) for part in parts if part)
        read = read or input_tokens()
        cached = min(cached, read)
        return Usage(read, written, cached, estimated, cache_written_tokens=min(kept, read - cached))

    def _add_text(self, text: str | None) -> TextDelta | None:
        if not text:
            return None
        text = self._counted(text)
        self._text.append(text)
        return TextDelta(text)

    def _add_thinking(self, text: str | None) -> ThinkingDelta | None:
        if not text:
            return None
        text = self._counted(text)
        self._thinking.append(text)
        return ThinkingDelta(text)

    def _begin_call(self, index: int, part: Any) -> ToolCallDelta | None:
        if index in self._calls:
            return None
        if len(self._calls) >= MAX_CALLS:
            raise TooLong(f"more than {MAX_CALLS} calls")
        told = whole_letters(part.tool_call_id or "")[:_MAX_NAME]
        while not told or told in self._taken:
            told = f"call_{secrets.token_hex(8)}"
        self._taken.add(told)
        call = _Call(len(self._calls), told, self._ours(whole_letters(part.tool_name)[:_MAX_NAME]))
        self._calls[index] = call
        arguments = self._add_arguments(call, part.args)
        return ToolCallDelta(call.place, call.id, call.name, "" if arguments is None else arguments.arguments)

    def _add_arguments(self, call: _Call, arguments: Any) -> ToolCallDelta | None:
        if not arguments and not isinstance(arguments, dict):
            return None
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        text = self._counted(text)
        call.arguments.append(text)
        return ToolCallDelta(call.place, None, None, text)

    def _counted(self, text: str) -> str:
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise TooLong(f"more than {MAX_CHARS} characters")
        return whole_letters(text)
