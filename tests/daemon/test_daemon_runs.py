"""Runs in the daemon, from what asks for them to their end, while the configuration and the alerts change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import apsw
import pytest
from house import House, Shop, Tell, http, tell, told
from loopback import serving
from playing import FINDING, PRICED, PlayedHost, finds, goal, played, runs_of, say
from receiver import Receiver

from agentd.agent.wire import Wire
from agentd.alert.lifecycle import Policy, Step, end, transition
from agentd.api.tasks import TaskAsked
from agentd.config.loader import load
from agentd.daemon.app import Daemon
from agentd.daemon.runs.jobs import make_job, spend_limits
from agentd.deliver.payload import alert_data
from agentd.errors import StoreFull
from agentd.memory import events, ledger
from agentd.memory.ledger import Run, RunState
from agentd.pipeline.keeper import MOST_WAITING_RUNS
from agentd.pipeline.watches import calm_alert
from agentd.records import AlertStatus, EventType, Reason

__all__ = ["played", "tell"]  # the fixtures, by their names

QUICK: dict[str, Any] = {"defaults": {"fail_after": 1}, "alerting": {"group_wait": 0, "group_interval": 0}}
ALONE: dict[str, Any] = {"api": {"max_concurrent_tasks": 1}}


async def keep_busy(daemon: Daemon, house: House) -> None:
    """The only place for a run is taken, until somebody cancels the task `long`."""
    await daemon.tasks.submit(TaskAsked(task="take your time", task_id="long"), by="anna")
    await house.clock.advance(1)


async def hangs_at_tasks(wire: Wire, job: Mapping[str, Any]) -> None:
    if job["kind"] == "task":
        await asyncio.Event().wait()
    await say(wire, finding=FINDING)


async def of(daemon: Daemon, kind: str) -> list[Run]:
    return [run for run in await runs_of(daemon) if run.kind == kind]


@pytest.mark.parametrize("gone", ["the watch", "its investigate", "that it is enabled"])
def test_a_queued_run_whose_watch_no_longer_asks_for_it_is_cancelled(tell: Tell, played: PlayedHost, gone: str) -> None:
    """What narrowed it is gone: it must not run with all that agents may do, and nobody waits for its finding."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        played.play = hangs_at_tasks
        async with Receiver() as receiver, serving(shop.answer) as served:
            watch = http(served, investigate={"goal": "Why?", "tools": ["query_history"], "wait": "5m"})
            house.write(watch, goal(every="9h"), hook=receiver.url, **QUICK, **ALONE, **PRICED)
            async with house.living() as daemon:
                await keep_busy(daemon, house)
                await house.clock.advance(61)
                (run,) = await of(daemon, "investigate")
                assert run.state is RunState.QUEUED

                if gone == "its investigate":
                    del watch["investigate"]
                left = [goal(every="9h")] if gone == "the watch" else [goal(every="9h"), watch]
                watch |= {"enabled": False} if gone == "that it is enabled" else {}
                house.write(*left, hook=receiver.url, **QUICK, **ALONE, **PRICED)
                assert await daemon.reload() is None
                await daemon.tasks.cancel("long", by="anna")
                await house.clock.advance(20)

                (run,) = await of(daemon, "investigate")
                assert run.state is RunState.CANCELLED
                assert "shop" in (run.error or "")
                assert [job["kind"] for job in played.jobs] == ["task"]
                assert told(receiver)[0] == "shop alert.firing"

    tell(story)


def test_a_run_of_a_watch_has_its_daily_budget_and_what_people_ask_has_none_of_its_own(tell: Tell) -> None:
    """By the kind of the run, not by a name that a watch may have had."""

    async def story(house: House) -> None:
        house.write(goal(), budgets={"watch_per_day": {"tokens": 10}}, **PRICED)
        config = load(house.config).config
        now = house.clock.now()
        own = make_job(Run("1", "review", "cron", now), config, now=now, instance="web-1")
        asked = make_job(Run("2", "task", "asked", now, kind="task"), config, now=now, instance="web-1")
        assert spend_limits(own, config).watch.tokens == 10
        assert spend_limits(own.model_copy(update={"watch": "task"}), config).watch.tokens == 10
        assert spend_limits(asked, config).watch.tokens is None

    tell(story)


INVESTIGATE = {"goal": "Why?", "wait": "10m"}


