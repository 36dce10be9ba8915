"""
A `Request` as the body of the OpenAI-compatible chat protocol.

In: the request, what this server takes and refuses (`Habits`). Out: bytes, and the names that tools were given.
Promise: the body is valid JSON in UTF-8 whatever stands in the messages; a conversation that was begun with another
model, or without native tools, can be gone on with.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from agentd.llm.port import ChatMessage, Request, ToolCall
from agentd.llm.providers import TokensField

_LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
OURS = "openai_chat"
"""Under this name stands what is ours in `ChatMessage.provider_data`."""

_REMEMBERED_CHARS = 1024
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Thinking = Literal["no", "calls", "placeholder"]


@dataclass(frozen=True, slots=True)
class Habits:
    """
    What a server takes, as far as it is known.

    tokens_field: what bounds the answer. most_tokens: it takes no larger bound. temperature, include_usage, grammar,
    tools: it takes these. thinking: `calls`: reasoning text of messages with calls is sent back; `placeholder`: also
    where there is none.
    """

    tokens_field: TokensField = "max_tokens"
    most_tokens: int | None = None
    temperature: bool = True
    include_usage: bool = True
    grammar: bool = True
    tools: bool = True
    thinking: Thinking = "no"


@dataclass(slots=True)
class ToolNames:
    """
    Names that any provider takes (letters, digits, `_`, `-`, at most 64) for names of ours such as `server.tool`.

    The same name always becomes the same, but for two that would collide.
    """

    _legal: dict[str, str] = field(default_factory=dict)
    _ours: dict[str, str] = field(default_factory=dict)

    def legal(self, name: str) -> str:
        if (known := self._legal.get(name)) is not None:
            return known
        chosen = name
        if not _LEGAL.fullmatch(name):
            chosen = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"
            chosen = chosen if _LEGAL.fullmatch(chosen) else f"t_{chosen}"[:64]
        if chosen in self._ours or (chosen != name and len(name) > 64):
            chosen = f"{chosen[:55]}_{zlib.crc32(name.encode('utf-8', 'replace')):08x}"
        self._legal[name] = chosen
        self._ours.setdefault(chosen, name)
        return chosen

    def ours(self, name: str) -> str:
        """The name behind one that the model wrote; what nobody offered stays as it is."""
        return self._ours.get(name, name)


def names_of(request: Request) -> ToolNames:
    """Tools that are offered have the first choice, those with a legal name before the others."""
    names = ToolNames()
    for tool in sorted(request.tools, key=lambda tool: not _LEGAL.fullmatch(tool.name)):
        names.legal(tool.name)
    return names


def body_of(
    model: str, request: Request, habits: Habits, temperature: float | None
) -> tuple[dict[str, Any], ToolNames]:
    """model: as the provider calls it. temperature: None: the provider's own."""
    names = names_of(request)
    native = bool(request.tools) and habits.tools
    most = request.max_tokens if habits.most_tokens is None else min(request.max_tokens, habits.most_tokens)
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_messages(request, habits, names if native else None)),
        "stream": True,
        habits.tokens_field: most,
    }
    if habits.include_usage:
        body["stream_options"] = {"include_usage": True}
    if temperature is not None and habits.temperature:
        body["temperature"] = temperature
    if native:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": names.legal(tool.name),
                    "description": tool.description,
                    "parameters": tool.input_schema,
                },
            }
            for tool in request.tools
        ]
    elif request.answer_schema is not None and habits.grammar:
        # Not with tools beside it: llama.cpp refuses both at once, others let the grammar win.
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.answer_schema},
        }
    return body, names


def encode(body: Mapping[str, Any]) -> bytes:
    """Halves of characters, which JSON may hold and UTF-8 may not, become question marks."""
    return _write(body).encode("utf-8", "replace")


def _messages(request: Request, habits: Habits, names: ToolNames | None) -> Iterable[dict[str, Any]]:
    if request.system_prompt:
        yield {"role": "system", "content": request.system_prompt}
    for message in request.messages:
        if message.role == "assistant":
            yield _assistant(message, habits, names)
        elif message.role == "tool" and (names is None or message.tool_call_id is None):
            yield {"role": "user", "content": f"Result of {message.name or 'the tool'}:\n{message.content}"}
        elif message.role == "tool":
            yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
        else:
            yield {"role": message.role, "content": message.content}


def _assistant(message: ChatMessage, habits: Habits, names: ToolNames | None) -> dict[str, Any]:
    if names is None or not message.tool_calls:
        # Several servers refuse an empty message, and it must not vanish: roles take turns.
        text = "\n".join(filter(None, [message.content, *map(call_as_text, message.tool_calls)]))
        return {"role": "assistant", "content": text or "(no answer)"}
    extra = _ours_of(message).get("extra_content", {})
    sent: dict[str, Any] = {
        "role": "assistant",
        "content": message.content,
        "tool_calls": [_call(call, names, extra.get(call.id)) for call in message.tool_calls],
    }
    if habits.thinking != "no" and (message.thinking or habits.thinking == "placeholder"):
        sent["reasoning_content"] = message.thinking or " "
    return sent


def _ours_of(message: ChatMessage) -> Mapping[str, Any]:
    ours = (message.provider_data or {}).get(OURS)
    return ours if isinstance(ours, dict) else {}


def _call(call: ToolCall, names: ToolNames, extra: Any) -> dict[str, Any]:
    sent = {
        "id": call.id,
        "type": "function",
        "function": {"name": names.legal(call.name or "unnamed"), "arguments": _object(call.arguments)},
    }
    return sent if extra is None else {**sent, "extra_content": extra}


def _object(arguments: str) -> str:
    """The arguments as they were, if that is a JSON object: servers whose templates read them fail at all else."""
    good = _seen_object(arguments) if len(arguments) <= _REMEMBERED_CHARS else _is_object(arguments)
    return arguments if good else json.dumps({"unreadable": arguments[:2000]} if arguments.strip() else {})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


# The calls of a conversation are sent with every question that follows them.
_seen_object = lru_cache(maxsize=1024)(_is_object)


def call_as_text(call: ToolCall) -> str:
    """A call in a conversation that goes on without native tools."""
    try:
        given = json.loads(call.arguments)
    except (ValueError, RecursionError):
        given = call.arguments
    return json.dumps({"type": "ToolCall", "tool": call.name, "input": given}, ensure_ascii=False)
