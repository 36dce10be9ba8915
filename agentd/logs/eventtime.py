"""
When an entry happened, given what it says of itself and when it was read.

In: the stream, the time the entry says (or None), when it was read; of each block, what its last entry says and since
when it can have been written. Out: the time that rules and windows go by, on our own clock.
- No time said: the arrival. In a backlog, where arrival says nothing, the stream's own clock: its newest time, and what
  has passed since that was read.
- Ahead of the reading by a day at most: taken as the reading, counted as `ahead`; nothing is of the future.
- Behind by more than a minute, and surely written since the source was last read to its end (or, where nobody can
  know that, behind by the same for 20 reads over a minute): its writer's clock or zone is another one. What lags is
  put forward, and counted as `shifted`: all times of the stream by what its newest is behind, so that the distances
  between them stay; a single entry between others that are right is taken as of its arrival. A stream that shortens
  its lag delivers late, and is believed again.
- Far off (further ahead, before 2000, or more than a day behind the newest time of its stream): taken as now, which is
  the stream's own clock, or the reading where there is none. Counted, and told once for each stream. It leaves no
  trace: the next line is judged as if it had not been there.
- A backlog keeps its own times, however old: the first plausible time of a stream sets its scale. A writer whose clock
  is set back within a day is believed at once, and one beyond a day when it has caught up.
- A local time that comes twice is, in a backlog, the earlier one until the stream steps back or has passed it.
- When our own clock was ahead and is set back, the scale follows, so that nothing is far off for years.
Promise: pure; no time is of the future, and at most 10,000 streams are kept (the least recent goes).

A stream whose times are steadily behind or ahead is told once: its zone is likely configured wrongly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from agentd.clock import iso
from agentd.logs.parse.zone import earlier

MAX_STREAMS = 10_000
_MAX_WARNINGS = 100
_NONE = timedelta(0)
_DAY = timedelta(days=1)
_BACKLOG = timedelta(minutes=1)
_LAG = timedelta(minutes=1)
"""An entry that was written while we looked says no earlier time by more than this, if its writer's clock is ours."""
_LATE = timedelta(minutes=10)
"""A lag that grows shorter by more than this is no clock's: what was held up somewhere is delivered now."""
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
_LARGEST_OFFSET = timedelta(hours=14)
_JITTER = timedelta(seconds=10)
_STEADY_READS = 20


class _Stream:
    __slots__ = (
        "appended",
        "lag",
        "lag_since",
        "late",
        "newest",
        "raised",
        "read_at",
        "shift",
        "since",
        "steady",
        "told",
        "told_far_off",
    )

    def __init__(self) -> None:
        self.newest: datetime | None = None  # never of the future
        self.read_at = _OLDEST  # when `newest` was read
        self.told_far_off = False
        self.told = False  # that it lags
        self.since: datetime | None = None  # the source was read to its end then
        self.appended = False  # what is being read was surely written after that
        self.shift = _NONE  # what its times are put forward by, and the most that this was
        self.raised = _NONE
        self.late = False
        self.lag = _NONE  # how far its newest entries were behind, for how many reads, since when
        self.steady = 0
        self.lag_since = _OLDEST


