"""
What a provider's refusal means, and what is done about it.

In: status, headers and body of an error answer, or the exception that an HTTP client raised. Out: a `ModelFailure`.
Promise: never raises, whatever the body holds; the message quotes at most one line of it, and no key.

Codes go before words, words before the status (`wordings`): a 429 may be a rate, an overload, a bill that is not paid,
or a question that will never fit.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.wordings import BEFORE_CODES, CODES, SPEAKS, STATUSES, VAGUE_CODES, WORDS
from agentd.pacing import retry_after_s

_K = FailureKind

RETRIED: Final = frozenset({_K.RATE_LIMITED, _K.OVERLOADED, _K.UNAVAILABLE})
"""The same model is asked again a moment later, as long as nothing of the answer has come."""

FALLS_BACK: Final = frozenset(
    {
        _K.RATE_LIMITED,
        _K.OVERLOADED,
        _K.UNAVAILABLE,
        _K.TIMEOUT,
        _K.CUT,
        _K.GARBAGE,
        _K.BAD_KEY,
        _K.QUOTA,
        _K.BAD_REQUEST,
    }
)
"""
Another model may do better. BAD_REQUEST is here for the model that its provider has retired, and for the parameter
that only this one refuses. Not here: an overflow (compact first), a filter's verdict, our own budget.
"""

MAX_BODY_BYTES = 64 * 1024
"""So much of an error's body is worth reading."""

_MAX_SHOWN = 200
_LONGEST_WAIT_S = 24 * 3600.0

_MEANT: Mapping[FailureKind, str] = {
    _K.BAD_KEY: "the key is refused; check `api_key`",
    _K.QUOTA: "the account's quota is used up, or its bill unpaid",
    _K.CONTEXT_OVERFLOW: "the question is longer than the model's window",
    _K.FILTERED: "refused by the provider's content filter",
    _K.RATE_LIMITED: "rate limit",
    _K.OVERLOADED: "overloaded",
}
_WAIT = re.compile(r"(?:try again in|retry after|retry in)\s+((?:\d+(?:\.\d+)?\s*(?:ms|[smh])[a-z]*\s*){1,3})")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smh])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KEYS = re.compile(r"(?i)\b(?:sk|pk|rk|gsk|xai)[-_][\w*.\-]{6,}|bearer\s+\S+|\b[0-9a-f]{32}(?:\.\w+)?\b")


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    who: str,
    received: bool = False,
    keep_out: str | None = None,
    now: datetime | None = None,
) -> ModelFailure:
    """
    The failure that an error answer is.

    status: of the answer; 200 for an error told in the midst of one. headers: names in lower case, or a mapping that
    does not care. who: whom we asked, such as `model default`. keep_out: the key, should the body show it.
    now: what a date in Retry-After is measured against.
    """
    text = body[:MAX_BODY_BYTES].decode("utf-8", "replace")
    message, codes = _told(text)
    status = _told_status(codes) or status if status == 200 else status
    kind = _kind(status, codes, f"{' '.join(codes)} {message[:4000]}".lower(), text.lower())
    wait_s = _wait_s(headers, message, now) if kind in (*RETRIED, _K.QUOTA) else None
    return ModelFailure(
        _sentence(who, status, kind, message, keep_out),
        kind,
        status=None if status == 200 else status,
        retry_after_s=wait_s,
        received=received,
    )


def unreachable(error: BaseException, *, who: str, began: bool = False, received: bool = False) -> ModelFailure:
    """
    The failure that an exception of the HTTP client is, told in words of ours: libraries quote addresses.

    began: the answer's status had come. received: some of the answer had come.
    """
    kinds = {each.__name__ for each in type(error).__mro__}
    if isinstance(error, TimeoutError) or kinds & {"ReadTimeout", "WriteTimeout", "PoolTimeout"}:
        return ModelFailure(f"{who} took too long", _K.TIMEOUT, received=received)
    if kinds & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        return ModelFailure(f"{who} cannot be asked like this; check `base_url`", _K.BAD_REQUEST)
    if "DecodingError" in kinds:
        return ModelFailure(f"{who} sent what cannot be unpacked", _K.GARBAGE, received=received)
    if began:
        return ModelFailure(f"{who} broke off in mid-answer", _K.CUT, received=received)
    if "RemoteProtocolError" in kinds and not re.search("disconnect|closed", str(error)):
        return ModelFailure(f"{who} does not speak HTTP; check `base_url`", _K.GARBAGE)
    return ModelFailure(f"{who} cannot be reached: {_cause(error)}", _K.UNAVAILABLE)


