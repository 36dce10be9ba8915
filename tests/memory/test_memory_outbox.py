"""The outbox keeps order, leases and dead letters, and stays quick however much waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest

from agentd.memory import outbox
from agentd.memory.migrate import migrate, steps
from agentd.records import Delivery, EventType

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LEASE = NOW + timedelta(minutes=1)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def delivery(
    id: str,
    *,
    webhook: str = "ops",
    lane: str = "a",
    type: EventType = EventType.FIRING,
    due_at: datetime = NOW,
    fingerprint: str | None = "f1",
) -> Delivery:
    return Delivery(id, webhook, lane, type, "{}", NOW, due_at, fingerprint)


def claimed(c: apsw.Connection, now: datetime = NOW, skip: tuple[str, ...] = (), limit: int = 10) -> list[str]:
    until = now + timedelta(minutes=1)
    return [d.id for d in outbox.claim(c, now=now, lease_until=until, skip=skip, limit=limit)]


def test_what_was_put_is_what_is_claimed(c: apsw.Connection) -> None:
    """Nothing of a message may change on its way through the store, save for the attempt that is counted."""
    given = Delivery(
        "m1",
        "ops",
        "lane ü",
        EventType.RESOLVED,
        '{"a":1}',
        NOW,
        NOW,
        "f9",
        "00-trace",
        last_error="x",
        last_status=503,
    )
    seq = outbox.put(c, given)

    (taken,) = outbox.claim(c, now=NOW, lease_until=LEASE, limit=5)

    assert taken == Delivery(
        "m1", "ops", "lane ü", EventType.RESOLVED, '{"a":1}', NOW, NOW, "f9", "00-trace", 1, "x", 503, seq
    )


def test_only_the_first_of_a_lane_is_sent(c: apsw.Connection) -> None:
    """A resolve must never overtake its firing."""
    for id in ("m1", "m2"):
        outbox.put(c, delivery(id))
    outbox.put(c, delivery("n1", lane="b"))

    assert claimed(c) == ["m1", "n1"]
    assert claimed(c) == []
    outbox.done(c, "m1", NOW, 200)
    assert claimed(c) == ["m2"]


def test_a_delayed_head_holds_its_lane(c: apsw.Connection) -> None:
    """Order matters more than speed: what failed goes first, however long that takes."""
    for id in ("m1", "m2"):
        outbox.put(c, delivery(id))
    claimed(c)
    later = NOW + timedelta(minutes=5)

    outbox.delay(c, "m1", due_at=later, error="503", status=503)

    assert claimed(c, NOW + timedelta(minutes=4)) == []
    assert outbox.next_due(c) == later
    assert claimed(c, later) == ["m1"]
    row = outbox.get(c, "m1")
    assert row is not None
    assert (row.delivery.attempts, row.delivery.last_status, row.state) == (2, 503, "claimed")


def test_an_expired_lease_is_claimed_again(c: apsw.Connection) -> None:
    """A sender that died must not take its message with it."""
    outbox.put(c, delivery("m1"))
    claimed(c)

    assert outbox.next_due(c) == LEASE
    assert claimed(c, LEASE) == ["m1"]


def test_a_start_forgets_leases(c: apsw.Connection) -> None:
    """After kill -9 nobody holds a lease; waiting it out would delay an alert for nothing."""
    outbox.put(c, delivery("m1"))
    claimed(c)

    assert outbox.release_all(c) == 1
    assert claimed(c) == ["m1"]


def test_a_newer_reminder_replaces_a_waiting_one(c: apsw.Connection) -> None:
    """After an hour of a dead receiver a person wants one reminder, not sixty."""
    outbox.put(c, delivery("r1", type=EventType.REMINDER))
    outbox.put(c, delivery("r2", type=EventType.REMINDER))
    outbox.put(c, delivery("other", type=EventType.REMINDER, fingerprint="f2"))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r2", "other"]
    assert claimed(c) == ["r2"]


def test_a_reminder_being_sent_is_not_replaced(c: apsw.Connection) -> None:
    """Its outcome would be recorded on a row that is gone, and the new one would overtake it."""
    outbox.put(c, delivery("r1", type=EventType.REMINDER))
    claimed(c)
    outbox.put(c, delivery("r2", type=EventType.REMINDER))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r1", "r2"]
    assert claimed(c) == []


def repeat(id: str, reason: str = "repeat", **given: Any) -> Delivery:
    group = {"reason": "repeat"} if reason != "repeat" else {"reason": 'first","reason":"first'}
    data = json.dumps({"schema": "agentd.group/1", "group": group, "reason": reason, "alerts": [{"reason": "repeat"}]})
    return replace(delivery(id, type=EventType.GROUP_FIRING, fingerprint=None, **given), data=data)


def test_a_newer_reminder_of_a_group_replaces_a_waiting_one(c: apsw.Connection) -> None:
    """When the receiver is back after two days, it is told once that all of it still fires."""
    for n in range(8):
        outbox.put(c, repeat(f"r{n}"))
    outbox.put(c, repeat("other lane", lane="b"))
    outbox.put(c, repeat("other webhook", webhook="boss"))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r7", "other lane", "other webhook"]
    assert set(claimed(c)) == {"r7", "other lane", "other webhook"}


def test_only_reminders_of_a_group_replace_and_are_replaced(c: apsw.Connection) -> None:
    """What is new to the receiver must reach it, whatever the labels of the group are called."""
    for id, reason in [
        ("a", "first"),
        ("b", "new_firing"),
        ("c", "repeat"),
        ("d", "new_firing"),
        ("e", "new_resolved"),
    ]:
        outbox.put(c, repeat(id, reason))
    outbox.put(c, delivery("f", type=EventType.GROUP_FIRING, fingerprint=None))
    outbox.put(c, replace(repeat("g"), data="no JSON"))

    assert [row.delivery.id for row in outbox.rows(c)] == list("abcdefg")


@pytest.mark.parametrize("between", [EventType.FIRING, EventType.ESCALATED, EventType.GROUP_RESOLVED])
def test_a_reminder_of_a_group_behind_which_something_waits_stays(c: apsw.Connection, between: EventType) -> None:
    """The lane tells a story; its middle must not be taken out, or what follows says something else."""
    outbox.put(c, repeat("r1"))
    outbox.put(c, delivery("between", type=between))
    outbox.put(c, repeat("r2"))
    outbox.put(c, repeat("r3"))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r1", "between", "r3"]


def test_a_reminder_of_a_group_being_sent_is_not_replaced(c: apsw.Connection) -> None:
    """Its outcome would be recorded on a row that is gone."""
    outbox.put(c, repeat("r1"))
    claimed(c)
    outbox.put(c, repeat("r2"))
    outbox.put(c, repeat("r3"))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r1", "r3"]
    assert outbox.done(c, "r1", NOW, 200)
    assert claimed(c) == ["r3"]


def test_a_jump_of_the_clock_does_not_replace_a_reminder_being_sent(c: apsw.Connection) -> None:
    """After a suspend its lease looks over while its sender is alive: two of one lane would be under way at once."""
    outbox.put(c, delivery("r1", type=EventType.REMINDER))
    claimed(c)
    late = NOW + timedelta(hours=5)

    outbox.put(c, replace(delivery("r2", type=EventType.REMINDER, due_at=late), created_at=late))

    assert [row.delivery.id for row in outbox.rows(c)] == ["r1", "r2"]
    assert claimed(c, late) == ["r1"]


def test_a_buried_message_lets_its_lane_go_on(c: apsw.Connection) -> None:
    """One message that a receiver refuses must not stop all after it."""
    for id in ("m1", "m2"):
        outbox.put(c, delivery(id))
    claimed(c)

    outbox.bury(c, "m1", now=NOW, error="400 bad", status=400)

    assert claimed(c) == ["m2"]
    assert outbox.counts(c) == {"ops": outbox.Counts(waiting=1, dead=1)}


def test_a_dead_letter_comes_back_before_what_waits(c: apsw.Connection) -> None:
    """Order within a lane is by seq, also for what an operator sends again."""
    outbox.put(c, delivery("m1"))
    claimed(c)
    outbox.bury(c, "m1", now=NOW, error="x")
    outbox.put(c, delivery("m2"))

    assert outbox.retry(c, "m1", NOW) == "retried"
    assert claimed(c) == ["m1"]
    outbox.done(c, "m1", NOW, 200)
    assert claimed(c) == ["m2"]


def test_a_dead_letter_waits_for_what_is_being_sent(c: apsw.Connection) -> None:
    """Two messages of one lane in flight at once could arrive in either order."""
    outbox.put(c, delivery("m1"))
    claimed(c)
    outbox.bury(c, "m1", now=NOW, error="x")
    outbox.put(c, delivery("m2"))
    assert claimed(c) == ["m2"]

    outbox.retry(c, "m1", NOW)

    assert claimed(c) == []
    outbox.delay(c, "m2", due_at=NOW, error="503")
    assert claimed(c) == ["m1"]


def test_a_superseded_dead_letter_is_not_resent(c: apsw.Connection) -> None:
    """`firing` after the receiver has seen `resolved` would wake somebody for nothing."""
    outbox.put(c, delivery("old"))
    outbox.put(c, delivery("other", fingerprint="f2", lane="b"))
    claimed(c)
    outbox.bury(c, "old", now=NOW, error="x")
    claimed(c)
    outbox.bury(c, "other", now=NOW, error="x")
    outbox.put(c, delivery("new", type=EventType.RESOLVED))
    claimed(c)

    outbox.done(c, "new", NOW, 200)

    assert outbox.retry(c, "old", NOW) == "superseded"
    assert outbox.retry_dead(c, NOW) == outbox.Retried(retried=1, superseded=1, left=0)
    assert claimed(c) == ["other"]


def test_of_a_group_that_is_over_no_old_message_is_resent(c: apsw.Connection) -> None:
    """A group's message names no alert; sent after the all-clear it would open the incident again."""
    outbox.put(c, delivery("storm", type=EventType.GROUP_FIRING, fingerprint=None))
    outbox.put(c, delivery("elsewhere", type=EventType.GROUP_FIRING, fingerprint=None, lane="b"))
    outbox.put(c, delivery("one", fingerprint="f7"))
    for id in ("storm", "elsewhere", "one"):
        claimed(c)
        outbox.bury(c, id, now=NOW, error="x")
    outbox.put(c, delivery("more", type=EventType.GROUP_FIRING, fingerprint=None))
    claimed(c)
    outbox.done(c, "more", NOW, 200)
    assert outbox.retry_dead(c, NOW, limit=0).superseded == 0, "more of the same says nothing of who was in it"
    outbox.put(c, delivery("clear", type=EventType.GROUP_RESOLVED, fingerprint=None))
    claimed(c)

    outbox.done(c, "clear", NOW, 200)

    assert outbox.retry(c, "storm", NOW) == outbox.retry(c, "one", NOW) == "superseded"
    assert outbox.retry(c, "elsewhere", NOW) == "retried"


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_dead_letter_revived_behind_its_resolve_is_overtaken(
    c: apsw.Connection, every: bool, restarted: bool
) -> None:
    """Sent once the resolve has arrived, a firing would be the last word about an alert that is over."""
    outbox.put(c, delivery("firing"))
    claimed(c)
    outbox.bury(c, "firing", now=NOW, error="400")
    outbox.put(c, delivery("resolved", type=EventType.RESOLVED))
    outbox.put(c, delivery("other", fingerprint="f2"))
    assert claimed(c) == ["resolved"]

    if every:
        assert outbox.retry_dead(c, NOW).retried == 1
    else:
        assert outbox.retry(c, "firing", NOW) == "retried"
    if restarted:
        outbox.release_all(c)
        assert claimed(c) == ["resolved"]
    outbox.done(c, "resolved", LEASE, 200)

    row = outbox.get(c, "firing")
    assert row is not None
    assert (row.state, row.superseded, row.ended_at) == ("dead", True, LEASE)
    assert outbox.retry(c, "firing", NOW) == "superseded"
    assert claimed(c) == ["other"]


