"""
How Python values become columns and back: text that UTF-8 can hold, mappings as JSON text.

Promise: whatever a target, a log line or a model wrote can be stored; an odd character never stops an alert.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

# With how long texts and lists a value that is too long is tried anew.
_FITS = ((20_000, 1000), (2000, 200), (300, 50), (60, 10))
_MAX_DEPTH = 24


def text(value: str) -> str:
    """`value` without lone surrogates (undecodable bytes of the outside), which SQLite cannot hold."""
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")


def optional_text(value: str | None) -> str | None:
    return None if value is None else text(value)


def to_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Compact JSON; what JSON does not know becomes its `str()`."""
    return json.dumps(value, default=str, separators=(",", ":"))


def clipped(value: str, limit: int) -> str:
    """`text(value)`, of at most `limit` characters; what was cut off is marked."""
    value = text(value) if len(value) <= limit else text(value[: max(limit - 1, 0)]) + "…"
    return value if "\0" not in value else value.replace("\0", "\ufffd")  # SQLite's own functions end a text there


def whole_json(value: Mapping[str, Any], limit: int) -> str | None:
    """The same for what must not be cut: None when it takes more than `limit` characters."""
    found = to_json(_fitted(value, limit, limit, _MAX_DEPTH))
    return found if len(found) <= limit else None


def bounded_json(value: Mapping[str, Any] | Sequence[Any], limit: int) -> str:
    """
    JSON of at most `limit` characters, for what strangers wrote: long texts and lists are cut until it fits.

    Numbers that JSON does not know become null, what is nested deeper than anybody reads becomes text.
    """
    for letters, items in ((limit, limit), *_FITS):
        found = to_json(_fitted(value, min(letters, limit), items, _MAX_DEPTH))
        if len(found) <= limit:
            return found
    return '{"left_out":"it was too long"}' if isinstance(value, Mapping) else "[]"


def _fitted(value: Any, letters: int, items: int, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        # Beyond 64 bits a number is no number to most that read JSON; beyond 4300 digits Python refuses to write it.
        return value if not isinstance(value, int) or -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clipped(value, letters)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:items]
        return {clipped(str(key), letters): _fitted(each, letters, items, depth - 1) for key, each in pairs}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_fitted(each, letters, items, depth - 1) for each in value[:items]]
    return clipped(str(value), letters)


def from_json(value: str) -> Any:
    return json.loads(value)


def first(rows: apsw.Cursor) -> tuple[Any, ...] | None:
    """The first row, or None; the statement is finished either way."""
    found = rows.fetchall()
    return found[0] if found else None


def value(rows: apsw.Cursor) -> Any:
    """The only column of the only row, as of a count."""
    return rows.fetchall()[0][0]
