"""
Cron lines: when a schedule such as `0 6 * * MON-FRI` fires, in a time zone, whatever the zone does.

In: a cron line and an IANA zone.  Out: the next moment, in UTC.
Promise: pure and bounded. One answer takes some microseconds, at most a few hundred steps, and a line that
can never fire is refused when it is read.

Where a zone moves its clocks, the rule is that of the cron daemon people know:

- A line that names hours (`30 2 * * *`) means a time of day. In autumn it fires at the first of the two such
  times only; where spring leaves the time out, it fires once, at the moment the gap ends.
- A line that takes every hour (`*/10 * * * *`) means a pace. It goes on at that pace through both: the second
  02:10 of the autumn night is another hour and fires too, and what spring leaves out is not made up.

APScheduler's CronTrigger is not used: it counts 0 as Monday, joins day-of-month and day-of-week by "and",
fires a named time twice in autumn, and walks to the year 9999 before it says that 30 February never comes.
"""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from agentd.errors import ConfigError

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_LONGEST_LINE = 256
# 29 February is at most eight years away (1896 to 1904, 2096 to 2104).
_SEARCH_MONTHS = 9 * 12

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}

_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_PART = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9]{1,3}|[a-z]{3})(?:-(?P<last>[0-9]{1,3}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: dict[str, int]
    hint: str


_MINUTE_FIELD = _Field("minute", 0, 59, {}, '"*/5"')
_HOUR_FIELD = _Field("hour", 0, 23, {}, '"8-18"')
_DAY_FIELD = _Field("day of month", 1, 31, {}, '"1,15"')
_MONTH_FIELD = _Field("month", 1, 12, _MONTHS, '"jan-mar"')
_WEEKDAY_FIELD = _Field("day of week", 0, 7, _WEEKDAYS, '"mon-fri"')
_FIELDS = (_MINUTE_FIELD, _HOUR_FIELD, _DAY_FIELD, _MONTH_FIELD, _WEEKDAY_FIELD)


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """
    One cron line, read and checked; make it by `parse_cron`.

    text: the line as written. zone: where its times are meant.
    minutes, hours: sorted. weekdays: 0 to 6, Sunday is 0.
    either: a day matches by day of month or by day of week, since the line restricts both.
    """

    text: str
    zone: tzinfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def next_after(self, moment: datetime) -> datetime | None:
        """
        The first fire strictly after `moment` (aware), in UTC.

        None only where the calendar ends, in the year 9999.
        """
        try:
            return self._next_by_pace(moment) if len(self.hours) == 24 else self._next_by_time_of_day(moment)
        except (OverflowError, ValueError):  # datetime's own words for "beyond the year 9999"
            return None

    def fires_between(self, since: datetime, until: datetime, limit: int) -> list[datetime]:
        """The fires after `since` up to and including `until`, oldest first, at most `limit` of them, in UTC."""
        found: list[datetime] = []
        at = self.next_after(since)
        while at is not None and at <= until and len(found) < limit:
            found.append(at)
            at = self.next_after(at)
        return found

    def last_until(self, moment: datetime, since: datetime) -> datetime | None:
        """
        The latest fire up to and including `moment` and after `since`, in UTC; None when there is none.

        Takes as many steps as the logarithm of the time between, not as many as there were fires.
        """
        best: datetime | None = None
        low, high = since.astimezone(UTC), moment.astimezone(UTC)
        while low < high:
            at = self.next_after(low if best is None else low + (high - low) / 2)
            if at is not None and at <= moment:
                best = low = at
            elif best is None:
                return None
            else:
                high = low + (high - low) / 2
                if high - low < _MINUTE:
                    break
        return best

    def _next_by_time_of_day(self, moment: datetime) -> datetime | None:
        # `_instant` never falls as the local time rises, so the first local match that lies later is the answer.
        # Only within the second half of an autumn fold do matches lie earlier than the moment.
        local: datetime | None = moment.astimezone(self.zone).replace(tzinfo=None)
        while local is not None:
            local = self._next_local(local)
            if local is not None and (instant := self._instant(local)) > moment:
                return instant
        return None

    def _next_by_pace(self, moment: datetime) -> datetime | None:
        at = moment.astimezone(UTC) + _MINUTE
        local = at.astimezone(self.zone)
        at -= timedelta(seconds=local.second, microseconds=local.microsecond)
        while True:
            local = at.astimezone(self.zone)
            if not self._fires_on(local.date()):
                day = self._next_date(local.date() + _DAY)
                if day is None:
                    return None
                at = max(self._instant(datetime.combine(day, time())), at + _MINUTE)
                continue
            place = bisect_left(self.minutes, local.minute)
            if place < len(self.minutes) and self.minutes[place] == local.minute:
                return at
            target = self.minutes[place] if place < len(self.minutes) else 60
            leap = at + (target - local.minute) * _MINUTE
            # A leap over a change of the clocks could pass a match: walk there.
            steady = leap.astimezone(self.zone).utcoffset() == local.utcoffset()
            at = leap if steady else at + _MINUTE

    def _next_local(self, after: datetime) -> datetime | None:
        """The next match by the wall's face alone, as if its clock never moved."""
        start = after.replace(second=0, microsecond=0) + _MINUTE
        day: date | None = start.date()
        if self._fires_on(start.date()):
            hour, minute = start.hour, start.minute
            if hour in self.hours and minute <= self.minutes[-1]:
                return start.replace(minute=self.minutes[bisect_left(self.minutes, minute)])
            if hour < self.hours[-1]:
                return start.replace(hour=self.hours[bisect_left(self.hours, hour + 1)], minute=self.minutes[0])
        day = self._next_date(start.date() + _DAY)
        return None if day is None else datetime.combine(day, time(self.hours[0], self.minutes[0]))

    def _fires_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date = day.day in self.days
        by_week = day.isoweekday() % 7 in self.weekdays
        return by_date or by_week if self.either else by_date and by_week

    def _next_date(self, start: date) -> date | None:
        year, month, first = start.year, start.month, start.day
        for _ in range(_SEARCH_MONTHS):
            if month in self.months:
                for day in range(first, calendar.monthrange(year, month)[1] + 1):
                    if self._fires_on(found := date(year, month, day)):
                        return found
            first = 1
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return None

    def _instant(self, local: datetime) -> datetime:
        """The moment of a local time: the first of two, or the end of the gap that swallowed it."""
        here = local.replace(tzinfo=self.zone)
        instant = here.astimezone(UTC)
        if instant.astimezone(self.zone).replace(tzinfo=None) == local:
            return instant
        return _end_of_gap(here.replace(fold=1).astimezone(UTC), instant, self.zone)


def parse_cron(text: str, timezone: str = "UTC") -> CronSchedule:
    """
    Read a cron line: minute, hour, day of month, month, day of week; or `@hourly` to `@yearly`.

    Fields take `*`, numbers, names (`jan`, `mon`), ranges, steps and lists. Sunday is 0 and 7. Where day of month
    and day of week are both restricted, either is enough; a field that begins with `*` does not count as restricted
    (crontab(5)). timezone: an IANA name.
    Raises ConfigError, which says what to write instead.
    """
    zone = _zone(timezone)
    if len(text) > _LONGEST_LINE:
        raise ConfigError(f"cron line of {len(text)} characters; write at most {_LONGEST_LINE}")
    line = " ".join(text.lower().split())
    if line.startswith("@"):
        if line not in _SHORTHANDS:
            raise ConfigError(f"cron line {text!r} is not known; write five fields or one of {', '.join(_SHORTHANDS)}")
        line = _SHORTHANDS[line]
    words = line.split(" ")
    if len(words) != len(_FIELDS):
        raise ConfigError(
            f"cron line {text!r} has {len(words) if line else 0} fields; write five, minute, hour, day of month, month "
            'and day of week, such as "0 6 * * mon-fri" (for seconds use `every`)'
        )
    minutes, hours, days, months, weekdays = (
        _read(word, field, text) for word, field in zip(words, _FIELDS, strict=True)
    )
    either = not words[2].startswith("*") and not words[4].startswith("*")
    schedule = CronSchedule(
        text=text,
        zone=zone,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either=either,
    )
    if not either and not any(_longest(month) >= min(days) for month in months):
        raise ConfigError(f"cron line {text!r} never fires: no such month has a day {min(days)}; mend day or month")
    return schedule


def _read(word: str, field: _Field, line: str) -> frozenset[int]:
    return frozenset(value for part in word.split(",") for value in _values(part, field, line))


def _values(part: str, field: _Field, line: str) -> Iterator[int]:
    def wrong(what: str, cure: str) -> ConfigError:
        return ConfigError(f"cron line {line!r}: {field.name} {part!r} {what}; {cure}")

    match = _PART.fullmatch(part)
    if match is None:
        raise wrong("cannot be read", f"write a number, a range, a step or a list, such as {field.hint}")

    def number(word: str) -> int:
        value = field.names.get(word, -1) if word.isalpha() else int(word)
        if not field.low <= value <= field.high:
            names = f" or {', '.join(field.names)}" if field.names else ""
            raise wrong("is out of range", f"write {field.low} to {field.high}{names}")
        return value

    step = match["step"]
    if match["star"]:
        low, high = field.low, 6 if field is _WEEKDAY_FIELD else field.high
    else:
        low = high = number(match["first"])
        if match["last"] is not None:
            high = number(match["last"])
            if high == 0 and field is _WEEKDAY_FIELD:
                high = 7  # mon-sun
            if high < low:
                raise wrong("runs backwards", f'write two ranges, "{low}-{field.high},{field.low}-{high}"')
        elif step is not None:
            raise wrong("steps through a single number", f'write the range, "{low}-{field.high}/{step}"')
    if step is None:
        return iter(range(low, high + 1))
    if not 1 <= int(step) <= field.high:
        raise wrong("has a step that does not fit", f"write a step from 1 to {field.high}")
    return iter(range(low, high + 1, int(step)))


def _longest(month: int) -> int:
    return calendar.monthrange(2000, month)[1]  # a leap year


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # a directory, a path out of the database, an unknown name
        raise ConfigError(
            f'time zone {name!r} is not known; write an IANA name such as "Europe/Berlin" or "UTC"'
        ) from error


def _end_of_gap(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The second between `before` and `after` at which the zone puts its clocks forward."""
    old = before.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)
