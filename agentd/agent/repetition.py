"""
Whether a run goes round in circles.

In: each call with its result, in order. Out: `fine`; `alike` (ask the model whether it learns anything by it); `warn`
(tell it that it does not); `stop` (end it with what there is).
Promise: bounded memory, some microseconds a call. Only the same call that shows the same, step after step, is stopped:
calls that differ may well agree, as when ten units are all active, and a call that gives something new each time, as
polling does, is work. Calls that differ in blanks, order of keys or a trailing slash alone count as the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from agentd.fleet.messages import Result

Seen = Literal["fine", "alike", "warn", "stop"]

SAME_CALL_AND_RESULT = (2, 4)
"""The same call with the same result as before, in the nth step: warn, stop."""
SAME_CALL = 8
"""The same call in so many steps, whatever came of it."""
SAME_RESULT = 5
"""The same result of one tool in so many steps in a row, whatever it was asked: searching for what is not there."""
CYCLE = 3
"""A sequence of two to four calls (A-B-A-B) repeated so often, to its end, whatever came of it."""
_LONGEST_CYCLE = 4
_KEPT = 64
_LONGEST_TEXT = 20_000

_BLANKS = re.compile(r"\s+")


class Repetition:
    """The last 64 calls of a run."""

    __slots__ = ("_calls", "_last", "_step")

    def __init__(self) -> None:
        self._calls: deque[tuple[bytes, bytes, int]] = deque(maxlen=_KEPT)
        self._last: dict[str, tuple[bytes, int, int]] = {}
        self._step = 0

    def saw(self, tool: str, input: Mapping[str, Any], result: Result, *, step: int | None = None) -> Seen:
        """
        This call ended so. The answer counts it in.

        step: calls of one step count once, as none of them could know of the others. None: it is a step by itself.
        """
        step = self._step = self._step + 1 if step is None else step
        call = _digest(tool, _normal(input, 0))
        came = _digest(tool, [result.output, result.error, result.message])
        self._calls.append((call, came, step))
        same = self._unchanged(call, came)
        warn, stop = SAME_CALL_AND_RESULT
        if same >= stop:
            return "stop"
        if same >= warn:
            return "warn"
        often = len({at for made, _, at in self._calls if made == call}) >= SAME_CALL
        return (
            "alike" if self._in_a_row(tool, came, step) >= SAME_RESULT or often or self._rounds() >= CYCLE else "fine"
        )

    def _unchanged(self, call: bytes, came: bytes) -> int:
        """In how many steps the call was made since it last showed something else."""
        steps = set()
        for made, outcome, step in reversed(self._calls):
            if made == call:
                if outcome != came:
                    break
                steps.add(step)
        return len(steps)

    def _in_a_row(self, tool: str, came: bytes, step: int) -> int:
        before, count, at = self._last.pop(tool, (b"", 0, 0))
        count = 1 if before != came else count if step == at else count + 1
        self._last[tool] = (came, count, step)
        if len(self._last) > _KEPT:
            del self._last[next(iter(self._last))]
        return count

    def _rounds(self) -> int:
        """How often the sequence that ends here was made without a break, the most of all lengths."""
        calls = [call for call, _, _ in self._calls]
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


def _digest(tool: str, value: Any) -> bytes:
    text = json.dumps([tool, value], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def _normal(value: Any, depth: int) -> Any:
    """The input without what makes no difference to what is asked."""
    if isinstance(value, str):
        return _BLANKS.sub(" ", value[:_LONGEST_TEXT]).strip().rstrip("/")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if depth < 16:
        if isinstance(value, Mapping):
            return {str(key).casefold(): _normal(inner, depth + 1) for key, inner in value.items() if inner is not None}
        if isinstance(value, list | tuple):
            return [_normal(inner, depth + 1) for inner in value]
    return value
