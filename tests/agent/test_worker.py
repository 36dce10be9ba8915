"""One task, one tool, one result, whatever the tool does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from toolset import FakeTool, context_maker, pools_of

from agentd.agent.call import GRACE_S
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.registry import Registry
from agentd.agent.worker import Pools, Worker
from agentd.fleet.messages import ErrorKind, Result, Task
from agentd.testing import FakeClock

INPUT: dict[str, Any] = {"q": "x"}


def worker(tool: FakeTool, *allowed: str, max_output: int = 1000) -> Worker:
    return Worker("io-1", Registry([tool]), context_maker(*(allowed or (tool.name,)), max_output=max_output))


def task(tool: str = "look", **more: Any) -> Task:
    return Task("t1", tool, INPUT, **more)


async def raising(error: BaseException) -> Result:
    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        raise error

    return await worker(FakeTool("look", does)).run(task())


async def test_output_comes_back_with_who_did_it() -> None:
    """The plain case."""
    result = await worker(FakeTool("look")).run(task(attempt=2))

    assert result.ok
    assert result.output == {"did": "look"}
    assert (result.task, result.tool, result.worker, result.attempt) == ("t1", "look", "io-1", 2)


async def test_unknown_tool() -> None:
    """The model is told what there is."""
    result = await worker(FakeTool("look")).run(task("loook"))

    assert result.error is ErrorKind.TOOL_NOT_FOUND
    assert "did you mean look?" in result.message


async def test_tool_that_is_not_allowed_is_not_called() -> None:
    """Permissions come from the configuration alone."""
    tool = FakeTool("look")
    result = await worker(tool, "other").run(task())

    assert result.error is ErrorKind.DENIED
    assert "allowed are: other" in result.message
    assert tool.inputs == []


async def test_input_that_does_not_fit_never_reaches_the_tool() -> None:
    """Schema first."""
    tool = FakeTool("look", schema={"type": "object", "required": ["path"]})
    result = await worker(tool).run(task())

    assert (result.error, result.message) == (ErrorKind.INVALID_INPUT, "look: `path` is missing")
    assert tool.inputs == []


@pytest.mark.parametrize("kind", list(ErrorKind))
async def test_failure_keeps_its_kind_and_words(kind: ErrorKind) -> None:
    """The tool knows best."""
    result = await raising(ToolFailure("no such host", kind, retry_after_s=7.0))

    assert (result.error, result.message, result.retry_after_s) == (kind, "no such host", 7.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (SystemExit(3), "SystemExit: 3"),
        (BaseExceptionGroup("all", [SystemExit(1)]), "BaseExceptionGroup: all (1 sub-exception)"),
    ],
)
async def test_any_exception_is_an_error_of_the_tool(error: BaseException, message: str) -> None:
    """A tool's defect is no defect of the run; not even `sys.exit` ends the process."""
    result = await raising(error)

    assert (result.error, result.message) == (ErrorKind.TOOL_ERROR, message)


async def test_long_message_is_cut() -> None:
    """An exception may carry a whole page."""
    result = await raising(ValueError("x" * 1_000_000))

    assert len(result.message) < 2200


async def test_exception_that_cannot_be_read_is_still_named() -> None:
    """Its `__str__` is code of strangers too."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert (await raising(Odd())).message == "Odd"


async def test_tool_whose_own_wait_ran_out_is_a_timeout() -> None:
    """The supervisor knows what to do about those."""
    result = await raising(TimeoutError())

    assert result.error is ErrorKind.TIMEOUT
    assert result.again


async def test_tool_that_cancels_itself_is_an_error() -> None:
    """Nobody asked for it."""
    result = await raising(asyncio.CancelledError())

    assert result.error is ErrorKind.TOOL_ERROR
    assert "cancelled itself" in result.message


async def test_call_that_is_no_coroutine_is_an_error() -> None:
    """Tools of third parties come in all forms."""

    class Wrong(FakeTool):
        def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
            return 5

    result = await worker(Wrong("look")).run(task())

    assert result.error is ErrorKind.TOOL_ERROR
    assert "TypeError" in result.message


async def test_output_is_bounded_and_plain() -> None:
    """What is kept has a size."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        return {"lines": ("x" * 50,) * 1000}

    result = await worker(FakeTool("look", does)).run(task())

    assert len(str(result.output)) < 2000
    assert result.output["lines"][-1].startswith("[cut: ")


async def test_context_that_cannot_be_made_is_an_error() -> None:
    """Even our own mistakes end as a result."""

    def broken(task: Task) -> ToolContext:
        raise LookupError("no such run")

    result = await Worker("io-1", Registry([FakeTool("look")]), broken).run(task())

    assert (result.error, result.message) == (ErrorKind.TOOL_ERROR, "LookupError: no such run")


