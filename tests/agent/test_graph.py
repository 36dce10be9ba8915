"""Task graphs: what is refused, what is ready, what runs again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agent.graph import MAX_TASKS, GraphError, TaskGraph
from agentd.fleet.messages import ErrorKind, Result, Task


def task(id: str, *needs: str, **more: object) -> Task:
    return Task(id, "look", depends_on=needs, **more)  # type: ignore[arg-type]  # keywords of a test


def ids(graph: TaskGraph) -> list[str]:
    return [task.id for task in graph]


def test_cycle_is_shown_step_by_step() -> None:
    """A model can mend only what it is shown."""
    with pytest.raises(GraphError) as caught:
        TaskGraph([task("start"), task("a", "start", "c"), task("b", "a"), task("c", "b"), task("after", "c")])

    shown = re.search(r"(\w) → (\w) → (\w) → \1;", str(caught.value))
    assert shown is not None
    assert {shown[1], shown[2], shown[3]} == {"a", "b", "c"}


def test_task_cannot_wait_for_itself() -> None:
    """The shortest cycle is one too."""
    with pytest.raises(GraphError, match="a → a"):
        TaskGraph([task("a", "a")])


def test_unknown_dependency_is_named_beside_what_there_is() -> None:
    """Most often it is a slip of the pen."""
    with pytest.raises(GraphError, match="task b depends on aa, which is not among the tasks; they are a, b"):
        TaskGraph([task("a"), task("b", "aa")])


def test_two_tasks_of_one_id_are_refused() -> None:
    """A result that could be of either is of no use."""
    with pytest.raises(GraphError, match="two tasks are called a"):
        TaskGraph([task("a"), task("a")])


@pytest.mark.parametrize("id", ["", "x" * 101])
def test_id_has_some_length_and_not_too_much(id: str) -> None:
    """Ids stand in every record and message."""
    with pytest.raises(GraphError, match="1 to 100 characters") as caught:
        TaskGraph([task(id)])

    assert len(str(caught.value)) < 200


def test_more_tasks_than_the_limit_are_refused() -> None:
    """A model that runs wild must not take the machine along."""
    with pytest.raises(GraphError, match="at most 100"):
        TaskGraph(task(f"t{n}") for n in range(MAX_TASKS + 1))


@pytest.mark.parametrize(
    ("tasks", "shape"),
    [
        ([], "empty"),
        ([task("a")], "single"),
        ([task("a"), task("b"), task("c"), task("d")], "parallel-4"),
        ([task("c", "b"), task("a"), task("b", "a")], "chain-3"),
        ([task("a"), task("b", "a"), task("c", "a")], "dag-3"),
        ([task("a"), task("b"), task("c", "a", "b")], "dag-3"),
        ([task("a"), task("b", "a"), task("c"), task("d", "c")], "dag-4"),
        ([task("a"), task("b", "a", "a")], "chain-2"),
    ],
)
def test_shape_is_a_stable_word(tasks: list[Task], shape: str) -> None:
    """What is remembered of graphs is kept by their shape."""
    assert TaskGraph(tasks).shape == shape


def test_ready_is_what_waits_for_nothing_more() -> None:
    """A task is ready once all it depends on has ended well."""
    graph = TaskGraph([task("a"), task("b", "a"), task("c", "a", "b"), task("d")])

    assert [one.id for one in graph.ready(set())] == ["a", "d"]
    assert [one.id for one in graph.ready({"a", "d"})] == ["b"]
    assert [one.id for one in graph.ready({"a", "b", "d"})] == ["c"]


def test_reference_is_a_dependency_even_if_unsaid() -> None:
    """A model that writes `${a}` means that a comes first."""
    graph = TaskGraph([Task("s1.2", "look", {"deep": [{"text": "see ${s1.1.lines.0}"}]}), task("s1.1")])

    assert graph["s1.2"].depends_on == ("s1.1",)
    assert graph.refers("s1.2")
    assert not graph.refers("s1.1")


def test_reference_to_nothing_here_is_plain_text() -> None:
    """`${HOME}` in a command is no task."""
    graph = TaskGraph([Task("a", "run", {"command": "echo ${HOME}"})])

    assert not graph.refers("a")


def test_after_holds_the_failed_and_all_that_waits_for_it() -> None:
    """What went well is not paid for twice."""
    graph = TaskGraph([task("a"), task("b"), task("c", "a", "b"), task("d", "c"), task("e", "a")])
    results = [Result("a", "look", "A"), Result("b", "look", error=ErrorKind.TIMEOUT)]

    again = graph.after(["b"], results)

    assert ids(again) == ["b", "c", "d"]
    assert again["c"].depends_on == ("b",)
    assert again.known == {"a": "A"}


def test_after_gives_the_failed_its_next_attempt_and_twice_the_time() -> None:
    """The same again in the same time would most likely end the same."""
    graph = TaskGraph([task("a", timeout_s=4.0), task("b", "a", timeout_s=4.0)])

    again = graph.after(["a"])

    assert (again["a"].attempt, again["a"].timeout_s) == (2, 8.0)
    assert (again["b"].attempt, again["b"].timeout_s) == (1, 4.0)


def test_after_of_nothing_known_is_empty() -> None:
    """Ids of another graph are nobody's."""
    assert len(TaskGraph([task("a")]).after(["z"])) == 0


def test_dependency_on_an_earlier_graph_counts_as_met() -> None:
    """Steps build on steps before."""
    graph = TaskGraph([task("s2.1", "s1.1")], known=[Result("s1.1", "look", "x")])

    assert graph["s2.1"].depends_on == ()


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_graph_is_refused_exactly_when_it_has_no_order(edges: list[tuple[int, int]]) -> None:
    """Whatever is let in can run to its end; whatever is kept out could not."""
    needs: dict[int, set[int]] = {n: set() for n in range(12)}
    for later, earlier in edges:
        needs[later].add(earlier)
    done: set[int] = set()
    while more := {n for n in needs if n not in done and needs[n] <= done}:
        done |= more
    tasks = [task(f"t{n}", *(f"t{other}" for other in needs[n])) for n in needs]

    if len(done) == 12:
        assert len(TaskGraph(tasks)) == 12
    else:
        with pytest.raises(GraphError, match="→"):
            TaskGraph(tasks)
