"""
What people get to hear, through the public configuration alone: one message where there is one trouble.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import apsw
import pytest
from house import HOUR, House, Shop, Tell, http, tell, told
from loopback import serving
from receiver import Receiver, Request

from agentd.alert.identity import fingerprint
from agentd.api.silence import SilenceAsked
from agentd.memory import outbox
from agentd.memory.migrate import steps
from agentd.testing import FakeClock

__all__ = ["tell"]  # the fixture, by its name

MINUTE = 60.0


@pytest.fixture(autouse=True)
def _paced(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """These stories are about when things are told."""
    monkeypatch.setattr("agentd.daemon.app.LOOK_EVERY_S", 5.0)
    monkeypatch.setattr("agentd.daemon.app.SWEEP_EVERY_S", 15.0)


def kinds(receiver: Receiver) -> list[str]:
    return [request.json["type"] for request in receiver.taken]


def names(request: Request) -> set[str]:
    data = request.json["data"]
    return {alert["watch"] for alert in data.get("alerts", [data])}


def test_a_storm_behind_one_gateway_is_one_message_and_one_more_when_it_is_over(tell: Tell) -> None:
    """Five hundred messages at three in the morning are as good as none."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            watches = [http(served, f"shop-{n}", every="5m", labels={"zone": "dmz"}) for n in range(500)]
            alerting = {"group_by": ["zone"], "group_wait": "10s"}
            house.write(*watches, hook=receiver.url, alerting=alerting, defaults={"fail_after": 1})
            async with house.living() as daemon:
                await house.clock.advance(5 * MINUTE)
                shop.up = False
                for planned in daemon.plan.watches.values():
                    daemon.scheduler.run_now(planned.watch.name)
                await house.clock.advance(30)
                assert kinds(receiver) == ["group.firing"]
                data = receiver.taken[0].json["data"]
                assert (data["group"], data["firing"]) == ({"zone": "dmz"}, 500)

                shop.up = True
                await house.clock.advance(10 * MINUTE)

                assert kinds(receiver)[-1] == "group.resolved"
                assert receiver.taken[-1].json["data"]["group"] == {"zone": "dmz"}

    tell(story)


def test_with_depends_on_the_gateway_alone_is_named(tell: Tell) -> None:
    """Whoever is woken must see the one thing that is broken."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            watches = [http(served, f"shop-{n}", depends_on=["gateway"]) for n in range(20)]
            alerting = {"group_by": ["zone"], "group_wait": "10s"}
            house.write(
                http(served, "gateway"), *watches, hook=receiver.url, alerting=alerting, defaults={"fail_after": 1}
            )
            async with house.living() as daemon:
                await house.clock.advance(MINUTE)
                shop.up = False
                await house.clock.advance(3 * MINUTE)
                assert [names(request) for request in receiver.taken] == [{"gateway"}]
                muted = [alert for alert in await daemon.control.alerts(everything=False) if alert["muted_by"]]
                assert len(muted) == 20
                assert "gateway" in muted[0]["muted_by"]

                shop.up = True
                await house.clock.advance(5 * MINUTE)

                assert [names(request) for request in receiver.taken] == [{"gateway"}] * 2
                assert kinds(receiver) == ["alert.firing", "alert.resolved"]

    tell(story)


def test_a_flapping_target_is_told_of_once_and_once_more_when_it_is_steady(tell: Tell) -> None:
    """A service that comes and goes each minute is one fact, not a hundred."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url, defaults={"fail_after": 1}, alerting={"group_interval": 0})
            async with house.living():
                for minute in range(60):
                    shop.up = minute % 2 == 0
                    await house.clock.advance(MINUTE)
                flapping = [request for request in receiver.taken if request.json["type"] == "alert.flapping"]
                assert [request.json["data"]["flapping"] for request in flapping] == [True]
                before = len(receiver.taken)
                assert before < 15, "the few changes before it counted as flapping, and that it does"

                shop.up = True
                await house.clock.advance(HOUR)

                last = receiver.taken[-1].json
                assert (last["type"], last["data"]["flapping"]) == ("alert.flapping", False)
                assert len(receiver.taken) <= before + 2

    tell(story)


