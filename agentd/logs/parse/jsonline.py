"""
JSON lines: an object on one line, as structured loggers and container runtimes write it.

In: text that begins with "{".  Out: its keys as they are, and `message`, `level` and `timestamp` by the usual names
of these. Numbers, booleans and null are such; NaN and Infinity, and whole numbers beyond 64 bit, are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agentd.logs.parse.bounds import tidy
from agentd.logs.parse.level import level_of
from agentd.logs.parse.stamp import Stamps

TIME_KEYS = frozenset(
    (
        "time",
        "timestamp",
        "@timestamp",
        "ts",
        "t",
        "datetime",
        "date",
        "time_local",
        "time_iso8601",
        "eventTime",
        "asctime",
    )
)
_MESSAGE_KEYS = ("message", "msg", "log", "event", "@message", "short_message", "MESSAGE", "text", "body")
_LEVEL_KEYS = ("level", "severity", "lvl", "levelname", "level_name", "log.level", "loglevel", "@level", "Level")

_decoder = json.JSONDecoder(strict=False, parse_constant=str)
_long_decoder = json.JSONDecoder(strict=False, parse_constant=str, parse_int=lambda text: _whole(text))


def _whole(text: str) -> int | str:
    return int(text) if len(text) < 20 else text


def load(text: str) -> dict[str, Any] | None:
    """The object within bounds; None when the text is none."""
    text = text.strip()
    if text[:1] != "{" or text[-1:] != "}":
        return None
    try:
        found = _decoder.decode(text)
    except json.JSONDecodeError:
        return None
    except RecursionError:
        return None
    except ValueError:  # a number of more digits than Python reads
        try:
            found = _long_decoder.decode(text)
        except (ValueError, RecursionError):
            return None
    return tidy(found) if isinstance(found, dict) else None


def taker(stamps: Stamps) -> Callable[[str], dict[str, Any] | None]:
    def take(text: str) -> dict[str, Any] | None:
        found = load(text)
        if found is None:
            return None
        return named(found, text, stamps)

    return take


def named(found: dict[str, Any], text: str, stamps: Stamps) -> dict[str, Any]:
    """Add the vocabulary's names to the keys of a structured line."""
    for key in [key for key in found if key in TIME_KEYS]:
        value = found[key]
        if key == "time" and isinstance(value, int | float) and value < 1e8:
            continue  # how long something took
        if moment := stamps.text_of(value):
            found["timestamp"] = moment
            break
    if level := _level(found):
        found["level"] = level
    else:
        found.pop("level", None)  # null, a list: no level at all
    found["message"] = _message(found, text)
    return found


def _level(found: Mapping[str, Any]) -> str | None:
    for key in _LEVEL_KEYS:
        value = found.get(key)
        if isinstance(value, str | int | float) and (level := level_of(value)):
            return level
    if (number := found.get("levelno")) is not None:
        return level_of(number, python=True)
    inner = found.get("log")
    if isinstance(inner, Mapping):  # Elastic Common Schema, nested
        return level_of(inner.get("level"))
    return level_of(found["s"]) if "$date" in str(found.get("t")) and isinstance(found.get("s"), str) else None


def _message(found: Mapping[str, Any], text: str) -> str:
    for key in _MESSAGE_KEYS:
        value = found.get(key)
        if isinstance(value, str):
            return value.rstrip("\r\n")
    value = found.get("message", found.get("msg"))
    return text if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
