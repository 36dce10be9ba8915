"""What is done about failures."""

from __future__ import annotations

import pytest

from agentd.agent.decisions import DEGRADE_AFTER, MOST_TRIES, TERMINATE_AFTER, decide
from agentd.agent.graph import TaskGraph
from agentd.fleet.messages import ErrorKind, Result, Task

GRAPH = TaskGraph([Task("a", "look"), Task("b", "look"), Task("c", "look", depends_on=("b",))])
WELL = Result("a", "look", "x")
NOT_RUN = Result("c", "look", error=ErrorKind.CANCELLED)


def failed(error: ErrorKind, *, again: bool = True, attempt: int = 1, task: str = "b") -> Result:
    return Result(task, "look", error=error, again=again, attempt=attempt)


def test_all_well_goes_on() -> None:
    """Nothing failed, nothing to decide."""
    decision = decide(GRAPH, [WELL, Result("b", "look", 1), Result("c", "look", 1)])

    assert (decision.kind, decision.tasks) == ("continue", ())


def test_timeout_runs_the_failed_part_again() -> None:
    """The task that was late by itself, not those that only waited for it."""
    decision = decide(GRAPH, [WELL, failed(ErrorKind.TIMEOUT), NOT_RUN])

    assert (decision.kind, decision.tasks) == ("retry", ("b",))


def test_second_timeout_goes_to_the_model() -> None:
    """With twice the time it was late again: trying once more is no plan."""
    decision = decide(GRAPH, [WELL, failed(ErrorKind.TIMEOUT, attempt=2), NOT_RUN], 1)

    assert (decision.kind, decision.tasks) == ("replan", ())


def test_timeout_of_what_may_not_be_repeated_goes_to_the_model() -> None:
    """The command may have done its work after all."""
    assert decide(GRAPH, [WELL, failed(ErrorKind.TIMEOUT, again=False), NOT_RUN]).kind == "replan"


def test_rate_limit_runs_fewer_at_once() -> None:
    """Coming back as many as before would be refused as before."""
    decision = decide(GRAPH, [WELL, failed(ErrorKind.RATE_LIMITED), NOT_RUN], max_parallel=5)

    assert (decision.kind, decision.tasks, decision.max_parallel) == ("reduce_concurrency", ("b",), 2)


def test_one_at_once_is_the_least() -> None:
    """None at once would be a hang."""
    assert decide(GRAPH, [WELL, failed(ErrorKind.RATE_LIMITED), NOT_RUN], max_parallel=1).max_parallel == 1


def test_what_passes_is_run_again_before_the_model_is_asked() -> None:
    """A model that sees half of what it asked for plans for half."""
    results = [failed(ErrorKind.INVALID_INPUT, task="a"), failed(ErrorKind.TIMEOUT), NOT_RUN]

    assert decide(GRAPH, results).tasks == ("b",)
    assert decide(GRAPH, [results[0], failed(ErrorKind.TIMEOUT, attempt=2), NOT_RUN], 1).kind == "replan"


@pytest.mark.parametrize(
    "error", [ErrorKind.TOOL_ERROR, ErrorKind.INVALID_INPUT, ErrorKind.TOOL_NOT_FOUND, ErrorKind.DENIED]
)
def test_error_of_logic_goes_to_the_model(error: ErrorKind) -> None:
    """The same call would fail the same."""
    decision = decide(GRAPH, [WELL, failed(error), NOT_RUN])

    assert (decision.kind, decision.tasks) == ("replan", ())
    assert error.value in decision.reason


def test_nothing_but_failures_over_and_over_ends() -> None:
    """First with what there is, then for good."""
    results = [failed(ErrorKind.TOOL_ERROR, task="a"), failed(ErrorKind.TOOL_ERROR), NOT_RUN]
    kinds = [decide(GRAPH, results, failed_before=before).kind for before in range(TERMINATE_AFTER)]

    assert kinds == ["replan"] * (DEGRADE_AFTER - 1) + ["degrade"] * (TERMINATE_AFTER - DEGRADE_AFTER) + ["terminate"]


@pytest.mark.parametrize("error", list(ErrorKind))
def test_retries_of_a_graph_end(error: ErrorKind) -> None:
    """Whatever comes back, the number of tries has a bound."""
    decision = decide(GRAPH, [WELL, failed(error), NOT_RUN], MOST_TRIES)

    assert decision.tasks == ()


def test_what_is_no_part_of_the_last_graph_is_not_run_again() -> None:
    """Results of the whole, graph of the part that ran again: an empty graph would come of it."""
    part = GRAPH.after(["b"])

    assert decide(part, [failed(ErrorKind.TIMEOUT, task="a"), Result("b", "look", 1)], 1).tasks == ()


def test_tasks_not_run_are_not_counted_as_failures() -> None:
    """People read how many failed by themselves."""
    assert decide(GRAPH, [WELL, failed(ErrorKind.DENIED), NOT_RUN]).reason.startswith("1 task of 3 failed (denied)")


def test_cancelled_tasks_alone_go_to_the_model() -> None:
    """Somebody ended them; it sees so."""
    assert decide(GRAPH, [WELL, failed(ErrorKind.CANCELLED, again=False), NOT_RUN]).kind == "replan"


def test_every_reason_is_a_sentence_for_people() -> None:
    """Decisions are shown in the run."""
    assert decide(GRAPH, [WELL, failed(ErrorKind.TIMEOUT), NOT_RUN]).reason == (
        "1 task took too long: once more, with twice the time"
    )


def test_who_said_when_to_come_back_is_not_asked_before() -> None:
    """The executor has waited as long as it does; asking at once, three times over, is what they asked us not to do."""
    limited = Result("b", "look", error=ErrorKind.RATE_LIMITED, again=True, retry_after_s=60.0)
    decision = decide(GRAPH, [WELL, limited, NOT_RUN], max_parallel=8)

    assert (decision.kind, decision.tasks, decision.max_parallel) == ("replan", (), 4)


def test_calls_at_once_rise_again_when_all_goes_well() -> None:
    """One limit at the beginning must not make a long run slow to its end."""
    well = [WELL, Result("b", "look", 1), Result("c", "look", 1)]

    assert decide(GRAPH, well, max_parallel=3, most_parallel=8).max_parallel == 6
    assert decide(GRAPH, well, max_parallel=6, most_parallel=8).max_parallel == 8
    assert decide(GRAPH, well, max_parallel=8, most_parallel=8).max_parallel is None
    assert decide(GRAPH, well, 1, max_parallel=3, most_parallel=8).max_parallel is None
