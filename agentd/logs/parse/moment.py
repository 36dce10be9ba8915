"""
From the parts of a time to a moment: numbers since the epoch, fractions, offsets of zones.

In: text and numbers, as a pattern took them.  Out: moments, aware and UTC unless said otherwise.
Raises ValueError or OverflowError for what is no time: the reader of the line makes None of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from agentd.clock import EPOCH

_DAY = timedelta(days=1)


def iso_text(moment: datetime) -> str:
    """ISO 8601 with as many digits as there are, and `Z`."""
    return moment.isoformat().replace("+00:00", "Z")


def from_epoch(number: int | float) -> datetime | None:
    """Seconds, milli-, micro- or nanoseconds since the epoch, told apart by their size; None when it is no moment."""
    if not 0 <= number < 1e19:
        return None
    if number < 1e11:
        micros = round(number * 1_000_000)
    elif number < 1e14:
        micros = round(number * 1000)
    elif number < 1e17:
        micros = round(number)
    else:
        micros = int(number) // 1000
    return EPOCH + timedelta(microseconds=micros)


def from_digits(text: str) -> datetime | None:
    whole, _, fraction = text.partition(".")
    if len(whole) > 20:
        return None
    if fraction and len(whole) <= 11:
        # By hand: a double has no room for ten digits and a fraction of nine.
        return EPOCH + timedelta(seconds=int(whole), microseconds=micros_of(fraction))
    return from_epoch(int(whole))


def from_number_of(key: str, text: str) -> datetime | None:
    """`time: 0.123` is how long something took; `ts: 0.123` is a clock that was never set."""
    if len(text) > 40:
        return None
    number = float(text)
    if key == "time" and number < 1e8:
        return None
    return from_digits(text) if text.replace(".", "", 1).isdecimal() else from_epoch(number)


def naive_moment(year: int, month: int, day: int, hour: int, minute: int, second: int, micros: int) -> datetime:
    if second == 60:  # a leap second
        return datetime(year, month, day, hour, minute, 59, micros) + timedelta(seconds=1)  # noqa: DTZ001  zone follows
    return datetime(year, month, day, hour, minute, second, micros)  # noqa: DTZ001  zone follows


def micros_of(fraction: str | None) -> int:
    return int(fraction[:6].ljust(6, "0")) if fraction else 0


def offset_of(zone: str) -> timedelta:
    """Of `Z`, `UTC`, `GMT`, `+01`, `+0100`, `+01:00`."""
    if zone[0] not in "+-":
        return timedelta()
    digits = zone[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0))
    if offset >= _DAY:
        raise ValueError(zone)
    return -offset if zone[0] == "-" else offset
