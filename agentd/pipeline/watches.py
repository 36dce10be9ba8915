"""
Watches ready to run: what the config said, opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import BLIND_RULE, Policy, Step
from agentd.alert.routing import Escalate, Wish
from agentd.condition import Condition
from agentd.memory.logs import LogMemory
from agentd.records import Alert, Judgement, Observation, Verdict
from agentd.watch.probe import Probe

if TYPE_CHECKING:
    from agentd.logs.work import LogWork


@dataclass(slots=True)
class Watch:
    """
    What any watch is: its name, its alerts, its patience, whom it tells.

    calm: its alert as it is before anything ever happened; blind: the same for the alert "cannot look".
    notify: names of webhooks; None: routes decide. escalate: the same. hold: how long its first message waits for what
    an agent finds out. last: the newest check, for status and page.
    """

    name: str
    kind: str
    calm: Alert
    blind: Alert
    policy: Policy
    notify: tuple[str, ...] | None
    escalate: tuple[Escalate, ...] | None = field(default=None, kw_only=True)
    hold: timedelta = field(default=timedelta(0), kw_only=True)
    last: Check | None = field(default=None, kw_only=True)

    @property
    def verdict(self) -> Verdict | None:
        """Of the newest check; None while there is none, or nothing to see yet."""
        return None if self.last is None or self.last.is_early else self.last.judgement.verdict

    @property
    def summary(self) -> str:
        """What people read of the newest check; empty when all is well."""
        if self.last is None:
            return ""
        return self.last.judgement.summary or (self.last.observation.early or "" if self.last.is_early else "")

    @property
    def wish(self) -> Wish:
        """Whom the watch itself wants to be told, and how often."""
        return Wish(self.notify, self.escalate, self.policy.remind_every, self.policy.remind_doubling, self.hold)


@dataclass(slots=True)
class ProbeWatch(Watch):
    """A watch that looks with a probe, when it is due. depends_on: names of watches that explain its failures."""

    probe: Probe
    conditions: tuple[Condition, ...]
    timeout_s: float
    depends_on: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class LogRule:
    """What the life of a rule's alerts takes: its policy (with its own severity), and how much quiet resolves them."""

    policy: Policy
    resolve_after: timedelta


@dataclass(slots=True)
class LogWatch(Watch):
    """
    A watch that follows log lines.

    rules: by name. digests: of their settings, by name. open: begins to follow from what is remembered; blocking.
    work: while it is followed, for status.
    """

    rules: Mapping[str, LogRule]
    digests: Mapping[str, str]
    open: Callable[[LogMemory], LogWork]
    work: LogWork | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Check:
    """One finished check: what was seen and what was made of it."""

    at: datetime
    observation: Observation
    judgement: Judgement
    step: Step

    @property
    def is_early(self) -> bool:
        """Whether there was nothing to see yet: that it is ok is not known then."""
        return self.observation.early is not None and self.judgement.verdict is Verdict.OK


def open_watch(
    name: str,
    kind: str,
    probe: Probe,
    conditions: Sequence[Condition],
    policy: Policy,
    *,
    instance: str,
    notify: Sequence[str] | None,
    timeout_s: float,
    escalate: Sequence[Escalate] | None = None,
    depends_on: Sequence[str] = (),
    hold: timedelta = timedelta(0),
) -> ProbeWatch:
    """Make a watch ready to run; whatever does not change from check to check is worked out here."""
    return ProbeWatch(
        name=name,
        kind=kind,
        probe=probe,
        calm=calm_alert(instance, name, None, policy),
        blind=calm_alert(instance, name, BLIND_RULE, policy),
        conditions=tuple(conditions),
        policy=policy,
        notify=None if notify is None else tuple(notify),
        escalate=None if escalate is None else tuple(escalate),
        timeout_s=timeout_s,
        depends_on=tuple(depends_on),
        hold=hold,
    )


def calm_alert(
    instance: str, watch: str, rule: str | None, policy: Policy, by: Mapping[str, str] | None = None
) -> Alert:
    """The alert of a watch, or of one of its rules, before anything ever happened."""
    identity = fingerprint(instance, watch, rule, by)
    return Alert(identity, instance, watch, policy.severity, rule, by or {}, policy.labels)
