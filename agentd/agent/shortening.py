"""
Messages made shorter, so that they fit a window of tokens.

In: messages, a number of tokens. Out: the same messages, of the same roles and ids, cut in the middle where they were
too long, with a note that says how much is gone.
Promise: arguments of calls stay JSON, as providers demand; what fits is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from agentd.llm.port import ChatMessage, ToolCall
from agentd.llm.tokens import count_message, count_tokens

_LEAST_TOKENS = 24
_LEAST_CONTENT = 14
_HEAD = 0.6
_CHARS_A_TOKEN = 16
_TRIES = 40
_ROUNDS = 6


def shorten(message: ChatMessage, tokens: int) -> ChatMessage:
    """The message in `tokens` (24 at least), by estimate; its frame, such as ids and names of calls, stays whole."""
    tokens = max(tokens, _LEAST_TOKENS)
    if count_message(message) <= tokens:
        return message
    # What the provider signed goes with the thoughts that it signed.
    bare = replace(message, content="", thinking=None, provider_data=None)
    extras = count_message(replace(message, content="")) - count_message(bare)
    short = message
    if extras > tokens // 4:
        short = replace(message, thinking=None, provider_data=None)
    if short.tool_calls:
        most = max(_LEAST_CONTENT, tokens // (2 * len(short.tool_calls)))
        short = replace(short, tool_calls=tuple(_short_call(call, most) for call in short.tool_calls))
    room = tokens - count_message(replace(short, content=""))
    return replace(short, content=cut_middle(short.content, max(room, _LEAST_CONTENT)))


def fit(messages: Sequence[ChatMessage], tokens: int) -> list[ChatMessage]:
    """The messages in `tokens` together: the longest are cut, all to the same length."""
    sizes = [count_message(message) for message in messages]
    if sum(sizes) <= tokens:
        return list(messages)
    target = tokens
    for _ in range(_ROUNDS):
        most = max(_LEAST_TOKENS, _level(sizes, target))
        short = [
            shorten(message, most) if size > most else message for message, size in zip(messages, sizes, strict=True)
        ]
        over = sum(map(count_message, short)) - tokens
        if over <= 0 or most == _LEAST_TOKENS:
            break
        # Some are all frame and could not be cut: the others make up for them.
        target -= max(over, len(messages))
    return short


def cut_middle(text: str, tokens: int) -> str:
    """Both ends of the text and a note of what is left out between them."""
    if count_tokens(text) <= tokens:
        return text
    keep = min(len(text), tokens * _CHARS_A_TOKEN)
    for _ in range(_TRIES):
        head = int(keep * _HEAD)
        tail = keep - head
        short = f"{text[:head]}\n[… {len(text) - keep} characters left out …]\n{text[len(text) - tail :]}"
        size = count_tokens(short)
        if size <= tokens or keep == 0:
            return short
        keep = int(keep * min(0.9, tokens / size))
    return short


def _short_call(call: ToolCall, tokens: int) -> ToolCall:
    if count_tokens(call.arguments) <= tokens:
        return call
    return replace(call, arguments=json.dumps({"left_out": f"{len(call.arguments)} characters"}))


def _level(sizes: Sequence[int], total: int) -> int:
    """The largest size to which all that are larger must be cut, so that all are `total` together."""
    left = total
    for position, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - position)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)
