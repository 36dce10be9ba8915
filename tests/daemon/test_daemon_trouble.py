"""When messages cannot go out: who says so, and how a person lets them go."""

from __future__ import annotations

from typing import Any

import pytest
from house import BEAT, HOUR, House, Shop, Tell, http, tell, told
from loopback import serving
from receiver import Receiver

from agentd.api.service import NotFound
from agentd.memory import audit, meta
from agentd.memory.store import Store

__all__ = ["tell"]  # the fixture, by its name


def hooks(**receivers: Receiver) -> dict[str, Any]:
    return {
        "webhooks": {name: {"url": receiver.url} for name, receiver in receivers.items()},
        "alerting": {"notify": list(receivers)},
    }


def test_a_disabled_webhook_is_told_of_by_the_others(tell: Tell) -> None:
    """The one that is told nothing any more must not be the only one to know."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as ops, Receiver() as chat, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), **hooks(ops=ops, chat=chat))
            ops.answers(410)
            async with house.living() as daemon:
                shop.up = False
                await house.clock.advance(120)

                assert sorted(told(chat)) == ["agentd alert.firing", "shop alert.firing"]
                (trouble,) = (await daemon.control.status())["trouble"]
                assert trouble.startswith("webhook ops is disabled: ")
                assert "1 message waits" in trouble
                assert (await daemon.control.status())["state"] == "running"
                rows = (await daemon.control.outbox(state=None, webhook=None, limit=9))["deliveries"]
                assert {(row["state"], row["note"]) for row in rows} == {("waiting", "disabled")}

                await daemon.control.enable_webhook("ops", by="eve")
                await house.clock.advance(60)

                assert "agentd alert.resolved" in told(chat)
                assert (await daemon.control.status())["trouble"] == []

    tell(story)


def test_messages_for_a_webhook_that_is_gone_are_told_of(tell: Tell) -> None:
    """Whoever renames a webhook should hear at once that something was still on its way to the old one."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as ops, Receiver() as chat, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), **hooks(ops=ops))
            ops.otherwise = 503
            async with house.living() as daemon:
                shop.up = False
                await house.clock.advance(HOUR / 2)
                house.write(http(served, fail_after=1), **hooks(chat=chat), hook=chat.url)
                house.config.write_text(house.config.read_text().replace("  ops:\n    url:", "  new:\n    url:"))
                answer = await daemon.control.reload(by="eve")

                assert "1 message waits for webhook ops, which the configuration does not name" in answer["note"]
                (trouble,) = (await daemon.control.status())["trouble"]
                assert "webhook ops" in trouble
                rows = (await daemon.control.outbox(state=None, webhook="ops", limit=9))["deliveries"]
                assert {row["note"] for row in rows} == {"no such webhook"}
                await house.clock.advance(60)
                rules = {alert.rule: alert.status.value for alert in daemon.pipeline.alerts.values()}
                assert rules["webhook:ops"] == "resolved", "what is gone is no trouble"

    tell(story)


def test_a_webhook_that_nobody_knows_is_an_error(tell: Tell) -> None:
    """A slip of the pen must not read as "all was taken"."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            with pytest.raises(NotFound, match="known: ops"):
                await daemon.control.outbox(state=None, webhook="opps", limit=9)
            with pytest.raises(NotFound, match="known: ops"):
                await daemon.control.retry(None, webhook="opps", by="eve")
            assert await daemon.control.outbox(state=None, webhook="ops", limit=9) == {"deliveries": []}

    tell(story)


def test_a_refused_reload_is_trouble_until_one_is_taken(tell: Tell) -> None:
    """Who changed the file thinks that it counts."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            house.config.write_text("watches: [{name: x, htpt: {}}]")
            await daemon.reload()
            (trouble,) = (await daemon.control.status())["trouble"]
            assert trouble.startswith("reload refused at ")
            house.write(BEAT)
            await daemon.reload()
            assert (await daemon.control.status())["trouble"] == []

    tell(story)


def test_a_held_outbox_is_released_while_the_daemon_runs(tell: Tell) -> None:
    """After a restore a person has looked; to stop the daemon for it would be blindness for nothing."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            store = await Store.open(house.folder / "state", clock=house.clock)
            await store.state.write(lambda c: meta.put(c, meta.HELD, "restored"))
            await store.close()
            async with house.living() as daemon:
                await house.clock.advance(300)
                assert receiver.requests == []
                (trouble,) = (await daemon.control.status())["trouble"]
                assert "agentd doctor resume" in trouble

                assert await daemon.control.release(by="eve") == {"was_held": True}
                assert await daemon.control.release(by="eve") == {"was_held": False}
                await house.clock.advance(60)

                assert told(receiver) == ["shop alert.firing"]
                assert (await daemon.control.status())["trouble"] == []
                deeds = await daemon.store.state.read(audit.rows)
                assert ("eve", "release") in [(deed.who, deed.action) for deed in deeds]
            async with house.living() as daemon:
                assert daemon.held is None

    tell(story)
