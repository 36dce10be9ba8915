"""Agents in the daemon, with a host that the test plays: days that pass, and whatever the other side may say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from house import HOUR, House, Shop, Tell, http, tell, told
from loopback import serving
from playing import CENT, MODEL, PRICED, Play, PlayedHost, finds, goal, pays_first, played, runs_of, say
from receiver import Receiver

from agentd.agent.caller import HostDied
from agentd.agent.wire import Wire
from agentd.daemon.app import Daemon
from agentd.errors import StoreError
from agentd.memory import ledger, worked
from agentd.memory.ledger import Priority, Run, RunState

__all__ = ["played", "tell"]  # the fixtures, by their names

DAY = 24 * HOUR


def test_a_spent_budget_is_one_alert_a_day_and_over_with_it(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hour of the day is held back; people hear of it once, and once that the next day has its own."""

    monkeypatch.setattr("agentd.daemon.app.LOOK_EVERY_S", 60.0)
    monkeypatch.setattr("agentd.daemon.app.TICK_S", 60.0)

    async def story(house: House) -> None:
        house.clock.tick(9 * HOUR)  # the evening
        played.play = pays_first
        async with Receiver() as receiver:
            alerting = {"remind_every": 0, "group_interval": 0}
            house.write(goal(every="20m", blind_after="30d"), hook=receiver.url, alerting=alerting, **PRICED, **CENT)
            async with house.living():
                await house.clock.advance(2 * HOUR)
                assert len(played.jobs) >= 5
                assert told(receiver) == ["agentd alert.firing"]
                assert "$0.0000 of $0.0100" in receiver.taken[0].json["data"]["summary"]

                played.play = finds
                await house.clock.advance(_to_midnight_s(house.clock.now()) - 60)
                assert told(receiver).count("agentd alert.resolved") == 0
                await house.clock.advance(3 * 60)
                assert told(receiver).count("agentd alert.resolved") == 1

                played.play = pays_first
                await house.clock.advance(HOUR)
                own = [each for each in told(receiver) if each.startswith("agentd")]
                assert own == ["agentd alert.firing", "agentd alert.resolved", "agentd alert.firing"]

    tell(story)


def _to_midnight_s(now: datetime) -> float:
    return DAY - (now.hour * HOUR + now.minute * 60 + now.second)


