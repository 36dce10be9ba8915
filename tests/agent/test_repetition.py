"""Runs that go round in circles."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from agentd.agent.repetition import SAME_CALL, SAME_CALL_AND_RESULT, Repetition
from agentd.fleet.messages import ErrorKind, Result


def came(output: Any = "same", error: ErrorKind | None = None) -> Result:
    return Result("t", "look", output, error)


def test_same_call_with_same_result_is_warned_of_then_stopped() -> None:
    """The model is told once or twice before it is stopped."""
    seen = Repetition()

    assert [seen.saw("look", {"q": "x"}, came()) for _ in range(4)] == ["fine", "warn", "warn", "stop"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"q": "disk full", "n": 5}, {"n": 5, "q": "disk full"}),
        ({"q": "disk full"}, {"q": "  Disk   FULL "}),
        ({"url": "http://x/a"}, {"url": "http://x/a/"}),
        ({"n": 5}, {"n": 5.0}),
        ({"q": "x", "since": None}, {"q": "x"}),
    ],
)
def test_inputs_that_ask_the_same_are_the_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """A model that is told off changes a comma."""
    seen = Repetition()
    seen.saw("look", first, came())

    assert seen.saw("look", second, came()) == "warn"


def test_polling_may_go_on_longer() -> None:
    """Looking again whether it has come back is work, as long as something changes."""
    seen = Repetition()
    verdicts = [seen.saw("look", {}, came(f"{n} ms")) for n in range(SAME_CALL[1])]

    assert verdicts.index("warn") == SAME_CALL[0] - 1
    assert verdicts.index("stop") == SAME_CALL[1] - 1


def test_duration_and_worker_make_no_result_new() -> None:
    """Every call takes another time."""
    seen = Repetition()
    seen.saw("look", {}, Result("a", "look", "x", duration_s=1.0, worker="io-1"))

    assert seen.saw("look", {}, Result("b", "look", "x", duration_s=2.0, worker="io-2", attempt=2)) == "warn"


def test_two_calls_in_turns_are_a_circle() -> None:
    """A-B-A-B never does the same twice in a row."""
    seen = Repetition()
    verdicts = [seen.saw("look", {"at": "ab"[n % 2]}, came(n)) for n in range(10)]

    assert verdicts[:5] == ["fine"] * 5
    assert verdicts[5] == "warn"
    assert verdicts[9] == "stop"


def test_always_the_same_answer_is_a_dead_end() -> None:
    """Searching on for what is not there, each time in other words."""
    seen = Repetition()
    verdicts = [seen.saw("look", {"q": str(n)}, came([])) for n in range(10)]

    assert verdicts == ["fine"] * 4 + ["warn"] * 5 + ["stop"]


def test_other_tools_in_between_do_not_count() -> None:
    """Each tool has its own results in a row."""
    seen = Repetition()

    assert [seen.saw(f"tool{n}", {}, came([])) for n in range(20)] == ["fine"] * 20


def test_failing_the_same_way_is_repeating_too() -> None:
    """A refused call is refused again."""
    seen = Repetition()
    verdicts = [seen.saw("look", {}, came(None, ErrorKind.DENIED)) for _ in range(SAME_CALL_AND_RESULT[1])]

    assert verdicts[-1] == "stop"


def test_memory_has_a_bound() -> None:
    """A session may last for days."""
    seen = Repetition()
    for n in range(2000):
        seen.saw(f"tool{n}", {"q": "x" * 1000, "n": n}, came(n))

    assert len(seen._calls) <= 64
    assert len(seen._last) <= 64
    assert sys.getsizeof(seen._calls) < 10_000


def test_input_that_is_hard_to_write_is_taken() -> None:
    """Whatever a model sends, this never fails."""
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}

    assert Repetition().saw("look", {"deep": deep, "s": "\ud800", "n": float("nan")}, came("\ud800")) == "fine"