def test_a_revived_dead_letter_of_another_alert_is_not_overtaken(c: apsw.Connection) -> None:
    """Alerts that share a lane do not speak for each other."""
    outbox.put(c, delivery("firing", fingerprint="f2"))
    claimed(c)
    outbox.bury(c, "firing", now=NOW, error="400")
    outbox.put(c, delivery("resolved", type=EventType.RESOLVED))
    claimed(c)
    outbox.retry(c, "firing", NOW)

    outbox.done(c, "resolved", NOW, 200)

    assert claimed(c) == ["firing"]


def test_a_receiver_that_is_back_gets_what_failed(c: apsw.Connection) -> None:
    """An hour's back-off must not go on when the receiver answers; what waits for another reason still waits."""
    outbox.put(c, delivery("failed", lane="a"))
    outbox.put(c, delivery("planned", lane="b", due_at=NOW + timedelta(hours=2)))
    claimed(c)
    outbox.delay(c, "failed", due_at=NOW + timedelta(hours=1), error="503")

    assert outbox.hurry(c, "ops", NOW) == 1
    assert claimed(c) == ["failed"]


def test_skipped_webhooks_are_left_alone(c: apsw.Connection) -> None:
    """A disabled webhook or an open breaker must cost nothing and hold up nobody else."""
    outbox.put(c, delivery("m1", webhook="dead"))
    outbox.put(c, delivery("m2", webhook="ops", due_at=NOW + timedelta(seconds=1)))

    assert outbox.next_due(c, skip={"dead"}) == NOW + timedelta(seconds=1)
    assert claimed(c, NOW + timedelta(seconds=1), skip=("dead",)) == ["m2"]


