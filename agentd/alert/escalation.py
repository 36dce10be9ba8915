"""
An alert that lasts: more people are told, it counts as worse. And: somebody says that they are on it. Pure.

In: a firing alert, the steps of its escalation, now. Out: a `Step` as from `lifecycle`.
Promise: each step is taken once an incident, in order of time, and none while the alert is acknowledged or muted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agentd.alert.lifecycle import Step, transition
from agentd.alert.routing import Escalate
from agentd.records import Alert, AlertStatus, EventType, Reason, Severity
from agentd.settings import show_duration

_WORSE = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
MAX_ACK_CHARS = 300


def step_escalation(alert: Alert, escalate: Sequence[Escalate], now: datetime) -> Step:
    """Take the steps that are due; several at once, as after an acknowledgement was taken back, are told as one."""
    if alert.status is not AlertStatus.FIRING or alert.started_at is None:
        return Step(alert)
    if alert.acked_by is not None or alert.muted_by is not None:
        return Step(alert)
    lasting = now - alert.started_at
    taken = max(alert.escalated, sum(each.after <= lasting for each in escalate))
    if taken == alert.escalated:
        return Step(alert)
    escalated = replace(
        alert,
        escalated=taken,
        severity=severity_after(alert.severity, escalate, taken),
        reason=Reason.ESCALATED,
        reason_text=f"firing for {_about(lasting)}",
    )
    return Step(escalated, True, transition(alert, escalated, now, EventType.ESCALATED))


def _about(lasting: timedelta) -> str:
    """To the minute, as soon as there is one: the sweep that finds a step due comes some seconds after it."""
    unit = timedelta(minutes=1) if lasting >= timedelta(minutes=1) else timedelta(seconds=1)
    return show_duration(lasting // unit * unit)


def in_order(escalate: Sequence[Escalate]) -> tuple[Escalate, ...]:
    """By time; `Alert.escalated` counts the first ones of these."""
    return tuple(sorted(escalate, key=lambda each: each.after))


def severity_after(severity: Severity, escalate: Sequence[Escalate], taken: int) -> Severity:
    """How bad an alert is after so many steps; none makes it less bad. severity: what its watch says."""
    raised = [each.severity for each in in_order(escalate)[:taken] if each.severity is not None]
    return max([severity, *raised], key=_WORSE.index)


def notified_after(escalate: Sequence[Escalate], taken: int) -> tuple[str, ...]:
    """The webhooks that are told as well after so many steps, each once."""
    return tuple(dict.fromkeys(name for each in in_order(escalate)[:taken] for name in each.notify))


def next_escalation(alert: Alert, escalate: Sequence[Escalate]) -> datetime | None:
    """When the next step is due, if the alert still fires then and nobody is on it; None: no step is left."""
    if alert.status is not AlertStatus.FIRING or alert.started_at is None:
        return None
    left = in_order(escalate)[alert.escalated :]
    return alert.started_at + left[0].after if left else None


def ack(alert: Alert, by: str, comment: str = "") -> Step:
    """Somebody is on it: no reminders and no escalation until it resolves. Of what does not fire, nothing is kept."""
    if alert.status is not AlertStatus.FIRING:
        return Step(alert)
    acked_by = (f"{by}: {comment}" if comment else by)[:MAX_ACK_CHARS]
    return Step(replace(alert, acked_by=acked_by), changed=acked_by != alert.acked_by)


def unack(alert: Alert) -> Step:
    """Nobody is on it any more."""
    return Step(replace(alert, acked_by=None), changed=alert.acked_by is not None)
