"""
What is wrong with an input, in words that a model can act on: which key, and what is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_LONGEST = 300
_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def complaint(error: Any, keys: Sequence[str]) -> str:
    """
    One line. error: a `jsonschema_rs.ValidationError`. keys: those that the input may have at its top.
    """
    path = list(error.instance_path)
    where = f"`{_path(path)}`" if path else "the input"
    kind = error.kind
    match kind.name:
        case "required":
            return f"`{_path([*path, kind.property])}` is missing"
        case "type":
            wanted = " or ".join(_NAMES.get(name, name) for name in kind.types)
            return f"{where} must be {wanted}, not {_shown(error.instance)}"
        case "enum":
            options = ", ".join(_shown(option) for option in list(kind.options)[:20])
            return f"{where} must be one of {options}, not {_shown(error.instance)}"
        case "additionalProperties" | "unevaluatedProperties":
            known = f"; known are {', '.join(str(key)[:40] for key in keys[:20])}" if keys and not path else ""
            names = ", ".join(f"`{_path([*path, name])}`" for name in list(kind.unexpected)[:5])
            return f"{names} is not known{known}"
        case "pattern":
            return f"{where} must match the pattern {kind.pattern[:100]}, unlike {_shown(error.instance)}"
        case "anyOf" | "oneOf":
            return _nearest(error, where, keys)
    said = str(error.message)
    return f"{where}: {said if len(said) <= _LONGEST else said[-_LONGEST:]}"


def _nearest(error: Any, where: str, keys: Sequence[str]) -> str:
    """Of several ways to be right, what the one that came furthest still lacks."""
    branches = [branch for branch in getattr(error.kind, "context", ()) if branch]
    here = len(error.instance_path)
    simple = [
        branch[0] for branch in branches if branch[0].kind.name == "type" and len(branch[0].instance_path) == here
    ]
    if branches and len(simple) == len(branches):
        wanted = " or ".join(dict.fromkeys(_NAMES.get(name, name) for one in simple for name in one.kind.types))
        return f"{where} must be {wanted}, not {_shown(error.instance)}"
    if not branches:
        return f"{where} fits more than one of the forms it may have"
    deepest = max(branches, key=lambda branch: max(len(one.instance_path) for one in branch))
    furthest = max(deepest, key=lambda one: len(one.instance_path))
    if furthest.kind.name in ("anyOf", "oneOf") and len(furthest.instance_path) == here:
        return f"{where} has none of the forms it may have"
    return complaint(furthest, keys)


def _path(path: Sequence[str | int]) -> str:
    text = ".".join(str(part)[:60] for part in path[:20])
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"
