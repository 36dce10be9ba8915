"""
What is certain to be wrong with a condition once the types of its variables are known.

In: a condition that was read, and types by path. Out: nothing, or a ConfigError.
Promise: only what holds for every value of these types is refused; whatever is not known passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agentd.condition.reading import Token, raise_unless_panic
from agentd.condition.shown import Path, as_text, preview, written
from agentd.errors import ConfigError

Type = Literal["number", "text", "bool", "list", "map", "any"]

Types = Mapping[Path, Type]
"""Types by path of the variable, `*` for any one step: ("disks", "*", "used_percent")."""

_SHOWN = {"number": "a number", "text": "text", "bool": "true or false", "list": "a list", "map": "a map"}
_OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
_BEFORE = frozenset({"", "(", "&", "|", ",", "?", ":", "[", "{"})
_AFTER = frozenset({"", ")", "&", "|", ",", "?", ":", "]", "}"})
_MAX_ROUNDS = 6


def type_of(path: Path, types: Types) -> Type:
    """The type of what is read; "any" when it is not known."""
    if path in types:
        return types[path]
    for known, found in types.items():
        if len(known) == len(path) and all(a in ("*", b) for a, b in zip(known, path, strict=True)):
            return found
    return "any"


def check_comparisons(tokens: Sequence[Token], reads: Sequence[tuple[int, int, Path]], types: Types) -> None:
    """
    Refuse `number == "text"`: it is false for ever, or cannot be computed.

    reads: begin and end among the tokens, and the path. Only a comparison with a literal is looked at, and only
    where both sides stand alone between the operators.
    """
    for begin, end, path in reads:
        type_ = type_of(path, types)
        if type_ == "any":
            continue
        operator, right = _operator(tokens, end)
        if operator and _word(tokens, begin - 1) in _BEFORE:
            literal, after = _literal(tokens, right)
            if literal and _word(tokens, after) in _AFTER:
                _refuse_mismatch(path, type_, operator, literal)
        operator, left = _operator_before(tokens, begin)
        if operator and _word(tokens, end) in _AFTER:
            literal, after = _literal(tokens, left)
            if literal and after == left + 1 and _word(tokens, left - 1) in _BEFORE:
                _refuse_mismatch(path, type_, operator, literal)


def check_result(source: str, paths: Sequence[Path], types: Types, compute: Callable[[dict[str, Any]], Any]) -> None:
    """Refuse what gives neither true nor false, or cannot be computed, for any of some values of the right types."""
    if not paths or any(type_of(path, types) == "any" or type_of(path[:1], types) == "any" for path in paths):
        return
    results: list[Any] = []
    failed = 0
    for number in range(_MAX_ROUNDS):
        try:
            result = compute(_sample(paths, types, number))
        except TypeError:
            failed += 1
            continue
        except Exception:
            return
        except BaseException as panic:
            raise_unless_panic(panic)
            return
        if isinstance(result, bool):
            return
        results.append(result)
    shown = " ".join(source.split())
    if failed == _MAX_ROUNDS:
        listed = ", ".join(f"{written(path)} is {_SHOWN[type_of(path, types)]}" for path in dict.fromkeys(paths))
        raise ConfigError(f"`{shown}` can never be computed: {listed}; both sides must be of one type")
    if len(results) == _MAX_ROUNDS:
        example = as_text(preview(results[0]))
        raise ConfigError(f"`{shown}` is neither true nor false but e.g. {example}; compare it, e.g. status == 200")


def _sample(paths: Sequence[Path], types: Types, number: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in sorted(paths, key=len):
        here: Any = values
        for depth in range(1, len(path)):
            inner = here.get(path[depth - 1]) if isinstance(here, dict) else None
            if not isinstance(inner, dict):
                inner = {}
                if isinstance(here, dict):
                    here[path[depth - 1]] = inner
            here = inner
        if not isinstance(here.get(path[-1]), dict):
            here[path[-1]] = _SAMPLES[type_of(path, types)][number]
    return {name: _listed(value) if type_of((name,), types) == "list" else value for name, value in values.items()}


def _listed(value: Any) -> Any:
    """A list whose items were set by their number."""
    if not isinstance(value, dict):
        return value
    items = [
        value.get(index)
        for index in range(min(max((each for each in value if isinstance(each, int)), default=-1), 50) + 1)
    ]
    filler = next(iter(value.values()), "a")
    return [filler if item is None else item for item in items]


_SAMPLES: dict[str, list[Any]] = {
    "number": [1, 1.5, 0, 0.5, 200, 500],
    "text": ["", "a", "1", "200", "2026-01-01T00:00:00Z", "NOERROR"],
    "bool": [True, False, True, False, False, True],
    "list": [[], ["a"], [1], ["a", "b"], [], ["1"]],
    "map": [{}, {"a": 1}, {"a": "b"}, {}, {"a": {}}, {}],
}


def _refuse_mismatch(path: Path, type_: Type, operator: str, literal: tuple[Type, str]) -> None:
    found, text = literal
    if found == type_:
        return
    name = written(path)
    bare = text.strip("\"'")
    if type_ == "number" and found == "text" and bare.replace(".", "", 1).isdecimal():
        cure = f"write {bare} without quotes"
    elif type_ == "bool":
        cure = f"write {name} or !{name}"
    elif type_ == "text" and found != "text":
        cure = f'write "{text}" in quotes' if operator in ("==", "!=") else f"write int({name}) or double({name})"
    elif type_ == "list":
        cure = f"write e.g. {text} in {name}, or {name}.size() > 0"
    elif type_ == "map":
        cure = f"name a member of it, as in {name}.member"
    else:
        cure = f"compare it with {_SHOWN[type_]}"
    what = {"==": "never holds", "!=": "always holds"}.get(operator, "can never be computed")
    raise ConfigError(f"`{name} {operator} {text}` {what}: {name} is {_SHOWN[type_]}, not {_SHOWN[found]}; {cure}")


def _word(tokens: Sequence[Token], index: int) -> str:
    return tokens[index][1] if 0 <= index < len(tokens) else ""


def _operator(tokens: Sequence[Token], index: int) -> tuple[str, int]:
    """The comparison that begins here, and the index after it."""
    two, one = _word(tokens, index) + _word(tokens, index + 1), _word(tokens, index)
    if two in _OPERATORS:
        return two, index + 2
    return (one, index + 1) if one in _OPERATORS else ("", index)


def _operator_before(tokens: Sequence[Token], index: int) -> tuple[str, int]:
    """The comparison that ends before here, turned round, and the index of what stands before it."""
    two, one = _word(tokens, index - 2) + _word(tokens, index - 1), _word(tokens, index - 1)
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    if two in _OPERATORS:
        return turned.get(two, two), index - 3
    return (turned[one], index - 2) if one in turned else ("", index)


def _literal(tokens: Sequence[Token], index: int) -> tuple[tuple[Type, str] | None, int]:
    """The literal that begins here, and the index after it."""
    kind, word = tokens[index] if 0 <= index < len(tokens) else ("", "")
    if kind == "sign" and word == "-" and index + 1 < len(tokens) and tokens[index + 1][0] == "number":
        return ("number", "-" + tokens[index + 1][1]), index + 2
    if kind == "number":
        return ("number", word), index + 1
    if kind == "string" and word[0] in "\"'":  # bytes and raw strings are let pass
        return ("text", word), index + 1
    if kind == "name" and word in ("true", "false"):
        return ("bool", word), index + 1
    return None, index
