"""
What a request says that silences or acknowledges alerts.

In: the body, as JSON gave it. Out: typed values, bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field, field_validator

from agentd.api.endpoint import Asked

MAX_REASON_CHARS = 500
MAX_ALERTS = 1000
LONGEST = timedelta(days=3660)
_MAX_SAID_CHARS = 10_000
_LIKE_A_MATCHER = r"^\s*[^=!~\"'\s]+\s*(=|!=|=~|!~)"
"""For the document alone: what reads matchers says better what is wrong with one."""


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


_Matcher = Annotated[str, Field(max_length=1000, json_schema_extra={"pattern": _LIKE_A_MATCHER})]


class SilenceBody(Asked):
    matchers: tuple[_Matcher, ...] = Field(
        default=(), max_length=100, description='A list of texts, such as ["watch=shop"]; all of them must match'
    )
    for_s: float = Field(
        gt=0,
        le=LONGEST.total_seconds(),
        allow_inf_nan=False,
        description=f"A number of seconds above 0, at most {LONGEST.days} days",
    )
    reason: str = Field(default="", max_length=_MAX_SAID_CHARS, description="Why, for those who wonder")
    starts_at: AwareDatetime | None = Field(
        default=None, description="A moment with its zone, such as 2026-03-01T22:00:00Z; now, if it is left out"
    )
    all: bool = Field(default=False, description="It may silence all there is: without matchers")

    @field_validator("starts_at")
    @classmethod
    def _in_utc(cls, moment: datetime | None) -> datetime | None:
        try:
            return None if moment is None else moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("is too far away") from None

    def asked(self) -> SilenceAsked:
        reason = one_line(self.reason)[:MAX_REASON_CHARS]
        return SilenceAsked(self.matchers, timedelta(seconds=self.for_s), reason, self.starts_at, self.all)


class AckBody(Asked):
    alerts: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        min_length=1,
        max_length=MAX_ALERTS,
        description=f"A list of watches, WATCH/RULE or fingerprints, 1 to {MAX_ALERTS}",
    )
    comment: str = Field(default="", max_length=_MAX_SAID_CHARS, description="What is being done about it")
    undo: bool = Field(default=False, description="Nobody is on them any more")


def one_line(said: object) -> str:
    """What a person wrote, as text without line breaks and control characters: it is shown to others, in messages."""
    return "".join(each if each.isprintable() else " " for each in str(said))
