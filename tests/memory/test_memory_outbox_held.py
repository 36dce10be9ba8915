"""First messages that wait for a finding: nothing in their lanes waits for them."""

from __future__ import annotations

from datetime import timedelta

import apsw
import pytest
from test_memory_outbox import NOW, c, claimed, delivery

from agentd.memory import outbox
from agentd.records import EventType

__all__ = ["c"]  # the fixture, by its name

WAIT = timedelta(minutes=10)


def names(c: apsw.Connection) -> list[str]:
    """What goes now, one after the other."""
    found = []
    while some := claimed(c):
        for id in some:
            outbox.done(c, id, NOW, 200)
        found += some
    return found


@pytest.mark.parametrize("type", [EventType.FIRING, EventType.GROUP_FIRING, EventType.ESCALATED, EventType.RESOLVED])
def test_whatever_comes_into_the_lane_of_a_held_message_lets_it_go(c: apsw.Connection, type: EventType) -> None:
    """All alerts of a group share a lane: a critical one must not wait for what an agent finds out about another."""
    outbox.put(c, delivery("held", due_at=NOW + WAIT))
    outbox.put(c, delivery("elsewhere", lane="b", due_at=NOW + WAIT))
    assert claimed(c) == []

    outbox.put(c, delivery("db", type=type, fingerprint="f2"))

    assert names(c) == ["held", "db"]


def test_a_message_waits_no_longer_for_another_than_for_its_own_finding(c: apsw.Connection) -> None:
    """Two that are held in one lane, the first for longer: both are due when the second is."""
    outbox.put(c, delivery("first", due_at=NOW + WAIT))
    outbox.put(c, delivery("second", fingerprint="f2", due_at=NOW + WAIT / 2))

    assert claimed(c, NOW + WAIT / 2) == ["first"]


def test_a_finding_lets_its_message_go_with_those_before_it(c: apsw.Connection) -> None:
    """It is complete: what others wait for is no reason to keep it back."""
    outbox.put(c, delivery("first", due_at=NOW + WAIT))
    outbox.put(c, delivery("second", fingerprint="f2", due_at=NOW + WAIT))
    outbox.put(c, delivery("third", fingerprint="f3", due_at=NOW + WAIT))

    assert outbox.complete(c, "f2", None, lambda data: '{"whole":1}', NOW) == 1

    assert names(c) == ["first", "second"]
    assert claimed(c, NOW + WAIT) == ["third"]


def test_what_failed_before_keeps_its_pause(c: apsw.Connection) -> None:
    """It waits for the receiver, who is not to be hammered because more came about."""
    outbox.put(c, delivery("failed"))
    assert claimed(c) == ["failed"]
    outbox.delay(c, "failed", due_at=NOW + WAIT, error="503")

    outbox.put(c, delivery("next"))

    assert claimed(c) == []


def test_a_long_lane_is_not_looked_through_for_what_is_held(c: apsw.Connection) -> None:
    """A receiver that is down for days has a hundred thousand waiting, and each alert is one more."""
    for number in range(5000):
        outbox.put(c, delivery(f"m{number}"))
    steps = 0

    def counted() -> bool:
        nonlocal steps
        steps += 1
        return False

    c.set_progress_handler(counted, 100)
    outbox.put(c, delivery("one more"))
    c.set_progress_handler(None)

    assert steps < 20
