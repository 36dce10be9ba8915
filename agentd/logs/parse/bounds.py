"""
What a line may put into fields: so many keys, so deep, such numbers. Whatever is kept can be written as JSON.

Promise: a hostile line costs no more than its length, and nothing it says is unfit for the store.
"""

from __future__ import annotations

import math
import re
from typing import Any

MAX_KEYS = 256
"""Keys and list items of one line, all depths together; the rest is left out."""
MAX_DEPTH = 16
MAX_KEY_CHARS = 256

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,18})(\.\d{1,17})?", re.ASCII)
_INT64 = 2**63


def plain_number(text: str) -> int | float | str:
    """A plain decimal number as such; anything else (007, 1e5, 0x10, more than 64 bit) stays the text it is."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if match[1]:
        return float(text)
    number = int(text)
    return number if -_INT64 <= number < _INT64 else text


def whole_number(text: str) -> int | str:
    """Digits alone as a number of 64 bit at most; anything else stays the text it is."""
    if len(text) <= 18 and text.isdecimal() and text.isascii():
        return int(text)
    return text


def clean(text: str) -> str:
    """Without lone surrogates, which no UTF-8 can hold; they come of escapes such as \\ud800."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def tidy(found: dict[str, Any]) -> dict[str, Any]:
    """A copy within the bounds: surplus keys left out, what is too deep an ellipsis, numbers beyond 64 bit text."""
    left = [MAX_KEYS]
    return {clean(key[:MAX_KEY_CHARS]): _tidy(value, 1, left) for key, value in _some(found, left)}


def _some(found: dict[str, Any], left: list[int]) -> list[tuple[str, Any]]:
    items = list(found.items()) if len(found) <= left[0] else list(found.items())[: left[0]]
    left[0] -= len(items)
    return items


def _tidy(value: Any, depth: int, left: list[int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else _digits(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {clean(key[:MAX_KEY_CHARS]): _tidy(each, depth + 1, left) for key, each in _some(value, left)}
    items = value[: left[0]]
    left[0] -= len(items)
    return [_tidy(each, depth + 1, left) for each in items]


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python turns to text
        return "…"
