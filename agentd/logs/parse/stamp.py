"""
Read the moment that stands in a line, without taking the line apart.

In: an entry's text, or one value that is said to be a time.  Out: an aware UTC moment, or None.

What is read: ISO 8601 with and without fraction and zone, RFC 3164 (`Nov  5 09:00:01`), access logs, `2026/11/20
09:00:00`, asctime, `20 Nov 2026 09:00:00,123`, klog and glog, Android, compact digits, seconds to nanoseconds since
the epoch; and the time keys of JSON and logfmt lines.
- A time without a zone is of the zone given. Where clocks are set back, the later of the two moments is taken unless
  it lies after `written_by`, and marked by `fold`, so that who knows what came before may take the earlier one; a time
  that clocks skip is read by the offset that held before they were set.
- A time without a year is of the year that makes it the latest moment not more than a day after `written_by`.
Promise: never raises. What fitted last is tried first, and a second already seen is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from agentd.logs.parse.moment import (
    from_digits,
    from_epoch,
    from_number_of,
    iso_text,
    micros_of,
    naive_moment,
    offset_of,
)
from agentd.logs.parse.shape import (
    ACCESS,
    BSD,
    DIGITS_FIRST,
    ISO,
    JSON_TIME,
    LEAD,
    LETTERS_FIRST,
    LOGFMT_HEAD,
    LOGFMT_TIME,
    MONTHS,
)
from agentd.logs.parse.zone import find_zone

_DAY = timedelta(days=1)
_SKEW = timedelta(minutes=10)
_CACHED = 4096
_TIME_KEYS_TRIED = 16
_ENDS = frozenset(["", " ", "\t", "\n", "\r", "]", ")", "|", ";", '"'])
_YEARS_BACK = 9  # over a leap day left out (1900, 2100)

NEVER = datetime.min.replace(tzinfo=UTC)
"""For `written_by`, when nobody knows: a time without a year is then no moment."""

Reader = Callable[[str, int, datetime], datetime | None]


class Stamps:
    """
    The times of one source. Keeps what it saw last, so one object serves one thread.

    timezone: IANA name, of times that name no zone; None: the host's own.
    end: where in the text the last stamp that was found ends.
    """

    def __init__(self, timezone: str | None = "UTC") -> None:
        self.end = 0
        self._zone = find_zone(timezone)
        self._pos = 0
        self._width = 19
        self._last: Reader = self._iso
        self._found = (self._last, 0)
        self._json_key = '"time":"'
        self._offsets: dict[str, tuple[timedelta, timedelta | None]] = {}
        self._years: dict[tuple[int, int], tuple[int, datetime]] = {}
        self._texts: dict[str, str | None] = {}
        self._yearless: dict[str, tuple[datetime, datetime, datetime, int]] = {}
        self._seconds: dict[str, datetime] = {}

    def of_line(self, text: str, written_by: datetime) -> datetime | None:
        """The moment a line begins with, or names under a time key."""
        try:
            if text[:1] == "{":
                return self._of_json(text, written_by)
            moment = self._last(text, self._pos, written_by)
            return moment if moment is not None else self._anywhere(text, written_by)
        except (ValueError, OverflowError):
            return None

    def of_head(self, text: str, written_by: datetime) -> datetime | None:
        """The moment that stands first in a line, after brackets or a level at most; `end` says where it ends."""
        try:
            if self._last != self._access and (moment := self._last(text, self._pos, written_by)) is not None:
                return moment
            moment = self._first(text, written_by)
            if moment is not None:
                self._last, self._pos = self._found
            return moment
        except (ValueError, OverflowError):
            return None

    def of_value(self, value: Any, written_by: datetime) -> datetime | None:
        """The moment that a field of this value is: text, a number since the epoch, or {"$date": …}."""
        try:
            if isinstance(value, str):
                return self._of_text(value.strip()[:64], written_by)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return from_epoch(value)
            if isinstance(value, Mapping) and len(value) == 1:
                inner = value.get("$date")
                return None if isinstance(inner, Mapping) else self.of_value(inner, written_by)
        except (ValueError, OverflowError):
            pass
        return None

    def text_of(self, value: Any) -> str | None:
        """ISO 8601, UTC, of what `of_value` reads; None when it is no moment, or names no year."""
        if not isinstance(value, str):
            moment = self.of_value(value, NEVER)
            return None if moment is None else iso_text(moment)
        value = value[:64]
        if value in self._texts:
            return self._texts[value]
        moment = self.of_value(value, NEVER)
        text = None if moment is None else iso_text(moment)
        if len(self._texts) >= _CACHED:
            self._texts.clear()
        self._texts[value] = text
        return text

    def _of_text(self, text: str, written_by: datetime) -> datetime | None:
        if text[:1].isdigit() and text.replace(".", "", 1).isdecimal():
            return from_digits(text) if len(text) >= 9 else None
        return self._first(text, written_by)

    def _of_json(self, text: str, written_by: datetime) -> datetime | None:
        at = text.find(self._json_key)
        if at > 0 and text.find("{", 1, at) < 0:
            start = at + len(self._json_key)
            moment = self._iso(text, start, written_by)
            if moment is not None:
                return moment
        nested = text.find("{", 1)
        for match in islice(JSON_TIME.finditer(text), _TIME_KEYS_TRIED):
            if 0 <= nested < match.start():
                return self._of_nested_json(text, written_by)
            kind = match.lastgroup
            if kind == "text":
                moment = self._of_text(match["text"], written_by)
                if moment is not None and self._found == (self._iso, 0):
                    self._json_key = text[match.start() : match.start("text")]
            elif kind == "number":
                moment = from_number_of(match["key"], match["number"])
            else:
                moment = self._of_text(match["date"], written_by)
            if moment is not None:
                return moment
        return None

    def _of_nested_json(self, text: str, written_by: datetime) -> datetime | None:
        from agentd.logs.parse.jsonline import TIME_KEYS, load

        found = load(text)
        for key in found or ():
            if key in TIME_KEYS and found is not None:
                value = found[key]
                if key == "time" and isinstance(value, int | float) and value < 1e8:
                    continue
                if (moment := self.of_value(value, written_by)) is not None:
                    return moment
        return None

    def _anywhere(self, text: str, written_by: datetime) -> datetime | None:
        moment = self._first(text, written_by)
        if moment is not None:
            self._last, self._pos = self._found
            return moment
        if LOGFMT_HEAD.match(text):
            for match in islice(LOGFMT_TIME.finditer(text, 0, 4096), _TIME_KEYS_TRIED):
                value = match["text"] or match["bare"] or ""
                if match["key"] == "date" and match["clock"]:
                    value = f"{value} {match['clock']}"
                if value.replace(".", "", 1).isdecimal():
                    moment = from_number_of(match["key"], value)
                else:
                    moment = self._of_text(value, written_by)
                    if moment is not None and self._found[0] == self._iso and not match["clock"]:
                        start = match.start("text") if match["text"] else match.start("bare")
                        self._last, self._pos = self._iso, start
                if moment is not None:
                    return moment
        elif (moment := self._access(text, 0, written_by)) is not None:
            self._last, self._pos = self._access, 0
        return moment

    def _first(self, text: str, written_by: datetime) -> datetime | None:
        """Every shape that may stand first, at the place that the lead leaves."""
        lead = LEAD.match(text)
        pos = lead.end() if lead else 0
        first = text[pos : pos + 1]
        if first.isdecimal():
            readers = (self._iso, self._digits)
        elif first.isalpha():
            readers = (self._bsd, self._letters)
        else:
            return None
        for reader in readers:
            if (moment := reader(text, pos, written_by)) is not None:
                self._found = reader, pos
                return moment
        return None

    # -- one reader for each family of shapes: the stamp stands at `pos`, or None

    def _iso(self, text: str, pos: int, written_by: datetime) -> datetime | None:
        stop = pos + self._width
        if text[stop : stop + 1] in _ENDS:
            try:
                moment = datetime.fromisoformat(text[pos:stop])
            except ValueError:
                pass
            else:
                if moment.tzinfo is UTC:
                    self.end = stop
                    return moment
                if moment.tzinfo is not None:
                    self.end = stop
                    return moment.astimezone(UTC)
                # A zone may follow after a space: `09:00:00 +0100`, `09:00:00 UTC`.
                if text[stop + 1 : stop + 2] not in ("+", "-", "U", "G"):
                    self.end = stop
                    return self._local(moment, text[pos : pos + 16], written_by)
        match = ISO.match(text, pos)
        if match is None:
            return None
        self.end = match.end()
        base, fraction, zone = match.groups()
        stamp = base + (fraction or "")
        if base[17:] == "60":  # a leap second
            moment = datetime.fromisoformat(base[:17] + "59") + timedelta(seconds=1)
        else:
            moment = datetime.fromisoformat(stamp)
        if zone is None:
            self._width = len(stamp)
            return self._local(moment, base[:16], written_by)
        if zone[0] != " " and zone[0] not in "UG":
            self._width = len(stamp) + len(zone)
        return (moment - offset_of(zone.lstrip())).replace(tzinfo=UTC)

    def _bsd(self, text: str, pos: int, written_by: datetime) -> datetime | None:
        key = text[pos : pos + 15]
        known = self._yearless.get(key)
        if known is not None and text[pos + 15 : pos + 16] != ".":
            moment, since, until, width = known
            if since <= written_by < until:
                self.end = pos + width
                return moment
        match = BSD.match(text, pos)
        if match is None:
            return None
        self.end = match.end()
        month, day, hour, minute, second, fraction = match.groups()
        moment_, since_, until_ = self._of_year(
            written_by, MONTHS[month], int(day), int(hour), int(minute), int(second), micros_of(fraction)
        )
        if moment_ is not None and since_ is not None and until_ is not None and not fraction:
            if len(self._yearless) >= _CACHED:
                self._yearless.clear()
            if len(key) == self.end - pos or key[-1:] == " ":
                self._yearless[key] = (moment_, since_, until_, self.end - pos)
        return moment_

    def _access(self, text: str, pos: int, written_by: datetime) -> datetime | None:
        at = text.find("[", pos, 1024)
        if at < 0:
            return None
        moment = self._seconds.get(text[at + 1 : at + 27])
        if moment is not None:
            self.end = at + 27
            return moment
        match = ACCESS.search(text, at, 1024)
        if match is None:
            return None
        moment = self._build(match, written_by)
        self.end = match.end()
        if moment is not None:
            if len(self._seconds) >= _CACHED:
                self._seconds.clear()
            self._seconds[text[match.start() + 1 : match.end()]] = moment
        return moment

    def _digits(self, text: str, pos: int, written_by: datetime) -> datetime | None:
        return self._one_of(DIGITS_FIRST, text, pos, written_by)

    def _letters(self, text: str, pos: int, written_by: datetime) -> datetime | None:
        return self._one_of(LETTERS_FIRST, text, pos, written_by)

    def _one_of(
        self, shapes: tuple[re.Pattern[str], ...], text: str, pos: int, written_by: datetime
    ) -> datetime | None:
        for shape in shapes:
            if match := shape.match(text, pos):
                self.end = match.end()
                try:
                    return self._build(match, written_by)
                except ValueError:
                    return None
        return None

    # -- from parts to a moment

    def _build(self, match: re.Match[str], written_by: datetime) -> datetime | None:
        parts = match.groupdict()
        if epoch := parts.get("epoch"):
            return from_digits(epoch)
        month = MONTHS.get(parts["month"]) or int(parts["month"])
        hour = int(parts["hour"])
        if half := parts.get("half"):
            hour = hour % 12 + (12 if half == "PM" else 0)
        rest = (month, int(parts["day"]), hour, int(parts["minute"]), int(parts["second"]))
        micros = micros_of(parts.get("fraction"))
        year = parts.get("year")
        if year is None:
            return self._of_year(written_by, *rest, micros)[0]
        naive = naive_moment(int(year) + (2000 if len(year) == 2 else 0), *rest, micros)
        zone = parts.get("zone")
        if zone and (zone[0] in "+-Z" or zone in ("UTC", "GMT")):
            return (naive - offset_of(zone)).replace(tzinfo=UTC)
        return self._local(naive, None, written_by)

    def _of_year(
        self, written_by: datetime, month: int, day: int, hour: int, minute: int, second: int, micros: int
    ) -> tuple[datetime | None, datetime | None, datetime | None]:
        """The moment, and a range of `written_by` for which it is the one; no range where clocks are set back."""
        if written_by is NEVER:
            return None, None, None
        latest = written_by + _DAY
        known = self._years.get((month, day))
        if known is not None and written_by < known[1]:
            year, until = known
            naive = naive_moment(year, month, day, hour, minute, second, micros)
            moment = self._local(naive, None, written_by)
            if moment <= latest:
                return moment, None if self._twice(naive) else moment - _DAY, until
        for year in range(latest.year + 1, latest.year - _YEARS_BACK, -1):
            try:
                naive = naive_moment(year, month, day, hour, minute, second, micros)
                moment = self._local(naive, None, written_by)
            except (ValueError, OverflowError):
                continue
            if moment <= latest:
                # No zone is further than fifteen hours off, so until then next year's day cannot be the one.
                until = datetime(year + 1, month, min(day, 28), tzinfo=UTC) - timedelta(days=1, hours=15)
                if len(self._years) >= _CACHED:
                    self._years.clear()
                self._years[month, day] = year, until
                return moment, None if self._twice(naive) else moment - _DAY, until
        return None, None, None

    def _twice(self, naive: datetime) -> bool:
        return self._zone is not None and self._offset_of(naive, None)[1] is not None

    def _local(self, naive: datetime, minute: str | None, written_by: datetime) -> datetime:
        if self._zone is None:
            return naive.replace(tzinfo=UTC)
        first, second = self._offset_of(naive, minute)
        if second is not None:
            later = (naive - second).replace(tzinfo=UTC)
            if later <= written_by + _SKEW:
                return later.replace(fold=1)
        return (naive - first).replace(tzinfo=UTC)

    def _offset_of(self, naive: datetime, minute: str | None) -> tuple[timedelta, timedelta | None]:
        """The zone's offset at this time; the second one only where the time comes twice."""
        key = minute if minute is not None else naive.isoformat(timespec="minutes")
        known = self._offsets.get(key)
        if known is None:
            aware = naive.replace(tzinfo=self._zone)
            before, after = aware.utcoffset() or timedelta(), aware.replace(fold=1).utcoffset() or timedelta()
            known = (before, after if after < before else None)
            if len(self._offsets) >= _CACHED:
                self._offsets.clear()
            self._offsets[key] = known
        return known