def test_a_history_that_cannot_be_read_costs_no_run(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what was, and may be lost at any time; the run begins with the alert alone, and ends."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate="Why?"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:

                async def broken(*_: Any) -> Any:
                    raise StoreError("the history is gone")

                monkeypatch.setattr(daemon.store.history, "read", broken)
                await house.clock.advance(10 * 60)

                (run,) = await runs_of(daemon)
                assert run.state == "completed"
                assert "503" in json.dumps(played.jobs[0]["exhibits"])
                assert told(receiver)[:2] == ["shop alert.firing", "shop alert.updated"]
                monkeypatch.undo()

    tell(story)


def test_what_worked_is_kept_and_asked_for_by_the_scenario(tell: Tell, played: PlayedHost) -> None:
    """Nobody said which: by the kind of the run alone all goals would be one, and never meet those that said it."""

    async def story(house: House) -> None:
        house.write(goal(goal="Debug why the build fails."), **PRICED)
        async with house.living() as daemon:
            for _ in range(5):
                await house.clock.advance(HOUR)
            learnt = await daemon.store.history.read(worked.rows)

            assert {each.kind for each in learnt} == {"debugging"}
            assert {job["scenario"] for job in played.jobs} == {"debugging"}
            assert played.jobs[0]["strategies"] == []
            assert "went well" in played.jobs[-1]["strategies"][0]

    tell(story)


async def _garbage(wire: Wire, job: Mapping[str, Any]) -> None:
    wire._writer.write(b"\x00\x00\x00\x04{{{{")


async def _huge(wire: Wire, job: Mapping[str, Any]) -> None:
    wire._writer.write(b"\xff\xff\xff\xff")


async def _half(wire: Wire, job: Mapping[str, Any]) -> None:
    wire._writer.write(b"\x00\x00\x00\x20{")


async def _no_outcome(wire: Wire, job: Mapping[str, Any]) -> None:
    wire.send("outcome", outcome={"state": "wonderful"})
    await wire.drain()


async def _odd_record(wire: Wire, job: Mapping[str, Any]) -> None:
    wire.send("record", seq="first", at_s=None, kind=7, data="nothing")
    wire.send("event", event={})
    await wire.drain()


async def _odd_question(wire: Wire, job: Mapping[str, Any]) -> None:
    wire.send("ask", id=None, what=["reserve"], args="money")
    await wire.drain()


async def _storm(wire: Wire, job: Mapping[str, Any]) -> None:
    for number in range(5000):
        wire.send("ask", id=number, what="query", args={"what": "history", "args": {}})
    await wire.drain()


@pytest.mark.parametrize("play", [_garbage, _huge, _half, _no_outcome, _odd_record, _odd_question, _storm])
def test_a_host_that_has_gone_mad_is_hung_up_on(tell: Tell, played: PlayedHost, play: Play) -> None:
    """It reads what the whole world writes: whatever it says, the daemon goes on watching."""

    async def story(house: House) -> None:
        played.play = play
        async with Receiver() as receiver:
            house.write(goal(every="5m", report="each"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                while not played.jobs:
                    await house.clock.advance(60)
                first = (await runs_of(daemon))[-1]
                assert first.state in ("interrupted", "failed")
                assert first.error

                played.play = finds
                await house.clock.advance(5 * 60)
                assert (await runs_of(daemon))[0].state == "completed"
                assert told(receiver) == ["review goal.finding"]

    tell(story)


def test_a_host_that_does_not_end_with_its_time_is_killed(tell: Tell, played: PlayedHost) -> None:
    """Its own clock may be what hangs."""

    async def never(wire: Wire, job: Mapping[str, Any]) -> None:
        await asyncio.Event().wait()

    async def story(house: House) -> None:
        played.play = never
        async with Receiver() as receiver:
            house.write(goal(report="each"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                while not played.jobs:
                    await house.clock.advance(60)
                await house.clock.advance(120)
                assert [run.state for run in await runs_of(daemon)] == ["running"]
                await house.clock.advance(600)

                assert [run.state for run in await runs_of(daemon)] == ["failed"]
                assert played.killed == 1

    tell(story)


def test_no_host_to_be_had_is_said_in_the_run(tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page that waits for a finding goes without."""

    async def refuses() -> Wire:
        raise HostDied("the agent host cannot be reached")

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        monkeypatch.setattr(played, "connect", refuses)
        async with Receiver() as receiver, serving(shop.answer) as served:
            waits = {"goal": "Why?", "wait": "10m"}
            house.write(http(served, investigate=waits), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                await house.clock.advance(5 * 60)

                (run,) = await runs_of(daemon)
                assert run.state == "interrupted"
                assert told(receiver) == ["shop alert.firing"]

    tell(story)


def test_what_a_full_store_refused_is_told_when_there_is_room(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finding was paid for; the end of its run and the message are one, and wait together."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(goal(report="each"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                write = daemon.store.state.write
                refused = 0

                async def full(change: Any) -> Any:
                    nonlocal refused
                    refused += 1
                    raise StoreError("no room")

                async def then_full(wire: Wire, job: Mapping[str, Any]) -> None:
                    monkeypatch.setattr(daemon.store.state, "write", full)
                    await finds(wire, job)

                played.play = then_full
                await house.clock.advance(HOUR + 120)
                assert refused
                assert told(receiver) == []
                monkeypatch.setattr(daemon.store.state, "write", write)
                await house.clock.advance(60)

                assert [run.state for run in await runs_of(daemon)] == ["completed"]
                assert told(receiver) == ["review goal.finding"]

    tell(story)


def test_a_run_whose_narrowing_is_lost_fails(tell: Tell, played: PlayedHost) -> None:
    """It asked for a part of what is allowed; to give it all of that because the part was long is no kindness."""

    async def story(house: House) -> None:
        house.write(goal(), models=PRICED["models"])
        async with house.living() as daemon:
            asked = {"tools": ["query_history"] * 50_000}
            run = Run("r1", "task", "api", house.clock.now(), kind="task", goal="Look only.", asked=asked)
            await daemon.agents.runs.submit(run)
            await house.clock.advance(10)

            (row,) = await runs_of(daemon)
            assert (row.state, played.jobs) == ("failed", [])
            assert "too long" in (row.error or "")

    tell(story)


def test_a_run_that_begins_while_it_is_cancelled_is_ended(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person was told that it is over: a row that says so while the run goes on and spends would be a lie."""

    async def story(house: House) -> None:
        house.write(goal(), models=PRICED["models"])
        async with house.living() as daemon:
            runs, goes_on = daemon.agents.runs, asyncio.Event()

            async def goes(wire: Wire, job: Mapping[str, Any]) -> None:
                await asyncio.sleep(60)
                goes_on.set()

            played.play = goes
            asked = Run("r1", "task", "api", house.clock.now(), kind="task", goal="Look.")
            await daemon.store.state.write(lambda c: ledger.queue(c, asked))
            conclude = runs._conclude

            async def late(row: Run, *rest: Any) -> bool:
                if not goes_on.is_set() and not runs.active:  # it waits; now it begins
                    runs.wake()
                    await asyncio.sleep(1)
                return await conclude(row, *rest)

            monkeypatch.setattr(runs, "_conclude", late)
            cancel = asyncio.create_task(runs.cancel("r1", "cancelled by me"))
            await house.clock.advance(2)
            assert await cancel
            await house.clock.advance(30)

            assert not goes_on.is_set()
            (row,) = await runs_of(daemon)
            assert (row.state, row.error, runs.active) == ("cancelled", "cancelled by me", [])

    tell(story)


def test_the_end_of_a_run_that_was_ended_already_tells_nothing(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says that it came to nothing: a finding beside it would come from nowhere."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(goal(on=["startup"], report="each", every="12h"), hook=receiver.url, **PRICED)

            async def ended_elsewhere(wire: Wire, job: Mapping[str, Any]) -> None:
                await daemon.store.state.write(
                    lambda c: ledger.end(c, job["run"], house.clock.now(), RunState.INTERRUPTED)
                )
                await finds(wire, job)

            played.play = ended_elsewhere
            async with house.living() as daemon:
                await house.clock.advance(60)

                assert [run.state for run in await runs_of(daemon)] == ["interrupted"]
                assert told(receiver) == []
                assert daemon.agents.runs.active == []

    tell(story)


async def _hangs(wire: Wire, job: Mapping[str, Any]) -> None:
    await asyncio.Event().wait()


def _about(house: House, id: str, watch: str, **more: Any) -> Run:
    """A run of a watch that waits."""
    return Run(id, watch, "alert:x", house.clock.now(), kind="investigate", goal="Why?", fingerprint=id, **more)


async def _queue(daemon: Daemon, *runs: Run) -> None:
    """As they came in, whatever their number; the agents of these watches hang."""

    def change(c: Any) -> None:
        for run in runs:
            ledger.queue(c, run)

    await daemon.store.state.write(change)
    daemon.agents.runs.wake()


def _anything_goes(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches that the configuration does not name have runs too."""
    prepare = daemon.agents.runs._prepare

    async def of_a_goal(run: Run) -> Any:
        return await prepare(replace(run, watch="review", kind="goal"))

    monkeypatch.setattr(daemon.agents.runs, "_prepare", of_a_goal)


def test_watches_with_much_to_run_hold_up_nobody_else(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each runs one; the rest of a storm waits, however long the line is, and there is room for others."""

    async def story(house: House) -> None:
        played.play = _hangs
        house.write(goal(), models=PRICED["models"], api={"max_concurrent_tasks": 50})
        async with house.living() as daemon:
            _anything_goes(daemon, monkeypatch)
            storm = [_about(house, f"{w}.{n}", f"w{w}", priority=Priority.HIGH) for w in range(24) for n in range(20)]
            await _queue(daemon, *storm, _about(house, "other", "w99"))
            await house.clock.advance(5)

            active = daemon.agents.runs.active
            assert sorted(run.watch for run in active) == sorted([*(f"w{w}" for w in range(24)), "w99"])

    tell(story)


def test_open_sessions_leave_places_for_what_watches_start(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People think for an hour; the shop is down now."""

    async def story(house: House) -> None:
        played.play = _hangs
        house.write(goal(), models=PRICED["models"], api={"max_concurrent_tasks": 8})
        async with house.living() as daemon:
            _anything_goes(daemon, monkeypatch)
            asked = Run("", "task", "api", house.clock.now(), kind="session", goal="Look.")
            await _queue(daemon, *(replace(asked, id=f"s{n}") for n in range(12)))
            await house.clock.advance(5)
            assert len(daemon.agents.runs.active) == 8

            await _queue(daemon, *(_about(house, f"r{n}", f"w{n}") for n in range(5)))
            await house.clock.advance(5)
            active = daemon.agents.runs.active
            assert [run.kind for run in active] == ["session"] * 8 + ["investigate"] * 2

    tell(story)


def test_a_run_that_may_not_start_waits_and_holds_up_nobody(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watch was paused so that nothing more is spent on it; nothing of it is lost either."""

    async def story(house: House) -> None:
        played.play = _hangs
        house.write(goal(), models=PRICED["models"], api={"max_concurrent_tasks": 1})
        async with house.living() as daemon:
            _anything_goes(daemon, monkeypatch)
            monkeypatch.setattr(daemon.agents.runs, "_may_start", lambda run: run.watch != "paused")
            await _queue(daemon, _about(house, "r1", "paused", priority=Priority.HIGH), _about(house, "r2", "other"))
            await house.clock.advance(5)
            assert [run.id for run in daemon.agents.runs.active] == ["r2"]
            assert sorted(run.state for run in await runs_of(daemon)) == ["queued", "running"]

            monkeypatch.undo()
            await daemon.agents.runs.cancel("r2", "enough")
            await house.clock.advance(10)
            assert sorted(run.state for run in await runs_of(daemon))[0] == "cancelled"
            assert all(run.state != "queued" for run in await runs_of(daemon))

    tell(story)


def test_who_follows_a_run_gets_events_in_their_order_and_only_so_many(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of an event is the daemon's, not the host's; what nobody reads is not kept without end."""

    async def talks(wire: Wire, job: Mapping[str, Any]) -> None:
        for number in range(20):
            wire.send("event", event="MessageUpdate", seq="x", number=number, delta="x" * 2**19)
            await wire.drain()
        await asyncio.sleep(10)
        await say(wire)

    async def story(house: House) -> None:
        played.play = talks
        house.write(goal(), models=PRICED["models"])
        async with house.living() as daemon:
            run = Run("r1", "task", "api", house.clock.now(), kind="task", goal="Talk.")
            await daemon.agents.runs.submit(run)
            await house.clock.advance(5)

            async def follow() -> list[tuple[Any, Any]]:
                return [(event["seq"], event["number"]) async for event in daemon.agents.runs.follow("r1", 14)]

            following = asyncio.create_task(follow())
            await house.clock.advance(20)

            assert await following == [(seq, seq - 1) for seq in range(15, 21)]
            assert (await runs_of(daemon))[0].state == "completed"

    tell(story)


def test_a_run_that_was_queued_while_the_clock_was_ahead_starts_when_it_is_set_back(
    tell: Tell, played: PlayedHost
) -> None:
    """Its due time lies in a future that comes a day late."""

    async def story(house: House) -> None:
        house.write(goal(), models=PRICED["models"], api={"max_concurrent_tasks": 1})
        async with house.living() as daemon:
            await house.clock.advance(60)
            ahead = house.clock.now() + timedelta(days=1)
            asked = Run("r1", "task", "api", ahead, kind="task", goal="Look.")
            await daemon.store.state.write(lambda c: ledger.queue(c, asked))
            house.clock.jump(timedelta(minutes=-2))
            await house.clock.advance(60)

            assert (await runs_of(daemon))[0].state == "completed"

    tell(story)


def test_what_the_last_process_was_running_is_interrupted_once_there_is_room(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full at the start: a row that says running for ever holds up all that wait for its end."""

    async def story(house: House) -> None:
        house.write(goal(), models=PRICED["models"])
        interrupt = ledger.interrupt_all_running

        def crashed(c: Any) -> None:
            for id in ("old", "waits"):
                ledger.queue(c, Run(id, "task", "api", house.clock.now(), kind="task", goal="Look."))
            ledger.start(c, "old", house.clock.now())

        def full(*_: Any) -> int:
            raise StoreError("no room")

        async with house.living() as daemon:
            await daemon.store.state.write(crashed)
            await daemon.agents.runs.close()  # before it sees them
        monkeypatch.setattr(ledger, "interrupt_all_running", full)
        async with house.living() as daemon:
            await house.clock.advance(60)
            assert sorted(run.state for run in await runs_of(daemon)) == ["queued", "running"]

            monkeypatch.setattr(ledger, "interrupt_all_running", interrupt)
            await house.clock.advance(30)
            assert {run.id: run.state for run in await runs_of(daemon)} == {"old": "interrupted", "waits": "completed"}

    tell(story)


_IDLE = """
import asyncio, faulthandler, sys
faulthandler.dump_traceback_later(45, exit=True)  # should it hang, it says where
from pathlib import Path
from agentd.config.loader import load
from agentd.daemon.app import Daemon

async def live(path):
    daemon = Daemon(path, load(path))
    run = asyncio.create_task(daemon.run())
    await daemon.ready.wait()
    assert await daemon.reload() is None
    daemon.stop()
    await run
asyncio.run(live(Path(sys.argv[1])))
print(*sys.modules)
"""


def test_an_idle_daemon_with_models_and_goals_loads_no_library_of_either(tmp_path: Path) -> None:
    """They cost 30 to 100 MiB each, and are never given back; the agent host has them, and ends when idle."""
    heavy = {"httpx", "genai_prices", "pydantic_ai", "openai", "anthropic", "mcp", "tiktoken", "numpy", "sqlite_vec"}
    heavy |= {"agentd.agent.run", "agentd.agent.supervisor", "agentd.agent.executor", "agentd.llm.client"}
    config = {
        "daemon": {"state_dir": str(tmp_path / "state")},
        "models": {
            "default": {"provider": "anthropic", "model": "claude-sonnet-4-5", "api_key": "${env:NO_KEY}"},
            "local": MODEL | {"price": {"input": 0, "output": 0}},
        },
        "agent": {"mcp": {"grafana": {"command": ["true"], "tools": ["query"]}}},
        "budgets": {"daemon_per_day": {"usd": 1, "tokens": 100_000}},
        "watches": [
            goal(cron="0 0 1 1 *", every=None, runbook=[{"tool": "dns_lookup", "input": {"name": "example.com"}}]),
            {"name": "disk", "every": "24h", "host": {"disk": "/"}, "investigate": {"goal": "Why?", "wait": "1m"}},
            {"name": "why", "on": ["alert:disk", "startup"], "goal": "Why?", "enabled": False},
        ],
    }
    del config["watches"][0]["every"]  # type: ignore[index]
    path = tmp_path / "agentd.yaml"
    path.write_text(yaml.safe_dump(config))

    done = subprocess.run([sys.executable, "-c", _IDLE, str(path)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())


def test_a_store_that_is_full_is_not_asked_without_a_pause_to_begin_a_run(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full already: a processor that is busy as well helps nobody. The run begins when there is room."""

    async def story(house: House) -> None:
        asked = 0

        def refuses(*_: Any, **__: Any) -> bool:
            nonlocal asked
            asked += 1
            if asked > 100:
                raise ValueError("asked without end")
            raise StoreError("no room")

        async with Receiver() as receiver:
            house.write(goal(every="12h", on=["startup"], report="each"), hook=receiver.url, **PRICED)
            start = ledger.start
            monkeypatch.setattr(ledger, "start", refuses)
            async with house.living() as daemon:
                await house.clock.advance(60)
                assert 2 <= asked <= 15
                assert {run.state for run in await runs_of(daemon)} == {"queued"}

                monkeypatch.setattr(ledger, "start", start)
                await house.clock.advance(60)
                assert {run.state for run in await runs_of(daemon)} == {"completed"}

    tell(story)
