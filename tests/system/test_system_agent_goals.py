"""What starts goals, and what people hear of what was found: once, in its order, and nothing that goes in circles."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from agents import configure, ended, finish, model, runs, shop, submit, task_of, until
from log_files import LogFile, any_line, watch
from loopback import free_port
from modelserver import Asked, ModelServer, Reply
from stage import Stage
from standardwebhooks import Webhook

NEVER = "0 0 1 1 *"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def goal(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "goal": f"Look at {name}.", **more}


class Held:
    """An answer that comes when it is let go."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.go = asyncio.Event()

    async def __call__(self, asked: Asked) -> Reply:
        await self.go.wait()
        return self._reply


# `investigate.wait`


async def test_a_message_that_waits_comes_once_with_the_finding_in_it(tmp_path: Path) -> None:
    """Who asked for one message that says it all is not paged twice."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target, investigate={"goal": "Why?", "wait": "60s"})])
        held = Held(finish())
        server.answers(held)
        daemon = await stage.start()
        await server.wait_for(1)
        await target.looked_at(3)
        assert stage.hook.requests == []

        held.go.set()

        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["finding"]["summary"] == "The disk is full."
        assert firing["data"]["cost"]["model_calls"] == 1
        await ended(stage)
        await target.looked_at(3)
        assert await daemon.stop() == 0
        assert [message["type"] for message in stage.hook.messages()] == ["alert.firing"]


async def test_without_a_finding_in_time_the_message_goes_alone_and_the_finding_follows(tmp_path: Path) -> None:
    """A page that waits for a model that hangs is a page that never comes."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target, investigate={"goal": "Why?", "wait": "1s"})])
        held = Held(finish())
        server.answers(held)
        await stage.start()

        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["finding"] is None
        held.go.set()
        updated = await stage.hook.message("alert.updated")

        assert updated["data"]["finding"]["summary"] == "The disk is full."
        assert updated["data"]["fingerprint"] == firing["data"]["fingerprint"]


async def test_a_resolve_does_not_overtake_what_waits_for_a_finding(tmp_path: Path) -> None:
    """An end that arrives before its beginning leaves an incident open that nobody will ever close."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target, investigate={"goal": "Why?", "wait": "60s"})])
        held = Held(finish())
        server.answers(held)
        daemon = await stage.start()
        await server.wait_for(1)

        target.status = 200
        await daemon.logged("alert_resolved")
        held.go.set()

        await stage.hook.message("alert.resolved")
        assert [message["type"] for message in stage.hook.messages()] == ["alert.firing", "alert.resolved"]
        assert (await ended(stage))[0]["state"] == "completed"
        assert await stage.outbox() == []


async def test_a_waiting_message_goes_when_the_run_comes_to_nothing(tmp_path: Path) -> None:
    """Whatever becomes of the agent, the page goes out; and at once when nothing is to be waited for."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target, investigate={"goal": "Why?", "wait": "10m"})])
        server.answers(Reply(hang=True))
        await stage.start()
        await server.wait_for(1)
        (run,) = await runs(stage)

        assert (await stage.api("DELETE", f"/api/v1/tasks/{run['id']}")).status_code == 200

        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["finding"] is None


async def test_an_alert_that_fires_again_is_looked_into_again(tmp_path: Path) -> None:
    """The finding of the first incident is not that of the second."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        configure(stage, server, [shop(target)])
        server.answers(finish(summary="First."), finish(summary="Second."))
        await stage.start()
        for number, summary in ((1, "First."), (2, "Second.")):
            target.status = 503
            firing = await stage.hook.message("alert.firing", nth=number)
            updated = await stage.hook.message("alert.updated", nth=number)
            target.status = 200
            await stage.hook.message("alert.resolved", nth=number)
            assert firing["data"]["finding"] is None, "not that of the incident before"
            assert updated["data"]["finding"]["summary"] == summary


async def test_a_finding_that_comes_late_is_not_that_of_the_next_incident(tmp_path: Path) -> None:
    """What was wrong an hour ago, told of what is wrong now, sends people the wrong way."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        held = Held(finish(summary="First."))
        server.answers(held, finish(summary="Second."))
        await stage.start()
        await server.wait_for(1)
        await stage.hook.message("alert.firing")
        target.status = 200
        await stage.hook.message("alert.resolved")
        target.status = 503
        await stage.hook.message("alert.firing", nth=2)

        held.go.set()

        updated = await stage.hook.message("alert.updated")
        assert updated["data"]["finding"]["summary"] == "Second."
        listed = await ended(stage, count=2)
        assert [run["summary"] for run in listed] == ["Second.", "First."]
        assert len(stage.hook.messages("alert.updated")) == 1


