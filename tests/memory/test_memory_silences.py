"""The table of silences: what is kept, found, ended and let go of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import apsw
import pytest

from agentd.memory import silences
from agentd.memory.migrate import migrate, steps
from agentd.memory.retention import Retention, state_steps
from agentd.memory.silences import SilenceRow

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def row(identity: str, begin: timedelta = timedelta(0), lasting: timedelta = HOUR) -> SilenceRow:
    return SilenceRow(identity, ('watch="a b"', "team!=x"), NOW + begin, NOW + begin + lasting, "anna\udcff", "why")


def test_what_was_silenced_comes_back(c: apsw.Connection) -> None:
    """A restart in the middle of the maintenance must not page anybody."""
    silences.add(c, row("1", lasting=2 * HOUR))
    silences.add(c, row("2", begin=DAY))
    silences.add(c, row("3", begin=-DAY))

    found = silences.open_ones(c, NOW)

    assert [each.id for each in found] == ["1", "2"]
    assert (found[0].matchers, found[0].starts_at, found[0].ends_at) == (row("1").matchers, NOW, NOW + 2 * HOUR)
    assert (found[0].author, found[0].reason, found[0].ended_by) == ("anna?", "why", None)
    assert silences.count_open(c, NOW) == 2
    assert [each.id for each in silences.all_of(c)] == ["2", "1", "3"]
    with pytest.raises(apsw.ConstraintError):
        silences.add(c, row("1"))


def test_one_that_is_ended_stays_so(c: apsw.Connection) -> None:
    """Also when the clock is set back after that."""
    silences.add(c, row("4f2a"))

    assert silences.end(c, "4f2a", "eve", NOW + HOUR / 2)
    assert not silences.end(c, "4f2a", "eve", NOW + HOUR / 2)
    assert silences.open_ones(c, NOW - HOUR) == []
    assert silences.count_open(c, NOW - HOUR) == 0
    (kept,) = silences.all_of(c)
    assert (kept.ends_at, kept.ended_by) == (NOW + HOUR / 2, "eve")


def test_one_that_is_to_come_can_be_ended(c: apsw.Connection) -> None:
    silences.add(c, row("4f2a", begin=DAY))

    assert silences.end(c, "4f2a", "eve", NOW)
    assert silences.all_of(c)[0].starts_at == silences.all_of(c)[0].ends_at == NOW
    assert not silences.end(c, "nothing", "eve", NOW)


def test_the_begin_of_an_id_is_enough(c: apsw.Connection) -> None:
    """And no letter of it is a wildcard."""
    for identity in ("4f2a", "4f2b", "a%b", "a_c"):
        silences.add(c, row(identity))

    assert {each.id for each in silences.find(c, "4f2")} == {"4f2a", "4f2b"}
    assert [each.id for each in silences.find(c, "4f2a")] == ["4f2a"]
    assert [each.id for each in silences.find(c, "a%")] == ["a%b"]
    assert silences.find(c, "%") == silences.find(c, "\udcff") == []


def test_ended_ones_go_after_thirty_days(c: apsw.Connection) -> None:
    """Open ones never."""
    silences.add(c, row("old", begin=-31 * DAY))
    silences.add(c, row("new", begin=-29 * DAY))
    silences.add(c, row("long", begin=-400 * DAY, lasting=800 * DAY))

    for step in state_steps(Retention(), NOW):
        step(c)

    assert {each.id for each in silences.all_of(c)} == {"new", "long"}


def test_ended_ones_are_bounded(c: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that silences every minute must not fill the store."""
    monkeypatch.setattr(silences, "MAX_ENDED", 3)
    for number in range(8):
        silences.add(c, row(str(number), begin=HOUR * number - 7 * HOUR))

    silences.trim(c, NOW - silences.KEPT_AFTER_END)

    assert [each.id for each in silences.all_of(c)] == ["7", "6", "5", "4"], "the open one and the newest three"
