"""Runs that are asked for together, and that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest

from agentd.memory import batches, ledger
from agentd.memory.batches import AskedOtherwise
from agentd.memory.ledger import Priority, Run, RunState
from agentd.memory.migrate import migrate, steps

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ONE = Run("a", "task", "asked by anna", NOW, kind="task", goal="Look.", asked={"max_steps": 3})


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def row(*ids: str, stops: bool = False) -> list[Run]:
    """Runs of one batch, each behind the one before it."""
    runs: list[Run] = []
    for id in ids:
        after = runs[-1].id if runs else None
        runs.append(replace(ONE, id=id, batch="b", after=after, stops=stops and after is not None))
    return runs


def ready(c: apsw.Connection) -> list[str]:
    return [run.id for run in ledger.queued(c, LATER)]


def states(c: apsw.Connection) -> dict[str, str]:
    return {run.id: run.state.value for run in reversed(ledger.runs(c))}


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
def test_each_may_start_when_the_one_before_has_ended(c: apsw.Connection, state: RunState) -> None:
    """In whatever way: the caller said so."""
    batches.take(c, row("a", "b", "c"), NOW, most=10)

    for id, behind in (("a", "b"), ("b", "c")):
        assert ready(c) == [id]
        ledger.start(c, id, NOW)
        assert ready(c) == []
        ledger.end(c, id, NOW, state)
        assert ready(c) == [behind]


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.STOPPED, RunState.CANCELLED])
def test_a_batch_that_stops_is_cancelled_behind_what_did_not_complete(c: apsw.Connection, state: RunState) -> None:
    """Each builds on the one before; the rest says which one it was."""
    batches.take(c, row("a", "b", "c", "d", stops=True), NOW, most=10)

    ledger.end(c, "a", NOW, RunState.COMPLETED)
    ledger.end(c, "b", NOW, state)

    assert states(c) == {"a": "completed", "b": state.value, "c": "cancelled", "d": "cancelled"}
    cancelled = ledger.get(c, "c")
    assert cancelled is not None
    assert cancelled.error is not None
    assert cancelled.error.endswith("did not complete: b")
    assert ready(c) == []


@pytest.mark.parametrize("stops", [True, False])
def test_a_crash_ends_what_ran_and_lets_go_what_waits_for_it(c: apsw.Connection, stops: bool) -> None:
    """Nobody else would: the run's own end never comes."""
    batches.take(c, row("a", "b", stops=stops), NOW, most=10)
    ledger.start(c, "a", NOW)

    ledger.interrupt_all_running(c, LATER)

    assert states(c) == {"a": "interrupted", "b": "cancelled" if stops else "queued"}
    assert ready(c) == ([] if stops else ["b"])


def test_whoever_waited_for_one_that_was_cancelled_waits_for_the_one_before(c: apsw.Connection) -> None:
    """Two of them would be under way at once; also of one that is asked for only then."""
    batches.take(c, row("a", "b", "c"), NOW, most=10)
    ledger.start(c, "a", NOW)

    ledger.end(c, "b", NOW, RunState.CANCELLED)
    batches.take(c, [replace(ONE, id="b", batch="b", after="a"), replace(ONE, id="d", after="b")], NOW, most=10)
    assert ready(c) == []

    ledger.end(c, "a", NOW, RunState.FAILED)
    assert ready(c) == ["c", "d"]
    batches.take(c, [replace(ONE, id="b", batch="b", after="a"), replace(ONE, id="e", after="b")], NOW, most=10)
    assert ready(c) == ["c", "d", "e"]


def test_a_thousand_in_a_row_are_cancelled_without_a_word(c: apsw.Connection) -> None:
    """Batches may be asked for behind each other."""
    batches.take(c, row(*(f"r{number}" for number in range(1500)), stops=True), NOW, most=2000)

    ledger.end(c, "r0", NOW, RunState.FAILED)

    assert ledger.counts(c) == {RunState.FAILED: 1, RunState.CANCELLED: 1499}


def test_all_of_them_or_none(c: apsw.Connection) -> None:
    """Half a batch is what nobody asked for."""
    assert batches.take(c, row("a", "b", "c"), NOW, most=2) is None
    assert ledger.waiting(c) == 0

    taken = batches.take(c, row("a", "b", "c"), NOW, most=3)
    assert taken is not None
    assert ([run.id for run in taken.runs], taken.fresh) == (["a", "b", "c"], 3)


def test_asking_again_is_not_asking_twice(c: apsw.Connection) -> None:
    """Not even when the queue is full by now, or one of them has ended."""
    batches.take(c, row("a", "b"), NOW, most=2)
    ledger.end(c, "a", NOW, RunState.COMPLETED)
    batches.take(c, [replace(ONE, id="other")], NOW, most=2)

    taken = batches.take(c, row("a", "b"), LATER, most=2)

    assert taken is not None
    assert taken.fresh == 0
    assert [run.state for run in taken.runs] == [RunState.COMPLETED, RunState.QUEUED]


