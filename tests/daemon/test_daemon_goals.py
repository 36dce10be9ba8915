"""Goals that are due while nothing can be written, or nobody wants them to run; budgets that hold them back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from house import HOUR, House, Shop, Tell, http, tell
from loopback import serving
from playing import CENT, PRICED, PlayedHost, pays_first, played, runs_of
from receiver import Receiver

from agentd.daemon.app import Daemon
from agentd.errors import StoreFull
from agentd.memory.ledger import RunState

__all__ = ["played", "tell"]  # the fixtures, by their names


def cron(name: str, when: str) -> dict[str, Any]:
    return {"name": name, "goal": "Look around.", "cron": when, "timezone": "UTC", "blind_after": "30d"}


async def full(change: Any) -> Any:
    raise StoreFull("no room")


def test_a_goal_that_is_due_while_the_store_is_full_runs_when_there_is_room(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs once a month would be run in a month, or when somebody starts the daemon anew."""

    async def story(house: House) -> None:
        house.write(cron("monthly", "0 13 * * *"), **PRICED)
        async with house.living() as daemon:
            await house.clock.advance(59 * 60)
            with monkeypatch.context() as patch:
                patch.setattr(daemon.store.state, "write", full)
                await house.clock.advance(10 * 60)
                assert played.jobs == []
            await house.clock.advance(2 * 60)

            (run,) = await runs_of(daemon)
            assert (run.trigger, run.state) == ("cron", RunState.COMPLETED)
            assert run.due_at.hour == 13
            await house.clock.advance(HOUR)
            assert len(played.jobs) == 1

    tell(story)


def test_runs_that_were_missed_are_made_up_when_there_is_room(
    tell: Tell, played: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the start is no reason to forget them."""

    async def story(house: House) -> None:
        house.write(cron("daily", "0 13 * * *"), **PRICED)
        async with house.living():
            await house.clock.advance(2 * HOUR)
        assert len(played.jobs) == 1
        house.clock.tick(30 * HOUR)

        with monkeypatch.context() as patch:

            async def refuses(*_: Any) -> None:
                raise StoreFull("no room")

            patch.setattr("agentd.daemon.runs.dispatch.Runs.submit", refuses)
            daemon, running = await house.start()
            await house.clock.advance(2 * 60)
            assert len(played.jobs) == 1
        await house.clock.advance(2 * 60)
        assert [run.trigger for run in await runs_of(daemon)] == ["missed", "cron"]
        daemon.stop()
        await house.ending(running)

    tell(story)


def test_what_waits_of_a_paused_watch_waits_until_it_is_resumed(tell: Tell, played: PlayedHost) -> None:
    """Whoever pauses a watch does not want an agent at that machine now, and not that it is forgotten either."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            quick = {"defaults": {"fail_after": 1}, "api": {"max_concurrent_tasks": 1}}
            house.write(http(served, investigate="Why?"), hook=receiver.url, **quick, **PRICED)
            async with house.living() as daemon:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(daemon.agents.runs, "_at_once", lambda: 0)
                    await house.clock.advance(61)
                    await daemon.control.pause("shop", by="anna", for_s=None, reason="at work")
                daemon.agents.runs.wake()
                await house.clock.advance(5 * 60)
                assert [run.state for run in await runs_of(daemon)] == [RunState.QUEUED]

                await daemon.control.resume("shop", by="anna")
                await house.clock.advance(1)
                assert [run.state for run in await runs_of(daemon)] == [RunState.COMPLETED]

    tell(story)


def own(daemon: Daemon) -> list[str]:
    alerts = [each for each in daemon.pipeline.alerts.values() if (each.rule or "").startswith("budget")]
    return [f"{each.rule} {each.status.value}" for each in alerts]


def test_a_budget_that_is_spent_on_the_new_day_as_well_stays_an_alert(tell: Tell, played: PlayedHost) -> None:
    """Held back at a minute to midnight, and right after it: it is not over because the day of its beginning is."""

    async def story(house: House) -> None:
        played.play = pays_first
        midnight = datetime(2026, 1, 6, tzinfo=UTC)
        house.clock.tick((midnight - timedelta(seconds=100) - house.clock.now()).total_seconds())
        house.write(cron("late", "59 23 * * *"), cron("early", "0 0 * * *"), **PRICED, **CENT)
        async with house.living() as daemon:
            await house.clock.advance(60)
            assert own(daemon) == ["budget firing"]
            await house.clock.advance(10 * 60)
            assert len(played.jobs) == 2
            assert own(daemon) == ["budget firing"]

    tell(story)


@pytest.mark.parametrize("scope", ["daemon_per_day", "watch_per_day"])
def test_a_budget_that_was_raised_is_no_alert_any_more(tell: Tell, played: PlayedHost, scope: str) -> None:
    """Who raised it would otherwise read until midnight that it holds calls back."""

    async def story(house: House) -> None:
        played.play = pays_first
        house.write(cron("review", "1 12 * * *"), **PRICED, budgets={scope: {"usd": 0.01}})
        async with house.living() as daemon:
            await house.clock.advance(5 * 60)
            (firing,) = own(daemon)
            assert firing.endswith("firing")
            assert await daemon.reload() is None
            await house.clock.advance(2 * 60)
            assert own(daemon) == [firing]

            house.write(cron("review", "1 12 * * *"), **PRICED, budgets={scope: {"usd": 1}})
            assert await daemon.reload() is None
            await house.clock.advance(2 * 60)
            assert own(daemon) == [firing.replace("firing", "resolved")]

    tell(story)
