"""A run as bars on an axis, and its record for people."""

from __future__ import annotations

from typing import Any

import pytest
from pagestage import RECORD, lane

from agentd.api.web.record import entries, model_names
from agentd.api.web.timeline import MOST_BARS, timeline


def page(*lanes: dict[str, Any], total_s: float = 10.0) -> dict[str, Any]:
    return {"total_s": total_s, "lanes": list(lanes), "more_lanes": 0}


def test_a_bar_stands_where_and_as_long_as_the_call_was() -> None:
    found = timeline(page(lane("m1", 0, 2.5, kind="model"), lane("s1", 2.5, 10, ok=False), lane("s2", 5, 6, ok=None)))

    assert [(bar.left, bar.width, bar.state) for bar in found.bars] == [
        (0.0, 0.25, "ok"),
        (0.25, 0.75, "failed"),
        (0.5, 0.1, "open"),
    ]
    assert (found.models_s, found.tools_s) == (2.5, 8.5)


def test_the_axis_begins_with_the_first_call() -> None:
    """Starting a host takes seconds: half of an empty axis tells nothing."""
    found = timeline(page(lane("m1", 5, 7.5, kind="model"), lane("s1", 7.5, 10)))

    assert [(bar.began_s, bar.left, bar.width) for bar in found.bars] == [(0.0, 0.0, 0.5), (2.5, 0.5, 0.5)]
    assert (found.begin_s, found.length_s) == (5.0, 5.0)


def test_a_model_is_called_by_its_own_name_as_well() -> None:
    """`default` says nothing to who has not the configuration at hand."""
    lines = [{"kind": "model", "data": {"served_by": "big-model-7"}}, {"kind": "model", "data": {"error": {}}}]
    lanes = [lane("m1", 0, 1, kind="model", label="default"), lane("m2", 1, 2, kind="model", label="default")]

    found = timeline(page(*lanes), model_names(lines))

    assert [bar.label for bar in found.bars] == ["default · big-model-7", "default"]


def test_what_is_short_can_still_be_seen_and_lies_within() -> None:
    found = timeline(page(lane("s1", 10, 10), lane("s2", 0, 0)))

    assert all(bar.width > 0.003 and bar.left + bar.width <= 1 for bar in found.bars)


def test_notes_are_no_calls() -> None:
    assert timeline(page(lane("n1", 1, 1, kind="note"))).bars == ()


@pytest.mark.parametrize("length_s", [0.01, 0.4, 3, 22.7, 61, 600, 7200])
def test_the_axis_has_some_round_marks(length_s: float) -> None:
    ticks = timeline(page(total_s=length_s)).ticks

    assert 3 <= len(ticks) <= 9
    assert ticks[0] == (0.0, "0")
    assert all(0 <= share < 1 for share, _ in ticks)


def test_very_many_calls_are_counted() -> None:
    found = timeline(
        page(*(lane(f"s{number}", number, number + 1) for number in range(MOST_BARS + 5))) | {"more_lanes": 7}
    )

    assert len(found.bars) == MOST_BARS
    assert found.more == 12


@pytest.mark.parametrize(
    "broken", [{}, {"lanes": None}, {"lanes": [{}, 7]}, {"total_s": "x", "lanes": [{"end_s": "y"}]}]
)
def test_a_damaged_run_is_no_error(broken: dict[str, Any]) -> None:
    timeline(broken)


def test_the_record_says_who_did_what() -> None:
    found = entries(RECORD)

    assert [(entry.title, entry.state, entry.id) for entry in found] == [
        ("the model calls read_file", "ok", "m1"),
        ("s1.1 read_file /x", "", "s1.1"),
        ("s1.1 read_file ok", "ok", ""),
        ("decides: replan: one failed", "", ""),
    ]
    assert found[2].parts == (("output", "words of it"),)


def test_what_nobody_knows_is_left_out_and_what_is_damaged_is_no_error() -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "of the future", "data": {}},
        {"kind": "model", "data": None},
        {"kind": "model", "data": {"answer": 7, "error": "x"}},
        {"kind": "task", "data": {"input": [1]}},
        {"kind": "result", "data": {"error": {"a": 1}}},
        {"kind": "decision", "data": {"decision": "continue"}},
    ]

    assert [entry.kind for entry in entries(lines)] == ["model", "task", "result"]


def test_the_calls_of_a_later_part_have_no_names_of_the_first() -> None:
    """Where a record goes on, the first model call is not the first of the run."""
    assert entries(RECORD, from_begin=False)[0].id == ""
