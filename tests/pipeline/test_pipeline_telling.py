"""Ten thousand alerts of one group, told at once: what people see, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from agentd.alert.grouping import Pace
from agentd.alert.lifecycle import Policy, end, transition
from agentd.alert.routing import Reach
from agentd.memory import groups, outbox
from agentd.memory.groups import Member
from agentd.memory.migrate import migrate, steps
from agentd.pipeline.telling import MOST_IN_A_GROUP, News, Seen, look_at_group, tell
from agentd.pipeline.watches import calm_alert
from agentd.records import Alert, AlertStatus, EventType, Reason, Severity, Transition

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
PACE = Pace(timedelta(0), timedelta(minutes=1), timedelta(hours=4), doubling=True)
KEY = '{"watch":"ssh"}'


@pytest.fixture
def c(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(tmp_path / "state.db"))
    migrate(connection, steps("state"), where="state.db", before=lambda: None)
    yield connection
    connection.close()


def fires(number: int) -> News:
    alert = calm_alert("web-1", "ssh", "brute", Policy(), {"ip": f"10.0.{number >> 8}.{number & 255}"})
    fired = Alert(**{name: getattr(alert, name) for name in alert.__slots__} | {
        "status": AlertStatus.FIRING, "reason": Reason.MATCHED, "started_at": NOW, "last_at": NOW,
    })  # fmt: skip
    return news(transition(alert, fired, NOW, EventType.FIRING))


def ends(begun: News, at: datetime) -> News:
    over = end(begun.transition.alert, Reason.QUIET, "quiet", at).transition
    assert over is not None
    return news(over)


def news(came: Transition) -> News:
    name = "".join(came.alert.by.values())
    return News(came, Reach(("ops",), ("watch",), (), PACE), json.dumps({"ip": name, "is": came.after.value}), None)


def messages(c: apsw.Connection) -> list[dict[str, object]]:
    return [json.loads(row.delivery.data) for row in outbox.rows(c, limit=100)]


def test_what_is_news_stands_first_in_a_groups_message(c: apsw.Connection) -> None:
    """The cut takes what people know already, not what they are told of."""
    before = [fires(n) for n in range(MOST_IN_A_GROUP)]
    tell(c, before, Seen(), NOW)
    later = NOW + timedelta(minutes=1)
    tell(c, [ends(before[7], later), fires(999)], Seen(), later)
    look_at_group(c, "ops", KEY, Seen(), later + timedelta(minutes=1))

    last = messages(c)[-1]

    assert last["omitted"] == 1
    alerts = last["alerts"]
    assert isinstance(alerts, list)
    assert sorted(each["is"] for each in alerts[:2]) == ["firing", "resolved"]
    assert {each["ip"] for each in alerts[:2]} == {"10.0.0.7", "10.0.3.231"}


def test_members_are_not_compared_with_each_other(c: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand by ten thousand comparisons held every other commit up for a quarter of a minute."""

    def compared(self: Member, other: object) -> bool:
        raise AssertionError("compared")

    monkeypatch.setattr(Member, "__eq__", compared)
    tell(c, [fires(n) for n in range(300)], Seen(), NOW)

    assert [each["omitted"] for each in messages(c)] == [100]


def test_what_an_alert_is_now_is_asked_for_those_that_are_shown_alone(c: apsw.Connection) -> None:
    """A reminder of ten thousand shows two hundred: the rest need not be put into words."""
    tell(c, [fires(n) for n in range(300)], Seen(), NOW)
    asked: list[str] = []

    def fresh(fingerprint: str) -> str:
        asked.append(fingerprint)
        return '{"is": "fresh"}'

    look_at_group(c, "ops", KEY, Seen(fresh=fresh), NOW + timedelta(hours=5))

    assert len(asked) == MOST_IN_A_GROUP
    alerts = messages(c)[-1]["alerts"]
    assert isinstance(alerts, list)
    assert all(each == {"is": "fresh"} for each in alerts)


def test_a_group_that_many_join_is_opened_once(c: apsw.Connection) -> None:
    """Of each alert it would be two statements more, for nothing."""
    told: list[str] = []

    def traced(cursor: object, sql: str, bindings: object) -> bool:
        told.append(sql)
        return True

    c.exec_trace = traced
    tell(c, [fires(n) for n in range(100)], Seen(), NOW)
    c.exec_trace = None

    assert sum("INSERT INTO groups" in sql for sql in told) == 1
    (group,) = groups.all_groups(c)
    assert len(group.told_firing) == 100


