"""
Texts that must be there for a condition to hold: what a cheap search looks for before anything is taken apart.

In: a condition that compiles. Out: for some of what it reads, literals of which one must stand in the value.
Promise: only what is certain. A condition that says nothing of the kind gives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentd.condition.reading import Token, tokens_of

_PLAIN = re.compile(r"[A-Za-z0-9_ -]+", re.ASCII)
_OPEN, _CLOSED = ("(", "[", "{"), (")", "]", "}")


@dataclass(frozen=True, slots=True)
class Needed:
    """
    The value of `path` must be text that has one of these in it.

    literals: of letters, digits, `_`, `-` and spaces (ASCII) alone: no format writes these otherwise.
    """

    path: tuple[str, ...]
    literals: tuple[str, ...]


def needed(text: str) -> list[Needed]:
    """What each part between the outermost `&&` needs, as far as it is a plain comparison."""
    return [need for part in _conjuncts(tokens_of(text)) if (need := _comparison(part)) is not None]


def _conjuncts(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    depth, begin = 0, 0
    cuts = []
    for index, (kind, word) in enumerate(tokens):
        if kind != "sign":
            continue
        depth += (word in _OPEN) - (word in _CLOSED)
        if depth == 0 and word in ("|", "?"):
            return  # || binds looser than &&: neither side is needed
        if depth == 0 and word == "&" and tokens[index - 1][1] != "&":
            cuts.append((begin, index))
            begin = index + 2
    for first, after in (*cuts, (begin, len(tokens))):
        part = tokens[first:after]
        if _wrapped(part):
            yield from _conjuncts(part[1:-1])
        else:
            yield part


def _wrapped(part: Sequence[Token]) -> bool:
    """Whether one pair of parentheses holds all of it."""
    if len(part) < 2 or part[0] != ("sign", "(") or part[-1] != ("sign", ")"):
        return False
    depth = 0
    for index, (kind, word) in enumerate(part):
        if kind == "sign":
            depth += (word in _OPEN) - (word in _CLOSED)
        if depth == 0:
            return index == len(part) - 1
    return False


def _comparison(part: Sequence[Token]) -> Needed | None:
    """`path == "x"`, `"x" == path`, `path in ["x", "y"]`, `path.contains("x")`, `.startsWith`, `.endsWith`."""
    if len(part) > 3 and part[0][0] == "string" and part[1:3] == [("sign", "="), ("sign", "=")]:
        part = [*part[3:], *part[1:3], part[0]]
    path, after = _path(part)
    rest = [word if kind in ("sign", "name") else kind for kind, word in part[after:]]
    strings = [word for kind, word in part[after:] if kind == "string"]
    if not path or not strings:
        return None
    if len(path) > 1 and path[-1] in ("contains", "startsWith", "endsWith") and rest == ["(", "string", ")"]:
        path = path[:-1]
    elif rest not in (["=", "=", "string"], ["in", "[", *(["string", ","] * len(strings))[:-1], "]"]):
        return None
    literals = [_literal(word) for word in strings]
    return Needed(path, tuple(literals)) if all(map(_PLAIN.fullmatch, literals)) else None


def _path(part: Sequence[Token]) -> tuple[tuple[str, ...], int]:
    """The names that it begins with, and where they end."""
    if not part or part[0][0] != "name":
        return (), 0
    path = [part[0][1]]
    index = 1
    while index + 1 < len(part):
        if part[index][1] == "." and part[index + 1][0] == "name":
            path.append(part[index + 1][1])
            index += 2
        elif (
            part[index][1] == "[" and part[index + 1][0] == "string" and part[index + 2 : index + 3] == [("sign", "]")]
        ):
            path.append(_literal(part[index + 1][1]))
            index += 3
        else:
            break
    return tuple(path), index


def _literal(word: str) -> str:
    """What a plain literal says; others (raw, triple, escapes) give what is not plain."""
    return word[1:-1] if word[0] in "\"'" and "\\" not in word and word[:3] not in ('"""', "'''") else "\\"
