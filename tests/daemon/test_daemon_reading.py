"""What the page reads of one watch, one alert, the history and the public: a real daemon and what it kept."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import apsw
import pytest
from house import HOUR, House, Shop, Tell, http, tell
from loopback import Served, serving
from receiver import Receiver

from agentd.api.reading import Reading
from agentd.api.service import NotFound
from agentd.api.silence import SilenceAsked
from agentd.daemon.app import Daemon
from agentd.daemon.reading import Reader
from agentd.errors import ConfigError
from agentd.memory import audit

__all__ = ["tell"]  # the fixture, by its name


def reading(daemon: Daemon) -> Reading:
    return Reader(daemon)


async def rolled(daemon: Daemon, house: House) -> None:
    """What was recorded so far stands in the roll-ups."""
    daemon.recorder.flush()
    await house.clock.advance(60)
    await daemon.store.housekeeping(house.clock.now())


def secret_shop(served: Served, **more: Any) -> dict[str, Any]:
    watch = http(served, description="Where we sell.", public=True, **more)
    watch["http"] |= {
        "url": f"{served.url}/health?token=tok-in-plain",
        "headers": {"Authorization": "Bearer in-plain-1", "X-Key": "${env:HOME}"},
    }
    return watch


def test_one_watch_tells_what_it_is_and_how_it_was(tell: Tell) -> None:
    """Who opens its page wants to know what is looked at, what must hold, and how often it did."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(secret_shop(served, expect=["status == 200", "latency_ms < 60000"]))
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                shop.up = False
                await house.clock.advance(HOUR)
                await rolled(daemon, house)

                view = await reading(daemon).watch("shop")

                assert view["name"] == "shop"
                assert view["description"] == "Where we sell."
                assert view["public"] is True
                assert view["verdict"] == "failing"
                assert view["check"]["conditions"] == [
                    {"text": "status == 200", "ok": False},
                    {"text": "latency_ms < 60000", "ok": True},
                ]
                assert view["check"]["values"]["status"] == 503
                assert view["uptime"]["24h"] == pytest.approx(0.5, abs=0.05)
                (row,) = (await daemon.control.overview())["watches"]
                assert row["uptime"]["24h"] == view["uptime"]["24h"], "one number in all places"
                assert view["uptime"]["30d"] == view["uptime"]["7d"]
                (alert,) = view["alerts"]
                assert (alert["state"], alert["failed"]) == ("firing", ["status == 200"])
                assert view["more_alerts"] == 0
                assert view["runs"] == view["findings"] == view["silences"] == view["rules"] == []
                assert view["settings"]["every"] == "1m", "of the defaults"
                json.dumps(view)

    tell(story)


def test_what_stands_in_the_file_in_plain_is_no_ones_to_read(tell: Tell) -> None:
    """Whoever may look need not be whoever may know the password."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(secret_shop(served))
            async with house.living() as daemon:
                await house.clock.advance(60)

                settings = (await reading(daemon).watch("shop"))["settings"]

                assert settings["http"]["headers"] == {"Authorization": "***", "X-Key": "${env:HOME}"}
                assert settings["http"]["url"] == f"{served.url}/health***"

    tell(story)


def test_a_watch_that_is_not_enabled_has_a_page_too(tell: Tell) -> None:
    """Or one would look for a watch that stands in the file and is nowhere."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served), http(served, "till", enabled=False))
            async with house.living() as daemon:
                view = await reading(daemon).watch("till")

                assert view["enabled"] is False
                assert view["check"] is None
                assert view["uptime"] == {"24h": None, "7d": None, "30d": None}
                assert (await reading(daemon).series("till", "24h"))["points"] == []
                with pytest.raises(NotFound):
                    await reading(daemon).watch("nobody")

    tell(story)


