"""
Inputs that speak of outputs: `${t1}` is what task t1 gave, `${t1.lines.0}` a part of it.

In: inputs as the model wrote them, outputs of tasks. Out: inputs with values in place of references.
Promise: a string that is one reference alone becomes the value, with its type; within a longer string the value is
written as text. Only ids of the same graph are references, all else stays as it is. What was put in is never read
again for references: an output cannot speak of another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from agentd.errors import AgentdError

_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.\-]{1,200})\}")
_DEEPEST = 64
_LONGEST = 1024 * 1024


class BadReference(AgentdError):
    """A reference leads nowhere; the message is for the model."""


def referred(value: Any, ids: Collection[str]) -> set[str]:
    """Those of `ids` that the input speaks of."""
    found = set()
    for text in _texts(value, 0):
        for match in _REFERENCE.finditer(text):
            if (place := _split(match[1], ids)) is not None:
                found.add(place[0])
    return found


def resolved(value: Any, outputs: Mapping[str, Any], ids: Collection[str]) -> Any:
    """
    The input with outputs put in. ids: those of the graph, whether they have an output or not.

    Raises BadReference: no output, no such part in it, or more than a mebibyte of text put into strings.
    """
    room = _LONGEST

    def fill(text: str) -> Any:
        nonlocal room
        whole = _REFERENCE.fullmatch(text)
        if whole is not None:
            place = _split(whole[1], ids)
            return text if place is None else _look_up(place, outputs)

        def as_text(match: re.Match[str]) -> str:
            nonlocal room
            place = _split(match[1], ids)
            if place is None:
                return match[0]
            found = _look_up(place, outputs)
            written = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
            room -= len(written)
            if room < 0:
                raise BadReference(f"{match[0]} is too long to be put into a text; refer to a part of it")
            return written

        return _REFERENCE.sub(as_text, text)

    return _mapped(value, fill, 0)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The input with its references under new ids, by the old ones: for whoever gives tasks ids of their own."""

    def fill(text: str) -> str:
        def new(match: re.Match[str]) -> str:
            place = _split(match[1], names)
            return match[0] if place is None else "${" + ".".join([names[place[0]], *place[1]]) + "}"

        return _REFERENCE.sub(new, text)

    return _mapped(value, fill, 0)


def _split(inside: str, ids: Collection[str]) -> tuple[str, list[str]] | None:
    """The id and the path after it; ids have dots themselves, so the longest that fits is meant."""
    end = len(inside)
    while end > 0:
        if inside[:end] in ids:
            return inside[:end], [part for part in inside[end + 1 :].split(".") if part]
        end = inside.rfind(".", 0, end)
    return None


def _look_up(place: tuple[str, list[str]], outputs: Mapping[str, Any]) -> Any:
    task, path = place
    if task not in outputs:
        raise BadReference(f"${{{task}}}: this task gave no output that could be used here; depend on it, or repeat it")
    value, so_far = outputs[task], task
    for part in path:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.lstrip("-").isdecimal() and -len(value) <= int(part[:9]) < len(value):
            value = value[int(part[:9])]
        else:
            raise BadReference(f"${{{task}.{'.'.join(path)}}}: {so_far} has no {part[:80]!r}; it is {_sketch(value)}")
        so_far = f"{so_far}.{part}"
    return value


def _sketch(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(str(key)[:40] for key in list(value)[:12])
        return f"an object with {keys}" if keys else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {"str": "text", "NoneType": "null"}.get(type(value).__name__, type(value).__name__)


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if "${" in value:
            yield value
    elif depth < _DEEPEST:
        if isinstance(value, Mapping):
            for inner in value.values():
                yield from _texts(inner, depth + 1)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from _texts(inner, depth + 1)


def _mapped(value: Any, fill: Callable[[str], Any], depth: int) -> Any:
    if isinstance(value, str):
        return fill(value) if "${" in value else value
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {key: _mapped(inner, fill, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [_mapped(inner, fill, depth + 1) for inner in value]
    return value
