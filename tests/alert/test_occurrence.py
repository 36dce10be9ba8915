"""An alert of a log rule fires at once, counts on while it lasts, and resolves after quiet, in event time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentd.alert.lifecycle import Policy
from agentd.alert.occurrence import end_early, occur, quiet
from agentd.records import Alert, AlertStatus, Ended, EventType, Evidence, Occurrence, Place, Reason, Severity

T = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
QUIET = timedelta(minutes=5)
POLICY = Policy(severity=Severity.CRITICAL, labels={"team": "ops"})
CALM = Alert("f1", "web-1", "ssh", Severity.WARNING, "bruteforce", {"ip": "192.0.2.1"})


def seen(minute: float, count: int = 1, last: float | None = None) -> Occurrence:
    at, last_at = (T + timedelta(minutes=each) for each in (minute, minute if last is None else last))
    lines = tuple(Evidence(Place("/var/log/auth.log", 100 * n + int(minute * 60)), f"line {n}") for n in range(count))
    return Occurrence("bruteforce", CALM.by, at, last_at, count, "5 lines", "5 lines within 10m", {"n": 5}, lines)


def firing(minute: float = 0) -> Alert:
    return occur(CALM, seen(minute), POLICY, QUIET)[-1].alert


def test_the_first_occurrence_fires() -> None:
    """The rule was patient already; the alert must not be patient once more."""
    (taken,) = occur(CALM, seen(0), POLICY, QUIET)

    assert taken.transition is not None
    assert taken.transition.event is EventType.FIRING
    assert taken.transition.reason is Reason.MATCHED
    assert taken.transition.at == taken.alert.started_at == T
    assert (taken.alert.severity, taken.alert.labels) == (Severity.CRITICAL, {"team": "ops"})
    assert taken.alert.evidence == seen(0).evidence


def test_while_it_fires_further_occurrences_only_count() -> None:
    """A flood of lines is one message."""
    (taken,) = occur(firing(), seen(3, count=4), POLICY, QUIET)

    assert taken.transition is None
    assert taken.changed
    assert taken.alert.occurrences == 5
    assert taken.alert.last_at == T + timedelta(minutes=3)


def test_evidence_keeps_the_first_and_the_last_lines() -> None:
    """How it began and how it goes on tell more than ten thousand lines between, and are bounded."""
    alert = firing()
    for minute in range(1, 40):
        alert = occur(alert, seen(minute), POLICY, timedelta(hours=1))[-1].alert

    assert len(alert.evidence) == 20
    assert alert.evidence[0] == seen(0).evidence[0]
    assert alert.evidence[-1] == seen(39).evidence[0]


def test_quiet_resolves_at_the_moment_it_was_long_enough() -> None:
    """However late we look, the incident ended when it ended."""
    taken = quiet(firing(), T + timedelta(hours=1), QUIET)

    assert taken.transition is not None
    assert taken.transition.event is EventType.RESOLVED
    assert taken.transition.reason is Reason.QUIET
    assert taken.alert.ended_at == T + QUIET


def test_not_quiet_for_long_enough_changes_nothing() -> None:
    """Resolving early would fire anew with the next line."""
    alert = firing()

    assert quiet(alert, T + QUIET - timedelta(seconds=1), QUIET).alert == alert


def test_an_occurrence_after_quiet_is_a_new_incident() -> None:
    """A log read late holds both, and both are told, in order."""
    over, anew = occur(firing(), seen(6), POLICY, QUIET)

    assert over.transition is not None
    assert over.transition.event is EventType.RESOLVED
    assert anew.transition is not None
    assert anew.transition.event is EventType.FIRING
    assert anew.alert.occurrences == 1
    assert anew.alert.evidence == seen(6).evidence


def test_a_silence_that_lasts_is_one_incident_however_long_nobody_looked() -> None:
    """After an hour in which the log could not be read, it is still the same silence."""
    (taken,) = occur(firing(), seen(60, count=0), POLICY, QUIET)

    assert taken.transition is None
    assert taken.alert.last_at == T + timedelta(minutes=60)


def test_a_rule_may_end_its_alert_itself() -> None:
    """Lines are back: nobody needs to wait for quiet."""
    taken = end_early(firing(), Ended("bruteforce", CALM.by, T + timedelta(minutes=1), "lines are back"))

    assert taken.transition is not None
    assert (taken.transition.reason, taken.transition.reason_text) == (Reason.RECOVERED, "lines are back")


def test_an_alert_that_is_crowded_out_says_so() -> None:
    """Its resolve is sent, never lost, and it tells people that nobody saw the end."""
    taken = end_early(firing(), Ended("bruteforce", CALM.by, T, "more than 10,000 values", crowded_out=True))

    assert taken.transition is not None
    assert taken.transition.reason is Reason.CROWDED_OUT


def test_what_does_not_fire_has_nothing_to_end() -> None:
    """A resolve without a firing confuses every receiver."""
    assert quiet(CALM, T, QUIET).transition is None
    assert end_early(CALM, Ended("bruteforce", CALM.by, T, "back")).transition is None
    resolved = replace(CALM, status=AlertStatus.RESOLVED, last_at=T)
    assert quiet(resolved, T + timedelta(hours=1), QUIET).alert == resolved
