"""The agent host or the daemon dies in the middle of a run: nothing is spent twice, and nobody stays behind."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from agents import (
    configure,
    ended,
    finish,
    hosts_of,
    model,
    processes_with,
    run_of,
    runs,
    shop,
    submit,
    task_of,
    until,
)
from modelserver import ModelServer, Reply, call, calls
from stage import Daemon, Stage

HANG = Reply(hang=True)


async def under_way(stage: Stage, server: ModelServer, daemon: Daemon) -> psutil.Process:
    """The host, when the model has been asked once."""
    await server.wait_for(1)
    (host,) = hosts_of(daemon)
    return host


async def gone(*processes: psutil.Process) -> None:
    await until(lambda: not any(each.is_running() and each.status() != "zombie" for each in processes), "they end")


async def test_a_killed_host_interrupts_its_runs_and_costs_no_alert(tmp_path: Path) -> None:
    """It may run out of memory; the page was sent before it was asked anything."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        server.answers(HANG)
        daemon = await stage.start()
        host = await under_way(stage, server, daemon)
        await stage.hook.message("alert.firing")

        host.kill()

        (run,) = await ended(stage)
        assert run["state"] == "interrupted"
        assert "host" in run["error"]
        # The next run gets a new host; the one that was interrupted is not run again.
        server.otherwise = finish("ok", "Well.")
        assert (await task_of(stage, await submit(stage)))["status"] == "completed"
        assert len(server.requests) == 2
        assert [each["state"] for each in await runs(stage, watch="shop")] == ["interrupted"]
        assert daemon.alive
        assert [message["type"] for message in stage.hook.messages()] == ["alert.firing"]


async def test_a_killed_daemon_takes_its_host_along_and_asks_no_model_again(tmp_path: Path) -> None:
    """What was under way is paid for; to ask it all again without being told to is to pay twice."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        server.answers(HANG)
        daemon = await stage.start()
        host = await under_way(stage, server, daemon)
        await stage.hook.message("alert.firing")

        await daemon.kill()
        await gone(host)
        await server.until(lambda: server.open == 0)
        server.otherwise = finish("ok", "Well.")
        await stage.start()

        (run,) = await runs(stage)
        assert run["state"] == "interrupted"
        assert "stopped while it ran" in run["error"]
        assert (await task_of(stage, await submit(stage)))["status"] == "completed"
        assert len(server.requests) == 2
        assert [message["type"] for message in stage.hook.messages()] == ["alert.firing"]


@pytest.mark.parametrize("victim", ["host", "daemon"])
async def test_what_a_killed_run_had_set_aside_counts_as_spent(tmp_path: Path, victim: str) -> None:
    """Nobody knows what the provider will charge for it; the budget is to hold in any case."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        models = {"default": model(server, max_tokens=4000)}
        configure(stage, server, models=models, budgets={"daemon_per_day": {"tokens": 12000}})
        server.answers("Well.", HANG)
        daemon = await stage.start()
        # What was settled leaves room for another call of that size: what follows is no matter of the budget alone.
        assert (await task_of(stage, await submit(stage)))["status"] == "completed"
        await submit(stage)
        await server.wait_for(2)

        if victim == "host":
            hosts_of(daemon)[0].kill()
            await ended(stage, count=2)
        else:
            await daemon.kill()
            await stage.start()

        third = await task_of(stage, await submit(stage))
        assert third["status"] == "failed"
        assert "budget" in third["result"]["details"]["error"]
        assert len(server.requests) == 2


def end_all(word: str) -> None:
    for each in processes_with(word):
        each.kill()


SCRIPT = "#!/bin/sh\nsleep {number} &\nsetsid sleep {number} &\nwait\n"


@pytest.mark.parametrize("victim", ["host", "daemon", "both", "stop"])
async def test_no_command_of_an_agent_survives(tmp_path: Path, victim: str, request: pytest.FixtureRequest) -> None:
    """A hundred forgotten `tail -f` are how an agent brings a machine down; also those with a session of their own."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        number = f"98765.{tmp_path.stat().st_ino}"
        request.addfinalizer(lambda: end_all(number))  # should this fail
        script = tmp_path / "look"
        script.write_text(SCRIPT.format(number=number))
        script.chmod(0o755)
        agent: dict[str, Any] = {
            "tools": ["run_command"],
            "commands": {"allow": [[str(script)]]},
            "tool_timeout": "60s",
        }
        configure(stage, server, agent=agent)
        server.answers(calls(call("run_command", argv=[str(script)])))
        daemon = await stage.start()
        task = await submit(stage)
        await until(lambda: len(processes_with(number)) == 2, "the command is at work")
        (host,) = hosts_of(daemon)
        shell = processes_with(str(script))
        assert shell

        if victim in ("host", "both"):
            host.kill()
        if victim in ("daemon", "both"):
            daemon.signal(signal.SIGKILL)
            await daemon.ended()
        if victim == "stop":
            assert await daemon.stop() == 0
        if victim == "both":
            await stage.start()  # nobody was left who could have ended it

        await gone(host, *shell)
        await until(lambda: not processes_with(number), "what the command started ends")
        if victim == "host":
            assert (await run_of(stage, task))["state"] == "interrupted"


async def test_stopping_with_a_run_under_way_ends_in_time(tmp_path: Path) -> None:
    """systemd would kill it, and with it the messages that wait."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)], daemon={"drain_timeout": "2s"})
        server.answers(HANG)
        daemon = await stage.start()
        host = await under_way(stage, server, daemon)
        await stage.hook.message("alert.firing")

        assert await daemon.stop(within_s=15) == 0

        await gone(host)
        await server.until(lambda: server.open == 0)
        server.otherwise = finish()
        await stage.start()
        assert [run["state"] for run in await runs(stage)] == ["interrupted"]
        assert len(server.requests) == 1


