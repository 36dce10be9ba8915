"""
Any value made plain: JSON types only, cut to a given size.

In: what probes, conditions and logs hand over, of any type and size, maybe made to hurt. Out: values that every JSON
reader takes. Promise: never raises, and never looks at more of a value than it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Any

from agentd.clock import iso

_LARGEST_INT = 2**63
_MOST_VALUES = 4000


@dataclass(frozen=True, slots=True)
class Limits:
    """chars: of one text. items: of one list or mapping. depth: levels of lists and mappings, 0 for none."""

    chars: int
    items: int
    depth: int


def short(text: str, chars: int) -> str:
    """At most `chars` characters, the last one `…` when it was longer; half characters (lone surrogates) become `?`."""
    if len(text) > chars:
        text = text[: chars - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain(value: Any, limits: Limits) -> Any:
    """`value` as None, bool, int, float, str, list or dict of such; numbers JSON has no words for become text."""
    return _Plainer(limits).of(value, limits.depth)


class _Plainer:
    """One walk over a value. left: how many values it may still look at, however they nest."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = _MOST_VALUES

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        limits = self._limits
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.of(value.value, depth)
        if isinstance(value, str):
            return short(str(value), limits.chars)
        if isinstance(value, int):
            return int(value) if -_LARGEST_INT <= value < _LARGEST_INT else _large(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return short(bytes(value[: limits.chars + 1]).decode("utf-8", "replace"), limits.chars)
        if isinstance(value, datetime):
            return iso(value) if value.tzinfo else value.isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, Mapping | list | tuple | Set):
            return self._nested(value, depth)
        return _described(value, limits)

    def _nested(self, value: Mapping[Any, Any] | Iterable[Any], depth: int) -> Any:
        if depth <= 0 or self._left <= 0:
            return "…"
        limits = self._limits
        try:
            if isinstance(value, Mapping):
                items = islice(value.items(), limits.items)
                return {
                    short(_key(key), min(limits.chars, 200)): self.of(item, depth - 1)
                    for key, item in items
                    if self._left > 0
                }
            kept = [self.of(item, depth - 1) for item in islice(value, limits.items) if self._left > 0]
        except Exception:  # a value of a foreign type may do anything when read
            return _described(value, limits)
        return sorted(kept, key=str) if isinstance(value, Set) else kept


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key, Limits(200, 8, 1)))


def _large(value: int) -> Any:
    # Writing out an integer of a million digits takes seconds, and Python refuses it.
    return str(value) if value.bit_length() <= 256 else f"an integer of {value.bit_length()} bits"


def _described(value: Any, limits: Limits) -> str:
    try:
        return short(str(value), limits.chars)
    except Exception:  # a foreign type's __str__ may do anything
        return f"({type(value).__name__})"
