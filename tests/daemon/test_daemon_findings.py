"""
What becomes of what agents found: which finding is told, to whom, and what is no finding at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from house import HOUR, House, Shop, Tell, http, tell, told
from loopback import serving
from playing import FINDING, PRICED, PlayedHost, goal, played, runs_of, say
from receiver import Receiver

from agentd.agent.wire import Wire
from agentd.api.silence import SilenceAsked
from agentd.memory.ledger import RunState

__all__ = ["played", "tell"]  # the fixtures, by their names


def finding(**changes: Any) -> Any:
    async def play(wire: Wire, job: Mapping[str, Any]) -> None:
        await say(wire, finding={**FINDING, **changes})

    return play


def test_what_a_model_is_not_sure_of_is_no_trouble_of_the_targets(tell: Tell, played: PlayedHost) -> None:
    """`I think all is fine`, in words that cannot be read, must not wake anybody."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            played.play = finding(status="unclear", summary="I think all is fine.")
            house.write(goal(fail_after=1), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                assert (await runs_of(daemon))[0].state is RunState.COMPLETED
                assert told(receiver) == []

                await house.clock.advance(HOUR)
                assert told(receiver) == ["review alert.firing"]
                assert receiver.taken[0].json["data"]["rule"] == "blind", "that it cannot be told lasts"

                played.play = finding()
                await house.clock.advance(HOUR)
                later = [each.json["data"] for each in receiver.taken[1:]]
                alerts = [alert for data in later for alert in data.get("alerts", [data])]
                states = {(alert["rule"], alert["state"]) for alert in alerts}
                assert {("blind", "resolved"), (None, "firing")} <= states

    tell(story)


def test_a_goal_that_nobody_could_look_into_is_told_of_once(tell: Tell, played: PlayedHost) -> None:
    """A spent budget or a dead provider is one trouble, not a message for each review."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            played.play = finding(status="unclear", analysis="unavailable (the budget is spent)")
            house.write(goal(report="each"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                for _ in range(5):
                    await house.clock.advance(HOUR)

                assert len(await runs_of(daemon)) == 5
                assert told(receiver) == ["review alert.firing"]
                assert "the budget is spent" in receiver.taken[0].json["data"]["summary"]

    tell(story)


def test_without_any_model_the_evidence_is_what_there_is_to_tell(tell: Tell, played: PlayedHost) -> None:
    """Who has configured none wants the runbook's outputs."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            played.play = finding(status="unclear", analysis="unavailable (no model is configured)")
            house.write(goal(report="each"), hook=receiver.url)
            async with house.living():
                await house.clock.advance(HOUR)

                assert told(receiver) == ["review goal.finding"]

    tell(story)


def test_a_model_does_not_choose_who_is_woken(tell: Tell, played: PlayedHost) -> None:
    """What it read may have told it that this is critical."""

    async def story(house: House) -> None:
        async with Receiver() as ops, Receiver() as pager:
            played.play = finding(severity="critical")
            route = {"when": 'severity == "critical"', "notify": ["pager"]}
            house.write(
                goal(report="each", severity="info"),
                hook=ops.url,
                alerting={"notify": ["ops"], "routes": [route]},
                webhooks={"ops": {"url": ops.url}, "pager": {"url": pager.url}},
                **PRICED,
            )
            async with house.living():
                await house.clock.advance(HOUR)

                assert told(ops) == ["review goal.finding"]
                assert ops.taken[0].json["data"]["finding"]["severity"] == "critical", "that it said so is told"
                assert told(pager) == []

    tell(story)


def test_what_began_under_a_silence_is_looked_into_when_it_is_over(tell: Tell, played: PlayedHost) -> None:
    """Then it is told; and nobody looked into it while nobody was to hear of it."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate="Why?"), hook=receiver.url, **PRICED)
            async with house.living() as daemon:
                await house.clock.advance(5 * 60)
                asked = SilenceAsked(matchers=('watch="shop"',), lasting=timedelta(minutes=10), reason="trying")
                await daemon.people.silence(asked, by="anna")
                shop.up = False
                await house.clock.advance(5 * 60)
                assert played.jobs == []

                await house.clock.advance(10 * 60)
                assert told(receiver)[0] == "shop alert.firing"
                assert receiver.taken[-1].json["data"]["finding"]["summary"] == FINDING["summary"]
                assert len(played.jobs) == 1

                await daemon.people.silence(asked, by="anna")
                await house.clock.advance(20 * 60)
                assert len(played.jobs) == 1, "once for one incident"

    tell(story)


def test_a_run_that_was_cut_off_shows_what_it_took(tell: Tell, played: PlayedHost) -> None:
    """Money that was spent does not come back because the host died."""

    async def pays_and_dies(wire: Wire, job: Mapping[str, Any]) -> None:
        wire.send("ask", id=1, what="reserve", args={"id": "1", "model": "default", "tokens": 100, "usd": 0.02})
        await wire.read()

    async def story(house: House) -> None:
        played.play = pays_and_dies
        house.write(goal(), **PRICED)
        async with house.living() as daemon:
            await house.clock.advance(HOUR)

            (run,) = await runs_of(daemon)
            assert run.state is RunState.INTERRUPTED
            assert (run.outcome.model_calls, run.outcome.input_tokens) == (1, 100)
            assert run.outcome.usd_nano == 20_000_000

    tell(story)


def test_the_agent_knows_what_the_watch_looks_at(tell: Tell, played: PlayedHost) -> None:
    """Its address stands in the configuration alone; a model cannot guess it."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with serving(shop.answer) as served:
            house.write(http(served, investigate="Why?", description="where people buy"), **PRICED)
            async with house.living():
                await house.clock.advance(5 * 60)

                first = played.jobs[0]["exhibits"][0]
                assert first["title"] == "Watch shop as configured"
                assert served.url in first["text"]
                assert "where people buy" in first["text"]
                assert played.jobs[0]["watches"] == ["shop"]

    tell(story)