def test_each_webhook_gets_its_turn(c: apsw.Connection) -> None:
    """A webhook with a thousand lanes due must not starve the one with a single alert."""
    for number in range(20):
        outbox.put(c, delivery(f"m{number}", lane=str(number)))
    outbox.put(c, delivery("single", webhook="pager", due_at=NOW + timedelta(seconds=1)))

    assert "single" in claimed(c, NOW + timedelta(seconds=1), limit=4)


def test_done_is_remembered_without_its_text(c: apsw.Connection) -> None:
    """`outbox show ID` must answer "was it sent?" also after it was."""
    outbox.put(c, delivery("m1"))
    claimed(c)

    assert outbox.done(c, "m1", LEASE, 202)
    assert not outbox.done(c, "m1", LEASE, 202)

    row = outbox.get(c, "m1")
    assert row is not None
    assert (row.state, row.ended_at, row.delivery.data, row.delivery.attempts) == ("delivered", LEASE, "", 1)


def test_dropping_a_head_frees_its_lane(c: apsw.Connection) -> None:
    """An operator who drops a poisonous message wants the rest to go."""
    for id in ("m1", "m2"):
        outbox.put(c, delivery(id))

    assert outbox.drop(c, "m1") == "dropped"
    assert outbox.drop(c, "m1") == "missing"
    assert claimed(c) == ["m2"]


