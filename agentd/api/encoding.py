"""
JSON as the API writes it.

In: plain values, whatever text and numbers the outside put into them. Out: bytes.
Promise: what UTF-8 or JSON cannot hold is replaced and never breaks an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def encoded(value: Any) -> bytes:
    """JSON of a value: lone surrogates (undecodable bytes of the outside) become `?`, NaN and infinities null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