def test_a_silence_keeps_quiet_and_what_still_fires_when_it_ends_is_told_then(tell: Tell) -> None:
    """The person who silenced it may be on holiday by now."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url, defaults={"fail_after": 1})
            async with house.living() as daemon:
                asked = SilenceAsked(("watch=shop",), timedelta(hours=2), "a new disk")
                await daemon.control.silence(asked, by="anna")
                shop.up = False
                await house.clock.advance(1.5 * HOUR)
                assert told(receiver) == []
                (alert,) = await daemon.control.alerts(everything=False)
                assert "anna" in alert["muted_by"]
                assert "a new disk" in alert["muted_by"]

                await house.clock.advance(HOUR)

                assert told(receiver) == ["shop alert.firing"]
                assert receiver.taken[0].json["data"]["muted_by"] is None

    tell(story)


def test_an_acknowledged_alert_is_not_repeated_and_its_end_is_told(tell: Tell) -> None:
    """Somebody is on it."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            alerting: dict[str, Any] = {"remind_every": "1h", "remind": "fixed"}
            alerting["escalate"] = [{"after": "3h", "notify": ["ops"], "severity": "critical"}]
            house.write(http(served), hook=receiver.url, defaults={"fail_after": 1}, alerting=alerting)
            async with house.living() as daemon:
                shop.up = False
                await house.clock.advance(1.5 * HOUR)
                assert told(receiver) == ["shop alert.firing", "shop alert.reminder"]
                await daemon.control.ack(["shop"], by="anna", comment="on it", undo=False)
                await house.clock.advance(5 * HOUR)
                assert len(receiver.taken) == 2
                shop.up = True
                await house.clock.advance(5 * MINUTE)

                assert told(receiver)[2:] == ["shop alert.resolved"]

    tell(story)


def test_after_half_an_hour_the_boss_is_told_too_and_hears_the_end(tell: Tell) -> None:
    """What lasts is worse than what comes and goes."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, Receiver() as boss, serving(shop.answer) as served:
            house.write(
                http(served, escalate=[{"after": "30m", "notify": ["boss"], "severity": "critical"}]),
                hook=receiver.url,
                webhooks={"boss": {"url": boss.url}},
                defaults={"fail_after": 1},
            )
            async with house.living():
                shop.up = False
                await house.clock.advance(29 * MINUTE)
                assert told(boss) == []
                await house.clock.advance(4 * MINUTE)
                assert told(boss) == ["shop alert.escalated"]
                assert boss.taken[0].json["data"]["severity"] == "critical"
                assert told(receiver) == ["shop alert.firing", "shop alert.escalated"]
                shop.up = True
                await house.clock.advance(5 * MINUTE)

                assert told(boss)[1:] == ["shop alert.resolved"]
                assert told(receiver)[2:] == ["shop alert.resolved"]

    tell(story)


def test_maintenance_at_three_holds_through_the_night_without_that_hour(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the last Sunday of March 02:30 is not; the window begins all the same, and lasts its hour of real time."""
    night = datetime(2026, 3, 29, 2, 0, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)  # 01:00 UTC is 03:00 CEST

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            window = {"when": 'watch == "shop"', "cron": "30 3 * * *", "for": "1h", "timezone": "Europe/Berlin"}
            house.write(http(served), hook=receiver.url, alerting={"maintenance": [window]}, defaults={"fail_after": 1})
            async with house.living() as daemon:
                await house.clock.advance(
                    (datetime(2026, 3, 29, 1, 35, tzinfo=UTC) - house.clock.now()).total_seconds()
                )
                shop.up = False
                await house.clock.advance(40 * MINUTE)
                assert told(receiver) == []
                (alert,) = await daemon.control.alerts(everything=False)
                assert "maintenance" in alert["muted_by"]
                await house.clock.advance(20 * MINUTE)
                assert told(receiver) == ["shop alert.firing"]

    house = House(tmp_path, FakeClock(night - timedelta(minutes=30)))
    house.clock.run(story(house))


def test_routes_send_alerts_of_one_sort_elsewhere(tell: Tell) -> None:
    """The database team is called for databases."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, Receiver() as team, serving(shop.answer) as served:
            house.write(
                http(served, "till"),
                http(served, "db", labels={"team": "data"}),
                hook=receiver.url,
                webhooks={"data": {"url": team.url}},
                alerting={"routes": [{"when": 'labels.team == "data"', "notify": ["data"]}]},
                defaults={"fail_after": 1},
            )
            async with house.living():
                shop.up = False
                await house.clock.advance(2 * MINUTE)

                assert told(receiver) == ["till alert.firing"]
                assert told(team) == ["db alert.firing"]

    tell(story)


def test_a_group_that_fired_before_a_restart_resolves_after_it(tell: Tell) -> None:
    """The receiver must not be left with an incident that only the last process knew of."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            watches = [http(served, f"shop-{n}", labels={"zone": "dmz"}) for n in range(3)]
            alerting = {"group_by": ["zone"], "group_wait": "90s"}
            house.write(*watches, hook=receiver.url, alerting=alerting, defaults={"fail_after": 1})
            async with house.living():
                shop.up = False
                await house.clock.advance(70)
                assert kinds(receiver) == [], "killed while the group still waits"
            async with house.living():
                await house.clock.advance(2 * MINUTE)
                assert kinds(receiver) == ["group.firing"]
            shop.up = True
            async with house.living():
                await house.clock.advance(5 * MINUTE)

                assert kinds(receiver) == ["group.firing", "group.resolved"]
                assert names(receiver.taken[-1]) == {"shop-0", "shop-1", "shop-2"}
                assert asyncio.all_tasks()

    tell(story)


