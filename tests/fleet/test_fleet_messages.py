"""What supervisor and workers say to each other survives JSON."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from agentd.fleet.messages import Control, ErrorKind, Result, Task

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
SECONDS = st.floats(0, 1e6)


@given(
    st.builds(
        Task,
        id=st.text(min_size=1),
        tool=st.text(),
        input=st.dictionaries(st.text(), VALUES, max_size=3),
        timeout_s=SECONDS,
        depends_on=st.lists(st.text(), max_size=3).map(tuple),
        attempt=st.integers(1, 9),
        kind=st.sampled_from(["io", "logic"]),
        run=st.text(),
        call_id=st.none() | st.text(),
        traceparent=st.none() | st.text(),
    )
)
def test_task_comes_back_as_it_was(task: Task) -> None:
    """A worker may be on another machine."""
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


@given(
    st.builds(
        Result,
        task=st.text(),
        tool=st.text(),
        output=VALUES,
        error=st.none() | st.sampled_from(ErrorKind),
        message=st.text(),
        attempt=st.integers(1, 9),
        duration_s=SECONDS,
        worker=st.text(),
        retry_after_s=st.none() | SECONDS,
        again=st.booleans(),
    )
)
def test_result_comes_back_as_it_was(result: Result) -> None:
    """The kind of an error is what decisions rest on."""
    back = Result.from_json(json.loads(json.dumps(result.to_json())))

    assert back == result
    assert back.error is None or isinstance(back.error, ErrorKind)


@given(st.builds(Control, kind=st.sampled_from(["cancel", "steer", "follow_up", "end"]), target=st.text()))
def test_control_comes_back_as_it_was(control: Control) -> None:
    """A cancel that does not arrive is a run that goes on."""
    assert Control.from_json(json.loads(json.dumps(control.to_json()))) == control


def test_message_of_an_older_worker_is_understood() -> None:
    """What it does not know of has a default."""
    assert Result.from_json({"task": "t", "tool": "look"}) == Result("t", "look")
    assert Task.from_json({"id": "t", "tool": "look"}) == Task("t", "look")


def test_error_kinds_are_the_published_seven() -> None:
    """Others read them."""
    assert {kind.value for kind in ErrorKind} == {
        "tool_not_found",
        "tool_error",
        "timeout",
        "cancelled",
        "rate_limited",
        "invalid_input",
        "denied",
    }
    assert {"task", "tool", "output", "error"} <= {field.name for field in fields(Result)}
