"""
What the model sees of a step: results of tools, within a number of bytes shared fairly, each with its evidence.

In: results, as workers gave them. Out: text; and each result's whole output as an exhibit.
Promise: never longer than asked for; no result is left out unsaid; what a tool said stands in a block of data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentd.agent.evidence import Exhibits
from agentd.agent.excerpt import head_and_tail, shares, shortened, size_of
from agentd.fleet.messages import ErrorKind, Result
from agentd.telemetry.redact import is_sensitive

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


def observe(results: Sequence[Result], *, limit_bytes: int, exhibits: Exhibits) -> str:
    """
    The results as one text of at most `limit_bytes` (512 at least) of UTF-8; each becomes an exhibit.

    Costs about 60 ms for 256 KiB of output, secrets being looked for in all of it.
    """
    good = sum(result.ok for result in results)
    first = f"Executed {len(results)} {_tasks(len(results))}: {good} success, {len(results) - good} failed"
    shown = [_keep(result, exhibits) for result in results]
    room = max(limit_bytes, LEAST_BYTES) - size_of(first)
    fitting = _how_many(shown, room)
    note = ""
    if fitting < len(shown):
        fitting = _how_many(shown, room - size_of(_unshown(len(shown))))
        note = _unshown(len(shown) - fitting)
    told = shown[:fitting]
    room -= size_of(note) + sum(each.frame for each in told)
    given = shares([size_of(each.text) for each in told], room)
    parts = [
        f"\n\n{each.header}\n{exhibits.fence.block(each.id, '', shortened(each.text, share))}"
        for each, share in zip(told, given, strict=True)
    ]
    return first + "".join(parts) + note


@dataclass(frozen=True, slots=True)
class _Shown:
    """A result on its way to the model. frame: bytes of what stands around its text."""

    id: str
    header: str
    text: str
    frame: int


def _keep(result: Result, exhibits: Exhibits) -> _Shown:
    said = rendered(result.output) if result.ok else result.message or "(no message)"
    id = exhibits.keep(f"{result.tool} {result.error or 'ok'} (step {result.task})", said, step=result.task)
    text = exhibits.text(id) if id else exhibits.fence.clean(head_and_tail(said, _UNKEPT_BYTES))
    header = _header(result, id)
    return _Shown(id, header, text, size_of(f"\n\n{header}\n{exhibits.fence.block(id, '', '')}"))


def rendered(output: Any) -> str:
    """
    A tool's output as text: text as it is; lists one item a line; texts of many lines within an object as such.

    JSON is compact. Never raises.
    """
    if output is None or output == "":
        return "(no output)"
    if isinstance(output, str):
        return output
    if isinstance(output, list | tuple) and len(output) > 1:
        return "\n".join(each if isinstance(each, str) and "\n" not in each else _json(each) for each in output)
    if isinstance(output, dict):
        long = {
            str(key): value
            for key, value in output.items()
            if isinstance(value, str) and "\n" in value.strip("\n") and not is_sensitive(str(key))
        }
        short = {key: value for key, value in output.items() if str(key) not in long}
        parts = ([_json(short)] if short else []) + [f"{key}:\n{value}" for key, value in long.items()]
        return "\n".join(parts)
    return _json(output)


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
        used += each.frame + min(_LEAST_CONTENT, size_of(each.text))
        if used > room:
            return index
    return len(shown)


def _unshown(number: int) -> str:
    return f"\n\n{number} more are kept and not shown, for want of room: ask for fewer at once"


def _tasks(number: int) -> str:
    return "task" if number == 1 else "tasks"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (ValueError, TypeError, RecursionError):
        return f"({type(value).__name__} that cannot be shown)"
