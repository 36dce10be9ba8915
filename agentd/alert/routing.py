"""
Whom an alert reaches: the first route that matches decides, save for what its watch says itself. Pure.

In: an alert, and what its watch wishes. Out: webhooks, the labels that group it, when to tell more people, the pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from agentd.alert.grouping import Pace
from agentd.condition import Condition
from agentd.records import Alert, Severity

WEBHOOK_RULE = "webhook:"
"""
Begins the rule of agentd's own alert about a webhook; its name follows. Rules of watches hold no colon.
"""
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Escalate:
    """What happens when an alert has been firing for so long: more people are told, it counts as worse, or both."""

    after: timedelta
    notify: tuple[str, ...] = ()
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What a watch says itself. notify, escalate: None where it says nothing. repeat: time between reminders.

    hold: how long a first message waits for what an agent finds out meanwhile.
    """

    notify: tuple[str, ...] | None = None
    escalate: tuple[Escalate, ...] | None = None
    repeat: timedelta | None = None
    doubling: bool = True
    hold: timedelta = timedelta(0)


NOBODY = Wish(notify=())


@dataclass(frozen=True, slots=True)
class Route:
    """when: on the variables of `variables_of`. None and empty: what holds for all holds here."""

    when: Condition
    notify: tuple[str, ...] = ()
    group_by: tuple[str, ...] | None = None
    escalate: tuple[Escalate, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom an alert reaches, and how. notify: names of webhooks, each once."""

    notify: tuple[str, ...]
    group_by: tuple[str, ...]
    escalate: tuple[Escalate, ...]
    pace: Pace


@dataclass(frozen=True, slots=True)
class Routing:
    """What the configuration says for all alerts. webhooks: all there are."""

    routes: tuple[Route, ...] = ()
    notify: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ("watch",)
    wait: timedelta = timedelta(0)
    interval: timedelta = timedelta(minutes=1)
    escalate: tuple[Escalate, ...] = ()
    webhooks: tuple[str, ...] = ()
    _known: dict[tuple[Any, ...], Route | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, alert: Alert, wish: Wish) -> Reach:
        """Never raises: a condition that cannot be computed does not match."""
        route = self._route(alert)
        notify, group_by, escalate = self.notify, self.group_by, self.escalate
        if route is not None:
            notify = route.notify or notify
            group_by = group_by if route.group_by is None else route.group_by
            escalate = route.escalate or escalate
        if wish.notify is not None:
            notify = wish.notify
        if wish.escalate is not None:
            escalate = wish.escalate
        if (alert.rule or "").startswith(WEBHOOK_RULE):
            notify, escalate = self._beside((alert.rule or "").removeprefix(WEBHOOK_RULE), notify, escalate)
        pace = Pace(self.wait, self.interval, wish.repeat, wish.doubling)
        return Reach(tuple(dict.fromkeys(notify)), group_by, escalate, pace)

    def _beside(
        self, broken: str, notify: tuple[str, ...], escalate: tuple[Escalate, ...]
    ) -> tuple[tuple[str, ...], tuple[Escalate, ...]]:
        """Of a webhook that takes nothing the others tell: the rest of those named, or all there are if it is alone."""
        if broken in notify:
            notify = _without(notify, broken) or _without(self.webhooks, broken)
        return notify, tuple(replace(each, notify=_without(each.notify, broken)) for each in escalate)

    def _route(self, alert: Alert) -> Route | None:
        if not self.routes:
            return None
        # Whom thousands of alerts reach is asked every few seconds, and conditions cost a hundred times this.
        labels, by = tuple(alert.labels.items()), tuple(alert.by.items())
        key = (alert.watch, alert.rule, alert.severity, alert.instance, labels, by)
        if key in self._known:
            return self._known[key]
        values = variables_of(alert)
        route = next((route for route in self.routes if route.when.holds(values)), None)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = route
        return route


def _without(names: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(name for name in names if name != one)


def labels_of(alert: Alert) -> dict[str, str]:
    """The labels that an alert is grouped by: its own, those of its identity, and what every alert has."""
    own = {"watch": alert.watch, "severity": alert.severity.value, "instance": alert.instance, "rule": alert.rule or ""}
    return {**own, **alert.labels, **alert.by}


def variables_of(alert: Alert) -> Mapping[str, Any]:
    """What conditions on alerts may read: routes, inhibit, maintenance."""
    return {
        "watch": alert.watch,
        "rule": alert.rule,
        "severity": alert.severity.value,
        "instance": alert.instance,
        "labels": {**alert.labels, **alert.by},
    }
