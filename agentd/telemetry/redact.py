"""
Take secrets out of text that is about to be logged or traced, and out of what a target said.

In: text and values from anywhere, and the values of secrets that were expanded (`register_secret`).
Out: the same text with `***` in the secrets' place.
Promise: cheap on clean text, never raises, never makes text longer than it was by more than the stars.
This is the last net: secrets are not to be handed to a log line in the first place.
"""

from __future__ import annotations

import hashlib
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
    r"|(?P<header>\b(?:Proxy-)?Authorization[\"']?[ \t]*[:=][ \t]*+[\"']?+)"
    # Stars alone: it is taken out, and the word behind them is another.
    r"(?!\*{3}(?![^\s\"',;]))[^\s\"',;]+(?:[ \t]+[^\s\"',;]+)?"
    r"|\b(?P<prefix>whsec_)[A-Za-z0-9+/=]+"
    r"|(?P<userinfo>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@?#\"'<>]{1,300}@",
    re.IGNORECASE,
)
_KEY = (
    r"pass(?:word|wd|phrase|code)|pwd|secret(?:[-_]?(?:access[-_]?)?key)?|token|routing[-_]?key"
    r"|(?:api|access|private|signing|encryption)[-_]?key(?:[-_]?id)?"
)
_SENSITIVE_KEY = re.compile(
    rf"(?:proxy[-_])?authorization|cookie|set[-_]cookie|(?:[\w.-]*[-_.])?(?:{_KEY})", re.IGNORECASE
)
_KEYED = re.compile(
    # What stands before the word does not matter: db_password, accessToken.
    rf"(?P<key>(?:{_KEY}|(?<![a-z])pass(?=[ \t]{{0,3}}=))(?P<shut>\\{{0,4}}[\"']?)"
    # `password= user=eve` says that there is none.
    r"(?>[ \t]{0,3}(?:=>|:=|(?P<colon>:))|[ \t]{1,3}={1,2}|={1,2}(?![ \t]{1,3}[^\s=]{0,100}=))[ \t]{0,3}"
    # Nothing yet, nothing any more, and placeholders of templates.
    r"(?!(?:null|nil|none|true|false|undefined)\b|\*{3}|<[a-z*]+>))"
    r"(?:"
    # JSON within a text of JSON; a text in quotes, whose end may be cut off; a word.
    r"(?P<escaped>\\{1,4}[\"'])[^\"'\\]{2,}"
    r"|(?P<double>\")(?!<[a-z*]+>\"|\*{3}\")(?:[^\"\\]|\\.){2,}"
    r"|(?P<single>')(?!<[a-z*]+>'|\*{3}')(?:[^'\\]|\\.){2,}"
    r"|(?P<word>[^\s&,;\"']+)"
    r")",
    re.IGNORECASE | re.DOTALL,
)
_OPTION = re.compile(
    rf"(?P<option>(?<![\w-])--?(?:[a-z0-9]+-){{0,4}}(?:{_KEY})[ \t]+)(?![-<*])[^\s\"']+", re.IGNORECASE
)
_KEY_HINTS = ("pass", "pwd", "secret", "token", "key")
_SAID_ALONE = re.compile(r"password|passphrase|passcode", re.IGNORECASE)
"""What stands behind these and a colon is one, digits or not; behind `token:` and `passwd:` it may be prose."""
_LONG_WORD = 16

_SHAPES = re.compile(
    r"\b(?:(?P<shape>gh[opsur]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|sk[-_]|rk_live_|AIza|npm_|pypi-)[\w-]{16,}"
    # With the rest of the word: a secret that touches one has nothing before it that makes it a word.
    r"|(?P<aws>AKIA|ASIA)[A-Z0-9]{12,}[\w.-]*"
    # The head alone is known to all; what signs and what is said comes behind it.
    r"|(?P<jwt>eyJ)[\w-]{8,}\.[\w-]*(?:\.[\w-]*){0,3})"
    r"|(?P<pem>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----)(?:(?!-----END ).)*",
    re.DOTALL,
)
_SHAPE_HINTS = (
    *("ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "sk-", "sk_", "rk_live_"),
    *("AIza", "npm_", "pypi-", "AKIA", "ASIA", "eyJ", "PRIVATE KEY"),
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
    """
    `text` without what looks like a secret whoever owns it: registered ones, Authorization values, passwords in URLs,
    what `password=`, `"token": ` and the like say, and keys whose beginning tells what they are (ghp_, AKIA, eyJ, PEM).
    """
    if _known_pattern is not None:
        text = _known_pattern.sub(STARS, text)
    # In most texts none of these words stands, and to look for them is far quicker than the patterns.
    if any(hint in text for hint in _SHAPE_HINTS):
        text = _SHAPES.sub(_shape_starred, text)
    low = text.lower()
    if any(hint in low for hint in _KEY_HINTS):
        text = _KEYED.sub(_value_starred, text)
        if "-" in text:
            text = _OPTION.sub(rf"\g<option>{STARS}", text)
    return _PATTERNS.sub(_stars, text)


def redact_all(value: T) -> T:
    """
    `value` with every text in it as `redact` gives it, however deep, and stars for what stands under a secret's name.

    value: as JSON has them.
    """
    redacted: T = _redacted(value)
    return redacted


def redact_name(name: str, value: str) -> str:
    """
    As `redact_all` of {name: value}, with a few digits behind the stars: two secrets stay two, and each itself.

    The digits are a hash, no part of the secret.
    """
    shown = STARS if is_sensitive(name) and value else redact(value)
    if shown == value:
        return value
    return f"{shown}~{hashlib.blake2b(value.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


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


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            redact(key): STARS if is_sensitive(key) and item not in (None, "", True, False) else _redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_redacted(item) for item in value)
    return value


def _value_starred(match: re.Match[str]) -> str:
    kept, word = match["key"], match["word"]
    if word is None:
        return f"{kept}{match['escaped'] or match['double'] or match['single']}{STARS}"
    if match["colon"] and not match["shut"] and not _tells(kept, word):
        return match[0]
    # Brackets around the whole.
    return kept + STARS + word[len(word.rstrip(")]}>")) :]


def _tells(kept: str, word: str) -> bool:
    """Whether an unquoted word behind a colon is a secret, and not the next word of a sentence: `token: expected`."""
    if _SAID_ALONE.match(kept):
        return kept[-1] != ":" or _has_digit(word) or len(word) >= _LONG_WORD
    return _has_digit(word) or len(word) >= _LONG_WORD


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def _shape_starred(match: re.Match[str]) -> str:
    return f"{match['shape'] or match['aws'] or match['jwt'] or match['pem']}{STARS}"


def _stars(match: re.Match[str]) -> str:
    kept = match["scheme"] or match["header"] or match["prefix"] or match["userinfo"] or ""
    return f"{kept}{STARS}@" if match["userinfo"] else f"{kept}{STARS}"