async def test_reports_are_passed_on_bounded() -> None:
    """A tool that talks without end is heard a while."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        for _ in range(5000):
            context.report("x" * 10_000)

    heard: list[str] = []
    await worker(FakeTool("look", does)).run(task(), heard.append)

    assert len(heard) == 1000
    assert max(map(len, heard)) < 4100


async def test_listener_that_raises_harms_nobody() -> None:
    """Whoever watches has no part in the work."""

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        context.report("half")
        return "whole"

    def broken(text: str) -> None:
        raise RuntimeError

    assert (await worker(FakeTool("look", does)).run(task(), broken)).output == "whole"


def test_tool_that_hangs_ends_by_its_time() -> None:
    """And is told of it twice: by cancellation and by the event."""
    clock = FakeClock()
    seen: list[bool] = []

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(context.cancelled.is_set())

    async def story() -> Result:
        doing = asyncio.ensure_future(worker(FakeTool("look", does)).run(task(timeout_s=3.0)))
        await clock.advance(2.999)
        assert not doing.done()
        await clock.advance(0.001)
        assert doing.done()
        return await doing

    result = clock.run(story())

    assert (result.error, result.message) == (ErrorKind.TIMEOUT, "look took longer than 3 s and was ended")
    assert result.again
    assert result.duration_s == pytest.approx(3.0)
    assert seen == [True]


def test_timeout_of_what_may_not_be_repeated_says_so() -> None:
    """The command may have done its work."""
    clock = FakeClock()

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        await asyncio.Event().wait()

    async def story() -> Result:
        doing = asyncio.ensure_future(worker(FakeTool("look", does, repeatable=False)).run(task(timeout_s=1.0)))
        await clock.advance(1)
        return await doing

    assert not clock.run(story()).again


def test_tool_that_ignores_its_cancellation_is_left_behind() -> None:
    """The worker goes on; the tool may still end by itself, and is held until then."""
    clock = FakeClock()
    release = asyncio.Event()

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise ValueError("much later")

    async def story() -> None:
        one = worker(FakeTool("look", does))
        doing = asyncio.ensure_future(one.run(task(timeout_s=1.0)))
        await clock.advance(1.0)
        assert not doing.done()
        await clock.advance(GRACE_S)
        assert doing.result().error is ErrorKind.TIMEOUT
        assert len(one.abandoned) == 1
        release.set()
        await clock.settle()
        assert not one.abandoned

    clock.run(story())


def test_tool_that_answers_after_its_time_is_late_all_the_same() -> None:
    """A deadline that can be talked round is none."""
    clock = FakeClock()

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "here it is"

    async def story() -> Result:
        doing = asyncio.ensure_future(worker(FakeTool("look", does)).run(task(timeout_s=1.0)))
        await clock.advance(1.0)
        return await doing

    assert clock.run(story()).error is ErrorKind.TIMEOUT


async def test_cancelled_before_its_first_step_still_has_its_result() -> None:
    """One result for each task that was given, always."""
    results: list[Result] = []
    call = worker(FakeTool("look")).start(task(), results.append)
    call.cancel()
    call.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [result.error for result in results] == [ErrorKind.CANCELLED]


async def test_cancelled_when_it_had_just_ended_has_ended_well() -> None:
    """Work that is done is not thrown away."""
    results: list[Result] = []
    call = worker(FakeTool("look")).start(task(), results.append)
    await asyncio.sleep(0)
    assert results == []
    call.cancel()
    await asyncio.sleep(0)

    assert [result.ok for result in results] == [True]


async def test_refused_and_cancelled_is_refused() -> None:
    """The first reason is the reason."""
    results: list[Result] = []
    call = worker(FakeTool("look")).start(task("sing"), results.append)
    assert results == []
    call.cancel()
    await asyncio.sleep(0)

    assert [result.error for result in results] == [ErrorKind.TOOL_NOT_FOUND]


async def test_cancelling_who_waits_cancels_the_tool() -> None:
    """Nothing works on for nobody."""
    ended = asyncio.Event()

    async def does(input: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    doing = asyncio.ensure_future(worker(FakeTool("look", does)).run(task()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await ended.wait()


def test_pool_lends_to_whoever_has_least() -> None:
    """Load is spread over the workers of a class."""
    pools = pools_of(FakeTool("look"), io=8)
    first = [pools.acquire("io") for _ in range(4)]
    names = [one.name for one in first if one]

    assert names == ["io-1", "io-2", "io-1", "io-2"]
    assert first[1] is not None
    pools.release("io", first[1])
    fifth = pools.acquire("io")
    assert fifth is first[1]


def test_pool_has_a_cap_and_room_again_after_release() -> None:
    """Classes do not take each other's room."""
    pools = pools_of(FakeTool("look"), io=2, logic=1)
    held = pools.acquire("io"), pools.acquire("io")

    assert pools.acquire("io") is None
    assert pools.acquire("logic") is not None
    assert held[0] is not None
    pools.release("io", held[0])
    assert pools.acquire("io") is not None
    assert pools.in_use() == {"io": 2, "logic": 1}


def test_pool_without_room_is_refused() -> None:
    """It would hang every run."""
    with pytest.raises(ValueError, match="at least one"):
        Pools(Registry(), context_maker(), io=0)
