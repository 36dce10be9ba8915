"""
When an entry happened, given what it says of itself and when it was read.

In: the stream, the time the entry says (or None), when it was read.  Out: the time that rules and windows go by.
- No time said: the arrival. In a backlog, where arrival says nothing, the stream's own clock: its newest time, and what
  has passed since that was read.
- Ahead of the reading by a day at most: taken as the reading, counted as `ahead`; nothing is of the future.
- Far off (further ahead, before 2000, or more than a day behind the newest time of its stream): taken as now, which is
  the stream's own clock, or the reading where there is none. Counted, and told once for each stream. It leaves no
  trace: the next line is judged as if it had not been there.
- A backlog keeps its own times, however old: the first plausible time of a stream sets its scale. A writer whose clock
  is set back within a day is believed at once, and one beyond a day when it has caught up.
- When our own clock was ahead and is set back, the scale follows, so that nothing is far off for years.
Promise: pure; no time is of the future, and at most 10,000 streams are kept (the least recent goes).

A stream whose times are behind by a steady quarter-hour multiple is told once: its zone is likely configured wrongly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentd.clock import iso

MAX_STREAMS = 10_000
_MAX_WARNINGS = 100
_DAY = timedelta(days=1)
_BACKLOG = timedelta(minutes=1)
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
_QUARTER_S = 900
_LARGEST_OFFSET_S = 14 * 3600
_STEADY_READS = 20


class _Stream:
    __slots__ = ("behind_s", "newest", "read_at", "steady", "told_far_off", "told_zone")

    def __init__(self) -> None:
        self.newest: datetime | None = None  # never of the future
        self.read_at = _OLDEST  # when `newest` was read
        self.told_far_off = False
        self.told_zone = False
        self.behind_s = 0  # the quarter-hour multiple that reads were behind by
        self.steady = 0


class EventTime:
    """
    The clocks of one source's streams.

    now: the wall clock; used in a replay only. live: False for a replay, where `read_at` says nothing: an entry
    without time is of the stream's newest time, and only what lies after `now` is ahead.
    ahead, far_off: entries so far. warnings: for people, each once; whoever takes them clears the list.
    """

    def __init__(self, now: Callable[[], datetime], *, live: bool = True) -> None:
        self.ahead = 0
        self.far_off = 0
        self.warnings: list[str] = []
        self._now = now
        self._live = live
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._name = ""
        self._stream = _Stream()

    def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
        """
        The time of an entry of `stream`, aware, UTC.

        read_at: when it was read; in a replay, when the file was written last.
        """
        one = self._stream if stream == self._name else self._find(stream)
        limit = read_at if self._live else self._now()
        newest = one.newest
        if newest is not None and newest > limit:  # our own clock was set back
            newest = one.newest = limit
        if one.read_at > read_at:
            one.read_at = read_at
        if said is None:
            return self._unsaid(one, read_at)
        if said <= limit:
            if newest is None:
                if said >= _OLDEST:
                    one.newest, one.read_at = said, read_at
                    return said
            elif newest - said <= _DAY:
                if said > newest:
                    if self._live and read_at != one.read_at and not one.told_zone:
                        self._watch_zone(one, stream, said, read_at)
                    one.newest, one.read_at = said, read_at
                return said
        elif said - limit <= _DAY:
            self.ahead += 1
            one.newest, one.read_at = limit, read_at
            return limit
        self.far_off += 1
        taken = self._own_clock(one, read_at)
        if not one.told_far_off:
            one.told_far_off = True
            self._warn(f"{stream}: a line dated {iso(said)} is far off, it is taken as of {iso(taken)}; told once")
        return taken

    def _find(self, name: str) -> _Stream:
        one = self._streams.get(name)
        if one is None:
            one = self._streams[name] = _Stream()
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(name)
        self._name, self._stream = name, one
        return one

    def _unsaid(self, one: _Stream, read_at: datetime) -> datetime:
        if self._live and (one.newest is None or one.read_at - one.newest <= _BACKLOG):
            return read_at
        return self._own_clock(one, read_at)

    def _own_clock(self, one: _Stream, read_at: datetime) -> datetime:
        """What the stream's writer would say now, as far as we can know."""
        if one.newest is None:
            return read_at if self._live else min(read_at, self._now())
        if not self._live:
            return one.newest
        behind = one.read_at - one.newest
        if behind > _DAY and read_at - one.read_at > _BACKLOG:
            return read_at  # the old backlog was read to its end; what comes after a pause is new
        return read_at - behind

    def _watch_zone(self, one: _Stream, name: str, said: datetime, read_at: datetime) -> None:
        """A followed log is read soon after it is written: times that are steadily hours behind are of another zone."""
        behind_s = (read_at - said).total_seconds()
        quarter = round(behind_s / _QUARTER_S) * _QUARTER_S
        if not 0 < quarter <= _LARGEST_OFFSET_S or abs(behind_s - quarter) > 10 or quarter != one.behind_s:
            one.behind_s, one.steady = quarter, 0
            return
        one.steady += 1
        if one.steady >= _STEADY_READS:
            one.told_zone = True
            self._warn(
                f"{name}: its lines are dated {timedelta(seconds=quarter)} before they come; "
                "if its writer's clock is right, set `timezone` of the watch to the writer's zone"
            )

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)
