"""The ledger of runs: what was asked, in which order it starts, what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest

from agentd.memory import ledger, spend
from agentd.memory.ledger import Priority, Run, RunKind, RunOutcome, RunState
from agentd.memory.migrate import migrate, steps

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ASKED = Run(
    "r1",
    "review",
    "alert:shop",
    NOW,
    kind="investigate",
    goal="Why is the shop down?",
    fingerprint="9f2c",
    priority=Priority.HIGH,
    asked={"constraints": {"max_steps": 3}, "metadata": {"team": "web"}},
    chain=("shop", "review"),
)
CAME = RunOutcome(
    answer="The disk is full.",
    finding={"status": "problem", "summary": "disk full"},
    plan={"understanding": "look"},
    steps=3,
    tool_calls=7,
    model_calls=4,
    input_tokens=9000,
    output_tokens=800,
    cached_tokens=4000,
    usd_nano=12_345_678,
    models=("small", "large"),
)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def test_a_run_comes_back_as_it_was_asked_and_ended(c: apsw.Connection) -> None:
    """The page, the command line and a restart know of a run what stands here, and nothing else."""
    ledger.queue(c, ASKED)
    assert ledger.get(c, "r1") == ASKED

    ledger.start(c, "r1", NOW)
    assert ledger.end(c, "r1", LATER, RunState.COMPLETED, outcome=CAME)

    assert ledger.get(c, "r1") == replace(ASKED, state=RunState.COMPLETED, started_at=NOW, ended_at=LATER, outcome=CAME)


@pytest.mark.parametrize("interrupted", [False, True])
def test_values_for_commands_are_forgotten_with_the_end(c: apsw.Connection, interrupted: bool) -> None:
    """A task may be given a password for its commands; the row stays for months."""
    asked = {"environment": {"PGPASSWORD": "hunter2"}, "metadata": {"team": "web"}}
    ledger.queue(c, replace(ASKED, asked=asked))
    ledger.start(c, "r1", NOW)
    begun = ledger.get(c, "r1")
    assert begun is not None
    assert begun.asked == asked

    if interrupted:
        ledger.interrupt_all_running(c, LATER)
    else:
        ledger.end(c, "r1", LATER, RunState.COMPLETED, outcome=CAME)

    ended = ledger.get(c, "r1")
    assert ended is not None
    assert ended.asked == {"metadata": {"team": "web"}}


def test_a_price_that_is_not_known_is_never_zero(c: apsw.Connection) -> None:
    """Who adds up zeros believes that models are free."""
    ledger.queue(c, ASKED)
    ledger.end(c, "r1", LATER, RunState.FAILED, error="x", outcome=replace(CAME, usd_nano=None))

    run = ledger.get(c, "r1")
    assert run is not None
    assert run.outcome.usd_nano is None


def test_the_highest_priority_starts_first_and_the_oldest_within_one(c: apsw.Connection) -> None:
    """An operator's urgent task must not wait behind a night's reviews; among equals nobody jumps the queue."""
    order = [("a", 1, 0), ("b", 3, 2), ("c", 0, 0), ("d", 3, 1), ("e", 1, 0), ("f", 2, 5), ("late", 3, 90)]
    for id, priority, minute in order:
        due = NOW + timedelta(minutes=minute)
        kind: RunKind = "task" if id in "ae" else "investigate"
        ledger.queue(c, replace(ASKED, id=id, kind=kind, priority=Priority(priority), due_at=due))

    assert [run.id for run in ledger.queued(c, LATER)] == ["d", "b", "f", "a", "e", "c"]
    assert [run.id for run in ledger.queued(c, LATER, {"investigate": 2, "task": 1})] == ["d", "b", "a"]


def test_looking_for_the_next_run_sorts_nothing(c: apsw.Connection) -> None:
    """The queue may be long; each look at it must cost what the looked at runs cost."""

    def plan(query: str, *values: Any) -> str:
        return " ".join(str(row) for row in c.execute(f"EXPLAIN QUERY PLAN {query}", values))

    plans = {
        "runs_ready": plan(ledger._QUEUED, "task", 0, 1),
        "runs_open_of": plan(ledger._OPEN_OF, "f"),
        "runs_held": plan(ledger._HELD_BEHIND, "r1") + plan(ledger._RELEASE, "r1", None, True),
        "runs_asked ": plan(ledger._ASKED_FOR, 1, 1),
        "runs_asked_in": plan(ledger._ASKED_FOR_IN, 1, 1, "queued"),
    }
    for index, found in plans.items():
        assert index in found
        assert "TEMP B-TREE" not in found


def test_what_is_open_is_found_by_watch_and_by_alert(c: apsw.Connection) -> None:
    """One investigation of an alert at a time, and a bound to what a watch may queue."""
    ledger.queue(c, ASKED)
    ledger.queue(c, replace(ASKED, id="r2", fingerprint=None))
    ledger.queue(c, replace(ASKED, id="r3", watch="other", fingerprint=None))

    assert (ledger.waiting(c, "review"), ledger.waiting(c)) == (2, 3)
    assert [found.id for found in [ledger.open_of(c, "9f2c")] if found] == ["r1"]
    ledger.start(c, "r1", NOW)
    assert ledger.waiting(c, "review") == 1
    assert [run.id for run in ledger.running(c)] == ["r1"]
    assert ledger.open_of(c, "9f2c") is not None
    ledger.end(c, "r1", LATER, RunState.COMPLETED)
    assert ledger.open_of(c, "9f2c") is None
    assert [run.id for run in ledger.runs(c, fingerprint="9f2c")] == ["r1"]
    assert [run.id for run in ledger.runs(c, watch="review", state=RunState.QUEUED)] == ["r2"]
    assert ledger.runs(c, kind="task") == []


def test_an_investigation_is_no_turn_of_the_watch(c: apsw.Connection) -> None:
    """Whether last night's review was missed is decided from its own runs."""
    ledger.queue(c, replace(ASKED, due_at=LATER))
    ledger.queue(c, Run("g", "review", "cron", NOW))

    assert ledger.last_due(c, "review") == NOW