def test_what_was_measured_is_plotted_over_any_span(tell: Tell) -> None:
    """The hour from what each check brought, the rest from roll-ups; all agree on what failed."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(HOUR / 2)
                shop.up = False
                await house.clock.advance(600)
                shop.up = True
                await house.clock.advance(600)
                await rolled(daemon, house)

                hour = await reading(daemon).series("shop", "1h")
                assert hour["source"] == "results"
                assert hour["value"] == {"name": "latency", "unit": "ms"}
                assert len(hour["bars"]) == 60
                assert hour["bars"].count("failing") == 10
                for span, step_s in (("24h", 900), ("7d", 7200), ("30d", 28800)):
                    found = await reading(daemon).series("shop", span)  # type: ignore[arg-type]  # one of the spans
                    assert (found["source"], found["step_s"], len(found["bars"])) == ("rollups", step_s, 90)
                    assert found["bars"][0] is None
                    assert found["bars"][-1] in ("ok", "failing")
                    assert sum(point["failing"] for point in found["points"]) == 10
                    assert {point["count"] - point["ok"] - point["failing"] for point in found["points"]} == {0}
                    assert all(point["min"] <= point["mean"] <= point["max"] for point in found["points"])
                    begin = datetime.fromisoformat(found["bars_from"])
                    end = begin + timedelta(seconds=90 * found["bar_s"])
                    assert end - timedelta(seconds=found["bar_s"]) <= house.clock.now() <= end
                assert sum(point["failing"] for point in hour["points"]) == 10
                with pytest.raises(ConfigError):
                    await reading(daemon).series("shop", "2h")  # type: ignore[arg-type]  # what a client may ask

    tell(story)


def test_a_pause_is_told_apart_from_not_knowing(tell: Tell) -> None:
    """A gap that somebody made on purpose is no failure of ours."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served))
            async with house.living() as daemon:
                await house.clock.advance(HOUR / 2)
                await daemon.control.pause("shop", by="eve", for_s=None, reason="move")
                await house.clock.advance(600)
                await daemon.control.resume("shop", by="eve")
                await house.clock.advance(600)
                await daemon.control.pause("shop", by="bob", for_s=None, reason="again")
                await house.clock.advance(300)
                await rolled(daemon, house)

                found = await reading(daemon).series("shop", "1h")

                first, second = found["pauses"]
                assert (first["by"], first["reason"]) == ("eve", "move")
                assert datetime.fromisoformat(first["to"]) - datetime.fromisoformat(first["from"]) == timedelta(0, 600)
                assert (second["by"], second["to"]) == ("bob", None)
                assert 13 <= found["bars"].count("paused") <= 17
                assert found["bars"][-1] == "paused"
                assert found["bars"][0] is None, "there was no daemon yet"

    tell(story)