def shown(text: str, keep_out: str | None = None) -> str:
    """One line of what somebody else said, without what looks like a key."""
    if keep_out:
        text = text.replace(keep_out, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _MAX_SHOWN]).split())
    line = _KEYS.sub("***", line)
    return line if len(line) <= _MAX_SHOWN else f"{line[: _MAX_SHOWN - 1]}…"


def _told(text: str) -> tuple[str, tuple[str, ...]]:
    """The message and the codes of an error's body, in whatever form it comes."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return ("" if text.lstrip().startswith("<") else text), ()
    if isinstance(told, list) and told:
        told = told[0]
    if not isinstance(told, dict):
        return text, ()
    error = told.get("error", told)
    if isinstance(error, str):
        return error, tuple(_codes(told))
    if not isinstance(error, dict):
        error = told
    message = next((error[key] for key in ("message", "msg", "detail", "error_msg") if error.get(key)), "")
    return message if isinstance(message, str) else json.dumps(message), tuple(dict.fromkeys(_codes(error)))


def _codes(error: Mapping[str, Any]) -> Iterator[str]:
    inner = error.get("innererror") or error.get("metadata")
    for place in (error, inner if isinstance(inner, dict) else {}):
        for key in ("code", "type", "status", "error_code"):
            value = place.get(key)
            if isinstance(value, str | int) and not isinstance(value, bool):
                yield str(value)[:100]


def _told_status(codes: tuple[str, ...]) -> int | None:
    return next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)


def _kind(status: int, codes: tuple[str, ...], words: str, whole: str) -> FailureKind:
    if status in SPEAKS[_K.QUOTA]:
        for kind, pattern in BEFORE_CODES:
            if pattern.search(whole):
                return kind
    for code in codes:
        if (by_code := CODES.get(code.lower())) is not None:
            return by_code
    for kind, pattern in WORDS:
        if status in SPEAKS[kind] and pattern.search(words):
            return kind
    for code in codes:
        if (by_code := VAGUE_CODES.get(code.lower())) is not None:
            return by_code
    if status in STATUSES:
        return STATUSES[status]
    return _K.UNAVAILABLE if status >= 500 or status == 200 else _K.BAD_REQUEST


def _wait_s(headers: Mapping[str, str], message: str, now: datetime | None) -> float | None:
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", milliseconds := headers.get("retry-after-ms") or ""):
        return min(float(milliseconds) / 1000, _LONGEST_WAIT_S)
    asked = retry_after_s(headers.get("retry-after"), now or datetime.now(UTC), cap_s=_LONGEST_WAIT_S)
    if asked is not None:
        return asked
    if (found := _WAIT.search(message[:2000].lower())) is None:
        return None
    spans = _SPAN.findall(found[1])
    return min(sum(float(number[:9]) * _UNITS[unit] for number, unit in spans), _LONGEST_WAIT_S)


def _sentence(who: str, status: int, kind: FailureKind, message: str, keep_out: str | None) -> str:
    answered = f"{who} answered {status}" if status != 200 else f"{who} answered with an error"
    # What is said about a wrong key often shows half of it; what is said of 403 is another thing.
    said = "" if kind is _K.BAD_KEY and status != 403 else shown(message, keep_out)
    if 300 <= status < 400:
        said = "a redirect, which is not followed; check `base_url`"
    return ": ".join(part for part in (answered, _MEANT.get(kind, ""), said) if part)


def _cause(error: BaseException) -> str:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return "its certificate is refused"
        if isinstance(seen, ssl.SSLError):
            return "TLS failed"
        if isinstance(seen, socket.gaierror):
            return "its name cannot be resolved"
        # asyncio's own text quotes the address; the number says what it was.
        if isinstance(seen, OSError) and (seen.errno or 0) > 0:
            return os.strerror(seen.errno or 0).lower()
        # One attempt for each address of the name.
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__ or seen.__context__
    return {"ConnectTimeout": "no connection in time"}.get(type(error).__name__, "no answer")