def test_what_is_being_sent_is_not_dropped(c: apsw.Connection) -> None:
    """It is on its way whatever is deleted here, and the next of its lane would be under way beside it."""
    for id in ("m1", "m2"):
        outbox.put(c, delivery(id))
    claimed(c)

    assert outbox.drop(c, "m1") == "claimed"
    assert claimed(c) == []
    outbox.delay(c, "m1", due_at=LEASE, error="503")
    assert outbox.drop(c, "m1") == "dropped"
    assert claimed(c) == ["m2"]


def test_dead_letters_are_bounded_by_age_and_number(c: apsw.Connection) -> None:
    """A webhook that was removed from the config must not fill the disk."""
    for number in range(10):
        id = f"m{number}"
        outbox.put(c, delivery(id))
        outbox.bury(c, id, now=NOW + timedelta(days=number), error="x")

    gone = outbox.trim_dead(c, NOW + timedelta(days=92), max_rows=5)

    assert gone == 5
    assert [row.delivery.id for row in outbox.rows(c, state="dead")] == ["m5", "m6", "m7", "m8", "m9"]


def test_a_claim_looks_at_few_rows_however_many_wait(c: apsw.Connection) -> None:
    """A webhook dead for three days must not slow every other delivery; counted in steps of SQLite, not in time."""
    c.execute("BEGIN")
    for number in range(50_000):
        outbox.put(c, delivery(f"d{number}", webhook="dead", lane=str(number % 5000), fingerprint=str(number)))
    for number in range(50_000):
        outbox.put(c, delivery(f"o{number}", lane="one", fingerprint=str(number)))
    c.execute("COMMIT")
    steps_taken = 0

    def count() -> bool:
        nonlocal steps_taken
        steps_taken += 1
        return False

    c.set_progress_handler(count, 100)
    assert claimed(c, skip=("dead",)) == ["o0"]
    assert outbox.next_due(c, skip={"dead"}) == LEASE
    outbox.done(c, "o0", NOW, 200)
    assert claimed(c, skip=("dead",)) == ["o1"]
    outbox.delay(c, "o1", due_at=NOW, error="x")
    assert outbox.hurry(c, "dead", NOW) == 0
    c.set_progress_handler(None)

    assert steps_taken < 50
    assert outbox.counts(c) == {"dead": (50_000, 0), "ops": (49_999, 0)}
    assert outbox.oldest_waiting(c, "dead") == NOW


