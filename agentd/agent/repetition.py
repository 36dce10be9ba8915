"""
Whether a run goes round in circles.

In: each call with its result, in order. Out: `fine`, `warn` (tell the model), `stop` (end it with what there is).
Promise: bounded memory, some microseconds a call. Calls that differ in case, blanks, order of keys or a trailing
slash alone count as the same; a call that gives something new each time, as polling does, may be made longer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from agentd.fleet.messages import Result

Seen = Literal["fine", "warn", "stop"]

SAME_CALL_AND_RESULT = (2, 4)
"""The same call with the same result for the nth time: warn, stop."""
SAME_CALL = (4, 8)
"""The same call, whatever came of it."""
SAME_RESULT = (5, 10)
"""The same result of one tool in a row, whatever it was asked: searching on and on for what is not there."""
CYCLE = (3, 5)
"""A sequence of two to four calls (A-B-A-B) repeated so often, to its end."""
_LONGEST_CYCLE = 4
_KEPT = 64
_LONGEST_TEXT = 20_000

_BLANKS = re.compile(r"\s+")
_ORDER: dict[Seen, int] = {"fine": 0, "warn": 1, "stop": 2}


class Repetition:
    """The last 64 calls of a run."""

    __slots__ = ("_calls", "_last")

    def __init__(self) -> None:
        self._calls: deque[tuple[bytes, bytes]] = deque(maxlen=_KEPT)
        self._last: dict[str, tuple[bytes, int]] = {}

    def saw(self, tool: str, input: Mapping[str, Any], result: Result) -> Seen:
        """This call ended so. The answer counts it in."""
        call = _digest(tool, _normal(input, 0))
        came = _digest(tool, [result.output, result.error, result.message])
        self._calls.append((call, came))
        alike = [outcome for made, outcome in self._calls if made == call]
        verdicts = (
            _verdict(sum(outcome == came for outcome in alike), SAME_CALL_AND_RESULT),
            _verdict(len(alike), SAME_CALL),
            _verdict(self._in_a_row(tool, came), SAME_RESULT),
            _verdict(self._rounds(), CYCLE),
        )
        return max(verdicts, key=lambda seen: _ORDER[seen])

    def _in_a_row(self, tool: str, came: bytes) -> int:
        before, count = self._last.pop(tool, (b"", 0))
        count = count + 1 if before == came else 1
        self._last[tool] = (came, count)
        if len(self._last) > _KEPT:
            del self._last[next(iter(self._last))]
        return count

    def _rounds(self) -> int:
        """How often the sequence that ends here was made without a break, the most of all lengths."""
        calls = [call for call, _ in self._calls]
        most = 1
        for length in range(2, _LONGEST_CYCLE + 1):
            last = calls[-length:]
            if len(last) < length or len(set(last)) == 1:
                continue
            rounds, end = 1, len(calls) - length
            while end >= length and calls[end - length : end] == last:
                rounds += 1
                end -= length
            most = max(most, rounds)
        return most


def _verdict(count: int, limits: tuple[int, int]) -> Seen:
    warn, stop = limits
    return "stop" if count >= stop else "warn" if count >= warn else "fine"


def _digest(tool: str, value: Any) -> bytes:
    text = json.dumps([tool, value], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def _normal(value: Any, depth: int) -> Any:
    """The input without what makes no difference to what is asked."""
    if isinstance(value, str):
        return _BLANKS.sub(" ", value[:_LONGEST_TEXT]).strip().rstrip("/").casefold()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if depth < 16:
        if isinstance(value, Mapping):
            return {str(key).casefold(): _normal(inner, depth + 1) for key, inner in value.items() if inner is not None}
        if isinstance(value, list | tuple):
            return [_normal(inner, depth + 1) for inner in value]
    return value
