"""Whatever a model, its server and its tools do to a daemon that asks them, it comes to a finding or says why not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from agents import configure, ended, finish, hosts_of, model, results, run_of, runs, shop, submit, task_of
from modelserver import ModelServer, Reply, call, calls, failing
from stage import Stage

OVERFLOW = failing(400, "This model's maximum context length is 100 tokens.", code="context_length_exceeded")
TROUBLES = {
    "cut": Reply(text="I begin to say", cut_after=2),
    "garbage": Reply(raw=b"\x00\xffthis is no HTTP\r\n\r\n"),
    "no answer": Reply(stream=["[DONE]"]),
    "no JSON": Reply(stream=["{{{{", "[DONE]"]),
    "unknown tool": calls(call("format_the_disk", now=True)),
    "wrong input": calls(call("http_get", url=7, colour="red")),
    "arguments that are no JSON": calls(call("http_get")),
    "overflow": OVERFLOW,
}


async def test_calls_in_one_answer_are_under_way_at_the_same_time(tmp_path: Path) -> None:
    """A server that answers only when both have come would starve whoever asks one after the other."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.allowed = 0
        configure(stage, server, agent={"tool_timeout": "60s"})
        await stage.start()
        server.answers(calls(call("http_get", url=f"{target.url}a"), call("http_get", url=f"{target.url}b")), finish())

        task = await submit(stage)
        await stage.news.until(lambda: target.arrived >= 2, "both calls arrive while neither is answered")
        target.allowed = 100

        assert (await task_of(stage, task))["status"] == "completed"
        assert {hit.path for hit in target.hits} == {"/a", "/b"}


async def test_a_hung_tool_ends_by_its_timeout_while_the_others_finish(tmp_path: Path) -> None:
    """One dead host among five must not cost what the others showed."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        dead, well = await stage.target(), await stage.target()
        dead.allowed = 0
        configure(stage, server, agent={"tool_timeout": "1s", "retries": 0})
        await stage.start()
        server.answers(
            calls(call("http_get", "one", url=dead.url), call("http_get", "two", url=well.url)), finish("ok", "Seen.")
        )

        view = await run_of(stage, await submit(stage))

        assert view["state"] == "completed"
        # The supervisor tries a part that timed out again, once.
        by_error = [(each["error"], each["task"]) for each in results(view)]
        assert None in dict(by_error)
        assert {error for error, _ in by_error} == {None, "timeout"}
        asked = {
            each["tool_call_id"]: each["content"] for each in server.requests[1].messages if each["role"] == "tool"
        }
        assert "timeout" in asked["one"]
        assert "200" in asked["two"]


async def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    """Who asks sooner than the provider said is shut out for longer."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server)
        await stage.start()
        server.answers(failing(429, "slow down", retry_after="2"), finish("ok", "Well."))

        task = await task_of(stage, await submit(stage))

        assert task["status"] == "completed"
        first, second = server.requests
        assert second.at - first.at >= 2


async def test_a_model_that_is_down_is_stood_in_for(tmp_path: Path) -> None:
    """The night on which things break is the night on which the provider does, too."""
    async with Stage(tmp_path) as stage, ModelServer() as server, ModelServer() as other:
        target = await stage.target()
        target.status = 503
        server.otherwise = 503
        other.otherwise = finish(summary="Said by the other one.")
        models = {"default": model(server, retries=0, fallback=["spare"]), "spare": model(other)}
        configure(stage, server, [shop(target)], models=models)
        await stage.start()

        updated = await stage.hook.message("alert.updated")

        assert updated["data"]["finding"]["summary"] == "Said by the other one."
        assert updated["data"]["cost"]["models"] == ["spare"]
        assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_one_bad_answer_does_not_cost_the_finding(tmp_path: Path, trouble: str) -> None:
    """Streams are cut and models talk nonsense every day."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        server.answers(TROUBLES[trouble])
        server.otherwise = finish()
        await stage.start()

        updated = await stage.hook.message("alert.updated")

        assert updated["data"]["finding"]["summary"] == "The disk is full."
        assert updated["data"]["finding"]["analysis"] is None
        (run,) = await ended(stage)
        assert run["state"] == "completed"


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_bad_answers_without_end_come_to_a_clear_end(tmp_path: Path, trouble: str) -> None:
    """A run that goes round in circles holds a place, and costs money with every round."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)], agent={"max_steps": 6}, models={"default": model(server, retries=1)})
        server.otherwise = TROUBLES[trouble]
        daemon = await stage.start()

        updated = await stage.hook.message("alert.updated", within_s=60)

        finding = updated["data"]["finding"]
        assert finding["analysis"].startswith("unavailable (")
        assert finding["claims"][0]["evidence"] == ["e1"], "what is known of the alert is told without any model"
        (run,) = await ended(stage)
        assert run["state"] in ("completed", "failed", "stopped")
        assert run["state"] == "completed" or run["error"]
        assert len(server.requests) <= 12
        assert daemon.alive


