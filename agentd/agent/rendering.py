"""
A tool's output as text.

In: any JSON. Out: text with a line for each line and each item, so that lines can be quoted.
Promise: pure, never raises.
"""

from __future__ import annotations

import json
from typing import Any

from agentd.telemetry.redact import is_sensitive


def rendered(output: Any) -> str:
    """
    A tool's output as text: text as it is; lists one item a line; texts of many lines within an object as such.

    JSON is compact. Never raises.
    """
    if output is None or output == "":
        return "(no output)"
    if isinstance(output, str):
        return output
    if isinstance(output, list | tuple) and len(output) > 1:
        return "\n".join(each if isinstance(each, str) and "\n" not in each else _json(each) for each in output)
    if isinstance(output, dict):
        long = {
            str(key): value
            for key, value in output.items()
            if isinstance(value, str) and "\n" in value.strip("\n") and not is_sensitive(str(key))
        }
        short = {key: value for key, value in output.items() if str(key) not in long}
        parts = ([_json(short)] if short else []) + [f"{key}:\n{value}" for key, value in long.items()]
        return "\n".join(parts)
    return _json(output)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (ValueError, TypeError, RecursionError):
        return f"({type(value).__name__} that cannot be shown)"
