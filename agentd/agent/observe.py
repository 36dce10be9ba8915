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
from typing import Any

from agentd.agent.cleaning import Said, cleaned, said
from agentd.agent.essence import title_of
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
    return Observed(results, exhibits, texts).within(max(limit_bytes, LEAST_BYTES))


class Observed:
    """
    Results, kept as exhibits, that can be told at any length.

    texts: as of `observe`. inputs: what the tools were called with, by the ids of their tasks: exhibits are named so.
    """

    def __init__(
        self,
        results: Sequence[Result],
        exhibits: Exhibits,
        texts: Mapping[str, Said] = MappingProxyType({}),
        inputs: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        good = sum(result.ok for result in results)
        self._first = f"Executed {len(results)} {_tasks(len(results))}: {good} success, {len(results) - good} failed"
        self._fence = exhibits.fence
        self._shown = [
            _keep(result, exhibits, texts.get(result.task), inputs.get(result.task, {})) for result in results
        ]

    @property
    def least_bytes(self) -> int:
        """So that something of each result can be told."""
        return size_of(self._first) + sum(each.least for each in self._shown)

    @property
    def most_bytes(self) -> int:
        """So that everything can be told."""
        return size_of(self._first) + sum(each.frame + each.said.text_bytes for each in self._shown)

    @property
    def bare_bytes(self) -> int:
        """So that it can be told what is not shown."""
        return size_of(self._first) + size_of(_unshown(len(self._shown)))

    def within(self, limit_bytes: int) -> str:
        """At most so many bytes of UTF-8, `bare_bytes` at least."""
        shown = self._shown
        room = max(limit_bytes, self.bare_bytes) - size_of(self._first)
        fitting = _how_many(shown, room)
        note = ""
        if fitting < len(shown):
            fitting = _how_many(shown, room - size_of(_unshown(len(shown))))
            note = _unshown(len(shown) - fitting)
        told = shown[:fitting]
        room -= size_of(note) + sum(each.frame for each in told)
        given = shares([each.said.text_bytes for each in told], room)
        parts = [
            f"\n\n{each.header}\n{self._fence.block(each.id, '', each.said.within(share))}"
            for each, share in zip(told, given, strict=True)
        ]
        return self._first + "".join(parts) + note


def limits(observed: Sequence[Observed], limit_bytes: int) -> list[int]:
    """
    What each may take of these bytes, all being told apart from each other.

    Where there is no room for a little of each, the first come first; the others tell that they are not shown.
    """
    given = [each.bare_bytes for each in observed]
    left = limit_bytes - sum(given)
    wanted = [0] * len(observed)
    for place, each in enumerate(observed):
        more = each.least_bytes - given[place]
        if more > left:
            break
        given[place] += more
        left -= max(0, more)
        wanted[place] = max(0, each.most_bytes - given[place])
    return [some + more for some, more in zip(given, shares(wanted, left), strict=True)]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A result on its way to the model. frame: bytes of what stands around its text."""

    id: str
    header: str
    said: Said
    frame: int

    @property
    def least(self) -> int:
        return self.frame + min(_LEAST_CONTENT, self.said.text_bytes)


def _keep(result: Result, exhibits: Exhibits, known: Said | None, input: Mapping[str, Any]) -> _Shown:
    each = known or cleaned(result, MOST_BYTES, exhibits.fence)[1]
    id = exhibits.keep(title_of(result, input), each.text, step=result.task, clean=True)
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
        used += each.least
        if used > room:
            return index
    return len(shown)


def _unshown(number: int) -> str:
    return f"\n\n{number} more are kept and not shown, for want of room: ask for fewer at once"


def _tasks(number: int) -> str:
    return "task" if number == 1 else "tasks"