async def test_a_task_without_a_model_to_be_had_fails_clearly(tmp_path: Path) -> None:
    """Nobody listens there: whoever set the task is told, not left waiting."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, models={"default": model(server, retries=0)})
        await server.stop()
        await stage.start()

        task = await task_of(stage, await submit(stage))

        assert task["status"] == "failed"
        assert "default" in task["result"]["details"]["error"]


@pytest.mark.parametrize("where", ["before the answer", "in the answer", "in a tool"])
async def test_cancelling_closes_the_connection_of_the_model(tmp_path: Path, where: str) -> None:
    """What goes on being written is paid for."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.allowed = 0
        configure(stage, server, agent={"tool_timeout": "60s"})
        await stage.start()
        hanging: dict[str, Any] = {
            "before the answer": Reply(hang=True),
            "in the answer": Reply(text="a long answer", pieces=5, hang_after=2),
            "in a tool": calls(call("http_get", url=target.url)),
        }
        server.answers(hanging[where])
        task = await submit(stage)
        await server.wait_for(1)
        if where == "in a tool":
            await stage.news.until(lambda: target.arrived, "the tool is at work")

        answer = await stage.api("DELETE", f"/api/v1/tasks/{task}")

        assert answer.status_code == 200, answer.text
        if where != "in a tool":
            await server.until(lambda: server.open == 0)
            assert server.abandoned == 1
        view = await task_of(stage, task)
        assert view["status"] == "cancelled"
        assert "cancelled by" in view["result"]["details"]["error"]
        assert len(server.requests) == 1
        assert (await stage.api("DELETE", f"/api/v1/tasks/{task}")).status_code == 409


async def test_a_task_that_waits_is_cancelled_without_asking_anybody(tmp_path: Path) -> None:
    """It has cost nothing so far, and shall cost nothing."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, api={"max_concurrent_tasks": 1})
        await stage.start()
        server.answers(Reply(hang=True))
        first = await submit(stage)
        await server.wait_for(1)
        second = await submit(stage)

        assert (await stage.api("DELETE", f"/api/v1/tasks/{second}")).status_code == 200
        assert (await stage.api("DELETE", f"/api/v1/tasks/{first}")).status_code == 200

        assert (await task_of(stage, second))["status"] == "cancelled"
        assert (await task_of(stage, first))["status"] == "cancelled"
        assert len(server.requests) == 1


async def test_ten_tasks_at_once_come_to_their_ends(tmp_path: Path) -> None:
    """One host serves them all, beside each other."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, api={"max_concurrent_tasks": 10})
        everybody = asyncio.Event()
        server.otherwise = Reply(stream=[everybody, *_said("All is well.")])
        daemon = await stage.start()

        await asyncio.gather(*(submit(stage) for _ in range(10)))
        await server.wait_for(10)
        everybody.set()

        assert {each["state"] for each in await ended(stage, count=10)} == {"completed"}
        assert server.most_at_once == 10
        assert len(hosts_of(daemon)) == 1
        assert len(await runs(stage)) == 10


def _said(text: str) -> list[Any]:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    delta = {**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]}
    return [delta, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]"]
