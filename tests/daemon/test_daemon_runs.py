"""Runs in the daemon, from what asks for them to their end, while the configuration and the alerts change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from house import House, Shop, Tell, http, tell, told
from loopback import serving
from playing import FINDING, PRICED, PlayedHost, goal, played, runs_of, say
from receiver import Receiver

from agentd.agent.wire import Wire
from agentd.api.tasks import TaskAsked
from agentd.config.loader import load
from agentd.daemon.app import Daemon
from agentd.daemon.runs.jobs import make_job, spend_limits
from agentd.memory.ledger import Run, RunState

__all__ = ["played", "tell"]  # the fixtures, by their names

QUICK = {"defaults": {"fail_after": 1}, "alerting": {"group_wait": 0, "group_interval": 0}}
ALONE = {"api": {"max_concurrent_tasks": 1}}


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