def with_finding(receiver: Receiver) -> list[tuple[str, bool]]:
    return [(each.json["type"], each.json["data"]["finding"] is not None) for each in receiver.taken]


def test_an_alert_that_fires_anew_while_its_run_waits_is_what_the_run_looks_into(
    tell: Tell, played: PlayedHost
) -> None:
    """The run sees what is then, and its finding is of that: it is paid for, and the message waits for it."""

    async def story(house: House) -> None:
        shop = Shop()
        played.play = hangs_at_tasks
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate=INVESTIGATE), hook=receiver.url, **QUICK, **ALONE, **PRICED)
            async with house.living() as daemon:
                await keep_busy(daemon, house)
                for shop.up in (False, True, False):
                    await house.clock.advance(61)
                assert [run.state for run in await of(daemon, "investigate")] == [RunState.QUEUED]
                before = len(receiver.taken)
                await daemon.tasks.cancel("long", by="anna")
                await house.clock.advance(30)

                assert with_finding(receiver)[before:] == [("alert.firing", True)]
                (alert,) = [each for each in daemon.pipeline.alerts.values() if each.watch == "shop"]
                assert alert.finding is not None

    tell(story)


def test_a_finding_of_an_incident_that_is_over_leaves_the_next_one_its_own(tell: Tell, played: PlayedHost) -> None:
    """The alert fires anew while its run is under way: the message of the new incident waits for the new run."""

    async def story(house: House) -> None:
        shop, goes_on = Shop(), asyncio.Event()

        async def first_waits(wire: Wire, job: Mapping[str, Any]) -> None:
            if len(played.jobs) == 1:
                await goes_on.wait()
                await say(wire, finding=FINDING)
                return
            await asyncio.sleep(60)
            await say(wire, finding={**FINDING, "summary": "It is full again."})

        played.play = first_waits
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate=INVESTIGATE), hook=receiver.url, **QUICK, **ALONE, **PRICED)
            async with house.living():
                for shop.up in (True, False, True, False):
                    await house.clock.advance(60)
                before = len(receiver.taken)
                goes_on.set()
                await house.clock.advance(30)
                assert with_finding(receiver)[before:] == []
                await house.clock.advance(60)

                assert with_finding(receiver)[before:] == [("alert.firing", True)]
                assert receiver.taken[-1].json["data"]["finding"]["summary"] == "It is full again."

    tell(story)


