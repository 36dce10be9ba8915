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
        ({"q": "disk full"}, {"q": "  disk   full "}),
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


@pytest.mark.parametrize("key", ["path", "Path"])
def test_inputs_that_differ_in_case_ask_for_different_things(key: str) -> None:
    """`/A` is another file than `/a`."""
    seen = Repetition()

    assert [seen.saw("look", {key: path}, came()) for path in ("/A", "/a", "/Ab", "/aB")] == ["fine"] * 4


def test_polling_that_shows_something_new_is_never_stopped() -> None:
    """Looking again how far it has come is work."""
    seen = Repetition()
    verdicts = [seen.saw("look", {}, came(f"{n} %")) for n in range(100)]

    assert verdicts[: SAME_CALL - 1] == ["fine"] * (SAME_CALL - 1)
    assert set(verdicts[SAME_CALL - 1 :]) == {"alike"}


def test_polling_that_shows_nothing_new_any_more_is_stopped() -> None:
    """From there on it is a circle like any other."""
    seen = Repetition()
    for n in range(20):
        seen.saw("look", {}, came(f"{n} %"))

    assert [seen.saw("look", {}, came("stuck")) for _ in range(4)][1:] == ["warn", "warn", "stop"]


def test_calls_of_one_step_count_once() -> None:
    """None of them could know of the others: ten units that are all active are ten answers."""
    seen = Repetition()
    many = [seen.saw("look", {"unit": f"u{n}"}, came("active"), step=1) for n in range(10)]
    same = [seen.saw("look", {"unit": "u0"}, came("active"), step=2) for _ in range(5)]

    assert many == ["fine"] * 10
    assert same == ["warn"] * 5


def test_duration_and_worker_make_no_result_new() -> None:
    """Every call takes another time."""
    seen = Repetition()
    seen.saw("look", {}, Result("a", "look", "x", duration_s=1.0, worker="io-1"))

    assert seen.saw("look", {}, Result("b", "look", "x", duration_s=2.0, worker="io-2", attempt=2)) == "warn"


def test_two_calls_in_turns_are_a_circle() -> None:
    """A-B-A-B never does the same twice in a row."""
    seen = Repetition()
    verdicts = [seen.saw("look", {"at": "ab"[n % 2]}, came("ab"[n % 2])) for n in range(8)]

    assert verdicts == ["fine"] * 2 + ["warn"] * 4 + ["stop"] * 2


def test_two_calls_in_turns_that_show_something_new_are_asked_about() -> None:
    """It may be two jobs that are waited for."""
    seen = Repetition()
    verdicts = [seen.saw("look", {"at": "ab"[n % 2]}, came(n)) for n in range(10)]

    assert verdicts == ["fine"] * 5 + ["alike"] * 5


def test_always_the_same_answer_is_asked_about_and_not_stopped() -> None:
    """It may be searching on for what is not there; it may be one unit after the other that is well."""
    seen = Repetition()
    verdicts = [seen.saw("look", {"q": str(n)}, came([])) for n in range(20)]

    assert verdicts == ["fine"] * 4 + ["alike"] * 16


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
