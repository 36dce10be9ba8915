"""
From the configuration to what runs: watches with their probes, conditions and policies, and when they are due.

In: a checked configuration. Out: a `Plan`, built beside whatever runs now; nothing is opened or started by it, so it
may be thrown away, and it may be built on a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentd.alert.lifecycle import Policy
from agentd.condition import Condition
from agentd.config.loader import Loaded
from agentd.config.models import Config
from agentd.config.watches import Watch as WatchConfig
from agentd.cron import parse_cron
from agentd.deliver.webhook import WebhookSettings
from agentd.pipeline import ProbeWatch, open_watch
from agentd.schedule.triggers import Cron, Every, OnDemand, Trigger
from agentd.settings import Settings
from agentd.watch import KINDS
from agentd.watch.heartbeat import HeartbeatSettings
from agentd.watch.probe import ProbeTools


@dataclass(frozen=True, slots=True)
class Planned:
    """
    One watch: as configured, ready to run, and when.

    source: the settings of its probe.
    basis: all of the configuration that it was made from; equal ones make equal watches.
    at_start: one run more as soon as we are up.
    """

    source: Settings
    basis: tuple[object, ...]
    watch: ProbeWatch
    trigger: Trigger
    at_start: bool


@dataclass(frozen=True, slots=True)
class Plan:
    config: Config
    watches: Mapping[str, Planned]
    webhooks: Mapping[str, WebhookSettings]


def assemble(loaded: Loaded, tools: ProbeTools, *, instance: str) -> Plan:
    """Make every enabled watch whose source is a probe."""
    config = loaded.config
    planned = {
        watch.name: _plan(watch, config, loaded.conditions.get(watch.name, ()), tools, instance)
        for watch in config.probes
    }
    return Plan(config, planned, config.webhooks)


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


def self_policy(config: Config) -> Policy:
    """The same for alerts about agentd itself: they are certain at once, and are told as `alerting` says."""
    return Policy(
        needed=1,
        of=1,
        recover_after=1,
        remind_every=config.alerting.remind_every or None,
        remind_doubling=config.alerting.remind == "doubling",
    )


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
    notify = whole.notify(config)
    watch = open_watch(
        config.name,
        kind.name,
        probe,
        conditions,
        policy,
        instance=instance,
        notify=notify,
        timeout_s=config.timeout.total_seconds(),
    )
    return Planned(config.source, (config, policy, notify), watch, _trigger(config), "startup" in config.on)


def _trigger(config: WatchConfig) -> Trigger:
    if config.cron is not None:
        return Cron(parse_cron(config.cron, config.timezone))
    if isinstance(config.source, HeartbeatSettings):
        return Every(config.source.look_every, config.name)
    if config.every is not None:
        return Every(config.every, config.name)
    return OnDemand()