def test_what_a_clock_that_was_ahead_planned_is_looked_at_now(c: apsw.Connection) -> None:
    """A restart under a clock that was set right: people would hear of an end hours after it."""
    first = fires(0)
    tell(c, [first], Seen(), NOW)
    tell(c, [ends(first, NOW + timedelta(seconds=10))], Seen(), NOW + timedelta(seconds=10))
    (group,) = groups.all_groups(c)
    assert group.look_at == NOW + timedelta(minutes=1)

    groups.pull_in(c, right := NOW - timedelta(hours=2), wait=timedelta(minutes=5), reminder=timedelta(hours=24))

    (group,) = groups.all_groups(c)
    assert (group.first_at, group.look_at, group.told_at) == (right, right, right)
    look_at_group(c, "ops", KEY, Seen(), right)
    assert [row.delivery.type for row in outbox.rows(c, limit=10)] == [EventType.FIRING, EventType.RESOLVED]


@pytest.mark.parametrize("news", ["end", "another", "none"])
def test_it_is_told_by_what_waits_where_the_last_message_was_before_it(c: apsw.Connection, news: str) -> None:
    """Told yesterday, and the clock was two hours ahead this morning: no time of the message gives it away."""
    first, noon = fires(0), NOW + timedelta(hours=24)
    tell(c, [first], Seen(), NOW)
    groups.set_back(c, -timedelta(hours=26))
    groups_told = "UPDATE groups SET told_at = told_at - 26 * 3600000000"
    c.execute(groups_told)
    if news == "end":
        tell(c, [ends(first, noon)], Seen(), noon + timedelta(hours=2))
    elif news == "another":
        tell(c, [fires(1)], Seen(), noon + timedelta(hours=2))
    (group,) = groups.all_groups(c)
    assert group.look_at is not None
    assert group.look_at > noon + timedelta(hours=1)

    groups.pull_in(c, noon, wait=timedelta(minutes=5), reminder=timedelta(hours=24))

    (after,) = groups.all_groups(c)
    assert after.look_at == (group.look_at if news == "none" else noon)


def grouped(came: News, *by: str, **alert: object) -> News:
    """The same news under another configuration, or of an alert with other fields."""
    other = replace(came.transition, alert=replace(came.transition.alert, **alert))  # type: ignore[arg-type]
    return replace(came, transition=other, reach=replace(came.reach, group_by=by))


def kinds(c: apsw.Connection) -> list[EventType]:
    return [row.delivery.type for row in outbox.rows(c, limit=100)]


@pytest.mark.parametrize("by", ["...", "severity"])
def test_an_alert_that_gets_worse_stays_in_its_group(c: apsw.Connection, by: str) -> None:
    """In a group of its new severity besides, it would be told of twice, and as over while it fires."""
    begun = grouped(fires(1), by)
    tell(c, [begun], Seen(), NOW)
    later = NOW + timedelta(minutes=5)
    worse = grouped(begun, by, severity=Severity.CRITICAL)
    told = replace(worse, transition=replace(worse.transition, event=EventType.ESCALATED, at=later))
    tell(c, [told], Seen(), later)
    (group,) = groups.all_groups(c)
    look_at_group(c, "ops", group.key, Seen(), later + timedelta(minutes=1))
    assert group.labels["severity"] == "warning"
    over = later + timedelta(minutes=5)

    tell(c, [grouped(ends(worse, over), by, severity=Severity.CRITICAL)], Seen(), over)
    look_at_group(c, "ops", group.key, Seen(), over + timedelta(minutes=1))

    assert kinds(c) == [EventType.FIRING, EventType.ESCALATED, EventType.RESOLVED]
    assert len({row.delivery.lane for row in outbox.rows(c, limit=100)}) == 1
    assert groups.all_groups(c) == []


def test_another_group_by_while_it_fires_is_for_its_next_incident(c: apsw.Connection) -> None:
    """What a reload did to the group's key must not make two incidents of one."""
    tell(c, [fires(1)], Seen(), NOW)
    again = grouped(fires(1), "instance")
    tell(c, [replace(again, transition=replace(again.transition, event=EventType.ESCALATED))], Seen(), NOW)
    flapping = replace(again, transition=replace(again.transition, event=EventType.FLAPPING))
    tell(c, [flapping], Seen(), NOW)
    assert {row.delivery.lane for row in outbox.rows(c, limit=100)} == {KEY}
    over = NOW + timedelta(minutes=5)
    tell(c, [grouped(ends(again, over), "instance")], Seen(), over)
    look_at_group(c, "ops", KEY, Seen(), over + timedelta(minutes=1))
    assert kinds(c).count(EventType.RESOLVED) == 1

    tell(c, [again], Seen(), over)

    assert [group.key for group in groups.all_groups(c)] == ['{"instance":"web-1"}']


