"""
What one verdict does to an alert.

In: the alert as stored, a judgement, the policy of its watch, and now.
Out: the alert after it, and the transition if there is one. Pure: the same input gives the same output, so a
restart in the middle of a streak changes nothing.

    ok ──failing──▶ pending ──fail_after──▶ firing ──recover_after──▶ resolved ──▶ (as ok)
                       └──ok──▶ ok

Blind verdicts freeze the streaks; `step_blind` turns lasting blindness into an alert of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from agentd.records import Alert, AlertStatus, EventType, Judgement, Reason, Severity, Transition, Verdict
from agentd.settings import show_duration

BLIND_RULE = "blind"


@dataclass(frozen=True, slots=True)
class Policy:
    """
    How patient an alert is.

    needed, of: failing verdicts among the last `of` that make it fire; equal numbers mean "in a row".
    recover_after: ok verdicts in a row that resolve it.
    blind_after: how long the checker may be unable to look before that is an alert.
    remind_every: time between reminders while it fires, None for none; doubling up to 24 h, unless fixed.
    """

    needed: int = 3
    of: int = 3
    recover_after: int = 2
    blind_after: timedelta = timedelta(minutes=10)
    remind_every: timedelta | None = timedelta(hours=4)
    remind_doubling: bool = True
    severity: Severity = Severity.WARNING
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """
    alert: after the verdict. changed: whether the store must learn of it.
    transition: what changed for people to see, if anything.
    """

    alert: Alert
    changed: bool = False
    transition: Transition | None = None


def step(alert: Alert, judgement: Judgement, policy: Policy, now: datetime) -> Step:
    """Advance an alert by one verdict."""
    if judgement.verdict is Verdict.BLIND:
        # Blindness that begins in the future: the clock was set back, and would keep its alert away for as long.
        if alert.blind_since is not None and alert.blind_since <= now:
            return Step(alert)
        return Step(replace(alert, blind_since=now), changed=True)
    regained = alert.blind_since is not None
    if regained:
        alert = replace(alert, blind_since=None)
    firing = alert.status is AlertStatus.FIRING
    if judgement.verdict is Verdict.FAILING:
        after = _still_firing(alert, judgement, policy) if firing else _failed(alert, judgement, policy, now)
    else:
        after = _recovering(alert, policy, now) if firing else _held(alert, policy, now)
    return replace(after, changed=True) if regained else after


def _failed(alert: Alert, judgement: Judgement, policy: Policy, now: datetime) -> Step:
    window = (alert.window + "1")[-policy.of :].lstrip("0")
    fresh = alert.status is not AlertStatus.PENDING
    seen = replace(
        alert,
        window=window,
        severity=policy.severity,
        labels=policy.labels,
        summary=judgement.summary,
        values=judgement.shown,
        failed=judgement.failed,
        occurrences=1 if fresh else alert.occurrences + 1,
        pending_since=now if fresh else alert.pending_since,
    )
    failures = window.count("1")
    if failures < policy.needed:
        text = f"failed {failures} of {policy.needed} needed"
        pending = replace(seen, status=AlertStatus.PENDING, reason=Reason.THRESHOLD, reason_text=text, ended_at=None)
        return Step(pending, True, transition(alert, pending, now) if fresh else None)
    text = f"failed {failures} of {policy.of}" if policy.of != policy.needed else _in_a_row(failures)
    fired = replace(
        seen,
        status=AlertStatus.FIRING,
        window="",
        oks=0,
        reason=Reason.THRESHOLD,
        reason_text=text,
        started_at=now,
        ended_at=None,
        escalated=0,
        acked_by=None,
        finding=None,
        cost=None,
    )
    return Step(fired, True, transition(alert, fired, now, EventType.FIRING))


def _in_a_row(count: int) -> str:
    return "failed once" if count == 1 else f"failed {count} times in a row"


def _still_firing(alert: Alert, judgement: Judgement, policy: Policy) -> Step:
    # What was last seen is kept in memory and told with the next message; only a broken recovery is worth a write.
    seen = replace(
        alert,
        oks=0,
        summary=judgement.summary,
        values=judgement.shown,
        failed=judgement.failed,
        severity=alert.severity if alert.escalated else policy.severity,
        labels=policy.labels,
        occurrences=alert.occurrences + 1,
    )
    return Step(seen, changed=alert.oks != 0)


def _recovering(alert: Alert, policy: Policy, now: datetime) -> Step:
    oks = alert.oks + 1
    if oks < policy.recover_after:
        return Step(replace(alert, oks=oks), changed=True)
    text = "ok once" if oks == 1 else f"ok {oks} times in a row"
    return resolve(alert, Reason.RECOVERED, text, now)


def _held(alert: Alert, policy: Policy, now: datetime) -> Step:
    if not alert.window:
        return Step(alert)
    # "In a row" starts anew at every ok; "n of m" forgets a failure only when it leaves the window.
    window = "" if policy.needed == policy.of else (alert.window + "0")[-policy.of :].lstrip("0")
    if window:
        return Step(replace(alert, window=window), changed=True)
    calm = replace(
        alert,
        status=AlertStatus.OK,
        window="",
        reason=Reason.RECOVERED,
        reason_text="ok again before it fired",
        pending_since=None,
    )
    return Step(calm, True, transition(alert, calm, now))


def step_blind(alert: Alert, blind: str | None, since: datetime | None, policy: Policy, now: datetime) -> Step:
    """
    Advance the alert that says "this watch cannot look".

    alert: the one whose rule is `blind`. blind: why nothing could be seen, or None when it could.
    since: since when the watch has been blind.
    """
    if blind is None:
        if alert.status is AlertStatus.FIRING:
            return resolve(alert, Reason.SIGHT_REGAINED, "the checker can look again", now)
        return Step(alert)
    if alert.status is AlertStatus.FIRING or since is None or now - since < policy.blind_after:
        return Step(alert)
    fired = replace(
        alert,
        status=AlertStatus.FIRING,
        severity=policy.severity,
        labels=policy.labels,
        reason=Reason.BLIND,
        reason_text=f"could not look for {show_duration(_whole_seconds(now - since))}",
        summary=f"cannot look: {blind}",
        started_at=now,
        ended_at=None,
        pending_since=since,
        occurrences=1,
        escalated=0,
    )
    return Step(fired, True, transition(alert, fired, now, EventType.FIRING))


def end(alert: Alert, reason: Reason, text: str, now: datetime) -> Step:
    """End an alert whose watch is gone: a firing one resolves, with the reason; any other just ends."""
    if alert.status is AlertStatus.FIRING:
        return resolve(alert, reason, text, now)
    return Step(alert)


_OVER = {
    Reason.RECOVERED: "ok again",
    Reason.SIGHT_REGAINED: "can look again",
    Reason.WATCH_REMOVED: "not watched any more",
    Reason.QUIET: "quiet again",
    Reason.CROWDED_OUT: "not followed any more",
}


def resolve(alert: Alert, reason: Reason, text: str, now: datetime) -> Step:
    """End a firing alert. text: why, for people."""
    resolved = replace(
        alert,
        summary=f"{_OVER.get(reason, 'over')}; it was: {alert.summary}",
        values={},
        failed=(),
        status=AlertStatus.RESOLVED,
        window="",
        oks=0,
        blind_since=None,
        ended_at=now,
        pending_since=None,
        reason=reason,
        reason_text=text,
        acked_by=None,
    )
    return Step(resolved, True, transition(alert, resolved, now, EventType.RESOLVED))


def transition(before: Alert, after: Alert, now: datetime, event: EventType | None = None) -> Transition:
    """The change from one state to the other, for the reason that the alert carries now."""
    assert after.reason is not None
    return Transition(before.status, after.status, after.reason, after.reason_text, now, after, event)


def _whole_seconds(duration: timedelta) -> timedelta:
    return timedelta(seconds=max(0, round(duration.total_seconds())))
