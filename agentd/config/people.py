"""
From the configuration to the decisions about people: whom an alert reaches, and what keeps them from being told.

In: a checked configuration. Out: `Routing`, `Muting` and what a watch wishes, with conditions compiled. Some
milliseconds: for the load, not for a check.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from agentd.alert.dependencies import MOST_PATIENCE, Dependencies, Parents
from agentd.alert.escalation import in_order
from agentd.alert.flapping import FlappingSettings
from agentd.alert.maintenance import Maintenance
from agentd.alert.muting import Inhibit, Muting
from agentd.alert.routing import Escalate, Route, Routing, Wish
from agentd.alert.silence import Silence
from agentd.condition import Condition, compile_condition
from agentd.config.alerting import ALERT_VARIABLES, Escalation
from agentd.config.models import Config
from agentd.config.watches import Watch
from agentd.cron import parse_cron


def routing_from(config: Config) -> Routing:
    """What holds for all alerts. Of webhooks only those that can be sent to."""
    alerting = config.alerting
    routes = (
        Route(_condition(each.when), _known(each.notify, config), each.group_by, _steps(each.escalate, config))
        for each in alerting.routes
    )
    return Routing(
        routes=tuple(routes),
        notify=_known(alerting.notify, config),
        group_by=alerting.group_by,
        wait=alerting.group_wait,
        interval=alerting.group_interval,
        escalate=_steps(alerting.escalate, config),
        webhooks=tuple(config.webhooks),
    )


def wish_of(watch: Watch, config: Config) -> Wish:
    """What the watch says itself about its alerts."""
    return Wish(
        notify=None if watch.notify is None else _known(watch.notify, config),
        escalate=_steps(watch.escalate, config) or None,
        repeat=config.remind_every(watch),
        doubling=config.remind(watch) == "doubling",
        hold=watch.investigate.wait if watch.investigate is not None else timedelta(0),
    )


def muting_from(config: Config, silences: Iterable[Silence] = ()) -> Muting:
    """
    What keeps people from being told.

    silences: those that hold now; they live in the store and not in the configuration.
    """
    alerting = config.alerting
    return Muting(
        depends_on=Dependencies({watch.name: _parents(watch) for watch in config.watches if watch.depends_on}),
        inhibit=[Inhibit(_condition(each.when), _condition(each.mutes)) for each in alerting.inhibit],
        maintenance=[
            Maintenance(_condition(each.when), parse_cron(each.cron, each.timezone), each.duration, each.timezone)
            for each in alerting.maintenance
        ],
        silences=silences,
    )


def flapping_from(config: Config) -> FlappingSettings:
    """When an alert counts as flapping."""
    flapping = config.alerting.flapping
    return FlappingSettings(flapping.start, flapping.end, flapping.of)


def _parents(watch: Watch) -> Parents:
    """A watch recovers by some good checks in a row, of which the first may just have been missed."""
    patience = timedelta(0)
    if watch.every is not None:
        patience = min(MOST_PATIENCE, watch.every * (watch.recover_after + 1) + watch.timeout)
    elif watch.cron is not None:
        patience = MOST_PATIENCE
    return Parents(watch.depends_on, patience)


def _steps(escalate: Iterable[Escalation], config: Config) -> tuple[Escalate, ...]:
    return in_order([Escalate(each.after, _known(each.notify, config), each.severity) for each in escalate])


def _known(names: Iterable[str], config: Config) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name in config.webhooks))


def _condition(text: str) -> Condition:
    return compile_condition(text, ALERT_VARIABLES)
