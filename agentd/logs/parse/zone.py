"""
The zone of times that name none: that of a name, or the host's own.

In: an IANA name, or None for the host's (TZ, else /etc/localtime). Out: a zone for `datetime`, or None for UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_NOTHING = timedelta(0)


class HostZone(tzinfo):
    """What the C library makes of local times; of a moment that it cannot, UTC."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        if moment is None:
            return _NOTHING
        naive = moment.replace(tzinfo=None)
        try:
            return naive - datetime.fromtimestamp(naive.timestamp(), UTC).replace(tzinfo=None)
        except (ValueError, OverflowError, OSError):
            return _NOTHING

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None) -> str:
        return "local"

    def fromutc(self, moment: datetime) -> datetime:
        try:
            # Of all ways to the host's zone the only one that says which of two equal local times it is.
            local = datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp())  # noqa: DTZ006  local is what we want
            return local.replace(tzinfo=self)
        except (ValueError, OverflowError, OSError):
            return moment


def find_zone(timezone: str | None) -> tzinfo | None:
    """timezone: IANA name, None: the host's own. Raises KeyError, ValueError or OSError for a name that is none."""
    if timezone is None:
        return None if set(time.tzname) <= {"UTC", "GMT"} and not time.timezone else HostZone()
    return None if timezone in ("UTC", "Etc/UTC") else ZoneInfo(timezone)


def earlier(moment: datetime, zone: tzinfo) -> datetime:
    """Of a moment whose local time comes twice, the first that has it; any other as it is."""
    return moment.astimezone(zone).replace(fold=0).astimezone(UTC)
