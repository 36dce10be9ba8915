"""Many tasks at once, and batches that outlive the daemon: a real one, in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from agents import configure, ended, runs, until
from modelserver import ModelServer, Reply
from stage import Stage

from agentd.api.client import HttpTasks
from agentd.api.tasks import TaskAsked

TASKS, AT_ONCE = 1000, 50
HANG = Reply(hang=True)


async def statuses(stage: Stage) -> dict[str, str]:
    """Oldest first."""
    answer = await stage.api("GET", "/api/v1/tasks?limit=1000")
    assert answer.status_code == 200, answer.text
    return {each["task_id"]: each["status"] for each in reversed(answer.json()["tasks"])}


def batch(*ids: str, **more: Any) -> dict[str, Any]:
    return {"tasks": [{"task": f"Do {id}.", "task_id": id} for id in ids], **more}


@pytest.mark.parametrize("on_failure", ["continue", "stop"])
async def test_a_sequential_batch_goes_on_after_kill_9(tmp_path: Path, on_failure: str) -> None:
    """Its order is in the rows, not in the process."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server)
        asked = batch("a", "b", "c", mode="sequential", on_failure=on_failure)
        server.answers("Done.", HANG)
        daemon = await stage.start()
        assert (await stage.api("POST", "/api/v1/tasks/batch", asked)).status_code == 202
        await server.wait_for(2)

        await daemon.kill()
        server.otherwise = "Done."
        await stage.start()

        await ended(stage, count=3)
        goes_on = on_failure == "continue"
        assert await statuses(stage) == {"a": "completed", "b": "failed", "c": "completed" if goes_on else "cancelled"}
        assert len(server.requests) == (3 if goes_on else 2)
        again = await stage.api("POST", "/api/v1/tasks/batch", asked)
        assert again.status_code == 200
        assert again.json()["repeated"]
        assert len(await runs(stage)) == 3


@pytest.mark.timeout(300)
async def test_a_thousand_tasks_at_fifty_at_once_are_taken_and_come_to_their_ends(tmp_path: Path) -> None:
    """Ten at a time; all the others wait, and none is lost or asked for twice."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, api={"max_concurrent_tasks": 10})
        server.otherwise = "All is well."
        daemon = await stage.start()
        numbers = itertools.count()
        async with HttpTasks(str(stage.folder / "api.sock")) as tasks:

            async def client() -> None:
                while (number := next(numbers)) < TASKS:
                    await tasks.submit(TaskAsked(task=f"Look at {number}.", task_id=f"t{number}"))

            async def all_ended() -> bool:
                left = [await tasks.tasks(status=status, limit=1) for status in ("pending", "in_progress")]
                return not any(each["tasks"] for each in left)

            await asyncio.gather(*(client() for _ in range(AT_ONCE)))
            await until(all_ended, "all of them end", within_s=240)

        assert list((await statuses(stage)).values()) == ["completed"] * TASKS
        assert server.most_at_once <= 10
        assert len(server.requests) == TASKS
        assert daemon.alive


async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    """Nothing of what does not fit is taken; what was taken before is not refused."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, api={"max_concurrent_tasks": 1})
        server.otherwise = HANG
        await stage.start()
        for number in range(20):
            asked = batch(*(f"t{number}.{each}" for each in range(100)))
            assert (await stage.api("POST", "/api/v1/tasks/batch", asked)).status_code == 202
        await server.wait_for(1)

        full = await stage.api("POST", "/api/v1/tasks/batch", batch("x", "y"))
        one = [(await stage.api("POST", "/api/v1/tasks", {"task": "x"})).status_code for _ in range(2)]

        assert full.status_code == 429
        assert int(full.headers["retry-after"]) > 0
        assert full.headers["content-type"] == "application/problem+json"
        assert one == [202, 429]  # one is under way, so one more could wait
        assert (await stage.api("POST", "/api/v1/tasks/batch", batch("t3.1", "t3.2"))).status_code == 200
        assert "x" not in await statuses(stage)
