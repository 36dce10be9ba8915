"""
How Python values become columns and back: text that UTF-8 can hold, mappings as JSON text.

Promise: whatever a target, a log line or a model wrote can be stored; an odd character never stops an alert.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import apsw


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


def from_json(value: str) -> Any:
    return json.loads(value)


def first(rows: apsw.Cursor) -> tuple[Any, ...] | None:
    """The first row, or None; the statement is finished either way."""
    found = rows.fetchall()
    return found[0] if found else None


def value(rows: apsw.Cursor) -> Any:
    """The only column of the only row, as of a count."""
    return rows.fetchall()[0][0]