def test_a_finding_that_is_there_before_the_first_message_is_part_of_it(tell: Tell, played: PlayedHost) -> None:
    """The group waits for others first: an update must not come before what it updates, nor the message wait on."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            slow = {"defaults": {"fail_after": 1}, "alerting": {"group_wait": "2m"}}
            house.write(http(served, investigate=INVESTIGATE), hook=receiver.url, **slow, **PRICED)
            async with house.living():
                await house.clock.advance(60)
                shop.up = False
                await house.clock.advance(60)
                assert len(played.jobs) == 1
                await house.clock.advance(3 * 60)

                assert with_finding(receiver) == [("alert.firing", True)]

    tell(story)


def test_a_message_waits_only_where_somebody_looks_into_the_alert(tell: Tell, played: PlayedHost) -> None:
    """Too many wait already: there will be no finding to wait for."""

    async def story(house: House) -> None:
        shop = Shop()
        played.play = hangs_at_tasks
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate=INVESTIGATE), hook=receiver.url, **QUICK, **ALONE, **PRICED)
            async with house.living() as daemon:
                await keep_busy(daemon, house)
                now = house.clock.now()

                def crowd(connection: apsw.Connection) -> None:
                    for number in range(MOST_WAITING_RUNS):
                        about = f"f{number}"
                        run = Run(f"r{number}", "shop", "alert:shop", now, kind="investigate", fingerprint=about)
                        ledger.queue(connection, run)

                await daemon.store.state.write(crowd)
                shop.up = False
                await house.clock.advance(90)

                assert with_finding(receiver) == [("alert.firing", False)]

    tell(story)


def brute(number: int, now: datetime) -> Step:
    calm = calm_alert("web-1", "ssh", "brute", Policy(), {"ip": f"10.0.{number >> 8}.{number & 255}"})
    fired = replace(calm, status=AlertStatus.FIRING, reason=Reason.MATCHED, started_at=now, last_at=now, summary="x")
    return Step(fired, True, transition(calm, fired, now, EventType.FIRING))


async def commit(daemon: Daemon, steps: list[Step]) -> None:
    pipeline, span = daemon.pipeline, daemon.traces.tracer.start_span("lines")
    async with pipeline.alone("ssh"):
        assert await pipeline.commit(steps, pipeline.watches["ssh"].wish, span)
    span.end()


def ssh(house: House) -> dict[str, Any]:
    log = house.folder / "auth.log"
    log.touch()
    rule = {"name": "brute", "type": "any", "match": "x", "by": ["ip"]}
    return {"name": "ssh", "log": {"files": [str(log)]}, "rules": [rule]}


def test_what_was_found_out_about_an_alert_that_is_over_and_gone_is_told(tell: Tell, played: PlayedHost) -> None:
    """One address of many is quiet before its turn has come: its row is gone, and what the run cost is spent."""

    async def story(house: House) -> None:
        async def slowly(wire: Wire, job: Mapping[str, Any]) -> None:
            await asyncio.sleep(100)
            await say(wire, finding=FINDING)

        played.play = slowly
        async with Receiver() as receiver:
            by = {"alerting": {"group_by": ["watch", "ip"], "group_interval": 0}}
            house.write({**ssh(house), "investigate": "Why?"}, hook=receiver.url, **by, **PRICED)
            async with house.living() as daemon:
                await commit(daemon, [brute(number, house.clock.now()) for number in range(2)])
                await house.clock.advance(50)
                of_ssh = [each for each in daemon.pipeline.alerts.values() if each.watch == "ssh"]
                await commit(daemon, [end(each, Reason.QUIET, "quiet", house.clock.now()) for each in of_ssh])
                await house.clock.advance(300)

                assert not [each for each in daemon.pipeline.alerts.values() if each.watch == "ssh"]
                assert all("10.0.0." in json.dumps(job["exhibits"]) for job in played.jobs)
                late = [each.json for each in receiver.taken[-2:]]
                assert [each["type"] for each in late] == ["alert.updated"] * 2
                assert {each["data"]["labels"]["ip"] for each in late} == {"10.0.0.0", "10.0.0.1"}
                assert {each["data"]["state"] for each in late} == {"resolved"}
                assert {each["data"]["finding"]["summary"] for each in late} == {FINDING["summary"]}
                fired = {each.json["data"]["started_at"] for each in receiver.taken}
                assert len(fired) == 1

    tell(story)


def test_a_storm_of_alerts_makes_no_more_runs_than_may_wait_and_one_line(
    tell: Tell, played: PlayedHost, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of addresses at once: what each would start is not even put into words."""

    async def story(house: House) -> None:
        house.write({**ssh(house), "investigate": "Why?"}, goal(on=["log:ssh/brute"], every="12h"), **PRICED)
        async with house.living() as daemon:
            made = 0

            def counted(*args: Any, **more: Any) -> Any:
                nonlocal made
                made += 1
                return alert_data(*args, **more)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("agentd.daemon.runs.agents.alert_data", counted)
                await commit(daemon, [brute(number, house.clock.now()) for number in range(200)])

            assert made == 2 * MOST_WAITING_RUNS
            said = [each.__dict__ for each in caplog.records if each.message == "runs_not_queued"]
            assert [(each["watch"], each["count"]) for each in said] == [("ssh", 180), ("review", 180)]

    tell(story)


def test_the_end_of_a_run_is_remembered_once_however_often_the_store_refuses_it(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full for an hour is no reason for seven hundred ends of one run."""

    async def story(house: House) -> None:
        house.write(goal(every="9h"), **PRICED)
        async with house.living() as daemon:

            async def full(change: Any) -> Any:
                raise StoreFull("no room")

            async def then_full(wire: Wire, job: Mapping[str, Any]) -> None:
                monkeypatch.setattr(daemon.store.state, "write", full)
                await finds(wire, job)

            played.play, write = then_full, daemon.store.state.write
            await daemon.tasks.submit(TaskAsked(task="look"), by="anna")
            await house.clock.advance(60)
            monkeypatch.setattr(daemon.store.state, "write", write)
            await house.clock.advance(20)

            ends = await daemon.store.history.read(lambda c: events.last(c, watch="task", limit=50))
            assert [each.kind for each in ends] == ["run.completed"]

    tell(story)
