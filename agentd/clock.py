"""
Time, as a value that can be handed in.

`now` is the wall clock (UTC), `monotonic` the clock that never jumps; durations are always
differences of the second. Waiting is left to the event loop, whose own time a test replaces too.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, aware, UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment. Never jumps; stands still while the machine is suspended."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def to_us(moment: datetime) -> int:
    """Whole microseconds since the epoch: how the store keeps a moment."""
    return (moment - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The moment that `to_us` gave; aware, UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def optional_us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def from_optional_us(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_us(microseconds)


def iso(moment: datetime) -> str:
    """RFC 3339 with milliseconds and `Z`, as payloads and tables show a moment."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)  # asked for hundreds of times by one list
    return utc.isoformat(timespec="milliseconds")[:-6] + "Z"