def test_history_is_read_page_by_page(tell: Tell) -> None:
    """What comes in between two pages shifts nothing: no event is seen twice, none is missed."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served), http(served, "till"))
            async with house.living() as daemon:
                await house.clock.advance(120)
                for up in (False, True) * 3:
                    shop.up = up
                    await house.clock.advance(300)
                everything = await reading(daemon).history(watch="shop", fingerprint=None, before=None, limit=100)
                assert everything["next"] is None
                kinds = [event["kind"] for event in everything["events"]]
                assert kinds == ["alert.resolved", "alert.firing", "alert.pending"] * 3
                assert {event["watch"] for event in everything["events"]} == {"shop"}

                page = await reading(daemon).history(watch="shop", fingerprint=None, before=None, limit=4)
                shop.up = False
                await house.clock.advance(300)
                seen = page["events"]
                while page["next"] is not None:
                    page = await reading(daemon).history(watch="shop", fingerprint=None, before=page["next"], limit=4)
                    seen += page["events"]
                assert seen == everything["events"]
                identity = seen[0]["fingerprint"]
                of_alert = await reading(daemon).history(watch=None, fingerprint=identity, before=None, limit=2)
                assert [event["kind"] for event in of_alert["events"]] == ["alert.firing", "alert.pending"]
                for nonsense in ("", "-1", "x", "9" * 50, "\uff11"):
                    with pytest.raises(ConfigError):
                        await reading(daemon).history(watch=None, fingerprint=None, before=nonsense, limit=1)

    tell(story)


def test_one_alert_tells_what_was_said_of_it_and_to_whom(tell: Tell) -> None:
    """What a receiver took, what it would not take, and who does not want to hear of it."""

    async def story(house: House) -> None:
        shop = Shop()
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), http(served, "till"), hook=receiver.url)
            async with house.living() as daemon:
                await house.clock.advance(120)
                shop.up = False
                await house.clock.advance(300)
                (identity,) = {
                    alert["fingerprint"]
                    for alert in await daemon.control.alerts(everything=False)
                    if alert["watch"] == "shop"
                }
                receiver.otherwise = 503
                await daemon.control.silence(
                    SilenceAsked(("watch=shop",), timedelta(hours=1), reason="known"), by="eve"
                )
                shop.up = True
                await house.clock.advance(300)

                view = await reading(daemon).alert(identity[:6])

                assert view["fingerprint"] == identity
                assert view["state"] == "resolved"
                kinds = [event["kind"] for event in view["history"]]
                assert kinds == ["alert.resolved", "alert.firing", "alert.pending"]
                assert view["history_next"] is None
                states = [(each["type"], each["state"]) for each in view["deliveries"]]
                assert ("alert.firing", "delivered") in states or ("group.firing", "delivered") in states
                assert states[0][1] == "waiting"
                assert [each["reason"] for each in view["silences"]] == ["known"]
                assert view["watch_view"]["name"] == "shop"
                assert view["evidence"] == view["runs"] == []
                json.dumps(view)
                for unknown in ("", "abc", "zzzz", "f" * 200):
                    with pytest.raises(NotFound):
                        await reading(daemon).alert(unknown)

    tell(story)


def test_of_a_log_there_are_rules_evidence_and_no_latency(tell: Tell) -> None:
    """A log is no probe: what is read of it must not look as if it was one."""

    async def story(house: House) -> None:
        log = house.folder / "app.log"
        log.write_text("")
        house.write(
            {
                "name": "app",
                "log": {"files": [str(log)], "start_at": "start"},
                "rules": [{"name": "boom", "type": "any", "match": "BOOM"}],
            }
        )
        async with house.living() as daemon:
            await house.clock.advance(30)
            with log.open("a") as out:
                out.write("BOOM here\n")
            await house.clock.advance(120)
            await rolled(daemon, house)

            view = await reading(daemon).watch("app")
            assert [(rule["name"], rule["firing"]) for rule in view["rules"]] == [("boom", 1)]
            (alert,) = view["alerts"]
            shown = await reading(daemon).alert(alert["fingerprint"])
            assert [(each["file"], each["line"]) for each in shown["evidence"]] == [(str(log), "BOOM here")]
            series = await reading(daemon).series("app", "1h")
            assert (series["kind"], series["value"]) == ("log", None)
            assert series["bars"][-2:].count("failing") >= 1
            (row,) = (await daemon.control.overview())["watches"]
            assert row["verdict"] == "failing"
            assert (row["uptime"], row["strip"]) == ({"24h": None}, []), "nobody looks at a log in which nothing stands"
            assert view["uptime"] == {"24h": None, "7d": None, "30d": None}

    tell(story)


def test_an_alert_that_is_forgotten_is_found_in_history(tell: Tell) -> None:
    """Of a rule with a key the alert goes when it is over; the message that leads to its page lies there for weeks."""

    async def story(house: House) -> None:
        log = house.folder / "app.log"
        log.write_text("")
        rule = {"name": "boom", "type": "any", "match": "BOOM (?P<host>\\w+)", "by": ["host"], "resolve_after": "1m"}
        house.write({"name": "app", "log": {"files": [str(log)], "start_at": "start"}, "rules": [rule]})
        async with house.living() as daemon:
            await house.clock.advance(30)
            with log.open("a") as out:
                out.write("BOOM here\n")
            await house.clock.advance(30)
            (alert,) = [each for each in await daemon.control.alerts(everything=False) if each["watch"] == "app"]
            await house.clock.advance(600)
            assert alert["fingerprint"] not in daemon.pipeline.alerts

            view = await reading(daemon).alert(alert["fingerprint"])

            assert (view["watch"], view["rule"], view["state"]) == ("app", "boom", "resolved")
            assert (view["by"], view["occurrences"]) == ({"host": "here"}, 1)
            assert await reading(daemon).alert(alert["fingerprint"][:8]) == view, "as lists show it"
            assert view["started_at"] is not None
            assert view["started_at"] < view["ended_at"]
            assert [event["kind"] for event in view["history"]] == ["alert.resolved", "alert.firing"]
            assert view["watch_view"]["name"] == "app"

    tell(story)


def test_the_public_sees_what_is_public_and_nothing_more(tell: Tell) -> None:
    """A status page is read by strangers: no private name, no word of a target, no way to guess either."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(
                http(served, public=True), http(served, "secret-till"), http(served, "off", public=True, enabled=False)
            )
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                await rolled(daemon, house)
                page = await reading(daemon).public()
                assert page["state"] == "ok"
                assert [watch["name"] for watch in page["watches"]] == ["shop"]
                assert page["watches"][0]["uptime_30d"] == 1.0
                assert page["watches"][0]["bars"][-1] == "ok"

                shop.up = False
                await house.clock.advance(60)
                assert (await reading(daemon).public())["state"] == "ok", "one failing check is no outage"
                await house.clock.advance(HOUR)
                page = await reading(daemon).public()
                assert page["state"] == page["watches"][0]["state"] == "failing"
                assert "till" not in json.dumps(page)
                assert "503" not in json.dumps(page)
                assert (await reading(daemon).public_watch("shop"))["uptime"]["24h"] < 1

                refusals = []
                for name in ("secret-till", "off", "nobody"):
                    with pytest.raises(NotFound) as refused:
                        await reading(daemon).public_watch(name)
                    refusals.append(str(refused.value))
                assert len(set(refusals)) == 1

    tell(story)