class EventTime:
    """
    The clocks of one source's streams.

    now: the wall clock; used in a replay only. live: False for a replay, where `read_at` says nothing: an entry
    without time is of the stream's newest time, and only what lies after `now` is ahead.
    appended: what is read after an end was reached was written after that (files; not a command, which may say again
    what it said before). zone: of times that name none; None: one in which no time comes twice.
    asked, unsaid: how often a time was asked for, and how often the entry said none. ahead, far_off, shifted: entries
    so far. warnings: for people, each once; whoever takes them clears the list.
    """

    def __init__(
        self, now: Callable[[], datetime], *, live: bool = True, appended: bool = False, zone: tzinfo | None = None
    ) -> None:
        self.asked = 0
        self.unsaid = 0
        self.ahead = 0
        self.far_off = 0
        self.shifted = 0
        self.warnings: list[str] = []
        self._now = now
        self._live = live
        self._appended = appended
        self._zone = zone
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._name = ""
        self._stream = _Stream()

    def begin(
        self,
        stream: str,
        last: datetime | None,
        read_at: datetime,
        *,
        since: datetime | None,
        at_end: bool,
        written_by: datetime | None = None,
    ) -> None:
        """
        A block of `stream` follows; to be told before its entries are asked about, not in a replay.

        last: what its last entry says. since: when the source was read to its end before this, None: it never was.
        at_end: nothing is unread beyond this batch. written_by: when the file was written last; one that came whole,
        with its own past, was not written since.
        """
        one = self._stream if stream == self._name else self._find(stream)
        one.since = None if since is None else min(since, read_at)
        one.appended = (
            self._appended and one.since is not None and (written_by is None or written_by >= one.since - _LAG)
        )
        if last is None or last < _OLDEST or one.since is None:
            return
        lag = read_at - last
        if one.newest is not None and one.newest - last - one.shift > _DAY:
            return
        if at_end:
            self._watch(one, stream, lag, read_at)
        if lag <= _LAG:
            one.shift, one.late = _NONE, False
        elif one.shift > lag:
            one.shift = lag
            if one.raised - lag > _LATE:
                one.shift, one.late = _NONE, True
        elif _is_of_another_clock(one, last + one.shift):
            one.shift = one.raised = _whole_quarters(lag)

    def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
        """
        The time of an entry of `stream`, aware, UTC.

        read_at: when it was read; in a replay, when the file was written last.
        """
        one = self._stream if stream == self._name else self._find(stream)
        self.asked += 1
        limit = read_at if self._live else self._now()
        newest = one.newest
        if newest is not None and newest > limit:  # our own clock was set back
            newest = one.newest = limit
        if one.read_at > read_at:
            one.read_at = read_at
        if said is None:
            self.unsaid += 1
            return self._unsaid(one, read_at)
        if said.fold and one.since is None:
            said = self._first_of_two(said, newest)
        if said <= limit:
            if one.shift:
                self.shifted += 1
                said = min(said + one.shift, limit)
            if said >= _OLDEST if newest is None else newest - said <= _DAY:
                if (newest is None or newest - said > _LAG) and _is_of_another_clock(one, said):
                    self.shifted += 1
                    said = limit
                if newest is None or said > newest:
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

    def _first_of_two(self, said: datetime, newest: datetime | None) -> datetime:
        if self._zone is None:
            return said
        first = earlier(said, self._zone)
        return first if newest is None or newest - first <= (said - first) / 2 else said

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

    def _watch(self, one: _Stream, name: str, lag: timedelta, read_at: datetime) -> None:
        """A followed log is read soon after it is written: times that are steadily off are of another clock."""
        if abs(lag) <= _LAG or abs(lag - one.lag) > _JITTER:
            one.lag, one.steady, one.lag_since = lag, 0, read_at
            return
        if read_at == one.read_at:
            return
        one.steady += 1
        if one.steady < _STEADY_READS or read_at - one.lag_since < _LAG:
            return
        if lag > _NONE:
            if abs(one.shift - lag) > _JITTER:
                one.shift = _whole_quarters(lag)
            one.raised, one.late = one.shift, False
        if one.told:
            return
        one.told = True
        off = timedelta(seconds=_whole_quarters(abs(lag)) // timedelta(seconds=1))
        where = "before they come" if lag > _NONE else "later than they come"
        self._warn(
            f"{name}: its lines are dated {off} {where}, so they are taken as of when they come; "
            "set `timezone` of the watch to its writer's zone, or put its writer's clock right"
        )

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)


def _is_of_another_clock(one: _Stream, said: datetime) -> bool:
    return one.appended and not one.late and one.since is not None and said < one.since - _LAG


def _whole_quarters(lag: timedelta) -> timedelta:
    """A zone's offset, where the lag is one and what reading takes; else as it is."""
    quarters = lag // _QUARTER * _QUARTER
    return quarters if quarters and lag <= _LARGEST_OFFSET + _LAG and lag - quarters <= _JITTER else lag
