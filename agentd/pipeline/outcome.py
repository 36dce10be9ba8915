"""
What the rules' outcome does to the alerts of a watch: the decision between the log and the commit. Pure.

In: events in the order of event time, and until when silence is certain. Out: steps, in order.
Promise: the daemon and `agentd test` go through here, so a trial tells what the daemon would have told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import Step
from agentd.alert.occurrence import end_early, occur, quiet
from agentd.pipeline.watches import LogWatch, calm_alert
from agentd.records import Alert, Ended, Occurrence


def steps_of(
    watch: LogWatch,
    instance: str,
    events: Sequence[Occurrence | Ended],
    until: datetime | None,
    *,
    alerts: Mapping[str, Alert],
    firing: Iterable[str],
    awake_since: datetime | None = None,
    address: Callable[[Step], Step] = lambda step: step,
) -> Iterator[Step]:
    """
    alerts: as they stand, by fingerprint. firing: the fingerprints among them that may become quiet.
    until: up to this moment there is nothing unread; None: nobody can tell. awake_since: no quiet of before it is one,
    for the machine slept, or its clock jumped.
    address: finishes each step before the next is taken of the same alert.
    """
    ahead: dict[str, Alert] = {}
    for event in events:
        rule = watch.rules[event.rule]
        identity = fingerprint(instance, watch.name, event.rule, event.by)
        alert = ahead.get(identity) or alerts.get(identity)
        if alert is None:
            alert = calm_alert(instance, watch.name, event.rule, rule.policy, event.by)
        if isinstance(event, Ended):
            steps: tuple[Step, ...] = (end_early(alert, event),)
        else:
            steps = occur(alert, event, rule.policy, rule.resolve_after)
        for each in steps:
            done = address(each)
            ahead[identity] = done.alert
            yield done
    if until is None:
        return
    for identity in dict.fromkeys([*firing, *ahead]):
        current = ahead.get(identity) or alerts.get(identity)
        followed = watch.rules.get(current.rule or "") if current is not None else None
        if current is None or followed is None:
            continue
        if awake_since is not None and until - awake_since < followed.resolve_after:
            last = current.last_at or current.started_at
            if last is None or last < awake_since:
                continue
        over = quiet(current, until, followed.resolve_after)
        if over.transition is not None:
            yield address(over)