def test_two_rows_of_one_id_are_refused(c: apsw.Connection) -> None:
    """The id is what the receiver tells duplicates by."""
    outbox.put(c, delivery("m1"))

    with pytest.raises(apsw.ConstraintError):
        outbox.put(c, delivery("m1"))


def test_a_clock_set_back_makes_nothing_wait_longer(c: apsw.Connection) -> None:
    """An hour back, and a message that was to be tried again in five seconds would be an hour late."""
    outbox.put(c, replace(delivery("soon", lane="a", due_at=NOW + timedelta(seconds=5)), attempts=1))
    outbox.put(c, delivery("behind", lane="a"))
    outbox.put(c, delivery("now", lane="b"))
    back = timedelta(hours=1)

    assert outbox.set_back(c, back, NOW - back) == 3

    assert claimed(c, NOW - back) == ["now"]
    assert claimed(c, NOW - back + timedelta(seconds=5)) == ["soon"]
    outbox.done(c, "soon", NOW - back, 200)
    assert claimed(c, NOW - back + timedelta(seconds=5)) == ["behind"]


def test_what_a_clock_ahead_put_far_off_is_due_now(c: apsw.Connection) -> None:
    """It would wait for a date that is months off, and its lane with it; an honest back-off goes on."""
    far = NOW + timedelta(days=30)
    hour = timedelta(hours=1)
    outbox.put(c, delivery("leased", lane="b", due_at=far))
    assert claimed(c, far) == ["leased"]
    outbox.put(c, replace(delivery("far", lane="a", due_at=far), attempts=1))
    outbox.put(c, delivery("behind", lane="a"))
    outbox.put(c, delivery("soon", lane="c", due_at=NOW + hour))

    assert outbox.pull_in(c, NOW, longest=hour) == 1

    assert claimed(c) == ["far"]
    outbox.done(c, "far", NOW, 200)
    assert claimed(c) == ["behind"]
    outbox.done(c, "behind", NOW, 200)
    assert claimed(c, NOW + hour) == ["soon"]
