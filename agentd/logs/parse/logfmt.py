"""
logfmt: `key=value key="quoted value" flag`.

In: text that begins with a key and "=".  Out: its keys, and `message`, `level` and `timestamp` by their usual names.
A bare value that is a plain decimal number is a number, true and false are such; what is quoted is text, always.
A key without "=" is true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from agentd.logs.parse.bounds import MAX_KEY_CHARS, MAX_KEYS, clean, plain_number
from agentd.logs.parse.jsonline import named
from agentd.logs.parse.shape import LOGFMT_HEAD
from agentd.logs.parse.stamp import Stamps

_MOST_PAIRS = 4 * MAX_KEYS  # the same key over and over is still a megabyte of pairs
_PAIR = re.compile(r'([^\s="]++)(?:(=)(?:"((?:[^"\\]|\\.)*+)"|(\S*+)))?', re.DOTALL)
_NESTED = re.compile(r'[\w.@/-]{1,64}+=(?:"(?:[^"\\]|\\.)*+"|[^\s"]*+)\s++[\w.@/-]{1,64}+=', re.ASCII | re.DOTALL)


def taker(stamps: Stamps, *, strict: bool = False) -> Callable[[str], dict[str, Any] | None]:
    """strict: for guessing; only lines of two pairs and more, and nothing else in them."""

    def take(text: str) -> dict[str, Any] | None:
        if not LOGFMT_HEAD.match(text) or (strict and not _NESTED.match(text)):
            return None
        found = pairs(text, strict=strict)
        return None if found is None else named(found, text, stamps)

    return take


def pairs(text: str, *, strict: bool = False) -> dict[str, Any] | None:
    """The pairs in order; None when strict and something else stands between them."""
    found: dict[str, Any] = {}
    for match in islice(_PAIR.finditer(text), _MOST_PAIRS):
        key, is_pair, quoted, bare = match.groups()
        if is_pair is None:
            if strict:
                return None
            value: Any = True
        elif quoted is not None:
            value = _unescaped(quoted) if "\\" in quoted else quoted
        elif bare in ("true", "false"):
            value = bare == "true"
        else:
            value = plain_number(bare)
        found[key[:MAX_KEY_CHARS]] = value
        if len(found) >= MAX_KEYS:
            break
    if type(found.get("date")) is str and type(found.get("time")) is str and found["time"][2:3] == ":":
        found["timestamp"] = f"{found['date']} {found['time']}"  # firewalls write date=… time=…
        found = {"timestamp": found.pop("timestamp"), **found}
    return found


def _unescaped(text: str) -> str:
    try:
        return clean(str(json.loads(f'"{text}"', strict=False)))
    except ValueError:
        return text.replace('\\"', '"')
