"""What people ask for, in the daemon: in which order it runs, what it may do, how it ends; the test plays the host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from house import House, Tell, tell
from playing import PRICED, PlayedHost, goal, played, say

from agentd.agent.wire import Wire
from agentd.api.service import Conflict, NotFound, TooMany
from agentd.api.tasks import BatchAsked, TaskAsked
from agentd.daemon.app import Daemon
from agentd.errors import ConfigError, StoreFull
from agentd.memory import audit

__all__ = ["played", "tell"]  # the fixtures, by their names

ALONE: dict[str, Any] = {"api": {"max_concurrent_tasks": 1}}


class Desk:
    """Plays the host of one run after the other: each says its word when the test lets it."""

    def __init__(self, played: PlayedHost) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._with: dict[str, dict[str, Any]] = {}
        played.play = self._play

    async def _play(self, wire: Wire, job: Mapping[str, Any]) -> None:
        self.begun.append(job["run"])
        await self._ends.setdefault(job["run"], asyncio.Event()).wait()
        await say(wire, **self._with[job["run"]])

    async def end(self, house: House, id: str, state: str = "completed") -> None:
        self._with[id] = {"state": state, "error": None if state == "completed" else "it went wrong"}
        self._ends.setdefault(id, asyncio.Event()).set()
        await house.clock.advance(1)


def ask(id: str, **more: Any) -> TaskAsked:
    return TaskAsked.model_validate({"task": f"Do {id}.", "task_id": id, **more})


def batch(*ids: str, mode: str = "sequential", on_failure: str = "continue") -> BatchAsked:
    return BatchAsked.model_validate({"tasks": [ask(id) for id in ids], "mode": mode, "on_failure": on_failure})


async def statuses(daemon: Daemon) -> dict[str, str]:
    listed = await daemon.tasks.tasks(status=None, limit=100)
    return {each["task_id"]: each["status"] for each in reversed(listed["tasks"])}


def test_the_highest_priority_begins_first_and_the_oldest_within_one(tell: Tell, played: PlayedHost) -> None:
    """What is critical must not wait behind a night's reviews; among equals nobody jumps the queue."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **ALONE, **PRICED)
        async with house.living() as daemon:
            await daemon.tasks.submit(ask("first"), by="anna")
            await house.clock.advance(1)
            for id, priority in {"n1": "normal", "l": "low", "h1": "high", "n2": "normal", "c": "critical"}.items():
                await daemon.tasks.submit(ask(id, priority=priority), by="anna")
                await house.clock.advance(1)
            await daemon.tasks.submit(ask("h2", priority="high"), by="anna")
            for id in ("first", "c", "h1", "h2", "n1", "n2", "l"):
                await desk.end(house, id)

            assert desk.begun == ["first", "c", "h1", "h2", "n1", "n2", "l"]

    tell(story)


def test_a_parallel_batch_begins_at_once(tell: Tell, played: PlayedHost) -> None:
    """As far as there is room."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **PRICED)
        async with house.living() as daemon:
            answer = await daemon.tasks.submit_batch(batch("a", "b", "c", mode="parallel"), by="anna")
            await house.clock.advance(1)

            assert sorted(desk.begun) == ["a", "b", "c"]
            assert [each["task_id"] for each in answer["tasks"]] == ["a", "b", "c"]
            assert {each["batch_id"] for each in answer["tasks"]} == {answer["batch_id"]}
            assert (answer["mode"], answer["repeated"]) == ("parallel", False)

    tell(story)


def test_of_a_sequential_batch_each_begins_when_the_one_before_has_ended(tell: Tell, played: PlayedHost) -> None:
    """However that one ended: completed, failed, or cancelled before it began."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **PRICED)
        async with house.living() as daemon:
            await daemon.tasks.submit_batch(batch("a", "b", "c", "d"), by="anna")
            await house.clock.advance(60)
            assert desk.begun == ["a"]
            await desk.end(house, "a", "failed")
            await daemon.tasks.cancel("c", by="anna")
            await house.clock.advance(60)
            assert desk.begun == ["a", "b"]
            await desk.end(house, "b")
            assert desk.begun == ["a", "b", "d"]
            await desk.end(house, "d")

            assert await statuses(daemon) == {"a": "failed", "b": "completed", "c": "cancelled", "d": "completed"}

    tell(story)


