"""
The alerts of a log's rules that are firing, in the order in which quiet could end them.

In: alerts as they change. Out: those whose quiet may be over by a moment.
Promise: what ten thousand firing alerts cost at each look does not grow with them, only with those whose time has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from agentd.pipeline.watches import LogRule
from agentd.records import Alert, AlertStatus

_SPARE = 1000
_NEVER_YET = datetime.min.replace(tzinfo=UTC)


class Firing:
    """Of one watch. rules: its rules by name; alerts of others are passed over."""

    def __init__(self, rules: Mapping[str, LogRule], alerts: Iterable[Alert] = ()) -> None:
        self._rules = rules
        self._alerts: dict[str, Alert] = {}
        self._heap: list[tuple[datetime, str]] = []
        for alert in alerts:
            self.follow(alert)

    def follow(self, alert: Alert) -> None:
        """The alert is so now."""
        if alert.rule not in self._rules:
            return
        if alert.status is not AlertStatus.FIRING:
            self._alerts.pop(alert.fingerprint, None)
            return
        known = alert.fingerprint in self._alerts
        self._alerts[alert.fingerprint] = alert
        if not known:
            heapq.heappush(self._heap, (self._due(alert), alert.fingerprint))
            if len(self._heap) > 2 * len(self._alerts) + _SPARE:
                # Far behind nobody asks what is due, and a million may come and go meanwhile.
                self._heap = [(self._due(each), identity) for identity, each in self._alerts.items()]
                heapq.heapify(self._heap)

    def due(self, until: datetime | None) -> list[str]:
        """Fingerprints of those that quiet may end by `until`; the same again while they fire on."""
        if until is None:
            return []
        due: dict[str, datetime] = {}
        again: dict[str, datetime] = {}
        while self._heap and self._heap[0][0] <= until:
            _, identity = heapq.heappop(self._heap)
            alert = self._alerts.get(identity)
            if alert is not None:
                # Further occurrences only put it off, so it is looked at when its place comes, and not at each.
                (due if self._due(alert) <= until else again)[identity] = self._due(alert)
        for identity, at in (due | again).items():
            heapq.heappush(self._heap, (at, identity))
        return list(due)

    def next_due(self) -> datetime | None:
        """No alert can end by quiet before this moment; None: none fires."""
        while self._heap and self._heap[0][1] not in self._alerts:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def any(self) -> Alert | None:
        return next(iter(self._alerts.values()), None)

    def _due(self, alert: Alert) -> datetime:
        last = alert.last_at or alert.started_at
        return _NEVER_YET if last is None else last + self._rules[alert.rule or ""].resolve_after
