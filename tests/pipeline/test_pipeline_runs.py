"""What a commit asks agents for: each once, and no more than may wait."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import apsw
import pytest

from agentd.memory import ledger
from agentd.memory.ledger import Priority, Run, RunKind
from agentd.memory.migrate import migrate, steps
from agentd.pipeline.keeper import MOST_WAITING_RUNS, Room, queue_unless_crowded

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def run(id: str, watch: str = "shop", kind: RunKind = "investigate", *, about: str = "f", incident: int = 1) -> Run:
    return Run(id, watch, "alert:shop", NOW, kind=kind, fingerprint=about, asked={"incident": incident})


def test_runs_of_several_watches_about_one_alert_are_queued_once_each(c: apsw.Connection) -> None:
    """An investigation and a goal that waits for the alert: each refiring found the other one, and queued both."""
    for fired in range(3):
        assert queue_unless_crowded(c, run(f"i{fired}"))
        assert queue_unless_crowded(c, run(f"g{fired}", "review", "goal"))

    assert (ledger.waiting(c, "shop"), ledger.waiting(c, "review")) == (1, 1)


def test_a_run_that_waits_is_asked_anew(c: apsw.Connection) -> None:
    """It is to look into the incident that is, as urgently as that one is; one under way is of its own incident."""
    queue_unless_crowded(c, run("first"))
    worse = Run("second", "shop", "alert:shop", NOW, kind="investigate", fingerprint="f", priority=Priority.CRITICAL)
    queue_unless_crowded(c, worse)
    (waits,) = ledger.runs(c)
    assert (waits.id, waits.asked, waits.priority) == ("first", {}, Priority.CRITICAL)

    ledger.start(c, "first", NOW)
    assert queue_unless_crowded(c, run("third", incident=3))
    assert ledger.runs(c)[0].id == "third"


def test_a_crowd_keeps_none_from_being_asked_anew(c: apsw.Connection) -> None:
    for number in range(MOST_WAITING_RUNS):
        assert queue_unless_crowded(c, run(f"r{number}", about=f"f{number}"))

    assert not queue_unless_crowded(c, run("more", about="another"))
    assert queue_unless_crowded(c, run("again", about="f3", incident=2))

    waits = ledger.get(c, "r3")
    assert waits is not None
    assert waits.asked == {"incident": 2}


def test_room_is_counted_for_each_watch() -> None:
    room = Room()

    assert [room.take("shop") for _ in range(MOST_WAITING_RUNS + 2)].count(True) == MOST_WAITING_RUNS
    assert room.take("db")
    assert room.left_out == {"shop": 2}
