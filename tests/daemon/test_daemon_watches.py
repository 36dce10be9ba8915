"""What is said of each watch: how it is, and why it is not looked at."""

from __future__ import annotations

from contextlib import AsyncExitStack

from house import BEAT, HOUR, House, Shop, Tell, http, tell
from loopback import serving

from agentd.memory import audit

__all__ = ["tell"]  # the fixture, by its name


def test_a_watch_is_as_bad_as_the_worse_of_its_alerts(tell: Tell) -> None:
    """One whose probe is blind for an hour was shown as ok."""

    async def story(house: House) -> None:
        blind = {"name": "blind", "command": {"argv": ["/nowhere/program"]}, "blind_after": "10m"}
        house.write(BEAT, blind)
        async with house.living() as daemon:
            await house.clock.advance(HOUR / 4)
            views = {view["name"]: view for view in await daemon.control.watches()}
            assert (views["blind"]["verdict"], views["blind"]["alert"]) == ("blind", "firing")
            assert views["job"]["alert"] == "ok"
            assert (await daemon.control.overview())["watches"][0]["name"] == "blind"

    tell(story)


def test_a_disabled_watch_is_listed_as_such(tell: Tell) -> None:
    """Who looks for it must find it, and see why it is silent."""

    async def story(house: House) -> None:
        house.write(BEAT, BEAT | {"name": "off", "enabled": False})
        async with house.living() as daemon:
            job, off = await daemon.control.watches()
            assert (job["enabled"], off["name"], off["enabled"], off["next_at"]) == (True, "off", False, None)
            assert set(job) == set(off), "of one shape"
            counts = (await daemon.control.status())["watches"]
            assert (counts["total"], counts["disabled"]) == (1, 1)
            overview = await daemon.control.overview()
            assert [view["name"] for view in overview["watches"]] == ["job", "off"]
            assert overview["more_watches"] == 0

    tell(story)


def test_of_a_refused_connection_there_is_no_latency(tell: Tell) -> None:
    """How soon it was refused looked like the fastest answer of all."""

    async def story(house: House) -> None:
        async with AsyncExitStack() as there:
            served = await there.enter_async_context(serving(Shop().answer))
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(120)
                (up,) = await daemon.control.watches()
                await there.aclose()
                await house.clock.advance(240)
                (down,) = await daemon.control.watches()

                assert up["latency_ms"] > 0
                assert (down["verdict"], down["latency_ms"]) == ("failing", None)

    tell(story)


def test_a_pause_that_replaces_another_says_so(tell: Tell) -> None:
    """A pause for two hours that became one without end was noticed by nobody."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                first = await daemon.control.pause("shop", by="eve", for_s=60, reason="move")
                assert first["replaced"] is None
                assert (first["pause"]["by"], first["pause"]["reason"]) == ("eve", "move")

                second = await daemon.control.pause("shop", by="bob", for_s=None, reason="")

                assert second["replaced"] == first["pause"]
                assert (second["pause"]["by"], second["paused_until"]) == ("bob", None)
                deeds = await daemon.store.state.read(audit.rows)
                assert [deed.who for deed in deeds] == ["bob", "eve"]

    tell(story)