async def test_a_rule_of_a_log_starts_the_goal_that_waits_for_it(tmp_path: Path) -> None:
    """`on: [log:app/boom]`, and no other rule of that log."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        log = LogFile(tmp_path / "app.log")
        app = watch(log.path, any_line("boom", "boom"), any_line("quiet", "quiet"))
        configure(stage, server, [app, goal("after", on=["log:app/boom"])])
        server.otherwise = finish()
        await stage.start()

        log.write("it is quiet", "and then: boom")

        await stage.hook.message("goal.finding")
        (run,) = await ended(stage)
        assert run["trigger"] == "log:app/boom"
        assert "and then: boom" in json.dumps(server.requests[0].messages)


# Reports


async def test_each_finding_that_is_not_ok_is_a_message(tmp_path: Path) -> None:
    """A review every morning is read for what it found, not for having been done."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, [goal("review", cron=NEVER, on=["startup"])])
        server.answers(finish("ok", "Nothing."))
        daemon = await stage.start()
        await ended(stage)
        await daemon.stop()
        assert stage.hook.requests == []

        server.answers(finish("problem", "Look at this."))
        await stage.start()
        message = await stage.hook.message("goal.finding")

        assert message["data"]["watch"] == "review"
        assert message["data"]["finding"]["summary"] == "Look at this."
        (run, _) = await ended(stage, count=2)
        assert message["data"]["cost"]["run"] == run["id"]
        assert not [alert for alert in await stage.alerts() if alert["state"] == "firing"]


async def test_a_goal_that_reports_by_state_fires_resolves_and_is_blind_without_its_model(tmp_path: Path) -> None:
    """A provider's outage is not the outage of what is watched."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        models = {"default": model(server, retries=0)}
        disk = goal("disk", every="300ms", report="state", blind_after="1s")
        configure(stage, server, [disk], models=models)
        server.otherwise = finish("problem", "It is full.")
        await stage.start()

        firing = await stage.hook.message("alert.firing", watch="disk")
        assert firing["data"]["summary"] == "disk: It is full."
        assert firing["data"]["finding"]["summary"] == "It is full."
        server.otherwise = finish("ok", "Room again.")
        await stage.hook.message("alert.resolved", watch="disk")

        server.otherwise = 503
        blind = await stage.hook.message("alert.firing", watch="disk", nth=2)
        assert "blind" in str(blind["data"]["rule"])
        (own,) = [alert for alert in await stage.alerts() if alert["watch"] == "disk" and alert["rule"] is None]
        assert own["state"] == "resolved"
        server.otherwise = finish("ok", "Room still.")
        await stage.hook.message("alert.resolved", watch="disk", nth=2)


# Triggers


async def test_an_alert_starts_the_goal_that_waits_for_it(tmp_path: Path) -> None:
    """With what the alert says as its first evidence."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target, investigate=None), goal("detective", on=["alert:shop"])])
        server.otherwise = finish()
        await stage.start()

        message = await stage.hook.message("goal.finding")

        assert message["data"]["watch"] == "detective"
        (run,) = await ended(stage)
        assert run["trigger"] == "alert:shop"
        assert "status == 200" in json.dumps(server.requests[0].messages)
        assert [each["type"] for each in stage.hook.messages()] == ["alert.firing", "goal.finding"]


