"""
Tasks over HTTP and in this process: one interface, one behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from modelserver import ModelServer, call, calls

from agentd.api.client import HttpTasks, Unreachable, ask
from agentd.api.service import Conflict, NotFound
from agentd.api.tasks import BatchAsked, Message, TaskAsked, TaskService
from agentd.daemon.inprocess import daemon_here
from agentd.errors import ConfigError
from agentd.memory import spans

CONFIG = """\
daemon: {{state_dir: {folder}/state}}
models: {{default: {{provider: openai-compatible, base_url: "{model}", model: test, price: {{input: 1, output: 2}}}}}}
agent: {{tools: [read_file], files: {{allow: ["{folder}"]}}}}
"""


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(how: str, folder: Path, model: ModelServer) -> AsyncIterator[TaskService]:
    path = folder / "agentd.yaml"
    path.write_text(CONFIG.format(folder=folder, model=model.url))
    async with daemon_here(path) as daemon:
        if how == "here":
            yield daemon.tasks
        else:
            async with HttpTasks(str(folder / "state" / "api.sock")) as tasks:
                yield tasks


both = pytest.mark.parametrize("how", ["here", "http"])


@both
async def test_a_task_is_asked_watched_and_answered(how: str, tmp_path: Path, model: ModelServer) -> None:
    """Whoever writes a program against one of them can move it to the other."""
    (tmp_path / "notes.txt").write_text("the pump is off")
    model.answers(calls(call("read_file", path=str(tmp_path / "notes.txt"))), "The pump is off.")

    async with opened(how, tmp_path, model) as tasks:
        view = await tasks.submit(TaskAsked(task="What do the notes say?", task_id="t1"), by="me")
        seen = [event["event"] async for event in tasks.events("t1", 0)]
        done = await tasks.task("t1")
        runs = await tasks.runs(watch=None, state=None, limit=10)
        run = await tasks.run("t1")

    assert view["status"] in ("pending", "in_progress")
    assert seen[0] == "AgentStart"
    assert seen[-1] == "AgentEnd"
    assert done["status"] == "completed"
    assert "The pump is off." in done["result"]["summary"]
    assert [step["tool"] for step in done["steps"]] == ["read_file"]
    assert done["metrics"]["usd"] > 0
    assert [each["id"] for each in runs] == ["t1"]
    assert run["whole"]


@both
async def test_asking_twice_under_one_id_is_asking_once(how: str, tmp_path: Path, model: ModelServer) -> None:
    """A caller whose connection broke asks again, and must not pay again."""
    async with opened(how, tmp_path, model) as tasks:
        model.otherwise = lambda asked: "Done."
        first = await ask(tasks, "Say done.", task_id="same")
        again = await tasks.submit(TaskAsked(task="Say done.", task_id="same"), by="")

        with pytest.raises(Conflict, match="'same' is taken"):
            await tasks.submit(TaskAsked(task="Say something else.", task_id="same"), by="")

    assert again["status"] == first["status"] == "completed"
    assert again["repeated"]
    assert len(model.requests) == 1


@both
async def test_a_batch_is_asked_for_and_listed(how: str, tmp_path: Path, model: ModelServer) -> None:
    """Its tasks are tasks like any other."""
    asked = BatchAsked(tasks=[TaskAsked(task=f"Say {n}.", task_id=f"t{n}") for n in range(3)], mode="sequential")
    async with opened(how, tmp_path, model) as tasks:
        model.otherwise = lambda asked: "Done."
        batch = await tasks.submit_batch(asked, by="me")
        async for _ in tasks.events("t2", 0):
            pass
        again = await tasks.submit_batch(asked, by="me")
        newest = await tasks.tasks(status=None, limit=2)
        oldest = await tasks.tasks(status="completed", limit=2, before=newest["next"])
        runs = await tasks.runs(watch=None, state=None, limit=1, before="t1")
        with pytest.raises(NotFound, match="before"):
            await tasks.tasks(status=None, limit=2, before="nobody")
        forbidden = BatchAsked.model_validate({"tasks": [{"task": "x", "context": {"tools": ["run_command"]}}]})
        with pytest.raises(ConfigError, match=r"tasks\.0"):
            await tasks.submit_batch(forbidden, by="me")

    assert (batch["mode"], batch["on_failure"], batch["repeated"]) == ("sequential", "continue", False)
    assert [(each["task_id"], each["after"]) for each in batch["tasks"]] == [("t0", None), ("t1", "t0"), ("t2", "t1")]
    assert again["repeated"]
    assert again["batch_id"] == batch["batch_id"]
    assert {each["status"] for each in again["tasks"]} == {"completed"}
    assert [each["task_id"] for each in newest["tasks"]] == ["t2", "t1"]
    assert ([each["task_id"] for each in oldest["tasks"]], oldest["next"]) == (["t0"], None)
    assert [each["id"] for each in runs] == ["t0"]


@both
async def test_what_was_understood_planned_done_and_found_is_shown(
    how: str, tmp_path: Path, model: ModelServer
) -> None:
    """In the answer, in the record and in the trace: people check what an agent did, not what it says of itself."""
    notes = tmp_path / "notes.txt"
    notes.write_text("the pump is off")
    plan = {
        "understanding": "The pump may be off.",
        "approach": "Read the notes.",
        "complexity": "moderate",
        "estimated_steps": 2,
        "requirements": ["the notes"],
    }
    model.answers(calls(call("plan", **plan), call("read_file", path=str(notes))), "The pump is off.")

    async with opened(how, tmp_path, model) as tasks:
        view = await ask(tasks, "What do the notes say?", task_id="t1", metadata={"team": "water"})
        run = await tasks.run("t1")
        traced = await trace_of(tmp_path, view["trace_id"])

    assert view["plan"] == plan
    (step,) = view["steps"]
    assert (step["tool"], step["ok"], step["error"]) == ("read_file", True, None)
    assert "the pump is off" in step["output"]
    result = view["result"]
    assert (result["success"], result["summary"], result["artifacts"]) == (True, "The pump is off.", [])
    assert result["details"]["answer"] == "The pump is off."
    assert result["execution_time"] > 0
    assert (view["status"], view["priority"], view["metadata"]) == ("completed", "normal", {"team": "water"})
    assert (view["metrics"]["tool_calls"], view["metrics"]["model_calls"]) == (1, 2)
    kinds = [line["kind"] for line in run["record"]]
    assert sorted(("job", "plan", "task", "result", "outcome"), key=kinds.index) == [
        *("job", "plan", "task", "result", "outcome")
    ]
    names = {span["name"]: span["attributes"] for span in traced}
    assert {"run task", "invoke_agent task", "execute_tool read_file"} <= names.keys()
    shown = names["invoke_agent task"]
    assert (shown["agentd.plan.complexity"], shown["agentd.plan.estimated_steps"]) == ("moderate", 2)
    assert shown["agentd.state"] == "completed"


async def trace_of(folder: Path, trace_id: str) -> list[dict[str, Any]]:
    """The spans, as soon as they are kept: nobody waits for them."""
    connection = apsw.Connection(str(folder / "state" / "history.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        async with asyncio.timeout(20):
            while not (found := spans.trace(connection, trace_id)):
                await asyncio.sleep(0.05)
        return found
    finally:
        connection.close()


@both
async def test_what_cannot_be_is_said_in_the_same_way(how: str, tmp_path: Path, model: ModelServer) -> None:
    """An error that is another class over HTTP would be caught in one place only."""
    async with opened(how, tmp_path, model) as tasks:
        model.otherwise = lambda asked: "Done."
        await ask(tasks, "Say done.", task_id="t1")
        with pytest.raises(NotFound):
            await tasks.task("nobody")
        with pytest.raises(Conflict):
            await tasks.cancel("t1", by="me")
        with pytest.raises(Conflict):
            await tasks.say("t1", Message(kind="steer", text="left"), by="me")
        with pytest.raises(ConfigError, match="run_command"):
            await tasks.submit(TaskAsked.model_validate({"task": "x", "context": {"tools": ["run_command"]}}), by="me")
        assert [each["name"] for each in await tasks.models()] == ["default"]
        assert "read_file" in [each["name"] for each in await tasks.tools()]


async def test_a_daemon_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A refused connection is no empty answer."""
    async with HttpTasks(str(tmp_path / "no.sock")) as tasks:
        with pytest.raises(Unreachable):
            await tasks.runs()
