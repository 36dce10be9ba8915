"""Runs as callers see them: whatever an agent left behind, one answer is of a size that holds up nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from agentd.api.tasks import MOST_SHOWN_CHARS, run_view, run_with_record, task_view
from agentd.memory.ledger import Run
from agentd.memory.run_records import RunLine

RUN = Run("r1", "shop", "cron", datetime(2026, 1, 5, 12, tzinfo=UTC), goal="look")
TEXT = "Failed password for root\n" * 10_000
LINES = 160


def lines(after: int = -1) -> Iterator[RunLine]:
    """Of tools that read much, as a store gives them."""
    for seq in range(max(after + 1, 1), LINES + 1):
        output = TEXT if seq % 2 else {"lines": [TEXT[:500]] * 100}
        yield RunLine(seq, 0.0, "result", {"task": str(seq), "tool": "search_log", "output": output})


def test_a_long_record_is_shown_page_by_page() -> None:
    """Whoever asks for it in one piece would stop every check while it is written."""
    seen: list[int] = []
    after, pages = -1, 0
    while True:
        view = run_with_record(RUN, lines(after), after=after)
        assert len(json.dumps(view)) < 1.5 * MOST_SHOWN_CHARS
        seen += [line["seq"] for line in view["record"]]
        pages += 1
        if view["next"] is None:
            break
        assert not view["whole"]
        after = view["next"]

    assert pages > 1
    assert view["whole"]
    assert seen == list(range(1, LINES + 1))


def test_a_short_record_is_whole_and_one_with_a_gap_is_not() -> None:
    """Retention lets go of the oldest lines first; who reads must see that something is missing."""
    short = [RunLine(seq, 0.0, "plan", {"understanding": "x"}) for seq in range(1, 5)]

    assert run_with_record(RUN, short)["whole"]
    assert not run_with_record(RUN, short[1:])["whole"]
    assert not run_with_record(RUN, [short[0], *short[2:]])["whole"]
    assert not run_with_record(RUN, [])["whole"]
    assert run_with_record(RUN, short[2:], after=2)["whole"]


def test_a_task_shows_every_step_and_so_much_of_their_outputs() -> None:
    """Five thousand steps with a page each are twenty megabytes."""
    many = (RunLine(seq, 0.0, "result", {"task": str(seq), "tool": "x", "output": TEXT}) for seq in range(1, 2001))

    view = task_view(RUN, many)

    assert len(view["steps"]) == 2000
    assert view["steps"][0]["output"].startswith("Failed password")
    assert sum(len(step["output"]) for step in view["steps"]) <= MOST_SHOWN_CHARS


def test_a_goal_is_whole_where_its_run_is_shown_alone() -> None:
    """A list of a thousand runs is for finding one."""
    run = Run("r1", "task", "api", RUN.due_at, goal="x" * 30_000)

    assert len(run_view(run)["goal"]) == 1000
    assert len(run_with_record(run, [])["goal"]) == 30_000


def test_values_for_commands_are_not_shown() -> None:
    """Whoever may look at a run is not whoever gave it the password of the database."""
    run = Run(
        "r1", "task", "api", RUN.due_at, asked={"environment": {"PGPASSWORD": "hunter2"}, "tools": ["run_command"]}
    )

    assert run_with_record(run, [])["asked"] == {"environment": {"PGPASSWORD": "***"}, "tools": ["run_command"]}
