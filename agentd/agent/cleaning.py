"""
What a tool said, made fit to be kept and shown: without secrets, bounded, with nothing hidden in it.

In: a result as a worker gave it. Out: the same result to be recorded, and its text as a model may see it.
Promise: each output is looked through once, away from the loop when it is large, and in pieces, since a search in a
long text lets no other thread work; no secret is cut in two by that. The same result gives the same text.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from agentd.agent.evidence import Fence
from agentd.agent.excerpt import alike, counted, head_and_tail, size_of
from agentd.agent.job import Job
from agentd.agent.rendering import rendered
from agentd.fleet.messages import Result
from agentd.telemetry.redact import is_sensitive, redact, redact_all

PIECE_CHARS = 16 * 1024
"""Some two milliseconds of searching."""
SMALL_CHARS = 8 * 1024
"""What is no larger is not worth a thread."""
_LONGEST_MESSAGE = 4000
_OF_A_VALUE = 8


@dataclass(frozen=True, slots=True)
class Said:
    """
    What a tool said, cleaned. counted: the same with repeated lines told once; brief: with lines alike told once too.

    text_bytes, counted_bytes: as UTF-8; to count them anew for each use takes a millisecond for 256 KiB.
    """

    text: str
    text_bytes: int
    counted: str
    counted_bytes: int
    brief: str

    def within(self, limit_bytes: int) -> str:
        """As much of it as there is room for."""
        return head_and_tail(self.counted if self.counted_bytes <= limit_bytes else self.brief, limit_bytes)


def said(text: str) -> Said:
    """text: cleaned."""
    lines = counted(text)
    return Said(text, size_of(text), lines, size_of(lines), alike(lines))


def cleaned(result: Result, limit_bytes: int, fence: Fence, *, recorded: bool = False) -> tuple[Result, Said]:
    """
    The result without secrets and no larger than what is kept, and its text.

    recorded: it was cleaned when it was recorded.
    """
    if not recorded:
        result = _without_secrets(result, limit_bytes)
    if not result.ok:
        return result, said(fence.shown(result.message or "(no message)"))
    text = rendered(result.output)
    # What is harmless in each of its parts may be none any more when they stand together.
    return result, said(fence.shown(text if isinstance(result.output, str) else redacted(text)))


def _without_secrets(result: Result, limit_bytes: int) -> Result:
    output = redacted_all(result.output)
    if isinstance(output, str | list | dict) and size_of(text := rendered(output)) > limit_bytes:
        output = head_and_tail(text if isinstance(output, str) else redacted(text), limit_bytes)
    return replace(result, output=output, message=redact(result.message[: 4 * _LONGEST_MESSAGE])[:_LONGEST_MESSAGE])


def redacted(text: str) -> str:
    """As `redact`, piece by piece."""
    if len(text) <= 2 * PIECE_CHARS:
        return redact(text)
    done, begun, wanted = [], 0, PIECE_CHARS
    while begun < len(text):
        end = text.find("\n", begun + wanted)
        end = len(text) if end < 0 or len(text) - end < PIECE_CHARS else end + 1
        piece = redact(text[begun:end])
        if end < len(text) and not piece.endswith("\n"):
            # A secret reaches over the end of the piece: a key of many lines, a text in quotes.
            wanted = 2 * (end - begun)
            continue
        done.append(piece)
        begun, wanted = end, PIECE_CHARS
    return "".join(done)


def redacted_all(value: Any) -> Any:
    """As `redact_all`, with long texts piece by piece."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list | tuple):
        return type(value)(redacted_all(each) for each in value)
    if isinstance(value, dict):
        shown: dict[Any, Any] = {}
        for key, each in value.items():
            if isinstance(key, str) and not is_sensitive(key):
                shown[redact(key)] = redacted_all(each)
            else:
                shown |= redact_all({key: each})
        return shown
    return value


def cleaned_job(job: Job) -> Job:
    """The job without secrets in what people and logs have said: it is recorded, and a replay begins with it."""
    exhibits = tuple(
        each.model_copy(update={"title": redact(each.title), "text": redacted(each.text)}) for each in job.exhibits
    )
    return job.model_copy(update={"goal": redact(job.goal), "exhibits": exhibits})


def is_small(output: Any) -> bool:
    """Whether it can be cleaned at once."""
    left, waiting = SMALL_CHARS, [output]
    while waiting:
        each = waiting.pop()
        left -= _OF_A_VALUE
        if isinstance(each, str):
            left -= len(each)
        elif isinstance(each, list | tuple):
            left -= len(each)
            if left >= 0:
                waiting += each
        elif isinstance(each, dict):
            left -= len(each)
            if left >= 0:
                waiting += each
                waiting += each.values()
        if left < 0:
            return False
    return True


@cache
def threads() -> ThreadPoolExecutor:
    """Those that clean, for all runs of the process: one, since two would but take turns."""
    return ThreadPoolExecutor(1, thread_name_prefix="cleaning")
