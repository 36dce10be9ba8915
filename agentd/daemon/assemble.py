"""
From the configuration to what runs: watches with their probes, conditions and policies, and when they are due.

In: a checked configuration. Out: a `Plan`, built beside whatever runs now; nothing is opened or started by it, so it
may be thrown away, and it may be built on a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agentd.alert.lifecycle import BLIND_RULE, Policy
from agentd.alert.occurrence import RESOLVE_AFTER
from agentd.alert.routing import Wish
from agentd.clock import Clock
from agentd.condition import Condition
from agentd.config.loader import Loaded
from agentd.config.models import Config
from agentd.config.people import wish_of
from agentd.config.watches import Watch as WatchConfig
from agentd.cron import parse_cron
from agentd.deliver.webhook import WebhookSettings
from agentd.memory.logs import LogMemory
from agentd.pipeline import ProbeWatch, open_watch
from agentd.pipeline.findings import GoalWatch
from agentd.pipeline.watches import LogRule, LogWatch, calm_alert
from agentd.schedule.triggers import Cron, Every, OnDemand, Trigger
from agentd.settings import Settings
from agentd.watch import KINDS
from agentd.watch.heartbeat import HeartbeatSettings
from agentd.watch.probe import ProbeTools

if TYPE_CHECKING:
    from agentd.logs.work import LogWork


@dataclass(frozen=True, slots=True)
class Planned:
    """
    One watch: as configured, ready to run, and when.

    source: the settings of its probe.
    basis: all of the configuration that it was made from; equal ones make equal watches.
    """

    source: Settings
    basis: tuple[object, ...]
    watch: ProbeWatch
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class PlannedLog:
    """One watch that follows a log: what it was made from, and ready to be followed."""

    basis: tuple[object, ...]
    watch: LogWatch


@dataclass(frozen=True, slots=True)
class PlannedGoal:
    """One watch that asks an agent: what it was made from, itself, and when it is due."""

    basis: tuple[object, ...]
    watch: GoalWatch
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Plan:
    """watches: those with a probe; logs: those that follow one; goals: those that ask agents. No name is in two."""

    config: Config
    watches: Mapping[str, Planned]
    logs: Mapping[str, PlannedLog]
    goals: Mapping[str, PlannedGoal]
    webhooks: Mapping[str, WebhookSettings]

    @property
    def due(self) -> Set[str]:
        """Of what the scheduler starts."""
        return self.watches.keys() | self.goals.keys()

    @property
    def names(self) -> Set[str]:
        """Of everything that runs."""
        return self.watches.keys() | self.logs.keys() | self.goals.keys()


def assemble(loaded: Loaded, tools: ProbeTools, *, instance: str) -> Plan:
    """Make every enabled watch whose source is a probe or a log."""
    config = loaded.config
    planned = {
        watch.name: _plan(watch, config, loaded.conditions.get(watch.name, ()), tools, instance)
        for watch in config.probes
    }
    logs = {watch.name: open_log_watch(watch, config, tools.clock, instance) for watch in config.logs}
    goals = {watch.name: _plan_goal(watch, config, instance) for watch in config.goals}
    return Plan(config, planned, logs, goals, config.webhooks)


def policy_of(watch: WatchConfig, config: Config) -> Policy:
    """How patient the watch's alert is."""
    return Policy(
        needed=watch.fail_after.needed,
        of=watch.fail_after.of,
        recover_after=watch.recover_after,
        blind_after=watch.blind_after,
        remind_every=config.remind_every(watch),
        remind_doubling=config.remind(watch) == "doubling",
        severity=watch.severity,
        labels=watch.labels,
    )


def self_wish(config: Config) -> Wish:
    """The same for alerts about agentd itself."""
    return Wish(repeat=config.alerting.remind_every or None, doubling=config.alerting.remind == "doubling")


def _plan(
    config: WatchConfig,
    whole: Config,
    conditions: Sequence[Condition],
    tools: ProbeTools,
    instance: str,
) -> Planned:
    assert config.kind is not None, "only probes are planned"
    assert config.source is not None
    kind = KINDS[config.kind]
    probe = kind.open(config.source, config.name, tools)
    if hasattr(probe, "wanted"):
        # What no condition reads need not be worked out, such as a parsed body.
        probe.wanted = frozenset().union(*(condition.variables for condition in conditions))
    policy = policy_of(config, whole)
    wish = wish_of(config, whole)
    watch = open_watch(
        config.name,
        kind.name,
        probe,
        conditions,
        policy,
        instance=instance,
        notify=wish.notify,
        escalate=wish.escalate,
        timeout_s=config.timeout.total_seconds(),
        depends_on=config.depends_on,
        hold=wish.hold,
    )
    return Planned(config.source, (config, policy, wish), watch, _trigger(config))


def _plan_goal(config: WatchConfig, whole: Config, instance: str) -> PlannedGoal:
    assert config.goal is not None
    policy, wish = policy_of(config, whole), wish_of(config, whole)
    watch = GoalWatch(
        name=config.name,
        kind="goal",
        calm=calm_alert(instance, config.name, None, policy),
        blind=calm_alert(instance, config.name, BLIND_RULE, policy),
        policy=policy,
        notify=wish.notify,
        escalate=wish.escalate,
        goal=config.goal,
        report=config.report or "each",
    )
    return PlannedGoal((config, policy, wish), watch, _trigger(config))


def open_log_watch(config: WatchConfig, whole: Config, clock: Clock, instance: str) -> PlannedLog:
    """A watch of a log or the journal, ready to be followed."""
    from agentd.logs.rules import digest_of

    source = config.log or config.journal
    assert source is not None, "only logs are planned"
    policy = policy_of(config, whole)
    wish = wish_of(config, whole)

    def open_work(memory: LogMemory) -> LogWork:
        # Here, not above: a daemon that watches no log loads none of its libraries.
        from agentd.logs.opening import open_log

        every_s = config.every.total_seconds() if config.every is not None else None
        return open_log(
            config.name,
            source,
            config.rules,
            clock=clock,
            timezone=config.timezone,
            memory=memory,
            every_s=every_s,
        )

    rules = {
        rule.name: LogRule(
            replace(policy, severity=rule.severity or policy.severity), rule.resolve_after or RESOLVE_AFTER
        )
        for rule in config.rules
    }
    watch = LogWatch(
        name=config.name,
        kind="log" if config.log is not None else "journal",
        calm=calm_alert(instance, config.name, None, policy),
        blind=calm_alert(instance, config.name, BLIND_RULE, policy),
        policy=policy,
        notify=wish.notify,
        escalate=wish.escalate,
        rules=rules,
        digests={rule.name: digest_of(rule) for rule in config.rules},
        open=open_work,
        hold=wish.hold,
    )
    return PlannedLog((config, policy, wish), watch)


def try_log(config: WatchConfig, file: Path, clock: Clock) -> LogWork:
    """The work of a watch on this file instead of its own source, from the file's beginning to its end."""
    from agentd.logs.opening import open_file

    source = config.log or config.journal
    assert source is not None
    return open_file(config.name, source, config.rules, file, clock=clock, timezone=config.timezone)


def _trigger(config: WatchConfig) -> Trigger:
    if config.cron is not None:
        return Cron(parse_cron(config.cron, config.timezone or "UTC"))
    if isinstance(config.source, HeartbeatSettings):
        return Every(config.source.look_every, config.name)
    if config.every is not None:
        return Every(config.every, config.name)
    return OnDemand()
