"""
What a watch depends on: while that fails, its own alerts are plain and nobody is told of them. Pure.

In: the alerts, now. Out: for each alert that a failing parent explains, the failing watch furthest up.

A parent fails while an alert of it is pending or firing. Pending counts: the parent is about to be named, and whoever
stands behind it must not be told of first. That it cannot be looked at does not count: not knowing is no failure.
Therefore a failure that nobody looks after any more, for the parent is paused or could not be looked at for longer than
a recovery is waited for, explains nothing either.
What fired while a parent failed stays mute for a short time after the parent's recovery, for its own next checks are
yet to come; what begins to fail after it is news at once.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter

from agentd.alert.lifecycle import BLIND_RULE
from agentd.errors import ConfigError
from agentd.records import Alert, AlertStatus

MOST_PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Parents:
    """
    What one watch depends on, by name.

    patience: how long after a parent's recovery its own is waited for, and how long one may be out of sight.
    """

    watches: tuple[str, ...]
    patience: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class _Recovery:
    watch: str
    at: datetime


class Dependencies:
    """
    parents: of each watch that has some. Raises ConfigError when a watch depends on itself, over however many others.
    """

    def __init__(self, parents: Mapping[str, Parents]) -> None:
        self._parents = dict(parents)
        self._longest = max((each.patience for each in parents.values()), default=timedelta(0))
        graph = TopologicalSorter({watch: each.watches for watch, each in parents.items()})
        try:
            # Parents before children; only those that have parents themselves need a turn.
            self._order = [watch for watch in graph.static_order() if watch in self._parents]
        except CycleError as error:
            circle = " → ".join(reversed(error.args[1]))
            raise ConfigError(f"depends_on goes in a circle: {circle}; break it") from error
        self._named = {name for each in parents.values() for name in each.watches}

    def reasons(
        self, alerts: Iterable[Alert], now: datetime, asked: Collection[Alert], paused: Container[str] = ()
    ) -> dict[str, str]:
        """Why, by fingerprint; of those of `asked` that are pending or firing. alerts: all of them. paused: watches."""
        if not self._parents:
            return {}
        failing, recovered = self._states(alerts, now, paused)
        if not failing and not recovered:
            return {}
        causes, recoveries = self._spread(failing, recovered)
        found = {}
        for alert in asked:
            if alert.status not in (AlertStatus.PENDING, AlertStatus.FIRING):
                continue
            if cause := causes.get(alert.watch):
                found[alert.fingerprint] = f"depends_on: {cause} is failing"
            elif recovery := recoveries.get(alert.watch):
                until = self._waits_until(alert, recovery)
                if until is not None and now < until:
                    found[alert.fingerprint] = f"depends_on: {recovery.watch} has just recovered"
        return found

    def _states(
        self, alerts: Iterable[Alert], now: datetime, paused: Container[str]
    ) -> tuple[dict[str, timedelta], dict[str, datetime]]:
        """
        The watches that are parents and fail, with how long they have been out of sight, and those that did a moment
        ago, with when they recovered.
        """
        failing: set[str] = set()
        unseen: dict[str, timedelta] = {}
        recovered: dict[str, datetime] = {}
        for alert in alerts:
            if alert.watch not in self._named or alert.rule == BLIND_RULE:
                continue
            if alert.blind_since is not None:
                unseen[alert.watch] = now - alert.blind_since
            if alert.status in (AlertStatus.PENDING, AlertStatus.FIRING):
                if alert.watch not in paused:
                    failing.add(alert.watch)
            elif alert.status is AlertStatus.RESOLVED and self._is_recent(alert.ended_at, now):
                assert alert.ended_at is not None
                recovered[alert.watch] = max(alert.ended_at, recovered.get(alert.watch, alert.ended_at))
        return {watch: unseen.get(watch, timedelta(0)) for watch in failing}, recovered

    def _is_recent(self, ended_at: datetime | None, now: datetime) -> bool:
        # An end in the future is one of a clock that was set back, and would mute for as long.
        return ended_at is not None and timedelta(0) <= now - ended_at < self._longest

    def _spread(
        self, failing: Mapping[str, timedelta], recovered: Mapping[str, datetime]
    ) -> tuple[dict[str, str], dict[str, _Recovery]]:
        """For each watch the failing one furthest above it, and the last recovery above it."""
        causes: dict[str, str] = {}
        recoveries: dict[str, _Recovery] = {}
        for watch in self._order:
            patience = self._parents[watch].patience
            for parent in self._parents[watch].watches:
                unseen = failing.get(parent)
                cause = causes.get(parent) or (parent if unseen is not None and unseen <= patience else None)
                if cause is not None:
                    causes.setdefault(watch, cause)
                latest = recoveries.get(parent)
                if parent in recovered and (latest is None or latest.at < recovered[parent]):
                    latest = _Recovery(parent, recovered[parent])
                known = recoveries.get(watch)
                if latest is not None and (known is None or known.at < latest.at):
                    recoveries[watch] = latest
        return causes, recoveries

    def _waits_until(self, alert: Alert, recovery: _Recovery) -> datetime | None:
        began = alert.started_at if alert.status is AlertStatus.FIRING else alert.pending_since
        if began is None or began > recovery.at:
            return None
        return recovery.at + self._parents[alert.watch].patience
