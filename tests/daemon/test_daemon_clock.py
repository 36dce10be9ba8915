"""The wall clock is set back: what a group is to be told comes no later for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from house import House, Shop, Tell, http, tell, told
from loopback import serving
from receiver import Receiver

__all__ = ["tell"]  # the fixture, by its name

MINUTE = 60.0


@pytest.mark.parametrize("restarted", [False, True], ids=["while it runs", "over a restart"])
def test_an_end_that_waits_is_told_within_an_interval(tell: Tell, restarted: bool) -> None:
    """Whoever was woken would sit before a service that is well for as long as the clock was ahead."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), hook=receiver.url, alerting={"group_interval": "10m"})
            async with house.living():
                shop.up = False
                await house.clock.advance(2 * MINUTE)
                shop.up = True
                await house.clock.advance(2 * MINUTE)
                assert told(receiver) == ["shop alert.firing"], "its end waits for the interval"
                if not restarted:
                    house.clock.jump(timedelta(hours=-2))
                    await house.clock.advance(11 * MINUTE)
            if restarted:
                house.clock.jump(timedelta(hours=-2))
                async with house.living():
                    await house.clock.advance(11 * MINUTE)

            assert [each for each in told(receiver) if "shop" in each] == ["shop alert.firing", "shop alert.resolved"]

    tell(story)