def test_a_batch_that_stops_on_failure_cancels_the_rest_and_says_why(tell: Tell, played: PlayedHost) -> None:
    """Whoever waits for the last of them hears of it at once."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **PRICED)
        async with house.living() as daemon:
            await daemon.tasks.submit_batch(batch("a", "b", "c", on_failure="stop"), by="anna")
            await house.clock.advance(1)
            await desk.end(house, "a", "failed")
            await house.clock.advance(60)

            assert desk.begun == ["a"]
            assert await statuses(daemon) == {"a": "failed", "b": "cancelled", "c": "cancelled"}
            error = (await daemon.tasks.task("b"))["result"]["details"]["error"]
            assert error == "the task before it in its batch did not complete: a"

    tell(story)


@pytest.mark.parametrize("on_failure", ["continue", "stop"])
def test_a_batch_goes_on_where_a_restart_left_it(tell: Tell, played: PlayedHost, on_failure: str) -> None:
    """What ran is interrupted and not paid for twice; what waits is not forgotten."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **PRICED)
        asked = batch("a", "b", "c", on_failure=on_failure)
        async with house.living() as daemon:
            await daemon.tasks.submit_batch(asked, by="anna")
            await house.clock.advance(1)
            assert desk.begun == ["a"]
        async with house.living() as daemon:
            await house.clock.advance(1)
            again = await daemon.tasks.submit_batch(asked, by="anna")

            assert again["repeated"]
            assert desk.begun == (["a", "b"] if on_failure == "continue" else ["a"])
            found = ["failed", "in_progress", "pending"] if on_failure == "continue" else ["failed"] + 2 * ["cancelled"]
            assert [each["status"] for each in again["tasks"]] == found

    tell(story)