CHANGES: list[dict[str, Any]] = [
    {"goal": "Look away."},
    {"kind": "session"},
    {"priority": Priority.HIGH},
    {"asked": {"max_steps": 4}},
    {"asked": {"max_steps": 3, "environment": {"A": "1"}}},
    {"asked": {"max_steps": 3, "metadata": {"team": "web"}}},
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_id_that_is_taken_by_another_task_is_no_repetition(c: apsw.Connection, change: Mapping[str, Any]) -> None:
    """Whoever asks would take another's answer for his own."""
    batches.take(c, [ONE], NOW, most=10)

    with pytest.raises(AskedOtherwise) as caught:
        batches.take(c, [replace(ONE, id="z"), replace(ONE, **change)], NOW, most=10)

    assert caught.value.place == 1
    assert states(c) == {"a": "queued"}


def test_what_is_kept_cut_or_forgotten_is_the_same_still(c: apsw.Connection) -> None:
    """Metadata that was too long, values for commands of a task that has ended, who asked, and when."""
    asked = {"metadata": {"log": "x" * 200_000}, "environment": {"TOKEN": "secret"}, "max_execution_time": 3}
    run = replace(ONE, goal="a\0b", asked=asked)
    batches.take(c, [run], NOW, most=10)
    again = replace(run, trigger="asked by ben", due_at=LATER)

    assert batches.find(c, [again])[0] is not None
    with pytest.raises(AskedOtherwise):
        batches.find(c, [replace(again, asked={**asked, "environment": {"TOKEN": "other"}})])
    ledger.end(c, "a", LATER, RunState.COMPLETED)
    assert batches.find(c, [again])[0] is not None


def test_the_same_batch_in_another_order_is_not_the_same(c: apsw.Connection) -> None:
    """It would be told to run as it was not."""
    batches.take(c, row("a", "b"), NOW, most=10)

    for other in ([replace(ONE, batch="b"), replace(ONE, id="b", batch="b")], row("a", "b", stops=True)):
        with pytest.raises(AskedOtherwise, match="order, mode or on_failure"):
            batches.take(c, other, NOW, most=10)


@pytest.mark.parametrize(
    ("ended", "then"), [(None, "held"), (RunState.COMPLETED, "ready"), (RunState.FAILED, "cancelled")]
)
def test_what_is_asked_for_behind_a_task_that_is_known_waits_for_that_one(
    c: apsw.Connection, ended: RunState | None, then: str
) -> None:
    """It may have ended meanwhile, and will not end again."""
    batches.take(c, [ONE], NOW, most=10)
    if ended is not None:
        ledger.end(c, "a", NOW, ended)

    taken = batches.take(c, [ONE, replace(ONE, id="b", batch="n", after="a", stops=True)], NOW, most=10)

    assert taken is not None
    assert taken.fresh == 1
    assert taken.runs[1].state == ("cancelled" if then == "cancelled" else "queued")
    assert ready(c) == {"held": ["a"], "ready": ["b"], "cancelled": []}[then]


def test_what_people_asked_for_is_listed_page_by_page(c: apsw.Connection) -> None:
    """Newest first, while more is asked for and what is shown ends."""
    for number in range(5):
        ledger.queue(c, replace(ONE, id=f"t{number}", kind="session" if number == 3 else "task"))
        ledger.queue(c, replace(ONE, id=f"g{number}", kind="goal"))
    ledger.end(c, "t1", NOW, RunState.FAILED)
    ledger.start(c, "t4", NOW)
    ledger.end(c, "t4", NOW, RunState.INTERRUPTED)

    def ids(*states: RunState, limit: int = 2, before: str | None = None) -> list[str]:
        at = None if before is None else ledger.number(c, before)
        return [run.id for run in ledger.asked_for(c, states=states, limit=limit, before=at)]

    assert ids() == ["t4", "t3"]
    ledger.queue(c, replace(ONE, id="t5"))
    assert ids(before="t3") == ["t2", "t1"]
    assert ids(before="t1") == ["t0"]
    assert ids(RunState.FAILED, RunState.INTERRUPTED) == ["t4", "t1"]
    assert ids(RunState.FAILED, RunState.INTERRUPTED, before="t4") == ["t1"]
    assert ids(RunState.QUEUED, limit=9) == ["t5", "t3", "t2", "t0"]
    assert ledger.number(c, "nobody") is None
    assert [run.id for run in ledger.runs(c, watch="task", limit=3, before=ledger.number(c, "t3"))] == [
        "g2",
        "t2",
        "g1",
    ]
