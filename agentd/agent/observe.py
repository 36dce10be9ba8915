"""
What the model sees of a step: results of tools, within a number of bytes shared fairly, each with its evidence.

In: results, as workers gave them. Out: text; and each result's whole output as an exhibit.
Promise: never longer than asked for; no result is left out unsaid; what a tool said stands in a block of data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agentd.agent.cleaning import Said, cleaned, said
from agentd.agent.evidence import MOST_BYTES, Exhibits
from agentd.agent.excerpt import head_and_tail, shares, size_of
from agentd.fleet.messages import ErrorKind, Result

LEAST_BYTES = 512
_LEAST_CONTENT = 120
_LONGEST_ID = 40
_UNKEPT_BYTES = 4096
_NO_NAME = re.compile(r"[^A-Za-z0-9_.:/-]")

MENDING: dict[ErrorKind, str] = {
    ErrorKind.TOOL_NOT_FOUND: "call one of the tools that are listed",
    ErrorKind.INVALID_INPUT: "change the input so that it follows the tool's schema",
    ErrorKind.DENIED: "it is not allowed here, however it is asked for: take another way, or finish with what is known",
    ErrorKind.TIMEOUT: "ask for less at once",
    ErrorKind.RATE_LIMITED: "ask later, and for fewer things at once",
    ErrorKind.CANCELLED: "it was stopped before its end: call it again if it is still needed",
    ErrorKind.TOOL_ERROR: "read the message, then change the input or use another tool",
}


def observe(
    results: Sequence[Result], *, limit_bytes: int, exhibits: Exhibits, texts: Mapping[str, Said] = MappingProxyType({})
) -> str:
    """
    The results as one text of at most `limit_bytes` (512 at least) of UTF-8; each becomes an exhibit.

    texts: what they said, cleaned, by the ids of their tasks; the others are cleaned here, which costs about 60 ms for
    256 KiB of output.
    """
    good = sum(result.ok for result in results)
    first = f"Executed {len(results)} {_tasks(len(results))}: {good} success, {len(results) - good} failed"
    shown = [_keep(result, exhibits, texts.get(result.task)) for result in results]
    room = max(limit_bytes, LEAST_BYTES) - size_of(first)
    fitting = _how_many(shown, room)
    note = ""
    if fitting < len(shown):
        fitting = _how_many(shown, room - size_of(_unshown(len(shown))))
        note = _unshown(len(shown) - fitting)
    told = shown[:fitting]
    room -= size_of(note) + sum(each.frame for each in told)
    given = shares([each.said.text_bytes for each in told], room)
    parts = [
        f"\n\n{each.header}\n{exhibits.fence.block(each.id, '', each.said.within(share))}"
        for each, share in zip(told, given, strict=True)
    ]
    return first + "".join(parts) + note


@dataclass(frozen=True, slots=True)
class _Shown:
    """A result on its way to the model. frame: bytes of what stands around its text."""

    id: str
    header: str
    said: Said
    frame: int


def _keep(result: Result, exhibits: Exhibits, known: Said | None) -> _Shown:
    each = known or cleaned(result, MOST_BYTES, exhibits.fence)[1]
    title = f"{result.tool} {result.error or 'ok'} (step {result.task})"
    id = exhibits.keep(title, each.text, step=result.task, clean=True)
    kept = exhibits.text(id) if id else head_and_tail(each.text, _UNKEPT_BYTES)
    if kept != each.text:
        # What is not kept must not be shown: it could be quoted and not be found.
        each = said(kept)
    header = _header(result, id)
    return _Shown(id, header, each, size_of(f"\n\n{header}\n{exhibits.fence.block(id, '', '')}"))


def _header(result: Result, id: str) -> str:
    """One line of our own: no word of it comes from outside but names."""
    name, task = _name(result.tool), _name(result.task)
    said = f"[{task}] {name}: "
    if result.error is None:
        said += "ok"
    else:
        said += f"failed, {result.error}"
        if result.attempt > 1:
            said += f" after {result.attempt} attempts"
        if result.retry_after_s:
            said += f", may be asked again in {result.retry_after_s:.0f} s"
        said += f"; {MENDING[result.error]}"
    return said + (f"; evidence {id}" if id else "; not kept as evidence, there is too much already")


def _name(text: str) -> str:
    """A name as such: a model may call a tool by a name that is a sentence."""
    return _NO_NAME.sub("_", text[:_LONGEST_ID])


def _how_many(shown: Sequence[_Shown], room: int) -> int:
    """How many of the first results can be shown with at least a little of what they say."""
    used = 0
    for index, each in enumerate(shown):
        used += each.frame + min(_LEAST_CONTENT, each.said.text_bytes)
        if used > room:
            return index
    return len(shown)


def _unshown(number: int) -> str:
    return f"\n\n{number} more are kept and not shown, for want of room: ask for fewer at once"


def _tasks(number: int) -> str:
    return "task" if number == 1 else "tasks"
