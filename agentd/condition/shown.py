"""
Values as people and payloads see them: found by path, cut short, fit for JSON.

In: whatever a target answered. Out: small plain values. Promise: nothing here raises, and nothing large comes out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MAX_SHOWN_CHARS = 80
_MAX_SHOWN_ITEMS = 10
_MAX_SHOWN_DEPTH = 3

Path = tuple[str | int, ...]


def follow(values: Mapping[str, Any], path: Path) -> tuple[bool, Any]:
    here: Any = values
    for step in path:
        if isinstance(here, Mapping):
            if step not in here:
                return False, None
            here = here[step]
        elif isinstance(here, list | tuple) and isinstance(step, int):
            if step >= len(here):
                return False, None
            here = here[step]
        else:
            return False, None
    return True, here


def written(path: Path) -> str:
    text = str(path[0])
    for step in path[1:]:
        if isinstance(step, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", step):
            text += f".{step}"
        else:
            text += f"[{json.dumps(step, ensure_ascii=False)}]"
    return text


def preview(value: Any, depth: int = 0) -> Any:
    """A short copy that JSON can take."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        value = value[:MAX_SHOWN_CHARS].decode(errors="replace")
    if isinstance(value, str):
        # A lone surrogate, as JSON may bring one, is no text that could be stored or sent.
        return _cut(value[: MAX_SHOWN_CHARS + 1].encode(errors="replace").decode())
    if isinstance(value, Mapping | list | tuple):
        if depth == _MAX_SHOWN_DEPTH:
            return "…"
        if isinstance(value, Mapping):
            some = zip(value, range(_MAX_SHOWN_ITEMS), strict=False)
            short = {str(preview(str(key))): preview(value[key], depth + 1) for key, _ in some}
            return short | {"…": f"{len(value)} in all"} if len(value) > _MAX_SHOWN_ITEMS else short
        items = [preview(item, depth + 1) for item in value[:_MAX_SHOWN_ITEMS]]
        return [*items, f"… {len(value)} in all"] if len(value) > _MAX_SHOWN_ITEMS else items
    return _cut(str(value))


def as_text(preview: Any) -> str:
    return _cut(json.dumps(preview, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
