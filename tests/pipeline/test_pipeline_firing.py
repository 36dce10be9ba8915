"""Which firing alerts quiet may end: all of them, and no work for the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentd.alert.lifecycle import Policy
from agentd.pipeline.firing import Firing
from agentd.pipeline.watches import LogRule, calm_alert
from agentd.records import Alert, AlertStatus

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = {"r": LogRule(Policy(), 5 * MINUTE)}


def fired(ip: str, *, minute: int = 0) -> Alert:
    """Its last line came then."""
    calm = calm_alert("web-1", "w", "r", Policy(), {"ip": ip})
    return replace(calm, status=AlertStatus.FIRING, started_at=NOON, last_at=NOON + minute * MINUTE)


def over(alert: Alert) -> Alert:
    return replace(alert, status=AlertStatus.RESOLVED)


def test_those_whose_quiet_has_lasted_are_due_until_they_are_over() -> None:
    """A store that refuses the end of an alert is asked again."""
    first, second = fired("192.0.2.1"), fired("192.0.2.2", minute=1)
    firing = Firing(RULES, [second, first])

    assert firing.next_due() == NOON + 5 * MINUTE
    assert firing.due(NOON + 4 * MINUTE) == []
    assert firing.due(NOON + 5 * MINUTE) == [first.fingerprint]
    assert firing.due(NOON + 6 * MINUTE) == [first.fingerprint, second.fingerprint]

    firing.follow(over(first))
    assert firing.due(NOON + 6 * MINUTE) == [second.fingerprint]
    firing.follow(over(second))
    assert firing.due(NOON + 60 * MINUTE) == []
    assert firing.next_due() is None
    assert firing.any() is None


def test_a_further_line_puts_the_end_off() -> None:
    """Or an alert would end in the middle of what it tells of."""
    firing = Firing(RULES, [fired("192.0.2.1")])

    firing.follow(fired("192.0.2.1", minute=3))

    assert firing.due(NOON + 5 * MINUTE) == []
    assert firing.next_due() == NOON + 8 * MINUTE
    assert len(firing.due(NOON + 8 * MINUTE)) == 1


def test_what_fires_anew_is_due_once() -> None:
    """Its place from the first time may still be there."""
    firing = Firing(RULES, [fired("192.0.2.1")])
    firing.follow(over(fired("192.0.2.1")))
    firing.follow(fired("192.0.2.1", minute=2))

    assert firing.due(NOON + 6 * MINUTE) == []
    assert len(firing.due(NOON + 7 * MINUTE)) == 1


def test_while_nobody_can_tell_what_is_due_a_million_that_come_and_go_leave_nothing() -> None:
    """Far behind, an attacker's addresses would fill memory."""
    firing = Firing(RULES)

    for number in range(20_000):
        firing.follow(fired(str(number)))
        firing.follow(over(fired(str(number))))
        assert firing.due(None) == []

    assert len(firing._heap) < 2000
