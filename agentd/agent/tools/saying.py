"""
How tools say what they found and what they refuse: bounded text, marked where it was cut; failures of the right kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from agentd.agent.permissions import NotPermitted
from agentd.agent.port import ToolFailure
from agentd.fleet.messages import ErrorKind
from agentd.settings import parse_duration

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

MOMENT_SCHEMA = {
    "type": "string",
    "minLength": 2,
    "maxLength": 40,
    "description": "ISO 8601 time such as 2026-01-31T08:00:00Z, or how long ago: 90s, 15m, 2h, 7d",
}


@contextmanager
def refusing() -> Iterator[None]:
    """Turns `NotPermitted` into the failure that a model reads."""
    try:
        yield
    except NotPermitted as error:
        raise ToolFailure(str(error), ErrorKind.DENIED) from error


def invalid(message: str) -> ToolFailure:
    return ToolFailure(message, ErrorKind.INVALID_INPUT)


def readable(text: str) -> str:
    """Without control characters and those that change the direction of text; line breaks and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if not text.isprintable() else text


def clipped(text: str, most: int) -> tuple[str, bool]:
    """At most so many bytes of UTF-8, and whether there was more."""
    if len(text) * 4 <= most:
        return text, False
    raw = text.encode("utf-8", "replace")
    if len(raw) <= most:
        return text, False
    return raw[:most].decode("utf-8", "ignore"), True


def line(text: str, most: int = 2000) -> str:
    """Hostile text as one line, cut with a mark."""
    return passage(" ".join(text.splitlines()), most)


def passage(text: str, most: int = 2000) -> str:
    """Hostile text, its lines kept, cut with a mark."""
    text = readable(text)
    return text if len(text) <= most else f"{text[:most]} […{len(text) - most} characters more]"


def read_moment(value: Any, now: datetime, key: str) -> datetime | None:
    """The moment that `MOMENT_SCHEMA` says, aware and UTC; None for None. Raises ToolFailure."""
    if value is None:
        return None
    text = str(value).strip()
    try:
        if text[:1].isdigit() and text[-1:].isalpha() and "T" not in text and text[-1] != "Z":
            return now - parse_duration(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise invalid(
            f"{key}: cannot read {text[:40]!r}; write e.g. 2026-01-31T08:00:00Z, or how long ago: 15m, 2h, 7d"
        ) from error
