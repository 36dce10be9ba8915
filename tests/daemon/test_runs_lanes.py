"""Records as lanes: whatever they hold, a timeline comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentd.daemon.runs.lanes import MOST_LANES, Lanes, span_views
from agentd.memory.run_records import RunLine


def drawn(*records: tuple[float, str, Any], end_s: float = 10.0, under_way: bool = False) -> list[dict[str, Any]]:
    lanes = Lanes()
    lanes.take(RunLine(seq, *record) for seq, record in enumerate(records))
    return lanes.shown(end_s, under_way=under_way)


@pytest.mark.parametrize(
    "record",
    [
        ("model", {}),
        ("model", {"usage": [], "answer": "x", "error": "y", "duration_s": "long", "usd": None}),
        ("model", {"answer": {"tool_calls": "abc", "content": ["x"]}, "duration_s": 1e9}),
        ("model", {"usage": {"input_tokens": "many"}, "usd": {"no": "money"}, "duration_s": float("nan")}),
        ("steps", {"tasks": [None, {"id": None}, {"id": "a", "depends_on": "b"}]}),
        ("steps", {"tasks": 7}),
        ("task", {"task": None, "input": [[[]]]}),
        ("result", {"task": "never begun", "output": {"a": ["b"] * 5000}}),
        ("result", {}),
        ("event", {"type": 7, "text": "x" * 10_000}),
        ("plan", {"understanding": ["x"]}),
        ("wonder", {}),
    ],
)
def test_whatever_a_record_holds_there_is_a_timeline(record: tuple[str, dict[str, Any]]) -> None:
    """Records come from another process, and from older versions."""
    lanes = drawn((1.0, *record), (2.0, "task", {"task": "t", "tool": "x", "input": {}}))

    json.dumps(lanes, allow_nan=False)
    assert all(0 <= lane["start_s"] <= lane["end_s"] <= 10 for lane in lanes)
    assert all(len(lane["detail"]) <= 600 and len(lane["label"]) <= 120 for lane in lanes)
    assert all(lane["usd"] is None or isinstance(lane["usd"], float) for lane in lanes)
    assert len({lane["id"] for lane in lanes}) == len(lanes)


def test_what_is_not_recorded_to_its_end_says_so() -> None:
    """A bar that reaches to the end of the run, and nobody saw it end."""
    begun = (2.0, "task", {"task": "t", "tool": "x", "input": {}})

    (over,), (going,) = drawn(begun), drawn(begun, under_way=True)

    assert (over["ok"], over["end_s"], over["detail"]) == (False, 10.0, "its end was not recorded")
    assert (going["ok"], going["end_s"], going["detail"]) == (None, 10.0, "")


def test_a_run_of_very_many_steps_is_cut_and_says_so() -> None:
    """A page of ten thousand lanes is no page."""
    lanes = Lanes()
    lanes.take(RunLine(n, n / 10, "event", {"type": f"e{n}"}) for n in range(MOST_LANES + 500))

    assert len(lanes.shown(1000.0, under_way=False)) == MOST_LANES
    assert lanes.left_out == 500


def test_spans_in_a_circle_end() -> None:
    """They come from another process too."""
    span = {"name": "x", "start_us": 5, "end_us": 1, "status": "ok", "status_text": ""}

    views = span_views([span | {"span_id": "a", "parent": "b"}, span | {"span_id": "b", "parent": "a"}])

    assert [view["end_s"] for view in views] == [0.0, 0.0]
    assert span_views([]) == []