def test_another_group_by_while_a_resolve_waits_tells_it_not_last_while_it_fires(c: apsw.Connection) -> None:
    """The old group's next look would say that it is over, after the new one said that it fires."""
    tell(c, [fires(1)], Seen(), NOW)
    later = NOW + timedelta(seconds=10)
    tell(c, [ends(fires(1), later)], Seen(), later)
    assert kinds(c) == [EventType.FIRING], "the end waits for the group's next look"

    tell(c, [grouped(fires(1), "instance")], Seen(), later)
    look_at_group(c, "ops", KEY, Seen(), NOW + timedelta(minutes=1))

    (group,) = groups.all_groups(c)
    assert (group.key, kinds(c)) == (KEY, [EventType.FIRING])


def test_another_group_by_while_an_event_waits_tells_both(c: apsw.Connection) -> None:
    """A line of a log is the message; the next one, in another group by now, must not take its place."""
    tell(c, [fires(2)], Seen(), NOW)
    later = NOW + timedelta(seconds=10)
    tell(c, [fires(1), replace(ends(fires(1), later), one_off=True)], Seen(), later)

    tell(c, [grouped(fires(1), "instance")], Seen(), later)

    look_at_group(c, "ops", KEY, Seen(), NOW + timedelta(minutes=1))
    assert kinds(c) == [EventType.FIRING, EventType.GROUP_FIRING, EventType.FIRING]
    assert (messages(c)[1]["firing"], messages(c)[1]["resolved"]) == (1, 1)


def test_who_keeps_alerts_one_by_one_is_told_of_every_member(c: apsw.Connection) -> None:
    """Alertmanager knows alerts: one that a cut took is never over there, or never began."""
    begun = [fires(n) for n in range(450)]
    everyone = {"".join(each.transition.alert.by.values()) for each in begun}
    whole = Seen(whole={"ops"})

    def told(messages: list[dict[str, object]], state: str) -> list[str]:
        assert all(each["omitted"] == 0 for each in messages)
        return [alert["ip"] for each in messages for alert in each["alerts"] if alert["is"] == state]  # type: ignore[attr-defined]

    tell(c, begun, whole, NOW)
    fired = messages(c)
    assert [each["firing"] for each in fired] == [200, 200, 50]
    assert sorted(told(fired, "firing")) == sorted(everyone)

    look_at_group(c, "ops", KEY, whole, NOW + timedelta(hours=5))
    reminded = messages(c)[len(fired) :]
    assert {each["reason"] for each in reminded} == {"repeat"}
    assert sorted(told(reminded, "firing")) == sorted(everyone), "no part takes the place of another"

    fired += reminded
    over = NOW + timedelta(hours=6)
    tell(c, [ends(each, over) for each in begun], whole, over)
    look_at_group(c, "ops", KEY, whole, over + timedelta(minutes=1))
    ended = messages(c)[len(fired) :]
    assert sorted(told(ended, "resolved")) == sorted(everyone)
    assert kinds(c) == [EventType.GROUP_FIRING] * 6 + [EventType.GROUP_RESOLVED] * 3
    assert len({row.delivery.lane for row in outbox.rows(c, limit=100)}) == 1


def test_that_an_alert_got_worse_waits_for_no_finding(c: apsw.Connection) -> None:
    """Who is told because nobody reacts must not wait for what an agent finds out for those who were told first."""
    begun = fires(1)
    hold = Seen(held={begun.transition.alert.fingerprint: NOW + timedelta(minutes=10)})
    tell(c, [begun], hold, NOW)
    worse = replace(begun.transition, before=AlertStatus.FIRING, reason=Reason.ESCALATED, event=EventType.ESCALATED)
    tell(c, [replace(begun, transition=worse, reach=replace(begun.reach, notify=("boss",)))], hold, NOW)

    due = {row.delivery.webhook: row.delivery.due_at for row in outbox.rows(c)}

    assert due == {"ops": NOW + timedelta(minutes=10), "boss": NOW}
