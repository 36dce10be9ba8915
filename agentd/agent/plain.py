"""
Whatever a tool gave, as plain JSON of bounded size.

In: any value. Out: objects with text keys, lists, text, numbers, true, false, null; no NaN, no lone surrogates.
Promise: never raises, never larger than the limit by more than its own marks; what was cut is marked as cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_DEEPEST = 64
_LARGEST_INT = 2**63


def plain(value: Any, limit_bytes: int) -> Any:
    """The value as plain JSON of about `limit_bytes` at most (of JSON text in UTF-8), marked where it was cut."""
    kind = type(value)
    if kind is str:
        return text_within(value, limit_bytes)
    if value is None or kind is bool:
        return value
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if len(text) <= limit_bytes and (text.isascii() or len(text.encode()) <= limit_bytes):
            return json.loads(text)
    except Exception:  # noqa: S110  # the slow way below takes what C code refuses: NaN, circles, foreign objects
        pass
    try:
        return _Room(limit_bytes).take(value, 0)
    except Exception as error:
        return f"[an output that cannot be written as JSON: {type(error).__name__}]"


def text_within(text: str, limit_bytes: int) -> str:
    """The text's begin, marked as cut if it is longer; lone surrogates replaced."""
    # A character has up to 4 bytes, so most texts need no counting.
    if len(text) * 4 <= limit_bytes or (len(text) <= limit_bytes and text.isascii()):
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
    raw = text[:limit_bytes].encode("utf-8", "replace")
    if len(text) <= limit_bytes and len(raw) <= limit_bytes:
        return raw.decode()
    kept = raw[: max(0, limit_bytes)].decode("utf-8", "ignore")
    return f"{kept}\n[cut: {len(kept)} of {len(text)} characters]"


class _Room:
    def __init__(self, bytes_left: int) -> None:
        self.left = bytes_left

    def take(self, value: Any, depth: int) -> Any:
        if isinstance(value, bool) or value is None:
            self.left -= 4
            return value
        if isinstance(value, str):
            return self._text(str(value))
        if isinstance(value, int):
            self.left -= 8
            return int(value) if -_LARGEST_INT <= value < _LARGEST_INT else f"[a number of {value.bit_length()} bits]"
        if isinstance(value, float):
            self.left -= 8
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value[: max(self.left, 0) + 1]).decode("utf-8", "replace"))
        if depth >= _DEEPEST:
            self.left -= 30
            return "[cut: nested too deeply]"
        if isinstance(value, Mapping):
            return self._object(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return self._text(str(value))

    def _text(self, text: str) -> str:
        kept = text_within(text, max(self.left, 0))
        self.left -= len(kept) + 2
        return kept

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            if self.left <= 0:
                found["[cut]"] = f"{len(value) - len(found)} more keys"
                break
            name = self._text(key if isinstance(key, str) else str(key))
            found[name] = self.take(inner, depth + 1)
        return found

    def _list(self, value: Any, depth: int) -> list[Any]:
        found: list[Any] = []
        for inner in value:
            if self.left <= 0:
                found.append(f"[cut: {len(value) - len(found)} more]")
                break
            found.append(self.take(inner, depth + 1))
            self.left -= 1
        return found
