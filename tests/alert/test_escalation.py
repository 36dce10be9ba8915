"""Escalation and acknowledgement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agentd.alert.escalation import (
    MAX_ACK_CHARS,
    ack,
    in_order,
    next_escalation,
    notified_after,
    severity_after,
    step_escalation,
    unack,
)
from agentd.alert.routing import Escalate
from agentd.records import Alert, AlertStatus, EventType, Reason, Severity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRING = Alert("f1", "web-1", "shop", Severity.WARNING, status=AlertStatus.FIRING, started_at=NOW)
STEPS = (
    Escalate(timedelta(minutes=30), ("boss",)),
    Escalate(timedelta(hours=2), ("board", "boss"), Severity.CRITICAL),
)


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


def test_steps_are_taken_in_their_order_and_once() -> None:
    """The boss is told after half an hour, not again at each sweep."""
    assert not step_escalation(FIRING, STEPS, minutes(29.9)).changed

    first = step_escalation(FIRING, STEPS, minutes(30.1))
    assert first.changed
    assert first.transition is not None
    assert (first.transition.event, first.transition.reason) == (EventType.ESCALATED, Reason.ESCALATED)
    assert first.transition.reason_text == "firing for 30m"
    assert (first.transition.before, first.transition.after) == (AlertStatus.FIRING, AlertStatus.FIRING)
    assert (first.alert.escalated, first.alert.severity) == (1, Severity.WARNING)
    assert not step_escalation(first.alert, STEPS, minutes(31)).changed

    second = step_escalation(first.alert, STEPS, minutes(120))
    assert (second.alert.escalated, second.alert.severity) == (2, Severity.CRITICAL)
    assert second.alert.reason_text == "firing for 2h"
    assert not step_escalation(second.alert, STEPS, minutes(1e5)).changed


def test_several_steps_due_at_once_are_told_once() -> None:
    """After a night in which the daemon was down."""
    step = step_escalation(FIRING, STEPS, minutes(600))

    assert (step.alert.escalated, step.alert.severity) == (2, Severity.CRITICAL)
    assert notified_after(STEPS, step.alert.escalated) == ("boss", "board")


@pytest.mark.parametrize(
    "alert",
    [
        replace(FIRING, acked_by="anna"),
        replace(FIRING, muted_by="silence 4f2a"),
        replace(FIRING, status=AlertStatus.RESOLVED),
        replace(FIRING, status=AlertStatus.PENDING),
        replace(FIRING, started_at=None),
        replace(FIRING, started_at=minutes(1000)),
        replace(FIRING, escalated=7),
    ],
)
def test_nobody_more_is_told_where_somebody_is_on_it_or_it_is_over(alert: Alert) -> None:
    """Nor after the clock was set back, or when a reload left fewer steps than were taken."""
    step = step_escalation(alert, STEPS, minutes(120))

    assert step.alert is alert
    assert not step.changed


def test_taking_an_acknowledgement_back_lets_it_go_on() -> None:
    acked = ack(FIRING, "anna", "on it").alert
    assert acked.acked_by == "anna: on it"

    assert step_escalation(unack(acked).alert, STEPS, minutes(45)).alert.reason_text == "firing for 45m"


def test_an_order_of_the_file_is_no_order_of_time() -> None:
    """Steps may stand in any order; a worse severity is never taken back."""
    steps = (Escalate(timedelta(hours=2), (), Severity.INFO), Escalate(timedelta(minutes=5), (), Severity.CRITICAL))

    assert [each.severity for each in in_order(steps)] == [Severity.CRITICAL, Severity.INFO]
    assert [severity_after(Severity.WARNING, steps, taken) for taken in range(3)] == [
        Severity.WARNING,
        Severity.CRITICAL,
        Severity.CRITICAL,
    ]
    assert step_escalation(FIRING, steps, minutes(6)).alert.escalated == 1


def test_when_the_next_step_is_due_is_known() -> None:
    """So that nobody has to look before."""
    assert next_escalation(FIRING, STEPS) == minutes(30)
    assert next_escalation(replace(FIRING, escalated=1), STEPS) == minutes(120)
    assert next_escalation(replace(FIRING, escalated=2), STEPS) is None
    assert next_escalation(replace(FIRING, status=AlertStatus.OK), STEPS) is None


def test_only_what_fires_is_acknowledged() -> None:
    """It would be forgotten as the alert fires, and somebody would rely on it."""
    assert ack(FIRING, "anna").changed
    assert not ack(replace(FIRING, acked_by="anna"), "anna").changed
    assert not ack(replace(FIRING, status=AlertStatus.PENDING), "anna").changed
    assert not unack(FIRING).changed
    assert len(ack(FIRING, "a", "x" * 9999).alert.acked_by or "") == MAX_ACK_CHARS
