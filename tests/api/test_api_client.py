"""
Tasks over HTTP and in this process: one interface, one behaviour.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from modelserver import ModelServer, call, calls

from agentd.api.client import HttpTasks, Unreachable, ask
from agentd.api.service import Conflict, NotFound
from agentd.api.tasks import Message, TaskAsked, TaskService
from agentd.daemon.inprocess import daemon_here
from agentd.errors import ConfigError

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

    assert again["status"] == first["status"] == "completed"
    assert len(model.requests) == 1


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