def test_what_strangers_wrote_is_cut_and_never_refused(c: apsw.Connection) -> None:
    """A run is queued in its alert's transaction: text that does not fit must not undo the alert."""
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    payload = {"text": "x" * 10**6, "deep": deep, "many": list(range(10**5))}
    asked = {"payload": payload, "metadata": {"x": "y" * 10**6}, "nan": math.nan, "deep": deep, "half": "\ud800"}
    ledger.queue(
        c, replace(ASKED, goal="g\0\ud800" * 10**5, asked=asked, chain=("w" * 1000,) * 1000, trigger="t" * 9999)
    )
    ledger.end(
        c,
        "r1",
        LATER,
        RunState.FAILED,
        error="e" * 10**6,
        outcome=RunOutcome("a" * 10**6, {"summary": "s" * 10**6}, {"x": [1e999, 10**5000]}, steps=-1, usd_nano=10**30),
    )

    run = ledger.get(c, "r1")

    assert run is not None
    assert len(run.goal) == ledger.MAX_GOAL
    assert "\0" not in run.goal
    assert len(str(run.asked)) <= 2 * ledger.MAX_JSON
    assert run.asked["nan"] is None
    assert run.asked["payload"]["text"].endswith("…")
    assert not ledger.was_cut(run)
    assert len(run.chain) <= 50
    assert len(run.outcome.answer) == ledger.MAX_ANSWER
    assert run.outcome.plan == {"x": [None, None]}
    assert run.outcome.steps == 0
    assert len(run.error or "") <= 2000


def test_what_narrows_a_run_is_kept_whole_beside_metadata_that_is_not(c: apsw.Connection) -> None:
    """A run of which nobody knows any more that it may only look, may do all that the configuration allows."""
    wide: Any = 0
    for _ in range(5):
        wide = {f"é{n}": wide for n in range(10)}
    narrow = {"tools": ["query_history"], "max_steps": 2, "allowed_paths": ["/srv/é" * 500] * 40}
    ledger.queue(c, replace(ASKED, asked={**narrow, "metadata": wide, "payload": [wide]}))

    run = ledger.get(c, "r1")

    assert run is not None
    assert not ledger.was_cut(run)
    assert {key: run.asked[key] for key in narrow} == narrow


def test_a_run_that_cannot_be_kept_as_narrow_as_it_was_asked_is_known_by_it(c: apsw.Connection) -> None:
    """It is a row of its alert's transaction, so nothing is raised; but it must not start."""
    asked = {"tools": ["x" * 100] * 5000}
    ledger.queue(c, replace(ASKED, asked=asked))

    run = ledger.get(c, "r1")

    assert run is not None
    assert ledger.was_cut(run)
    assert not ledger.is_kept(asked)
    assert ledger.is_kept(ASKED.asked)


