"""The record of a run, line by line, for people."""

from __future__ import annotations

from typing import Any

from agentd.cli.answer import event_line
from agentd.cli.timeline import timeline


def task(at_s: float, attempt: int = 1) -> dict[str, Any]:
    return {"at_s": at_s, "kind": "task", "data": {"task": "s1.1", "tool": "look", "input": {}, "attempt": attempt}}


def result(at_s: float, attempt: int, output: Any = "seen") -> dict[str, Any]:
    data = {"task": "s1.1", "tool": "look", "attempt": attempt, "duration_s": 0.5, "output": output}
    return {"at_s": at_s, "kind": "result", "data": data}


def test_a_call_that_was_tried_again_at_once_shows_the_time_of_all_its_tries() -> None:
    """Its record has that of the last: one would look for the lost seconds elsewhere."""
    assert list(timeline([task(1.0), result(9.0, 3)]))[1] == "   9.0 s  s1.1 look 8.0 s in 3 tries ok: seen"


def test_a_call_of_a_later_step_shows_which_try_it_is() -> None:
    """Each has lines of its own then."""
    assert list(timeline([task(1.0, 2), result(1.5, 2)]))[1] == "   1.5 s  s1.1 look 0.5 s (try 2) ok: seen"


def test_an_answer_stands_under_the_name_of_who_gave_it() -> None:
    """Time, tokens and money are the stand-in's; under the name of the model that is down they mislead."""
    data = {"model": "default", "answered_by": "two", "duration_s": 2.0, "usd": 0.5, "answer": {"content": "Well."}}
    (line,) = timeline([{"at_s": 2.0, "kind": "model", "data": data}])

    assert "model two instead of default 2.0 s" in line


def test_outputs_are_json() -> None:
    """As they can be copied into a condition; `None` and `'` are words of the language that agentd is written in."""
    (line,) = timeline([result(1.0, 1, {"there": True, "name": None})])
    end = {"event": "ToolExecutionEnd", "id": "s1.1", "tool": "look", "output": {"there": None}}

    assert line.endswith('ok: {"there": true, "name": null}')
    assert (event_line(end) or "").endswith('{"there": null}')
