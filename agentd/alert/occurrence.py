"""
The life of an alert that a log rule raises: it fires when the rule's event comes about, and resolves after quiet.

In: the alert as stored, what the rule saw, until when silence is certain. Out: steps, as from `lifecycle`. Pure.
Times are event times, so a log read late, or tried from a file, tells the same story as one followed live.

    ok ──occurrence──▶ firing ──(further ones only count)──▶ resolve_after of quiet ──▶ resolved
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from agentd.alert.lifecycle import Policy, Step, resolve, transition
from agentd.records import Alert, AlertStatus, Ended, EventType, Evidence, Occurrence, Reason
from agentd.settings import show_duration

RESOLVE_AFTER = timedelta(minutes=5)
FIRST_EVIDENCE = 10
LAST_EVIDENCE = 10


def occur(alert: Alert, occurrence: Occurrence, policy: Policy, resolve_after: timedelta) -> tuple[Step, ...]:
    """Advance the alert by what came about; two steps where the incident before was already over by then."""
    if occurrence.count == 0 and alert.status is AlertStatus.FIRING:
        # A silence that lasts is no new incident, however long nobody could look.
        return (_count_on(alert, occurrence),)
    over = quiet(alert, occurrence.at, resolve_after)
    if over.transition is not None:
        return (over, _fire(over.alert, occurrence, policy))
    if alert.status is AlertStatus.FIRING:
        return (_count_on(alert, occurrence),)
    return (_fire(alert, occurrence, policy),)


def quiet(alert: Alert, until: datetime, resolve_after: timedelta) -> Step:
    """Resolve the alert when nothing came for `resolve_after`. until: up to this moment there was nothing more."""
    if alert.status is not AlertStatus.FIRING:
        return Step(alert)
    last = alert.last_at or alert.started_at
    if last is None or until - last < resolve_after:
        return Step(alert)
    return resolve(alert, Reason.QUIET, f"nothing more for {show_duration(resolve_after)}", last + resolve_after)


def end_early(alert: Alert, ended: Ended) -> Step:
    """The rule itself says that it is over."""
    if alert.status is not AlertStatus.FIRING:
        return Step(alert)
    reason = Reason.CROWDED_OUT if ended.crowded_out else Reason.RECOVERED
    return resolve(alert, reason, ended.reason_text, max(ended.at, alert.started_at or ended.at))


def _fire(alert: Alert, occurrence: Occurrence, policy: Policy) -> Step:
    fired = replace(
        alert,
        status=AlertStatus.FIRING,
        severity=policy.severity,
        labels=policy.labels,
        reason=Reason.MATCHED,
        reason_text=occurrence.reason_text,
        summary=occurrence.summary,
        values=occurrence.values,
        evidence=occurrence.evidence[: FIRST_EVIDENCE + LAST_EVIDENCE],
        occurrences=occurrence.count,
        started_at=occurrence.at,
        last_at=occurrence.last_at,
        ended_at=None,
        escalated=0,
        acked_by=None,
        finding=None,
        cost=None,
    )
    return Step(fired, True, transition(alert, fired, occurrence.at, EventType.FIRING))


def _count_on(alert: Alert, occurrence: Occurrence) -> Step:
    counted = replace(
        alert,
        occurrences=alert.occurrences + occurrence.count,
        last_at=max(occurrence.last_at, alert.last_at or occurrence.last_at),
        evidence=_first_and_last(alert.evidence, occurrence.evidence),
    )
    return Step(counted, changed=True)


def _first_and_last(before: tuple[Evidence, ...], more: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    whole = before + tuple(each for each in more if each not in before)
    if len(whole) <= FIRST_EVIDENCE + LAST_EVIDENCE:
        return whole
    return whole[:FIRST_EVIDENCE] + whole[-LAST_EVIDENCE:]