def test_a_run_that_has_begun_is_not_ended_as_one_that_waits(c: apsw.Connection) -> None:
    """Whoever took it off the queue must be told instead, or it would go on unseen."""
    ledger.queue(c, ASKED)
    ledger.start(c, "r1", NOW)

    assert not ledger.end(c, "r1", LATER, RunState.CANCELLED, unbegun=True)
    assert ledger.is_running(c, "r1")
    assert ledger.end(c, "r1", LATER, RunState.CANCELLED)
    assert not ledger.is_running(c, "r1")


def test_the_end_of_a_run_ends_its_reservations_too(c: apsw.Connection) -> None:
    """A late answer must not give money back that another run may have been refused for."""
    ledger.queue(c, ASKED)
    ledger.start(c, "r1", NOW)
    spend.reserve(c, id="k", day="2026-01-05", watch="review", run="r1", model="m", tokens=10, usd_nano=7)

    ledger.end(c, "r1", LATER, RunState.CANCELLED)

    assert not spend.settle(c, "k", 0, 0)
    assert spend.of_run(c, "r1").usd_nano == 7


def test_a_crash_ends_every_reservation(c: apsw.Connection) -> None:
    """Nobody is left who could settle them; what they took is not known, so all of it counts."""
    ledger.queue(c, ASKED)
    ledger.start(c, "r1", NOW)
    spend.reserve(c, id="k", day="2026-01-05", watch="review", run="r1", model="m", tokens=10, usd_nano=7)

    assert ledger.interrupt_all_running(c, LATER) == 1

    assert not spend.settle(c, "k", 0, 0)
    assert spend.today(c, "2026-01-05").tokens == 10


def test_ended_runs_are_bounded_by_bytes(c: apsw.Connection) -> None:
    """The state file is copied at every backup; long answers must not make it a gigabyte. What is open stays."""
    for number in range(40):
        ledger.queue(c, replace(ASKED, id=str(number)))
        if number < 30:
            came = replace(CAME, answer="x" * 9000)
            ledger.end(c, str(number), NOW + timedelta(minutes=number), RunState.COMPLETED, outcome=came)

    assert ledger.trim(c, NOW - timedelta(days=30), max_bytes=100_000, limit=15) == 15
    assert ledger.trim(c, NOW - timedelta(days=30), max_bytes=100_000, limit=15) in range(4, 7)

    kept = ledger.counts(c)
    assert kept[RunState.QUEUED] == 10
    assert kept[RunState.COMPLETED] in range(9, 12)
    assert ledger.get(c, "29") is not None


def test_the_last_run_of_a_rare_goal_is_remembered_until_its_next_one(c: apsw.Connection) -> None:
    """A monthly report that was due while nobody was there is made up only where its last one is known."""
    month = Run("month", "monthly", "cron", NOW)
    others = [replace(month, id="first", due_at=NOW - timedelta(days=1)), replace(ASKED, id="look", watch="monthly")]
    for run in (*others[:1], month, *others[1:]):
        ledger.queue(c, run)
        ledger.end(c, run.id, run.due_at + timedelta(minutes=1), RunState.COMPLETED)

    assert ledger.trim(c, NOW + timedelta(days=30)) == 2
    assert ledger.trim(c, NOW + timedelta(days=30), max_rows=0) == 0
    assert ledger.last_due(c, "monthly") == NOW

    assert ledger.trim(c, NOW + timedelta(days=3 * 365)) == 1, "its watch is long gone"


def test_what_was_queued_by_a_clock_that_was_ahead_is_due_now(c: apsw.Connection) -> None:
    """Once the clock is right, an investigation would wait for as long as it was wrong."""
    ledger.queue(c, replace(ASKED, id="before"))
    ledger.queue(c, replace(ASKED, id="ahead", due_at=NOW + timedelta(days=1)))

    assert ledger.pull_in(c, LATER) == 1

    assert [(run.id, run.due_at) for run in ledger.queued(c, LATER)] == [("before", NOW), ("ahead", LATER)]


def test_priorities_are_named_as_requests_name_them() -> None:
    """`priority: high` of a request is the store's 2, both ways."""
    assert [Priority[word.upper()].word for word in ("low", "normal", "high", "critical")] == [
        each.word for each in Priority
    ]
