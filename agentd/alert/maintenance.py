"""
Times that come again, in which alerts of one sort stay mute. Pure.

In: a cron line in a time zone, a length, now. Out: whether such a time is now, until when, and when that changes.
Promise: a window is as long as it says in real time, whatever the zone's clocks do meanwhile; it begins when the cron
line fires: at the first of two equal times, at the end of the gap that swallowed its time. Windows of one line that
overlap are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agentd.condition import Condition
from agentd.cron import CronSchedule


@dataclass(frozen=True, slots=True)
class Maintenance:
    """when: on the variables of `routing.variables_of`. timezone: as people are to read it."""

    when: Condition
    schedule: CronSchedule
    duration: timedelta
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Span:
    """
    From `begin` up to `change` all stays as it is. until: the end of the window that is open then, None: none is.

    change: when the next window begins or this one ends, whichever comes first; None: never.
    """

    begin: datetime
    change: datetime | None
    until: datetime | None

    def holds_at(self, now: datetime) -> bool:
        return self.begin <= now and (self.change is None or now < self.change)


def span_at(maintenance: Maintenance, now: datetime) -> Span:
    """How it stands now; worth keeping until it changes."""
    begun = maintenance.schedule.last_until(now, now - maintenance.duration)
    coming = maintenance.schedule.next_after(now)
    if begun is None:
        return Span(now, coming, None)
    until = begun + maintenance.duration
    return Span(begun, until if coming is None else min(until, coming), until)


def muted_text(maintenance: Maintenance, until: datetime) -> str:
    """
    What an alert's `muted_by` says: `maintenance until 04:00 Europe/Berlin`, of long windows with the day.

    The same for as long as the window is open, or each look would find the alert changed.
    """
    local = until.astimezone(maintenance.schedule.zone)
    shown = f"{local:%H:%M}" if maintenance.duration <= timedelta(hours=12) else f"{local:%Y-%m-%d %H:%M}"
    return f"maintenance until {shown} {maintenance.timezone}"