def old_store(house: House, *watches: str, schema: int, told: bool = True) -> None:
    """A state.db as an agentd without groups left it: these watches fire for five hours; ops was told or is owed."""
    (house.folder / "state").mkdir(mode=0o700)
    connection = apsw.Connection(str(house.folder / "state" / "state.db"))
    for step in steps("state")[:schema]:
        connection.execute(step.sql)
    connection.pragma("user_version", schema)
    began = int((house.clock.now() - timedelta(hours=5)).timestamp() * 1e6)
    for watch in watches:
        alert = {
            "fingerprint": fingerprint("web-1", watch, None), "instance": "web-1", "watch": watch, "rule": None,
            "severity": "warning", "status": "firing", "by": "{}", "labels": '{"zone":"dmz"}', "window": "F", "oks": 0,
            "started_at": began, "reason": "threshold", "reason_text": "status 503", "summary": "503",
            "values": "{}", "failed": "[]", "occurrences": 1, "reminders": 1, "remind_at": began, "flapping": 0,
            "told": '["ops"]',
        }  # fmt: skip
        _insert(connection, "alerts", alert)
        if not told:
            data = {"watch": watch, "old": True}
            row = {
                "id": f"msg_{watch}", "webhook": "ops", "lane": watch, "type": "alert.firing", "data": json.dumps(data),
                "fingerprint": alert["fingerprint"], "created_at": began, "due_at": began, "ready_at": began,
                "attempts": 3, "head": 1,
            }  # fmt: skip
            _insert(connection, "outbox", row)
    connection.close()


def _insert(connection: apsw.Connection, table: str, row: dict[str, Any]) -> None:
    columns = ", ".join(f'"{name}"' for name in row)
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


@pytest.mark.parametrize("schema", [1, 2])
def test_what_fired_before_there_were_groups_is_reminded_of_and_told_as_over(tell: Tell, schema: int) -> None:
    """An upgrade in the night must not leave people with an incident that never ends."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            old_store(house, "shop-1", "shop-2", "gone", schema=schema)
            watches = [http(served, f"shop-{n}", labels={"zone": "dmz"}) for n in (1, 2)]
            house.write(*watches, hook=receiver.url, alerting={"group_by": ["zone", "watch"]})
            async with house.living():
                await house.clock.advance(2 * MINUTE)
                assert sorted(told(receiver)) == [
                    "gone alert.resolved",
                    "shop-1 alert.reminder",
                    "shop-2 alert.reminder",
                ]
            async with house.living():  # once, however often it starts
                await house.clock.advance(2 * MINUTE)
                assert len(receiver.taken) == 3
                shop.up = True
                await house.clock.advance(5 * MINUTE)

                assert sorted(told(receiver)[3:]) == ["shop-1 alert.resolved", "shop-2 alert.resolved"]

    tell(story)


def test_a_resolve_waits_for_the_firing_that_an_older_agentd_could_not_deliver(tell: Tell) -> None:
    """A lane was named after its watch once: in another lane, the end would arrive before the beginning."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            receiver.otherwise = 503
            old_store(house, "shop-1", "shop-2", schema=1, told=False)
            watches = [http(served, f"shop-{n}", labels={"zone": "dmz"}) for n in (1, 2)]
            house.write(*watches, hook=receiver.url, alerting={"group_by": ["zone"], "remind_every": 0})
            async with house.living() as daemon:
                await house.clock.advance(5 * MINUTE)
                assert receiver.taken == []
                lanes = {row.delivery.lane for row in await daemon.store.state.read(outbox.rows)}
                assert lanes == {'{"zone":"dmz"}'}
                receiver.otherwise = 200
                await house.clock.advance(HOUR)

                assert kinds(receiver) == ["alert.firing", "alert.firing", "group.resolved"]
                assert [names(each) for each in receiver.taken] == [{"shop-1"}, {"shop-2"}, {"shop-1", "shop-2"}]

    tell(story)


def test_alertmanager_hears_of_each_of_three_hundred_that_fire_and_end(tell: Tell) -> None:
    """Its API keeps alerts, not groups: those beyond a message's cut would never begin, or never end."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            watches = [http(served, f"shop-{n}", every="5m", labels={"zone": "dmz"}) for n in range(300)]
            house.write(
                *watches,
                webhooks={"ops": {"url": receiver.url, "format": "alertmanager", "mode": "api"}},
                alerting={"group_by": ["zone"], "group_wait": "10s"},
                defaults={"fail_after": 1},
            )
            async with house.living() as daemon:
                await house.clock.advance(5 * MINUTE)
                for up in (False, True):
                    shop.up = up
                    for planned in daemon.plan.watches.values():
                        daemon.scheduler.run_now(planned.watch.name)
                    await house.clock.advance(2 * MINUTE)
                posted = [alert for request in receiver.taken for alert in request.json]

                now = house.clock.now()
                over = {is_over(each, now) for each in posted}
                assert over == {False, True}
                for ended in over:
                    each_told = {each["labels"]["watch"] for each in posted if is_over(each, now) is ended}
                    assert len(each_told) == 300

    tell(story)


def is_over(posted: dict[str, Any], now: datetime) -> bool:
    return datetime.fromisoformat(posted["endsAt"]) <= now
