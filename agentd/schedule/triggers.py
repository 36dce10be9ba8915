"""
When a job is due: triggers for APScheduler, each pure arithmetic.

In: the time a job was last due, and now.  Out: when it is due next, always past now.
Promise: one answer costs the same whether a second went by or thirty days; nothing is walked run by run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apscheduler.triggers.base import BaseTrigger

from agentd.clock import EPOCH
from agentd.cron import CronSchedule

CATCH_UP = timedelta(seconds=30)
"""Over how long the looks that a jump of the clock swallowed are spread."""

RERUN_GUARD = timedelta(hours=3)
"""A clock set back by less does not make a cron line fire again; the same bound as in cron(8)."""

_MICROSECOND = timedelta(microseconds=1)


class Trigger(BaseTrigger):  # type: ignore[misc]  # apscheduler ships no types
    """
    What the scheduler asks beside APScheduler's own `get_next_fire_time`.

    kind: the word that `Due.trigger` shows. repeats: there is always a next fire.
    early: by how much a run may begin before it is due, so that neighbours share one waking of the loop. Nobody can
    tell with an interval; a cron line that asks the clock for the date could.
    """

    __slots__ = ()
    kind = ""
    repeats = False
    early = timedelta()

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first fire after both, or None when there is none any more."""
        raise NotImplementedError

    def latest(self, due: datetime, now: datetime) -> datetime:
        """The fire that a late run stands for: the last one from `due` up to `now`."""
        return due

    def anchored(self, pending: datetime, last: datetime | None, now: datetime) -> datetime | None:
        """
        When the job is due next, after the clock jumped or time was lost.

        pending: when it would have been due. last: when it was last due and ran.
        """
        return pending


def spread(key: str, interval: timedelta) -> timedelta:
    """Where in its interval `key` stands: evenly spread over keys, the same in every process."""
    share = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return (interval // _MICROSECOND * share >> 64) * _MICROSECOND


@dataclass(frozen=True, slots=True)
class Every(Trigger):
    """
    Due whenever the wall clock stands at the key's own place within the interval, counted from the epoch.

    So neither a restart nor a reload moves a watch, and never are all due at once. interval: above zero.
    """

    interval: timedelta
    key: str

    _offset: timedelta = field(init=False, repr=False, compare=False, default=timedelta())
    kind = "every"
    early = timedelta(milliseconds=1)
    repeats = True

    def __post_init__(self) -> None:
        if self.interval < _MICROSECOND:
            raise ValueError(f"interval {self.interval} of {self.key!r} is not above zero")
        object.__setattr__(self, "_offset", spread(self.key, self.interval))

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = now if previous_fire_time is None or previous_fire_time < now else previous_fire_time
        try:
            return after + (self.interval - (after - EPOCH - self._offset) % self.interval)
        except OverflowError:  # beyond the year 9999
            return None

    def latest(self, due: datetime, now: datetime) -> datetime:
        return due + (now - due) // self.interval * self.interval

    def anchored(self, pending: datetime, last: datetime | None, now: datetime) -> datetime | None:
        regular = self.get_next_fire_time(None, now)
        if pending > now or regular is None or self.interval <= CATCH_UP:
            return regular
        # It missed its turn. With a long interval the next may be hours off: look soon, but not all together.
        return min(regular, now + self._offset / self.interval * CATCH_UP)


@dataclass(frozen=True, slots=True)
class Cron(Trigger):
    """Due when its cron line says so; after lost time it is due once, at once."""

    schedule: CronSchedule
    kind = "cron"
    repeats = True

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = now if previous_fire_time is None or previous_fire_time < now else previous_fire_time
        return self.schedule.next_after(after)

    def latest(self, due: datetime, now: datetime) -> datetime:
        return self.schedule.last_until(now, due - _MICROSECOND) or due

    def anchored(self, pending: datetime, last: datetime | None, now: datetime) -> datetime | None:
        if pending <= now:
            return pending
        if last is not None and now < last <= now + RERUN_GUARD:
            return self.schedule.next_after(last)
        return self.schedule.next_after(now)


@dataclass(frozen=True, slots=True)
class Once(Trigger):
    """Due at one moment; at once, if that has passed."""

    at: datetime
    kind = "once"

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return self.at if previous_fire_time is None else None


@dataclass(frozen=True, slots=True)
class AtStart(Trigger):
    """Due once, as soon as the scheduler runs."""

    kind = "startup"

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return now if previous_fire_time is None else None


@dataclass(frozen=True, slots=True)
class OnDemand(Trigger):
    """Never due by itself: it runs when somebody asks."""

    kind = "manual"

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        return None