def test_a_batch_is_taken_whole_or_not_at_all(tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task that is not allowed, one that is taken, one too many, a full disk: nothing of it begins."""

    async def story(house: House) -> None:
        Desk(played)
        house.write(goal(every="9h"), **PRICED)
        monkeypatch.setattr("agentd.daemon.runs.tasks.MOST_QUEUED", 3)
        async with house.living() as daemon:
            await daemon.tasks.submit(ask("taken"), by="anna")
            other = ask("taken").model_copy(update={"task": "Something else."})
            forbidden = ask("b", context={"tools": ["run_command"]})
            with pytest.raises(ConfigError, match=r"^tasks\.1: .*run_command"):
                await daemon.tasks.submit_batch(BatchAsked(tasks=[ask("a"), forbidden]), by="anna")
            with pytest.raises(Conflict, match=r"^tasks\.1: the id 'taken' is taken"):
                await daemon.tasks.submit_batch(BatchAsked(tasks=[ask("a"), other]), by="anna")
            with pytest.raises(TooMany) as full:
                await daemon.tasks.submit_batch(batch("a", "b", "c", "d"), by="anna")
            assert full.value.retry_after_s > 0

            def no_room(*_: Any, **__: Any) -> None:
                raise StoreFull("the disk is full")

            monkeypatch.setattr(audit, "append", no_room)
            with pytest.raises(StoreFull):
                await daemon.tasks.submit_batch(batch("a", "b"), by="anna")
            monkeypatch.undo()
            await house.clock.advance(60)

            assert [*await statuses(daemon)] == ["taken"]

    tell(story)


def test_asking_again_gives_the_tasks_as_they_stand_even_when_it_would_not_be_allowed_any_more(
    tell: Tell, played: PlayedHost
) -> None:
    """Whoever lost the answer asks once more; what was taken then is not to be refused now."""

    async def story(house: House) -> None:
        desk = Desk(played)
        agent = {"tools": ["http_get"], "http": {"allow": ["127.0.0.1"]}}
        house.write(goal(every="9h"), agent=agent, **PRICED)
        asked = BatchAsked(tasks=[ask("a", context={"tools": ["http_get"]}), ask("b")], mode="sequential")
        async with house.living() as daemon:
            first = await daemon.tasks.submit_batch(asked, by="anna")
            await house.clock.advance(1)
            await desk.end(house, "a")
            house.write(goal(every="9h"), agent={"tools": []}, **PRICED)
            assert await daemon.reload() is None

            again = await daemon.tasks.submit_batch(asked, by="ben")
            one = await daemon.tasks.submit(asked.tasks[0], by="ben")

            assert (first["repeated"], again["repeated"], one["repeated"]) == (False, True, True)
            assert again["batch_id"] == first["batch_id"]
            assert [each["status"] for each in again["tasks"]] == ["completed", "in_progress"]
            assert one["status"] == "completed"
            with pytest.raises(Conflict, match="another order, mode or on_failure"):
                await daemon.tasks.submit_batch(asked.model_copy(update={"mode": "parallel"}), by="ben")
            with pytest.raises(Conflict, match="asks for something else"):
                await daemon.tasks.submit(ask("a"), by="ben")
            assert desk.begun == ["a", "b"]

    tell(story)


def test_the_same_batch_asked_for_at_the_same_moment_is_taken_once(tell: Tell, played: PlayedHost) -> None:
    """A proxy that tries again does not wait for the first answer."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **PRICED)
        async with house.living() as daemon:
            asked = batch("a", "b", mode="parallel")
            answers = await asyncio.gather(*(daemon.tasks.submit_batch(asked, by="anna") for _ in range(5)))
            await house.clock.advance(1)

            assert sorted(answer["repeated"] for answer in answers) == [False, True, True, True, True]
            assert len({answer["batch_id"] for answer in answers}) == 1
            assert sorted(desk.begun) == ["a", "b"]
            trail = await daemon.store.state.read(lambda c: audit.rows(c, limit=10))
            assert [(each.action, each.detail) for each in trail if each.action == "batch"] == [("batch", "2 tasks")]

    tell(story)


def test_what_waits_and_what_is_under_way_can_be_cancelled_once(tell: Tell, played: PlayedHost) -> None:
    """And what has ended cannot."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **ALONE, **PRICED)
        async with house.living() as daemon:
            for id in ("running", "waiting"):
                await daemon.tasks.submit(ask(id), by="anna")
                await house.clock.advance(1)
            waiting = await daemon.tasks.cancel("waiting", by="ben")
            await daemon.tasks.cancel("running", by="ben")
            await house.clock.advance(10)

            assert waiting["status"] == "cancelled"
            assert await statuses(daemon) == {"running": "cancelled", "waiting": "cancelled"}
            assert desk.begun == ["running"]
            assert (await daemon.tasks.task("running"))["result"]["details"]["error"] == "cancelled by ben"
            for id in ("running", "waiting"):
                with pytest.raises(Conflict, match="ended"):
                    await daemon.tasks.cancel(id, by="ben")
            with pytest.raises(NotFound):
                await daemon.tasks.cancel("nobody", by="ben")

    tell(story)


def test_lists_go_on_page_by_page(tell: Tell, played: PlayedHost) -> None:
    """Newest first; the cursor is what the page above ended with."""

    async def story(house: House) -> None:
        desk = Desk(played)
        house.write(goal(every="9h"), **ALONE, **PRICED)
        async with house.living() as daemon:
            for id in "abcde":
                await daemon.tasks.submit(ask(id), by="anna")
            await house.clock.advance(1)
            await desk.end(house, "a", "failed")
            tasks = daemon.tasks

            first = await tasks.tasks(status=None, limit=2)
            second = await tasks.tasks(status=None, limit=2, before=first["next"])
            last = await tasks.tasks(status=None, limit=2, before=second["next"])
            pages = [[each["task_id"] for each in page["tasks"]] for page in (first, second, last)]
            assert pages == [["e", "d"], ["c", "b"], ["a"]]
            assert last["next"] is None
            assert last["tasks"][0]["result"]["success"] is False
            pending = await tasks.tasks(status="pending", limit=3)
            assert [each["task_id"] for each in pending["tasks"]] == ["e", "d", "c"]
            assert pending["next"] is None
            runs = await tasks.runs(watch=None, state=None, limit=2, before="d")
            assert [each["id"] for each in runs] == ["c", "b"]
            with pytest.raises(NotFound, match="before: "):
                await tasks.tasks(status=None, limit=2, before="nobody")
            with pytest.raises(NotFound, match="before: "):
                await tasks.runs(watch=None, state=None, limit=2, before="nobody")
            with pytest.raises(ConfigError, match="status: "):
                await tasks.tasks(status="done", limit=2)

    tell(story)


AGENT: dict[str, Any] = {
    "tools": ["http_get", "read_file"],
    "files": {"allow": ["/srv/data"]},
    "http": {"allow": ["127.0.0.1"]},
    "environment": ["LANG"],
    "max_steps": 5,
    "working_directory": "/srv/data",
}


def test_a_context_narrows_what_the_job_may_do(tell: Tell, played: PlayedHost) -> None:
    """Each part of it, down to what the host is told."""

    async def story(house: House) -> None:
        house.write(goal(every="9h"), agent=AGENT, **PRICED)
        context = {
            "tools": ["read_file"],
            "environment": {"LANG": "C"},
            "constraints": {"max_steps": 2, "max_execution_time": 7, "allowed_paths": ["/srv/data/shop"]},
        }
        async with house.living() as daemon:
            await daemon.tasks.submit(ask("a", context=context, metadata={"team": "web"}), by="anna")
            await daemon.tasks.submit(ask("b", context={"constraints": {"max_steps": 900}}), by="anna")
            await house.clock.advance(5)

            narrow, wide = played.jobs
            allowed = narrow["permissions"]
            assert (allowed["tools"], allowed["read"]) == (["read_file"], ["/srv/data/shop"])
            assert allowed["environment"] == {"LANG": "C"}
            assert (narrow["limits"]["max_steps"], narrow["limits"]["time_s"]) == (2, 7.0)
            assert narrow["metadata"] == {"team": "web"}
            assert wide["limits"]["max_steps"] == 5
            assert wide["permissions"]["tools"] == ["http_get", "read_file"]

    tell(story)


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({"tools": ["run_command"]}, "run_command"),
        ({"environment": {"LD_PRELOAD": "/tmp/x.so"}}, "LD_PRELOAD"),
        ({"constraints": {"allowed_paths": ["/etc"]}}, "/etc"),
        ({"constraints": {"allowed_paths": ["/srv/data/../../etc"]}}, "etc"),
        ({"working_directory": "/etc"}, "/etc"),
    ],
)
def test_a_context_that_asks_for_more_is_refused_by_name(
    tell: Tell, played: PlayedHost, context: Mapping[str, Any], named: str
) -> None:
    """Not quietly cut: the caller would believe that it was done."""

    async def story(house: House) -> None:
        house.write(goal(every="9h"), agent=AGENT, **PRICED)
        async with house.living() as daemon:
            with pytest.raises(ConfigError, match=named):
                await daemon.tasks.submit(ask("a", context=context), by="anna")
            await house.clock.advance(5)
            assert played.jobs == []
            assert await statuses(daemon) == {}

    tell(story)