def test_what_is_paused_or_blind_is_not_called_ok(tell: Tell) -> None:
    """Nobody knows, and the page says so."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served, public=True))
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                await daemon.control.pause("shop", by="eve", for_s=None, reason="")

                page = await reading(daemon).public()

                assert page["state"] == page["watches"][0]["state"] == "paused"

    tell(story)


def test_what_is_no_longer_public_after_a_reload_is_gone_at_once(tell: Tell) -> None:
    """Who takes a watch off the status page has a reason."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served, public=True), http(served, "till", public=True))
            async with house.living() as daemon:
                reader = reading(daemon)
                await house.clock.advance(120)
                assert len((await reader.public())["watches"]) == 2
                house.write(http(served, public=True), http(served, "till"))
                await daemon.reload()

                assert [watch["name"] for watch in (await reader.public())["watches"]] == ["shop"]

    tell(story)


def test_however_many_look_at_the_status_page_the_store_is_read_once(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open to everybody, and an outage is when everybody looks."""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served, public=True))
            async with house.living() as daemon:
                await house.clock.advance(120)
                reads = 0
                read = daemon.store.history.read

                async def counted(query: Any) -> Any:
                    nonlocal reads
                    reads += 1
                    return await read(query)

                monkeypatch.setattr(daemon.store.history, "read", counted)
                reader = reading(daemon)
                for _ in range(50):
                    await reader.public()
                assert reads == 1
                await house.clock.advance(15)
                await reader.public()
                assert reads == 2

    tell(story)


def test_what_operators_did_is_read_newest_first(tell: Tell) -> None:
    """Who paused this, and when?"""

    async def story(house: House) -> None:
        async with serving(Shop().answer) as served:
            house.write(http(served))
            async with house.living() as daemon:

                def act(connection: apsw.Connection) -> None:
                    for number in range(5):
                        audit.append(connection, "eve", "ack", f"a{number}", "", house.clock.now())

                await daemon.store.state.write(act)
                first = await reading(daemon).audit(None, 3)
                second = await reading(daemon).audit(first["next"], 3)

                targets = [deed["target"] for deed in first["deeds"] + second["deeds"]]
                assert targets == ["a4", "a3", "a2", "a1", "a0"]
                assert second["next"] is None

    tell(story)
