"""
What conditions read of a body: its text, and its JSON.

In: bytes and headers of anybody. Out: `str`, and plain values fit for conditions, store and payload.
Promise: nothing here raises beyond ValueError, and no value is deeper, larger or stranger than the rest of the house
takes: no numbers beyond 64 bits, no lone surrogates, and null for NaN and numbers too large for a float.
"""

from __future__ import annotations

import json
import re
from typing import Any

_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# Only character sets: Python also knows codecs such as punycode and unicode_escape, some of them slow.
_KNOWN_CHARSET = re.compile(
    r"utf-?(8|16|16le|16be|16-le|16-be|32)|(us-)?ascii|latin-?1|iso-?8859-\d{1,2}|(windows-|cp)125\d|koi8-[ru]"
    r"|shift_?jis|euc-(jp|kr)|iso-2022-jp|gbk|gb2312|gb18030|big5",
    re.IGNORECASE,
)
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_DEPTH = 200
_INT64 = range(-(2**63), 2**63)


def text_of(body: bytes, content_type: str) -> str:
    """The text by the charset that `content-type` names, else UTF-8; what cannot be read is replaced."""
    charset = _CHARSET.search(content_type)
    if charset is not None and _KNOWN_CHARSET.fullmatch(charset[1]):
        try:
            return body.decode(charset[1], "replace")
        except LookupError:
            pass
    return body.decode("utf-8-sig", "replace")


def json_of(text: str) -> Any:
    """The value. Raises ValueError saying why it is not JSON, or not JSON that can be used."""
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # More brackets than the limit are needed to pass it; most bodies have fewer.
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deeper_than(value, _MAX_DEPTH):
        raise ValueError(_TOO_DEEP)
    return _without_surrogates(value) if _LONE_SURROGATE.search(text) else value


_TOO_DEEP = f"nested more than {_MAX_DEPTH} deep"


def _whole(digits: str) -> int | float | None:
    if len(digits) < 19:
        return int(digits)
    # Python refuses to read thousands of digits, and conditions know 64 bits.
    if len(digits) < 25 and (value := int(digits)) in _INT64:
        return value
    return _real(digits)


def _real(digits: str) -> float | None:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        return None
    return value


def _no_value(name: str) -> None:
    """NaN and Infinity are no JSON, but many write them; one such field is no reason to read none of the others."""


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_no_value)


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            item
            for parent in level
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, dict | list)
        ] if level and isinstance(level[0], dict | list) else []  # fmt: skip
        if not level:
            return False
    return True


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value
