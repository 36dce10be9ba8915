"""Ten thousand alerts of one group, told at once: what people see, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from agentd.records import Alert, AlertStatus, EventType, Reason, Transition

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