async def test_a_message_that_waits_for_a_finding_is_sent_when_the_daemon_dies_meanwhile(tmp_path: Path) -> None:
    """The finding will never come: nobody runs it again."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        waits = {"goal": "Find out why.", "wait": "10m"}
        configure(stage, server, [shop(target, investigate=waits)])
        server.answers(HANG)
        daemon = await stage.start()
        await server.wait_for(1)
        assert stage.hook.requests == []

        await daemon.kill()
        await stage.start()

        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["finding"] is None
        assert len(server.requests) == 1


async def test_a_reload_lets_a_run_under_way_go_on(tmp_path: Path) -> None:
    """People mend the configuration while something is wrong."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        daemon = await stage.start()
        answer = asyncio.Event()

        async def later(_: object) -> Reply:
            await answer.wait()
            return finish()

        server.answers(later)
        await server.wait_for(1)
        await stage.hook.message("alert.firing")

        configure(
            stage, server, [shop(target, severity="critical"), {"name": "new", "goal": "Look.", "cron": "0 0 1 1 *"}]
        )
        daemon.signal(signal.SIGHUP)
        await daemon.logged("reloaded")
        answer.set()

        updated = await stage.hook.message("alert.updated")
        assert updated["data"]["finding"]["summary"] == "The disk is full."
        assert len(server.requests) == 1


async def test_a_watch_that_a_reload_takes_away_leaves_its_run_to_its_end(tmp_path: Path) -> None:
    """Its alert is over; the run is not a reason to crash."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        configure(stage, server, [shop(target)])
        answer = asyncio.Event()

        async def later(_: object) -> Reply:
            await answer.wait()
            return finish()

        server.answers(later)
        daemon = await stage.start()
        await server.wait_for(1)
        await stage.hook.message("alert.firing")

        configure(stage, server, [])
        daemon.signal(signal.SIGHUP)
        resolved = await stage.hook.message("alert.resolved")
        answer.set()

        assert resolved["data"]["reason"] == "watch_removed"
        (run,) = await ended(stage)
        assert run["state"] == "completed"
        assert daemon.alive


async def test_a_paused_watch_starts_no_run(tmp_path: Path) -> None:
    """Paused is paused, for what costs money most of all."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        server.otherwise = finish("ok", "Well.")
        goal = {"name": "look", "goal": "Look around.", "every": "200ms"}
        on = {"name": "why", "goal": "Why?", "on": ["alert:shop", "startup"]}
        configure(stage, server, [shop(target, investigate=None), goal, on])
        daemon = await stage.start()
        await server.wait_for(2)
        for name in ("look", "why"):
            assert (await stage.api("POST", f"/api/v1/watches/{name}/pause", {})).status_code == 200

        async def rest() -> bool:
            # What was queued before waits, until its watch is resumed.
            states = [run["state"] for run in await runs(stage)]
            return len(states) >= 2 and "running" not in states

        await until(rest, "what was under way ends")
        asked = len(server.requests)

        target.status = 503
        await stage.hook.message("alert.firing", watch="shop")
        await target.looked_at(5)

        assert len(server.requests) == asked
        assert not [run for run in await runs(stage) if run["trigger"].startswith("alert:")]
        for name in ("look", "why"):
            assert (await stage.api("POST", f"/api/v1/watches/{name}/resume", {})).status_code == 200
        await server.wait_for(asked + 1)
        assert daemon.alive


async def test_no_host_runs_while_nothing_is_asked_and_it_ends_when_idle(tmp_path: Path) -> None:
    """An idle daemon costs what it cost before it could ask anybody."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        server.otherwise = "Well."
        goal = {"name": "look", "goal": "Look around.", "cron": "0 0 1 1 *"}
        configure(stage, server, [goal])
        daemon = await stage.start(AGENTD_AGENT_IDLE_S="1")
        assert not hosts_of(daemon)

        assert (await task_of(stage, await submit(stage)))["status"] == "completed"
        (first,) = hosts_of(daemon)
        await gone(first)
        await daemon.logged("agent_host_ended", exit_code=0)
        assert (await task_of(stage, await submit(stage)))["status"] == "completed"
        (second,) = hosts_of(daemon)
        assert first.pid != second.pid


async def test_a_host_that_cannot_start_is_given_up_after_a_few_tries(tmp_path: Path) -> None:
    """A broken installation: it says so, instead of starting processes for as long as the run might have taken."""
    async with Stage(tmp_path) as stage, ModelServer() as server:
        target = await stage.target()
        target.status = 503
        waits = {"goal": "Find out why.", "wait": "10m"}
        configure(stage, server, [shop(target, investigate=waits)])
        daemon = await stage.start(AGENTD_AGENT_IDLE_S="for a while")

        firing = await stage.hook.message("alert.firing")

        assert firing["data"]["finding"] is None
        (run,) = await ended(stage)
        assert run["state"] in ("failed", "interrupted")
        assert "agent host" in run["error"]
        assert 1 < len(daemon.logs("agent_host_started")) <= 5
        # It is tried anew when there is something to do anew.
        await submit(stage)
        assert (await ended(stage, count=2))[0]["state"] in ("failed", "interrupted")
        assert daemon.alive