async def test_a_hook_starts_the_goal_that_waits_for_it(tmp_path: Path) -> None:
    """`on: [hook:deploy]`: what was deployed stands in the payload, and reaches the model as data."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        port = free_port()
        api = {"listen": [f"unix:{tmp_path}/api.sock", f"127.0.0.1:{port}"], "hooks": {"deploy": {"secret": SECRET}}}
        configure(stage, server, [goal("after", on=["hook:deploy"])], api=api)
        server.otherwise = finish()
        await stage.start()
        body = json.dumps({"version": "1.2.3-rc-of-the-shop"})
        at = datetime.now(UTC)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(SECRET).sign("msg_1", at, body),
        }

        async with httpx.AsyncClient() as client:
            for _ in range(2):  # what is sent twice is one event
                answer = await client.post(
                    f"http://127.0.0.1:{port}/api/v1/hooks/deploy", content=body, headers=headers
                )
                assert answer.status_code in (200, 202, 409), answer.text

        message = await stage.hook.message("goal.finding")
        assert message["data"]["watch"] == "after"
        assert "1.2.3-rc-of-the-shop" in json.dumps(server.requests[0].messages)
        (run,) = await ended(stage)
        assert run["trigger"] == "hook:deploy"


async def test_goals_that_start_each_other_come_to_rest(tmp_path: Path) -> None:
    """Two that find a problem in each other would talk all night, at our cost."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        watches = [
            shop(target, investigate=None),
            goal("one", on=["alert:two", "alert:shop"], report="state"),
            goal("two", on=["alert:one"], report="state"),
        ]
        configure(stage, server, watches)
        turn = iter(range(1000))

        def answer(asked: Asked) -> Reply:
            # In turn, so that whatever is looked at again changes its state and tells of it.
            return finish("problem" if next(turn) % 4 < 2 else "ok", "It is the other one.")

        server.otherwise = answer
        daemon = await stage.start()

        await daemon.logged("event_refused", watch="one")
        await ended(stage, count=2)
        asked = len(server.requests)
        await target.looked_at(10)

        assert len(server.requests) == asked == 2
        assert [run["watch"] for run in await runs(stage)] == ["two", "one"]


async def test_a_goal_that_was_due_while_we_were_down_runs_once(tmp_path: Path) -> None:
    """The review of last night is still of use this morning; that of each hour of a week is not."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        watches = [goal("hourly", cron="0 * * * *", on=["startup"]), goal("skipping", cron="0 * * * *", missed="skip")]
        configure(stage, server, watches)
        server.otherwise = finish("ok", "Well.")
        daemon = await stage.start()
        await ended(stage)
        await daemon.stop()
        configure(stage, server, [{**each, "on": []} for each in watches])
        _age(stage, timedelta(hours=7))

        daemon = await stage.start()
        made_up = await daemon.logged("run_made_up", watch="hourly")
        listed = await ended(stage, count=2)
        assert await daemon.stop() == 0
        await stage.start()
        assert (await task_of(stage, await submit(stage)))["status"] == "completed"

        assert made_up["due_at"].endswith(":00:00.000Z")
        assert [run["trigger"] for run in listed] == ["missed", "startup"]
        assert len(await runs(stage, watch="hourly")) == 2
        assert await runs(stage, watch="skipping") == []


def _age(stage: Stage, by: timedelta) -> None:
    """As if all runs had been due so much earlier; the daemon is down."""
    with sqlite3.connect(stage.state_dir / "state.db") as connection:
        connection.execute("UPDATE runs SET due_at = due_at - ?", (int(by.total_seconds() * 1_000_000),))
    connection.close()


async def test_a_restore_holds_runs_back_until_somebody_says_go(tmp_path: Path) -> None:
    """What waits in a backup may have been done since."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        configure(stage, server, api={"max_concurrent_tasks": 1})
        server.answers(Reply(hang=True))
        daemon = await stage.start()
        await submit(stage)
        await server.wait_for(1)
        await submit(stage)
        await until(lambda: bool(daemon.logs("run_started")), "the first runs")
        await daemon.kill()
        with sqlite3.connect(stage.state_dir / "state.db") as connection:
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('held', 'restored by a test')")
        connection.close()

        daemon = await stage.start()
        assert len(server.requests) == 1
        assert (await stage.api("POST", "/api/v1/doctor/resume", {})).json()["was_held"]

        server.otherwise = "Well."
        listed = await ended(stage, count=2)
        assert sorted(run["state"] for run in listed) == ["completed", "interrupted"]
        assert daemon.alive
