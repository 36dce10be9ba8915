"""
How many tokens a text will be, without asking anybody.

In: text, or a whole request. Out: an estimate, the same on every machine, rather a little too high than too low.
Every model family cuts text in its own way and few publish how, so the kinds of characters are weighed instead: a
letter of an English word is about a quarter of a token, a CJK character about one, and what changes kind often (hex,
base64, code) more than prose. It costs about a millisecond for 100,000 characters.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from agentd.llm.port import ChatMessage, Request, ToolSpec

PER_MESSAGE = 4
PER_TOOL = 12
PER_REQUEST = 3

# One letter for each kind of byte; a character beyond ASCII is known by its first byte (UTF-8), the others are free.
_KINDS = {
    "a": string.ascii_lowercase.encode(),
    "A": string.ascii_uppercase.encode(),
    "0": string.digits.encode(),
    ".": string.punctuation.encode(),
    "n": b"\n",
    "s": b" \t\r\v\f",
    "2": bytes(range(0xC0, 0xE0)),
    "3": bytes(range(0xE0, 0xF0)),
    "4": bytes(range(0xF0, 0x100)),
    "c": bytes(range(0x80, 0xC0)),
    "?": bytes((*range(9), *range(14, 32), 127)),
}
_kind_of = bytearray(256)
for _kind, _bytes in _KINDS.items():
    for _byte in _bytes:
        _kind_of[_byte] = ord(_kind)
_KIND = bytes(_kind_of)

_WEIGHTS = {
    b"a": 0.26,
    b"A": 0.40,
    b"0": 0.45,
    b".": 0.60,
    b"n": 0.60,
    b"s": 0.03,  # words bring theirs along, and a run of them is one token
    b"2": 0.55,  # Latin with accents, Greek, Cyrillic, Hebrew, Arabic
    b"3": 1.10,  # CJK, Indic, Thai
    b"4": 2.50,  # emoji, rare ideographs
    b"?": 1.00,
}
_SEAMS = {b"aA": 0.40, b"a0": 0.45, b"0a": 0.45, b"A0": 0.45, b"0A": 0.45}


def count_tokens(text: str) -> int:
    """Tokens of `text`, estimated; 0 only for an empty one."""
    if not text:
        return 0
    # Half a surrogate pair comes from broken JSON; it must be counted, not refused.
    kinds = text.encode("utf-8", "surrogatepass").translate(_KIND)
    total = seams = 0.0
    for kind, weight in _WEIGHTS.items():
        total += weight * kinds.count(kind)
    for seam, weight in _SEAMS.items():
        seams += weight * kinds.count(seam)
    return max(1, math.ceil(total + seams))


def count_message(message: ChatMessage) -> int:
    """Tokens of one message of the conversation, its calls, its thinking and its frame included."""
    if message.counted:
        return message.counted
    total = PER_MESSAGE + count_tokens(message.content)
    if message.thinking:
        total += count_tokens(message.thinking)
    for call in message.tool_calls:
        total += PER_MESSAGE + count_tokens(call.name) + count_tokens(call.arguments) + count_tokens(call.id)
    if message.tool_call_id:
        total += count_tokens(message.tool_call_id)
    if message.name:
        total += count_tokens(message.name)
    if message.provider_data:
        total += count_tokens(_json(message.provider_data))
    object.__setattr__(message, "counted", total)  # not seen from outside: it is no part of the message
    return total


def count_tools(tools: Sequence[ToolSpec]) -> int:
    """Tokens of the tools that a request offers natively."""
    return sum(map(_count_tool, tools))


def _count_tool(tool: ToolSpec) -> int:
    if not tool.counted:
        texts = (tool.name, tool.description, _json(tool.input_schema))
        object.__setattr__(tool, "counted", PER_TOOL + sum(map(count_tokens, texts)))
    return tool.counted


# A run says the same before each of its questions.
_count_prompt = lru_cache(maxsize=16)(count_tokens)


def count_request(request: Request) -> int:
    """Tokens of the question: system prompt, messages, tools, schema of the answer. The answer is not in it."""
    total = PER_REQUEST + sum(map(count_message, request.messages)) + count_tools(request.tools)
    if request.system_prompt:
        total += PER_MESSAGE + _count_prompt(request.system_prompt)
    if request.answer_schema:
        total += count_tokens(_json(request.answer_schema))
    return total


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
