"""The daemon's whole life in one process: a real store, real servers on loopback, and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from house import BEAT, HOUR, House, Shop, Tell, http, tell, told, told_of
from loopback import serving
from receiver import Answer, Receiver

from agentd.api.server import CannotListen
from agentd.api.service import Conflict, NotFound
from agentd.config.loader import load
from agentd.daemon import app
from agentd.daemon.app import EXIT_CRASHED, EXIT_RESTART
from agentd.daemon.lists import MAX_ON_PAGE
from agentd.daemon.notify import ServiceManager
from agentd.daemon.selfwatch import SelfWatch
from agentd.errors import ConfigError, StoreFull
from agentd.memory import audit, ledger, meta, outbox, rollups
from agentd.memory.recorder import Recorder
from agentd.memory.store import Store
from agentd.records import AlertStatus
from agentd.watch.heartbeat import HeartbeatProbe

__all__ = ["tell"]  # the fixture, by its name


def test_an_afternoon(tell: Tell) -> None:
    """Every check once, each change told once, and nothing that piles up."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), http(served, "till", every="5m"), hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                tasks = len(asyncio.all_tasks())
                looks = shop.looks
                for up in (False, True) * 3:
                    shop.up = up
                    await house.clock.advance(HOUR / 2)
                shop.up = True
                for name in ("shop", "till"):
                    events = [event for event in told(receiver) if event.startswith(name)]
                    assert events == [f"{name} alert.firing", f"{name} alert.resolved"] * 3
                assert shop.looks - looks == 3 * 60 + 3 * 12
                assert len(asyncio.all_tasks()) <= tasks + 2
                status = await daemon.control.status()
                assert status["checks"]["overlaps"] == 0
                assert status["outbox"]["waiting"] == 0
                rows = await daemon.store.history.read(
                    lambda c: rollups.strip(c, "shop", house.clock.now(), buckets=4, span=timedelta(hours=4))
                )
                assert [bar.count for bar in rows[:3] if bar] == [60, 60, 60]

    tell(story)


def test_a_receiver_that_is_down_for_an_hour_gets_all_in_order(tell: Tell) -> None:
    """The outbox is there for this hour."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            async with house.living() as daemon:
                await receiver.stop()
                for up in (False, True) * 3:
                    shop.up = up
                    await house.clock.advance(HOUR / 6)
                status = await daemon.control.status()
                assert status["outbox"]["waiting"] == 6
                (trouble,) = status["trouble"]
                assert trouble.startswith("webhook ops fails since 20")
                await receiver.start()
                await house.clock.advance(HOUR * 2)

                assert told(receiver) == ["shop alert.firing", "shop alert.resolved"] * 3
                assert len(set(receiver.ids)) == 6
                assert (await daemon.control.status())["outbox"]["waiting"] == 0

    tell(story)


def test_a_clock_set_back_delays_no_message(tell: Tell) -> None:
    """The next try is planned by the wall clock; set back an hour, it would be an hour late."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, fail_after=1), hook=receiver.url)
            async with house.living():
                await house.clock.advance(120)
                receiver.otherwise = 503
                shop.up = False
                await house.clock.advance(60)
                assert told(receiver) == []

                house.clock.jump(timedelta(hours=-3))
                receiver.otherwise = 200
                await house.clock.advance(HOUR / 2)

                assert [each for each in told(receiver) if "shop" in each] == ["shop alert.firing"]
                (jumped, over) = [each.json["data"] for each in receiver.taken if "agentd" in told_of(each)]
                assert (jumped["rule"], jumped["summary"]) == ("clock", "agentd: the clock was set back by 3h")
                assert over["state"] == "resolved"

    tell(story)


