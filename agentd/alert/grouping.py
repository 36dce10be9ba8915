"""
When a receiver is told of a group of alerts, and of what: decided as Alertmanager decides it. Pure.

In: what the receiver was told last, how the group stands, and now. Out: what to tell and why, or nothing.
A group is looked at when it is new (after `group_wait`) and from then on at each tick of `group_interval`:

    nothing told yet          some member fires → tell; came and went unseen → nothing
    a new member fires        tell
    none fires any more       tell, if the receiver knows of one that did
    a member resolved         tell
    nothing of that           remind, when it is time

Source: prometheus/alertmanager, dispatch/dispatch.go (ticks) and notify/notify.go (needsUpdate). Three things differ.
A resolve goes to whoever was told of the firing, although it is muted meanwhile. What still fires when its mute ends is
told then. And the one-off event of a log rule is told although it came and went between two looks: it is the message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

REMIND_CAP = timedelta(hours=24)
_TICK = timedelta(seconds=1)
_NOBODY: frozenset[str] = frozenset()


class Why(StrEnum):
    """Why a receiver is told."""

    FIRST = "first"
    NEW_FIRING = "new_firing"
    ALL_CLEAR = "all_clear"
    NEW_RESOLVED = "new_resolved"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a receiver knows of a group. firing, resolved: fingerprints of its last message; muted: those that fired
    muted at the last look. at: when the last message was written. reminders: how many were repeats since the last news.
    """

    firing: frozenset[str] = _NOBODY
    resolved: frozenset[str] = _NOBODY
    muted: frozenset[str] = _NOBODY
    at: datetime | None = None
    reminders: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """
    The members of a group now, by fingerprint: those that fire; those of either sort that are muted; those that
    resolved since the last look, and of them the one-off events, which are told in any case; of the firing ones, those
    somebody acknowledged, for whom alone nobody is reminded, and those of whom there is news though they were told of.
    """

    firing: frozenset[str] = _NOBODY
    muted: frozenset[str] = _NOBODY
    resolved: frozenset[str] = _NOBODY
    one_off: frozenset[str] = _NOBODY
    acked: frozenset[str] = _NOBODY
    news: frozenset[str] = _NOBODY


@dataclass(frozen=True, slots=True)
class Look:
    """
    What a look came to. why: None when nothing is told. firing, resolved: the members that the message is about.
    unseen: of the resolved ones, those whose firing the receiver hears of only now. told: what it knows after that.
    """

    why: Why | None
    firing: frozenset[str]
    resolved: frozenset[str]
    unseen: frozenset[str]
    told: Told


@dataclass(frozen=True, slots=True)
class Pace:
    """
    wait: before the first look at a new group. interval: between looks. repeat: between reminders, None for none;
    doubling up to 24 h, unless fixed.
    """

    wait: timedelta = timedelta(0)
    interval: timedelta = timedelta(minutes=1)
    repeat: timedelta | None = timedelta(hours=4)
    doubling: bool = True

    def until_reminder(self, reminders: int) -> timedelta | None:
        """Time from the `reminders`-th message to the next."""
        if self.repeat is None or not self.doubling:
            return self.repeat
        return max(self.repeat, min(REMIND_CAP, self.repeat * (1 << min(reminders, 20))))


def look(told: Told, standing: Standing, pace: Pace, now: datetime) -> Look:
    """Look at a group: what is told now, and what the receiver knows then."""
    firing = standing.firing - standing.muted
    unseen = standing.one_off - told.firing
    # Told of before, or told of now: a resolve of anything else would be news of nothing.
    resolved = (standing.resolved & told.firing) | unseen
    if firing:
        resolved |= standing.resolved - standing.muted
    why = _why(told, standing, firing, resolved, pace, now)
    known_and_muted = told.firing & standing.muted & standing.firing
    if why is None:
        return Look(None, _NOBODY, _NOBODY, _NOBODY, _forget(told, standing))
    after = Told(
        firing | known_and_muted,
        resolved,
        standing.muted & standing.firing,
        now,
        told.reminders + 1 if why is Why.REPEAT else 0,
    )
    return Look(why, firing, resolved, unseen, after)


def _why(
    told: Told, standing: Standing, firing: frozenset[str], resolved: frozenset[str], pace: Pace, now: datetime
) -> Why | None:
    if told.at is None:
        return Why.FIRST if firing or resolved else None
    if firing - told.firing or firing & (told.muted | standing.news):
        return Why.NEW_FIRING
    if not firing:
        return Why.ALL_CLEAR if resolved else None
    if resolved - told.resolved:
        return Why.NEW_RESOLVED
    due = pace.until_reminder(told.reminders)
    if due is not None and now - told.at >= due and not firing <= standing.acked:
        return Why.REPEAT
    return None


def _forget(told: Told, standing: Standing) -> Told:
    """Nothing is told; what is muted is remembered, so that it is news when that ends."""
    return Told(told.firing, told.resolved, standing.muted & standing.firing, told.at, told.reminders)


def next_tick(first: datetime, interval: timedelta, now: datetime) -> datetime:
    """The first look at or after `now`; looks are every `interval` from `first` on, and at least a second apart."""
    interval = max(interval, _TICK)
    if now <= first:
        return first
    return first + interval * -(-(now - first) // interval)


def next_look(told: Told, standing: Standing, pace: Pace, first: datetime, now: datetime) -> datetime | None:
    """When a group that was just looked at is to be looked at again if nothing happens; None: never."""
    after = now + timedelta(microseconds=1)
    if standing.muted & standing.firing:
        return next_tick(first, pace.interval, after)
    due = pace.until_reminder(told.reminders)
    if due is None or told.at is None or not standing.firing:
        return None
    return next_tick(first, pace.interval, max(after, told.at + due))


def group_of(by: Collection[str], labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that name an alert's group: those of `by`, empty where it has none. `...`: all it has."""
    if "..." in by:
        return dict(sorted(labels.items()))
    return {name: labels.get(name, "") for name in by}
