"""
What a request says that silences or acknowledges alerts.

In: the body, as JSON gave it. Out: typed values, bounded. Raises HTTPException 422 with what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException

MAX_REASON_CHARS = 500
MAX_ALERTS = 1000
LONGEST = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class SilenceAsked:
    """
    matchers: as typed, not read yet. starts_at: None for now. everything: it may silence all there is.
    """

    matchers: tuple[str, ...]
    lasting: timedelta
    reason: str = ""
    starts_at: datetime | None = None
    everything: bool = False


def read_silence(body: Mapping[str, Any]) -> SilenceAsked:
    """`matchers` (a list of texts), `for_s` (seconds), `reason`, `starts_at` (RFC 3339), `all`."""
    matchers, for_s = body.get("matchers", []), body.get("for_s")
    if not isinstance(matchers, list) or not all(isinstance(each, str) for each in matchers):
        raise HTTPException(422, 'matchers: write a list of texts, such as ["watch=shop"]')
    if not isinstance(for_s, int | float) or isinstance(for_s, bool) or not 0 < for_s <= LONGEST.total_seconds():
        raise HTTPException(422, f"for_s: write a number of seconds above 0, at most {LONGEST.days} days")
    return SilenceAsked(
        tuple(matchers),
        timedelta(seconds=for_s),
        one_line(body.get("reason", ""))[:MAX_REASON_CHARS],
        _moment(body.get("starts_at")),
        body.get("all") is True,
    )


def read_ack(body: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """`alerts` (a list of texts) and `comment`."""
    alerts = body.get("alerts")
    if not isinstance(alerts, list) or not all(isinstance(each, str) and each for each in alerts):
        alerts = []
    if not 1 <= len(alerts) <= MAX_ALERTS:
        raise HTTPException(422, f"alerts: write a list of watches or fingerprints, 1 to {MAX_ALERTS}")
    return tuple(alerts), one_line(body.get("comment", ""))[:MAX_REASON_CHARS]


def one_line(said: Any) -> str:
    """What a person wrote, as text without line breaks and control characters: it is shown to others, in messages."""
    return "".join(each if each.isprintable() else " " for each in str(said))


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise HTTPException(422, "starts_at: write a moment with its zone, such as 2026-03-01T22:00:00Z")
