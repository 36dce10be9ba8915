"""What the audit trail holds of what is done by hand: all that was done, and nothing that was not."""

from __future__ import annotations

import pytest
from house import BEAT, House, Shop, Tell, http, tell
from loopback import serving
from receiver import Receiver

from agentd.api.service import NotFound
from agentd.daemon.acting import FAILED_LOGINS
from agentd.daemon.app import Daemon
from agentd.errors import ConfigError, StoreFull
from agentd.memory import audit

__all__ = ["tell"]  # the fixture, by its name

Row = tuple[str, str, str, str]


async def deeds(daemon: Daemon) -> list[Row]:
    """who, action, target, detail; the newest first."""
    rows = await daemon.store.state.read(lambda c: audit.rows(c))
    return [(row.who, row.action, row.target, row.detail) for row in rows]


def test_what_sends_or_looks_by_hand_is_a_deed(tell: Tell) -> None:
    """A test message wakes whoever is on call; afterwards somebody asks who sent it."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            async with house.living() as daemon:
                await daemon.control.test_webhook("ops", by="eve")
                receiver.answers(500)
                await daemon.control.test_webhook("ops", by="eve")
                await daemon.control.check_now("shop", by="bob")
                with pytest.raises(NotFound):
                    await daemon.control.test_webhook("opps", by="eve")
                with pytest.raises(NotFound):
                    await daemon.control.check_now("nothing", by="eve")

                assert await deeds(daemon) == [
                    ("bob", "check", "shop", "ok"),
                    ("eve", "test", "ops", "status 500"),
                    ("eve", "test", "ops", "taken"),
                ]

    tell(story)


def test_what_was_not_done_is_no_deed(tell: Tell) -> None:
    """Else who asks for what is not there fills the trail, and whoever reads it believes that a message was dropped."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            for name in ("msg_nosuch\nroot did it", "x" * 3000):
                with pytest.raises(NotFound):
                    await daemon.control.retry(name, webhook=None, by="eve")
                with pytest.raises(NotFound):
                    await daemon.control.drop(name, by="eve")
            assert (await daemon.control.retry(None, webhook=None, by="eve"))["retried"] == 0

            assert await deeds(daemon) == []

    tell(story)


def test_messages_sent_again_and_dropped_are_deeds(tell: Tell) -> None:
    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            receiver.otherwise = 400
            house.write(http(served, fail_after=1), hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(60)
                (row,) = (await daemon.control.outbox(state="dead", webhook=None, limit=9))["deliveries"]
                await daemon.control.retry(row["id"], webhook=None, by="eve")
                await house.clock.advance(60)
                await daemon.control.retry(None, webhook="ops", by="eve")
                await house.clock.advance(60)
                await daemon.control.drop(row["id"], by="eve")

                assert await deeds(daemon) == [
                    ("eve", "drop", row["id"], ""),
                    ("eve", "retry", "ops", "1 dead"),
                    ("eve", "retry", row["id"], ""),
                ]

    tell(story)


def test_a_reload_says_what_for_and_whether_it_was_taken(tell: Tell) -> None:
    """A key that is made or taken away is a reload to the daemon: that is where its trail would break off."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            await daemon.control.reload(by="eve", why="key new ops")
            house.config.write_text("watches: [{name: x, htpt: {}}]")
            with pytest.raises(ConfigError):
                await daemon.control.reload(by="eve")

            assert await deeds(daemon) == [("eve", "reload refused", "", ""), ("eve", "reload", "", "key new ops")]

    tell(story)


def test_who_signs_in_is_written_down_and_who_tries_keys_does_not_fill_the_trail(tell: Tell) -> None:
    """Whoever reaches the page may try: in a night the rows of a year would be gone."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            await daemon.control.signed_in("ops", good=True, source="127.0.0.1")
            for number in range(1000):
                await daemon.control.signed_in("boss" if number == 0 else "", good=False, source="192.0.2.7")

            rows = await deeds(daemon)
            assert rows[-1] == ("key ops", "login", "page", "from 127.0.0.1")
            assert rows[-2] == ("nobody", "login failed", "page", "from 192.0.2.7 as boss")
            assert rows[-3] == ("nobody", "login failed", "page", "from 192.0.2.7")
            assert len(rows) == 1 + FAILED_LOGINS.count

            await house.clock.advance(FAILED_LOGINS.per)
            await daemon.control.signed_in("", good=False, source="192.0.2.7")
            missed = 1000 - int(FAILED_LOGINS.count)
            assert (await deeds(daemon))[0][3] == f"from 192.0.2.7; {missed} more since the last of these"

    tell(story)


def test_what_cannot_be_written_down_is_done_all_the_same(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk people sign in and look, more than ever."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:

                def full(*_: object) -> None:
                    raise StoreFull("the disk is full")

                monkeypatch.setattr(audit, "append", full)
                await daemon.control.signed_in("ops", good=True, source="127.0.0.1")
                assert (await daemon.control.check_now("shop", by="eve"))["check"]["verdict"] == "ok"

    tell(story)
