"""
The tokens of a call, from wherever a server tells them.

In: events of a stream. Out: `Usage`, or what is missing of it.
Promise: numbers that make sense: whole, not negative, no more cached than read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST = 1_000_000_000


class Told:
    """What the server has said of its tokens so far; None: nothing yet."""

    def __init__(self) -> None:
        self.input: int | None = None
        self.output: int | None = None
        self.cached: int | None = None

    def take(self, usage: Any) -> None:
        """Later words replace earlier: some servers count along with every event."""
        if not isinstance(usage, dict):
            return
        read = _number(usage, "prompt_tokens", "input_tokens")
        written = _number(usage, "completion_tokens", "output_tokens")
        total = _number(usage, "total_tokens")
        if read is not None and "prompt_tokens" not in usage:
            read += _beside(usage)
        if read is not None and total is not None and total > read:
            # Reasoning that is paid for, and not among the tokens of the answer.
            written = max(written or 0, total - read)
        cached = _cached(usage)
        self.input = self.input if read is None else read
        self.output = self.output if written is None else written
        self.cached = self.cached if cached is None else cached


def _beside(usage: Mapping[str, Any]) -> int:
    """What Anthropic's protocol counts beside `input_tokens`: what of the question was cached, or is from now on."""
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(_number(usage, name) or 0 for name in names)


def _cached(usage: Mapping[str, Any]) -> int | None:
    for place in ("prompt_tokens_details", "input_tokens_details"):
        details = usage.get(place)
        if isinstance(details, dict) and (found := _number(details, "cached_tokens")) is not None:
            return found
    return _number(usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")


def _number(place: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = place.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return int(value)
    return None
