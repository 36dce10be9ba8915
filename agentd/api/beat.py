"""
What a job says with a heartbeat: that it went well or that it failed, and a message.

In: the body and the query of the request, written by cron lines and scripts of anybody. Out: (went well, message).
Promise: a job that reports a failure in any of the ways below is never taken for one that went well, and what
cannot be understood is refused rather than guessed.

    curl -X POST …/heartbeat/NAME                                        it went well
    curl -d 'any text' …/heartbeat/NAME                                  it went well, with a message
    curl -d 'disk full' '…/heartbeat/NAME?status=failed'                 it failed
    curl -d '{"status": "failed", "message": "disk full"}' …/heartbeat/NAME
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from agentd.errors import ConfigError

_STATUS = {"ok": True, "failed": False}
_LIKE_AN_OBJECT = re.compile(r"\s*\{\s*[\"}]")
_QUERY = ("status", "token")


def read_beat(body: bytes, query: Sequence[tuple[str, str]]) -> tuple[bool, str]:
    """
    Whether the job went well, and its message.

    A body that is a JSON object may say `status` (ok, failed), `ok` (true, false) and `message`; any other body is
    the message itself. Of several claims one failure counts. Raises ConfigError for an unknown query parameter, a
    value that means nothing, and a body that is almost JSON.
    """
    if unknown := sorted({key for key, _ in query} - set(_QUERY)):
        raise ConfigError(f"{unknown[0][:100]}: no such parameter; write ?status=ok or ?status=failed")
    text = body.decode("utf-8", "replace")
    said = _object(text)
    if said is None:
        return all(_claims(query)), text
    message = said.get("message", "")
    if not isinstance(message, str):
        raise ConfigError("message: write a text")
    # Whoever says both does not mean that it went well.
    return all((*_claims(query), *_claims(said.items()))), message


def same_token(given: str | None, expected: str) -> bool:
    """Compare in constant time. An empty token fits nothing: it comes of an empty file."""
    return hmac.compare_digest((given or "").encode(), expected.encode(errors="surrogateescape")) and bool(expected)


def _claims(said: Iterable[tuple[str, Any]]) -> list[bool]:
    claims = []
    for key, value in said:
        if key == "status":
            if not isinstance(value, str) or value not in _STATUS:
                raise ConfigError("status: write ok or failed")
            claims.append(_STATUS[value])
        elif key == "ok":
            if not isinstance(value, bool):
                raise ConfigError("ok: write true or false")
            claims.append(value)
    return claims


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that the text is, or None for any other text."""
    if not _LIKE_AN_OBJECT.match(text):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Put together by a shell, with a quote in the message: it may well say that the job failed.
        raise ConfigError(f"the body begins like JSON but is none: {error}"[:300]) from None
    return value if isinstance(value, dict) else None
