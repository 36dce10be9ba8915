"""
The events of a streamed answer, put together.

In: JSON of the OpenAI-compatible protocol, chunk by chunk. Out: `ModelEvent`s, and at the end `Done`.
Promise: what a provider does oddly here is evened out; an answer is bounded in text and calls, its ids are unique.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from agentd.llm.chat_request import OURS
from agentd.llm.chat_usage import Told
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
from agentd.llm.thinking import ThinkTags, split_late

MAX_CHARS = 4 * 1024 * 1024
MAX_CALLS = 256
_MAX_NAME = 256
_MOST_PIECES = 64

_STOPS: Mapping[str, StopReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
}
BROKEN = frozenset({"error", "abort", "network_error", "insufficient_system_resource"})
"""Reasons to finish that are failures: the server broke off by itself."""

Delta = TextDelta | ThinkingDelta | ToolCallDelta


class TooLong(ValueError):
    """The answer goes on beyond every bound."""


@dataclass(slots=True, eq=False)
class _Call:
    """place: among the calls of this answer. told: the id as the server gave it."""

    place: int
    id: str
    told: str | None
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra: Any = None

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    @property
    def said(self) -> str:
        """The arguments. Some servers say with each delta all that came before: the last of them is the whole then."""
        pieces = self.arguments
        if 1 < len(pieces) <= _MOST_PIECES and all(b.startswith(a) for a, b in pairwise(pieces)):
            # Not by their beginning alone: `{"a":` and `{"a": 1}}` are pieces of one object.
            return pieces[-1] if not _is_object(self.text) and _is_object(pieces[-1]) else self.text
        return self.text

    @property
    def whole(self) -> bool:
        """Its arguments are a whole object. Looked at only where a server is odd, and not for ever."""
        return 0 < len(self.arguments) <= _MOST_PIECES and _is_object(self.said)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class ChatAnswer:
    """
    One answer.

    taken_ids: of the calls before in this conversation. ours: the tool's own name for one the model wrote.
    finish: why the server said that it ended, None until then. begun: some of the answer has come. heard: something
    of this protocol has.
    """

    def __init__(self, taken_ids: Iterable[str] = (), ours: Callable[[str], str] = str) -> None:
        self.finish: str | None = None
        self.heard = False
        self.served_by = ""
        self.told = Told()
        self._taken = set(taken_ids)
        self._ours = ours
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._chars = 0
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._tags = ThinkTags()
        self._half = ""

    @property
    def begun(self) -> bool:
        return bool(self._text or self._thinking or self._calls)

    def take(self, chunk: Mapping[str, Any]) -> list[Delta]:
        """One event's JSON. Raises TooLong."""
        if (usage := chunk.get("usage")) is not None:
            self.told.take(usage)
        if not self.served_by and isinstance(model := chunk.get("model"), str):
            self.served_by = model[:200]
        choices = chunk.get("choices")
        self.heard = self.heard or choices is not None
        if not isinstance(choices, list):
            return []
        # Some servers answer several times over, whatever they are asked: the first is the answer.
        choice = next((each for each in choices if isinstance(each, dict) and not each.get("index")), None)
        if choice is None:
            return []
        if (usage := choice.get("usage")) is not None:
            self.told.take(usage)
        found: list[Delta] = []
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._take_delta(delta, found)
        elif isinstance(text := choice.get("text"), str) and text:
            self._take_text(text, found)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish and finish != "null":
            self.finish = finish.lower()[:100]
        return found

    def end(self) -> list[Delta]:
        """What was held back in the hope of more."""
        found: list[Delta] = []
        if self._half:
            self._half = ""
            self._add_text("\ufffd", found)
        for thinking, text in self._tags.end():
            self._add(thinking, text, found)
        return found

    def done(self, name: str, estimate: Callable[[str], int], input_tokens: Callable[[], int]) -> Done:
        """
        The whole. name: of the model in the config.

        estimate: tokens of a text, input_tokens: of the question, both asked only where the server did not say.
        """
        text, thinking = "".join(self._text), "".join(self._thinking)
        if not thinking:
            thinking, text = split_late(text)
        calls = [call for call in self._calls if call.name or call.text.strip()]
        extra = {call.id: call.extra for call in calls if call.extra is not None}
        message = ChatMessage(
            "assistant",
            text,
            tool_calls=tuple(ToolCall(call.id, call.name, call.said) for call in calls),
            thinking=thinking or None,
            provider_data={OURS: {"extra_content": extra}} if extra else None,
        )
        return Done(message, self._usage(message, estimate, input_tokens), self._stop(message), name, self.served_by)

    def _usage(self, message: ChatMessage, estimate: Callable[[str], int], input_tokens: Callable[[], int]) -> Usage:
        read, written = self.told.input, self.told.output
        # Zeros stand where a server counts nothing; no question is empty.
        estimated = not read or (not written and self.begun)
        if not read:
            read = input_tokens()
        if not written and self.begun:
            parts = [message.content, message.thinking or "", *(c.name + c.arguments for c in message.tool_calls)]
            written = sum(estimate(part) for part in parts if part)
        return Usage(read, written or 0, min(self.told.cached or 0, read), estimated)

    def _stop(self, message: ChatMessage) -> StopReason:
        stop = _STOPS.get(self.finish or "", "unknown")
        if message.tool_calls and stop in ("stop", "unknown"):
            return "tool_calls"
        return "stop" if stop == "tool_calls" and not message.tool_calls else stop

    def _take_delta(self, delta: Mapping[str, Any], found: list[Delta]) -> None:
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thinking, str) and thinking:
            self._add(True, thinking, found)
        content = delta.get("content") or delta.get("refusal")
        if content:
            if isinstance(content, str):
                self._take_text(content, found)
            elif isinstance(content, list):
                self._take_parts(content, found)
        calls = delta.get("tool_calls")
        if calls and isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._take_call(call, found)
        elif isinstance(call := delta.get("function_call"), dict):
            self._take_call({"index": 0, "function": call}, found)

    def _take_parts(self, parts: list[Any], found: list[Delta]) -> None:
        for part in parts:
            if not isinstance(part, dict):
                continue
            inner = part.get("text") or part.get("thinking")
            if isinstance(inner, list):
                inner = "".join(str(each.get("text") or "") for each in inner if isinstance(each, dict))
            if isinstance(inner, str) and inner:
                self._add(True, inner, found) if part.get("type") == "thinking" else self._take_text(inner, found)

    def _take_text(self, text: str, found: list[Delta]) -> None:
        for thinking, piece in self._tags.feed(text):
            self._add(thinking, piece, found)

    def _add(self, thinking: bool, text: str, found: list[Delta]) -> None:
        if not thinking:
            self._add_text(text, found)
            return
        text = whole_letters(text)
        self._count(text)
        self._thinking.append(text)
        found.append(ThinkingDelta(text))

    def _add_text(self, text: str, found: list[Delta]) -> None:
        if self._half or not text.isascii():
            text = self._half + text
            # JSON may tell a letter beyond U+FFFF as two halves, and servers cut between them.
            self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
            text = whole_letters(text[: len(text) - len(self._half)])
        if text:
            self._count(text)
            self._text.append(text)
            found.append(TextDelta(text))

    def _count(self, text: str) -> None:
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise TooLong(f"more than {MAX_CHARS} characters")

    def _take_call(self, delta: Mapping[str, Any], found: list[Delta]) -> None:
        function = delta.get("function")
        if not isinstance(function, dict):
            function = delta
        name = function.get("name")
        name = whole_letters(name)[:_MAX_NAME] if isinstance(name, str) else ""
        arguments = function.get("arguments")
        text = "" if arguments is None else arguments if isinstance(arguments, str) else json.dumps(arguments)
        told = delta.get("id")
        told = told[:_MAX_NAME] if isinstance(told, str) and told else None

        call = self._call_of(delta.get("index"), told, name, text)
        new = call is None
        if call is None:
            call = self._new_call(told)
            if isinstance(index := delta.get("index"), int):
                self._by_index[index] = call
        given = ""
        if name and not call.name:
            call.name = given = self._ours(name)
        if (extra := delta.get("extra_content")) is not None and call.extra is None:
            self._count(json.dumps(extra))
            call.extra = extra
        text = whole_letters(text)
        self._count(text)
        if text:
            call.arguments.append(text)
        if new or given or text:
            found.append(ToolCallDelta(call.place, call.id if new else None, given or None, text))

    def _call_of(self, index: Any, told: str | None, name: str, text: str) -> _Call | None:
        """The call that goes on with this delta; None: it begins a new one."""
        if isinstance(index, int):
            call = self._by_index.get(index)
            if call is None:
                return None
            # Several calls, all with index 0. But others repeat the name, or make up an id, with every delta of one.
            other = told is not None and call.told is not None and told != call.told
            if told is not None and told == call.told and call.arguments[-1:] == [text]:
                return call  # all of it again, and nothing new
            if name and ((other and not call.arguments) or ((other or text) and call.whole)):
                return None
            return call
        if told is not None:
            return next((call for call in self._calls if call.told == told), None)
        if not self._calls:
            return None
        last = self._calls[-1]
        return None if name and last.name and (name != last.name or (text and last.whole)) else last

    def _new_call(self, told: str | None) -> _Call:
        if len(self._calls) >= MAX_CALLS:
            raise TooLong(f"more than {MAX_CALLS} calls")
        given = whole_letters(told) if told else None
        while given is None or given in self._taken:
            # Nine letters and digits: Mistral takes nothing else back.
            given = f"c{secrets.token_hex(4)}"
        self._taken.add(given)
        call = _Call(len(self._calls), given, told)
        self._calls.append(call)
        return call


def whole_letters(text: str) -> str:
    """Without halves of letters, which neither UTF-8 nor the store can hold."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
