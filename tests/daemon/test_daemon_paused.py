"""A pause and the alert that fires while it begins: nobody is reminded of it, nor are more people woken."""

from __future__ import annotations

from house import HOUR, House, Shop, Tell, http, tell
from loopback import serving
from receiver import Receiver

__all__ = ["tell"]  # the fixture, by its name

MINUTE = 60.0


def events(receiver: Receiver) -> list[tuple[str, str]]:
    return [(each.json["type"], each.json["data"]["watch"]) for each in receiver.taken]


def test_a_pause_keeps_its_alert_quiet_and_what_it_hid_to_itself(tell: Tell) -> None:
    """Anna works on it: her colleague is not to be woken after ten minutes, and what is behind it is news."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            alerting = {"escalate": [{"after": "10m", "severity": "critical"}], "group_interval": 0}
            till = http(served, "till", every="1m", depends_on=["shop"])
            house.write(http(served, fail_after=1, remind_every="20m"), till, hook=receiver.url, alerting=alerting)
            async with house.living() as daemon:
                await house.clock.advance(2 * MINUTE)
                shop.up = False
                await house.clock.advance(3 * MINUTE)
                assert events(receiver) == [("alert.firing", "shop")]

                await daemon.control.pause("shop", by="anna", for_s=HOUR, reason="new disks")
                await house.clock.advance(HOUR - 2 * MINUTE)

                assert [event for event in events(receiver) if event[1] == "shop"] == [("alert.firing", "shop")]
                assert ("alert.firing", "till") in events(receiver)
                (view,) = [each for each in await daemon.control.alerts(everything=False) if each["watch"] == "shop"]
                assert view["muted_by"].startswith("paused by anna until 2026-01-05T")
                assert view["muted_by"].endswith("Z: new disks")

                await house.clock.advance(5 * MINUTE)

                assert len([event for event in events(receiver) if event[1] == "shop"]) > 1

    tell(story)
