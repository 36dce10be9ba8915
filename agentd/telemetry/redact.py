"""
Take secrets out of text that is about to be logged or traced, and out of what a target said.

In: text and values from anywhere, and the values of secrets that were expanded (`register_secret`).
Out: the same text with `***` in the secrets' place.
Promise: cheap on clean text, never raises, never makes text longer than it was by more than the stars.
This is the last net: secrets are not to be handed to a log line in the first place.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")

STARS = "***"
_SHORTEST_SECRET = 6
_MOST_SECRETS = 2000

_PATTERNS = re.compile(
    # A digit or sign must be in it: "basic understanding" is no credential.
    r"(?P<scheme>\b(?:Bearer|Basic)[ \t]+)(?=[A-Za-z]*[0-9._~+/=-])[A-Za-z0-9._~+/=-]{6,}"
    r"|(?P<header>\b(?:Proxy-)?Authorization[\"']?[ \t]*[:=][ \t]*[\"']?)[^\s\"',;]+(?:[ \t]+[^\s\"',;]+)?"
    r"|\b(?P<prefix>whsec_)[A-Za-z0-9+/=]+"
    r"|(?P<userinfo>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@?#\"'<>]{1,300}@",
    re.IGNORECASE,
)
_SENSITIVE_KEY = re.compile(
    r"(?:proxy[-_])?authorization|cookie|set[-_]cookie|pass(?:word|wd|phrase)|secret|token|(?:x[-_])?api[-_]?key|routing_key",
    re.IGNORECASE,
)

_known: OrderedDict[str, None] = OrderedDict()
_known_pattern: re.Pattern[str] | None = None


def register_secret(value: str) -> None:
    """
    Remember a secret's value, so that `redact` takes it out wherever it turns up.

    Values shorter than six characters are not remembered: they would blank ordinary words.
    At most 2,000 are kept, the oldest go first. Line by line for a secret of many lines, such as a key file.
    """
    global _known_pattern
    parts = {part.strip() for part in (value, *value.split("\n"))}
    fresh = [part for part in parts if len(part) >= _SHORTEST_SECRET and part not in _known]
    if not fresh:
        return
    _known.update(dict.fromkeys(fresh))
    while len(_known) > _MOST_SECRETS:
        _known.popitem(last=False)
    longest_first = sorted(_known, key=len, reverse=True)
    _known_pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def forget_secrets() -> None:
    """Forget every registered value."""
    global _known_pattern
    _known.clear()
    _known_pattern = None


def redact(text: str) -> str:
    """`text` without registered secrets, Authorization values, `whsec_` keys and passwords in URLs."""
    if _known_pattern is not None:
        text = _known_pattern.sub(STARS, text)
    return _PATTERNS.sub(_stars, text)


def without_secrets(value: T) -> T:
    """
    `value` with stars for the registered secrets in every text and key of it, however deep; itself if it has none.

    value: as JSON has them. It costs a walk and one search for each registered secret, milliseconds for a megabyte:
    for what is to be kept or shown, not for every look that is well.
    """
    known = list(_known)
    if not known:
        return value
    # One text: a search in it is far quicker than one in each of a hundred thousand, and mostly finds nothing.
    texts = "\0".join(_texts(value))
    found = sorted((secret for secret in known if secret in texts), key=len, reverse=True)
    if not found:
        return value
    starred: T = _starred(value, re.compile("|".join(map(re.escape, found))))
    return starred


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += each
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each


def _starred(value: Any, secrets: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return secrets.sub(STARS, value)
    if isinstance(value, dict):
        return {_starred(key, secrets): _starred(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_starred(item, secrets) for item in value)
    return value


def is_sensitive(key: str) -> bool:
    """True when a field of this name holds a secret whatever its value looks like."""
    return _SENSITIVE_KEY.fullmatch(key) is not None


def _stars(match: re.Match[str]) -> str:
    kept = match["scheme"] or match["header"] or match["prefix"] or match["userinfo"] or ""
    return f"{kept}{STARS}@" if match["userinfo"] else f"{kept}{STARS}"
