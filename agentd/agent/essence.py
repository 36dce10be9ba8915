"""
A piece of evidence in one line: what it is called, and what it says at its heart.

In: a result and the input that its tool was called with; the text of an exhibit. Out: one line each.
Promise: pure, bounded, never raises; whoever keeps a line redacts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentd.agent.evidence import one_line
from agentd.fleet.messages import Result
from agentd.telemetry.redact import is_sensitive

_TELLING = ("url", "path", "file", "argv", "host", "hostname", "watch", "kind", "unit", "pattern", "query", "text")
_MOST_TOLD = 2
_INPUT_CHARS = 80
_READ_CHARS = 64 * 1024
_SUMMARY = re.compile(r"^summary: *(\S.*)$", re.MULTILINE)
_FIRST_CHARS = 2000


def title_of(result: Result, input: Mapping[str, Any]) -> str:
    """Such as `s1.2 http_get https://shop.example/health: 503`. input: as it was called with."""
    parts = [result.task, result.tool]
    told = [_worded(input[key]) for key in _TELLING if input.get(key) not in (None, "", [])]
    if not told:
        told = [_worded(value) for key, value in list(input.items())[:_MOST_TOLD] if not is_sensitive(str(key))]
    parts += [one_line(each, _INPUT_CHARS) for each in told[:_MOST_TOLD] if each]
    title = " ".join(part for part in parts if part)
    status = result.output.get("status") if isinstance(result.output, Mapping) else None
    if result.error is not None:
        return f"{title}: {result.error.replace('_', ' ')}"
    return f"{title}: {status}" if isinstance(status, int | str) and 0 < len(str(status)) <= 20 else title


def essence_of(text: str, chars: int) -> str:
    """
    What a text says, on one line of at most `chars` characters.

    That is its summary where it has one, all of it on one line where it is JSON, else its first line with words.
    """
    text = text[:_READ_CHARS].strip()
    if text[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            # With something behind it, or cut: as it stands, on one line.
            return one_line(text[:_FIRST_CHARS], chars)
        if isinstance(value, dict) and isinstance(value.get("summary"), str) and value["summary"].strip():
            return one_line(value["summary"], chars)
        return one_line(json.dumps(value, ensure_ascii=False), chars)
    if (summary := _SUMMARY.search(text[:_FIRST_CHARS])) is not None:
        return one_line(summary[1], chars)
    lines = (line.strip() for line in text.split("\n"))
    said = (line for line in lines if any(map(str.isalnum, line)))
    return one_line(next(said, ""), chars)


def _worded(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value[:20] if isinstance(each, str | int | float))
    return str(value) if isinstance(value, str | int | float) else ""