def test_a_pause_ends_by_itself_and_outlives_a_restart(tell: Tell) -> None:
    """Who pauses for two hours of maintenance must not be woken by a restart in it, nor forget to resume."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(120)
                view = await daemon.control.pause("shop", by="eve", for_s=2 * HOUR, reason="move")
                assert view["paused"]
                assert view["next_at"] is None
            looks = shop.looks
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                assert shop.looks == looks
                await daemon.reload()
                await house.clock.advance(HOUR - 60)
                assert shop.looks == looks
                await house.clock.advance(300)
                assert shop.looks > looks
                deeds = await daemon.store.state.read(audit.rows)
                assert [(deed.who, deed.action) for deed in deeds] == [("agentd", "resume"), ("eve", "pause")]

    tell(story)


def test_resume_says_when_there_is_nothing_to_resume(tell: Tell) -> None:
    """And a paused watch is still looked at when a person asks."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                with pytest.raises(Conflict):
                    await daemon.control.resume("shop", by="eve")
                with pytest.raises(NotFound):
                    await daemon.control.pause("nothing", by="eve", for_s=None, reason="")
                await daemon.control.pause("shop", by="eve", for_s=None, reason="")
                answer = await daemon.control.check_now("shop", by="eve")
                assert answer["check"]["verdict"] == "ok"
                await daemon.control.resume("shop", by="eve")
                assert (await daemon.control.watches())[0]["next_at"] is not None

    tell(story)


def test_a_reload_changes_only_what_changed(tell: Tell) -> None:
    """Streaks of the others must go on, or a reload every hour would hide a failing target."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            same, gone = http(served, "same", fail_after=3), http(served, "gone", fail_after=1)
            house.write(same, gone, http(served, "changed"), hook=receiver.url)
            async with house.living() as daemon:
                shop.up = False
                await house.clock.advance(119)
                before = dict(daemon.pipeline.watches)
                house.write(same, http(served, "changed", timeout="5s"), http(served, "new"), hook=receiver.url)

                assert await daemon.reload() is None

                watches = daemon.pipeline.watches
                assert sorted(watches) == ["changed", "new", "same"]
                assert watches["same"] is before["same"]
                assert watches["changed"] is not before["changed"]
                await house.clock.advance(60)
                events = told(receiver)
                assert events.count("gone alert.firing") == events.count("gone alert.resolved") == 1
                assert "same alert.firing" in events
                assert "gone" not in await daemon.store.state.read(ledger.load_probes)

    tell(story)


def test_a_wrong_file_changes_nothing(tell: Tell) -> None:
    """A typing slip at night must not end the watching."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            watches = dict(daemon.pipeline.watches)
            house.config.write_text("watches: [{name: x, htpt: {}}]")

            why = await daemon.reload()

            assert why is not None
            assert "agentd.yaml:1" in why
            assert dict(daemon.pipeline.watches) == watches
            assert why in daemon.status_text()
            with pytest.raises(ConfigError, match="the old one runs on"):
                await daemon.control.reload(by="eve")
            house.write(BEAT)
            assert await daemon.reload() is None
            assert "refused" not in daemon.status_text()

    tell(story)


