"""What those hear who look on, from a real daemon in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from house import HOUR, House, Shop, Tell, http, tell
from loopback import serving
from receiver import Receiver

from agentd.api.ring import Ring
from agentd.daemon.app import Daemon
from agentd.daemon.feeding import STATUS_S

__all__ = ["tell"]  # the fixture, by its name

Event = tuple[str, dict[str, Any]]


class Heard(list[Event]):
    """Events as one listener got them."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for what, data in self if what == kind]


@asynccontextmanager
async def listening(daemon: Daemon) -> AsyncIterator[Heard]:
    """Somebody who knows a key listens meanwhile."""
    heard = Heard()

    async def listen() -> None:
        async for piece in daemon.ring.listen(None, known=True):
            for block in piece.decode().split("\n\n"):
                lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                if "data" in lines:
                    heard.append((lines["event"], json.loads(lines["data"])))

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_failure_is_heard_as_it_happens(tell: Tell) -> None:
    """The alert at each of its transitions, the watch when its verdict changed, the message when it left."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(120)
                async with listening(daemon) as heard:
                    await house.clock.advance(1)
                    shop.up = False
                    await house.clock.advance(240)
                    shop.up = True
                    await house.clock.advance(120)

                assert [event["state"] for event in heard.of("alert")] == ["pending", "firing", "resolved"]
                watch = [(event["name"], event["verdict"], event["alert"]) for event in heard.of("watch")]
                failing = [("shop", "failing", "pending"), ("shop", "failing", "firing")]
                assert watch == [*failing, ("shop", "ok", "resolved")]
                assert heard.of("watch")[1]["summary"].startswith("status >= 200")
                assert {"waiting": 0, "dead": 0} in heard.of("outbox")
                first, *_, last = heard.of("status")
                assert first == {"watches": {"ok": 1}, "alerts": {}, "waiting": 0, "dead": 0}
                assert {"watches": {"failing": 1}, "alerts": {"firing": 1}, "waiting": 0, "dead": 0} in heard.of(
                    "status"
                )
                assert last == first

    tell(story)


def test_checks_that_find_nothing_new_tell_nothing(tell: Tell) -> None:
    """Ten thousand watches are checked each minute: that is no news, well or failing."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(120)
                async with listening(daemon) as heard:
                    await house.clock.advance(600)
                    assert [kind for kind, _ in heard] == ["status"]
                    shop.up = False
                    await house.clock.advance(300)
                    heard.clear()
                    await house.clock.advance(600)
                    assert heard == []

    tell(story)


def test_a_pause_is_heard_and_so_is_its_end(tell: Tell) -> None:
    """Other pages would go on to say that it is up; also when the pause ends by itself."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(120)
                async with listening(daemon) as heard:
                    control = daemon.control
                    await control.pause("shop", by="root", for_s=None, reason="")
                    await house.clock.advance(1)
                    await control.resume("shop", by="root")
                    await house.clock.advance(1)
                    await control.pause("shop", by="root", for_s=300.0, reason="")
                    await house.clock.advance(600)

                assert [event["paused"] for event in heard.of("watch")] == [True, False, True, False]

    tell(story)


def test_nothing_is_counted_for_nobody(tell: Tell) -> None:
    """An idle daemon sleeps; only who listens pays for the counting."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                before = daemon.ring.last_id
                async with listening(daemon):
                    await house.clock.advance(2 * STATUS_S)
                after = daemon.ring.last_id
                await house.clock.advance(HOUR)

                assert before != after == daemon.ring.last_id
                assert not daemon.ring.heard.is_set()

    tell(story)


def test_a_reload_is_heard_whether_it_was_taken_or_not(tell: Tell) -> None:
    """What is on the page may be of another configuration."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon, listening(daemon) as heard:
                await daemon.reload()
                house.config.write_text("watches: nonsense")
                await daemon.reload()
                await house.clock.advance(1)

                assert heard.of("config") == [{"state": "reloaded"}, {"state": "refused"}]

    tell(story)


def test_many_failures_at_once_are_told_in_bites(tell: Tell) -> None:
    """A network that goes down turns every watch in one second; the loop must get its turn between."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(*(http(served, f"shop-{number}") for number in range(250)))
            async with house.living() as daemon:
                await house.clock.advance(120)
                async with listening(daemon) as heard:
                    for watch in list(daemon.pipeline.watches.values()):
                        daemon.pipeline.turned(watch)
                        daemon.pipeline.turned(watch)
                    await house.clock.advance(1)

                    assert sorted(event["name"] for event in heard.of("watch")) == sorted(daemon.plan.names)

    tell(story)


def test_the_daemon_ends_at_once_with_somebody_listening(tell: Tell) -> None:
    """A browser in a background tab must not cost the two seconds that open requests are given."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                reader, writer = await asyncio.open_unix_connection(house.folder / "state" / "api.sock")
                writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: agentd\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert isinstance(daemon.ring, Ring)
                daemon.ring.close()
                rest = await reader.readuntil(b"0\r\n\r\n")
                writer.close()

            assert rest.endswith(b"0\r\n\r\n")

    tell(story)