def test_a_defect_in_a_reload_changes_nothing(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while a new configuration is read, the old one runs on."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            with monkeypatch.context() as patch:
                patch.setattr(app, "assemble", lambda *_, **__: 1 / 0)
                why = await daemon.reload()
            assert why is not None
            assert "ZeroDivisionError" in why
            assert await daemon.reload() is None

    tell(story)


def test_what_needs_a_restart_is_said_until_it_is_done(tell: Tell) -> None:
    """The second reload must not make one forget what the first one said."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            house.write(BEAT, memory={"max_size": "2GiB"})
            for _ in range(2):
                await daemon.reload()
                assert daemon.note == "restart to apply changes of memory"
            house.write(BEAT)
            await daemon.reload()
            assert daemon.note == ""

    tell(story)


def test_hangups_that_pile_up_make_one_more_reload(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that sends SIGHUP in a loop must not queue a thousand."""

    async def story(house: House) -> None:
        loads: list[Path] = []

        def counted(path: Path) -> Any:
            loads.append(path)
            return load(path)

        house.write(BEAT)
        async with house.living() as daemon:
            monkeypatch.setattr(app, "load", counted)
            for _ in range(100):
                daemon._reload_asked.set()
            await house.clock.advance(5)
            assert len(loads) == 1

    tell(story)


def test_a_hangup_while_we_start_is_not_lost(tell: Tell) -> None:
    """The file may have changed after we read it."""

    async def story(house: House) -> None:
        house.write(BEAT)
        daemon = house.make()
        daemon._reload_asked.set()
        house.write(BEAT, BEAT | {"name": "second"})
        run = asyncio.create_task(daemon.run())
        await daemon.ready.wait()
        await house.clock.advance(5)
        assert sorted(daemon.pipeline.watches) == ["job", "second"]
        daemon.stop()
        assert await house.ending(run) == 0

    tell(story)


def test_a_heartbeat_that_was_never_heard_is_not_up(tell: Tell) -> None:
    """A job that was never wired up must not show a hundred percent; that it is overdue is told of as ever."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(BEAT | {"fail_after": 1, "public": True}, hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(HOUR / 2)
                (row,) = (await daemon.control.overview())["watches"]
                assert (row["verdict"], row["summary"], row["uptime"]) == (None, "no beat yet", {"24h": None})
                assert (await daemon.control.status())["watches"] == {"total": 1, "paused": 0, "waiting": 1}

                await house.clock.advance(HOUR)
                assert told(receiver) == ["job alert.firing"]
                (row,) = (await daemon.control.overview())["watches"]
                assert (row["verdict"], row["uptime"]) == ("failing", {"24h": 0.0})

                await daemon.control.beat("job", token=None, ok=True, message="", trusted=True)
                await house.clock.advance(HOUR / 4)
                (row,) = (await daemon.control.overview())["watches"]
                assert (row["verdict"], row["summary"]) == ("ok", "")
                assert row["uptime"]["24h"] > 0

    tell(story)


def test_heartbeats_outlive_a_restart(tell: Tell) -> None:
    """A job that reported before the restart must not be called silent after it, nor a silent one be forgotten."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(BEAT | {"fail_after": 1}, hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(HOUR / 2)
                await daemon.control.beat("job", token=None, ok=True, message="done", trusted=True)
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                assert told(receiver) == []
                await house.clock.advance(HOUR / 4)
                assert told(receiver) == ["job alert.firing"]
                await daemon.control.beat("job", token=None, ok=True, message="done", trusted=True)
                await house.clock.advance(75)
                assert told(receiver) == ["job alert.firing", "job alert.resolved"]

    tell(story)


def test_silence_is_told_of_once_the_grace_is_over(tell: Tell) -> None:
    """The grace is what the operator allowed; looks and streaks of ours must not be added to it."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write({"name": "job", "heartbeat": {"expect_every": "10s", "grace": "4s"}}, hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(3)
                await daemon.control.beat("job", token=None, ok=True, message="", trusted=True)
                await house.clock.advance(13)
                assert told(receiver) == []

                await house.clock.advance(3.5)

                assert told(receiver) == ["job alert.firing"]

    tell(story)


def test_too_much_memory_for_too_long_is_told_and_ends_in_a_restart(tell: Tell) -> None:
    """A leak must end in a clean start, and somebody should know."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(BEAT, hook=receiver.url, daemon={"memory_limit": "1MiB"})
            _, run = await house.start()

            await house.clock.advance(6 * 60)

            assert await house.ending(run) == EXIT_RESTART
            assert told(receiver) == ["agentd alert.firing"]

    tell(story)


def test_a_held_outbox_sends_nothing_and_feeds_the_watchdog(
    tell: Tell, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a restore a person looks first; meanwhile systemd must not end us for a courier that has nothing to do."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            store = await Store.open(tmp_path / "state", clock=house.clock)
            await store.state.write(lambda c: meta.put(c, meta.HELD, "restored"))
            await store.close()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                systemd.bind(str(tmp_path / "notify"))
                systemd.setblocking(False)
                house.manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
                async with house.living() as daemon:
                    heard = ""
                    for _ in range(10):
                        await house.clock.advance(30)
                        heard += received(systemd)
                    assert (await daemon.control.status())["outbox"] == {
                        "waiting": 1,
                        "dead": 0,
                        "held": "restored",
                        "disabled_webhooks": [],
                        "failing_webhooks": {},
                    }
                house.manager.close()
            assert heard.count("WATCHDOG=1") >= 19
            assert "no answer" not in heard
            assert receiver.requests == []
            store = await Store.open(tmp_path / "state", clock=house.clock)
            await store.state.write(lambda c: meta.delete(c, meta.HELD))
            await store.close()
            house.manager = None
            async with house.living():
                await house.clock.advance(60)
            assert told(receiver) == ["shop alert.firing"]

    tell(story)


def received(systemd: socket.socket) -> str:
    heard = ""
    while True:
        try:
            heard += systemd.recv(4096).decode() + "\n"
        except BlockingIOError:
            return heard


def test_a_chore_that_fails_is_told_once_and_goes_on(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect in a side room must end neither the watching nor the disk space for logs."""

    async def story(house: House) -> None:
        sweeps = []
        good = SelfWatch.sweep

        async def bad(self: SelfWatch) -> None:
            sweeps.append(1)
            if len(sweeps) < 10:
                raise RuntimeError("boom")
            await good(self)

        monkeypatch.setattr(SelfWatch, "sweep", bad)
        house.write(BEAT)
        async with house.living():
            await house.clock.advance(300)
        assert len(sweeps) == 20
        events = [record.message for record in caplog.records if record.message.startswith("chore_")]
        assert events == ["chore_failed", "chore_works_again"]

    caplog.set_level(logging.INFO)
    tell(story)


def test_a_task_that_dies_ends_the_daemon_in_good_order(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a daemon that looks alive is the worst of all; systemd starts a whole one."""

    async def story(house: House) -> None:
        async def dies(self: Recorder) -> None:
            await asyncio.sleep(100)
            raise RuntimeError("boom")

        monkeypatch.setattr(Recorder, "run", dies)
        house.write(BEAT)
        _, run = await house.start()
        await house.clock.advance(101)
        assert await house.ending(run) == EXIT_CRASHED
        assert "task_crashed" in caplog.messages
        store = await Store.open(house.folder / "state", clock=house.clock)
        assert "job" in await store.state.read(ledger.load_probes), "the ledger was saved"
        await store.close()

    tell(story)


def test_a_probe_that_will_not_close_harms_nobody(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a reload that removes it, nor the end."""

    async def story(house: House) -> None:
        async def bad(self: HeartbeatProbe) -> None:
            raise OSError("boom")

        monkeypatch.setattr(HeartbeatProbe, "close", bad)
        house.write(BEAT, BEAT | {"name": "second"})
        async with house.living() as daemon:
            house.write(BEAT)
            assert await daemon.reload() is None
            await house.clock.advance(10)
            assert sorted(daemon.pipeline.watches) == ["job"]

    tell(story)


@pytest.mark.parametrize("moment", ["before", "opening"])
def test_a_stop_that_comes_early_is_obeyed(tell: Tell, moment: str) -> None:
    """SIGTERM may come at any time; nothing may be left half open by it."""

    async def story(house: House) -> None:
        house.write(BEAT)
        daemon = house.make()
        if moment == "before":
            daemon.stop()
        run = asyncio.create_task(daemon.run())
        await asyncio.sleep(0)
        daemon.stop()
        daemon.stop()

        assert await house.ending(run) == 0
        assert not daemon.ready.is_set()
        async with house.living():
            pass

    tell(story)


def test_a_stop_in_the_middle_of_a_reload_lets_go_of_it(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the plan of the new configuration would be taken up by a daemon that has closed everything already."""

    async def story(house: House) -> None:
        house.write(BEAT)
        gate, begun = threading.Event(), threading.Event()

        def slow(path: Path) -> Any:
            begun.set()
            gate.wait(10)
            return load(path)

        daemon, run = await house.start()
        monkeypatch.setattr(app, "load", slow)
        house.write(BEAT, BEAT | {"name": "new"})
        reloading = asyncio.create_task(daemon.reload())
        while not begun.is_set():
            await asyncio.sleep(0)
        daemon.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        gate.set()

        assert await house.ending(run) == 0
        assert await reloading == "the daemon is stopping"
        assert await daemon.reload() == "the daemon is stopping"
        assert sorted(daemon.pipeline.watches) == ["job"]

    tell(story)


def test_an_address_in_use_is_a_plain_message(tell: Tell) -> None:
    """And what was opened before it is closed again."""

    async def story(house: House) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            house.write(BEAT, api={"listen": [f"127.0.0.1:{taken.getsockname()[1]}"]})
            with pytest.raises(CannotListen, match=r"api\.listen: cannot listen on"):
                await house.make().run()
        async with house.living():
            pass

    tell(story)


def test_a_full_disk_keeps_nobody_from_starting(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the very moment in which one wants to be told."""

    async def story(house: House) -> None:
        def full(*_: Any) -> None:
            raise StoreFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(meta, "stamp_alive", full)
            house.write(BEAT)
            async with house.living() as daemon:
                await house.clock.advance(60)
                assert (await daemon.control.status())["state"] == "running"

    tell(story)


def test_many_watches_leave_room_for_checks(tell: Tell) -> None:
    """Who looks at ten thousand watches must not hold up a check: lists come in pieces, the page shows the worst."""

    async def story(house: House) -> None:
        house.write(*(BEAT | {"name": f"w{number}"} for number in range(1000)))
        async with house.living() as daemon:
            alert = daemon.pipeline.watches["w777"].calm
            daemon.pipeline.alerts[alert.fingerprint] = replace(alert, status=AlertStatus.FIRING)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count())
            assert len(await daemon.control.watches()) == 1000
            assert turns >= 4
            overview = await daemon.control.overview()
            counting.cancel()

            assert len(overview["watches"]) == MAX_ON_PAGE
            assert overview["more_watches"] == 1000 - MAX_ON_PAGE
            assert overview["watches"][0]["name"] == "w777"
            assert [len(view["strip"]) for view in overview["watches"]] == [90] * MAX_ON_PAGE
            assert overview["watches"][0]["uptime"] == {"24h": None}
            assert overview["watches"][0]["spark"] == []

    tell(story)


def test_what_is_being_sent_is_neither_resent_nor_dropped(tell: Tell) -> None:
    """A person is told why, and the message that is on its way keeps its place."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            receiver.answers(Answer(200, delay_s=10))
            house.write(http(served), hook=receiver.url)
            async with house.living() as daemon:
                while not receiver.requests:
                    await house.clock.advance(5)
                (row,) = (await daemon.control.outbox(state="claimed", webhook=None, limit=10))["deliveries"]
                with pytest.raises(Conflict, match="being sent"):
                    await daemon.control.drop(row["id"], by="eve")
                with pytest.raises(Conflict, match="being sent"):
                    await daemon.control.retry(row["id"], webhook=None, by="eve")
                await house.clock.advance(15)
                assert told(receiver) == ["shop alert.firing"]
                assert await daemon.store.state.read(lambda c: outbox.rows(c)) == []

    tell(story)


def test_an_operator_resends_and_drops_what_died(tell: Tell) -> None:
    """What a receiver refused is kept for a person to decide about."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            receiver.answers(400, 400)
            house.write(http(served), hook=receiver.url)
            async with house.living() as daemon:
                for up in (False, True):
                    shop.up = up
                    await house.clock.advance(180)
                rows = (await daemon.control.outbox(state="dead", webhook=None, limit=10))["deliveries"]
                assert [row["type"] for row in rows] == ["alert.firing", "alert.resolved"]
                await daemon.control.drop(rows[0]["id"], by="eve")
                assert (await daemon.control.delivery(rows[1]["id"]))["data"]["state"] == "resolved"
                assert await daemon.control.retry(None, webhook="ops", by="eve") == {"retried": 1, "superseded": 0}
                await house.clock.advance(60)
                assert told(receiver) == ["shop alert.resolved"]
                with pytest.raises(NotFound):
                    await daemon.control.delivery(rows[0]["id"])
                with pytest.raises(NotFound):
                    await daemon.control.retry(rows[0]["id"], webhook=None, by="eve")
                assert await daemon.store.state.read(lambda c: outbox.rows(c)) == []

    tell(story)
