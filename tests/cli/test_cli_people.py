"""`agentd silence` and `agentd ack` as a person types them: with a daemon that answers, and without one."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import yaml
from commands import Agentd, typed
from opentelemetry.trace import NoOpTracer

from agentd.alert.lifecycle import Policy
from agentd.alert.muting import Muting
from agentd.api.door import Door
from agentd.api.parts import Parts
from agentd.api.server import make_servers, open_socket
from agentd.api.service import Json, Service
from agentd.api.views import alert_view
from agentd.clock import SystemClock
from agentd.config.service import ApiSettings
from agentd.daemon.people import People
from agentd.memory import alerts as alert_rows
from agentd.memory.store import Store
from agentd.pipeline import Pipeline, open_watch
from agentd.records import Alert, AlertStatus, Observation, Severity

HOSTILE = "\x1b[2J\u202ered\nx"
SHOP = "f1aa" + "0" * 28


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    path = tmp_path / "agentd.yaml"
    watches = [{"name": "shop", "http": {"url": "http://127.0.0.1/"}}]
    path.write_text(yaml.safe_dump({"daemon": {"state_dir": str(tmp_path / "s")}, "watches": watches}))
    monkeypatch.setenv("SUDO_USER", "anna")
    return typed(monkeypatch, capsys, path)


class Silent:
    """A probe that nobody runs."""

    async def look(self, timeout_s: float) -> Observation:
        raise AssertionError

    async def close(self) -> None:
        pass


@dataclass
class Desk:
    """What of a daemon these commands need: alerts in a store, and the people who speak of them, behind a socket."""

    folder: Path
    ready: threading.Event = field(default_factory=threading.Event)

    async def live(self) -> None:
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        store = await Store.open(self.folder)
        now = datetime.now(UTC)
        firing, pending = AlertStatus.FIRING, AlertStatus.PENDING
        for alert in (
            Alert(SHOP, "web-1", "shop", Severity.CRITICAL, status=firing, started_at=now, summary=HOSTILE),
            Alert("f1ab" + "0" * 28, "web-1", "till", Severity.INFO, status=pending, labels={"team": "web"}),
        ):
            await store.state.write(lambda c, alert=alert: alert_rows.save(c, alert))  # type: ignore[misc]  # bound now
        self.pipeline = Pipeline(
            state=store.state,
            clock=SystemClock(),
            instance="web-1",
            tracer=NoOpTracer(),
            record=lambda result: None,
            told=lambda: None,
        )
        self.pipeline.watches["shop"] = open_watch(
            "shop", "fake", Silent(), (), Policy(), instance="web-1", notify=(), timeout_s=1
        )
        await self.pipeline.load()
        self.people = People(self.pipeline, store.state, SystemClock(), Muting())
        self.silences, self.silence = self.people.silences, self.people.silence
        self.end_silence, self.ack = self.people.end_silence, self.people.ack
        (server,) = make_servers(
            Parts(cast(Service, self)),
            [open_socket(f"unix:{self.folder}/api.sock")],
            Door(ApiSettings(), names=(), own_uid=os.geteuid()),
        )
        await server.start()
        self.ready.set()
        await self.end.wait()
        await server.stop()
        await store.close()

    async def alerts(self, *, everything: bool) -> list[Json]:
        reasons = self.people.muting.reasons(self.pipeline.alerts, datetime.now(UTC))
        return [
            alert_view(alert) | {"muted_by": reasons.get(alert.fingerprint)} for alert in self.pipeline.alerts.values()
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "s")
    thread = threading.Thread(target=lambda: asyncio.run(made.live()))
    thread.start()
    assert made.ready.wait(20)
    yield made
    made.loop.call_soon_threadsafe(made.end.set)
    thread.join(20)


def harmless(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in text)


def test_a_silence_from_its_begin_to_its_end(agentd: Agentd, desk: Desk) -> None:
    added = agentd("silence", "add", "watch=shop", "severity!=info", "--for", "2h", "--reason", "new disks")

    assert (added.code, added.err) == (0, "")
    found = re.fullmatch(r"silence ([0-9a-f]{8}) holds, until 20\S+Z; now it mutes 1 alert\n", added.out)
    assert found
    listed = agentd("silence", "list").out
    for word in (found[1], "active", "watch=shop severity!=info", "in 2h", "anna", "new disks"):
        assert word in listed
    shown = agentd("alerts").out
    assert f"silence {found[1]} by anna until" in shown
    assert "MUTED BY" in shown
    assert agentd("silence", "end", found[1][:4]).out == f"silence {found[1]} is over; 1 alert of it still there\n"
    assert agentd("silence", "list").out == "Nothing is silenced.\n"
    assert "ENDED BY" in agentd("silence", "list", "--expired").out
    (view,) = agentd("silence", "list", "--expired", "-o", "json").json["silences"]
    assert (view["state"], view["ended_by"]) == ("ended", "anna")
    assert agentd("silence", "end", found[1]).code == 1


def test_a_silence_may_begin_later(agentd: Agentd, desk: Desk) -> None:
    """Tonight at ten, or in two hours."""
    words = ("silence", "add", "team=web", "--for", "1h", "--reason", "move")
    said = agentd(*words, "--start", "2h", "-o", "json")
    assert said.json["silence"]["state"] == "planned"
    begin = datetime.fromisoformat(said.json["silence"]["starts_at"])
    assert timedelta(minutes=110) < begin - datetime.now(UTC) <= timedelta(hours=2)

    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    said = agentd(*words, "--start", at.isoformat())
    assert "begins at" in said.out
    assert "would mute 1 alert\n" in said.out
    local = at.astimezone().replace(tzinfo=None)
    assert agentd(*words, "--start", local.isoformat(), "-o", "json").json["silence"]["starts_at"] == (
        f"{at:%Y-%m-%dT%H:%M:%S}.000Z"
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("add", "--for", "1h", "--reason", "x"), 1, "--all"),
        (("add", "watch!=a", "--for", "1h", "--reason", "x"), 1, "--all"),
        (("add", "shop", "--for", "1h", "--reason", "x"), 1, "cannot read the matcher"),
        (("add", "watch=~(", "--for", "1h", "--reason", "x"), 1, "cannot be read"),
        (("add", "watch=shop", "--for", "soon", "--reason", "x"), 2, "cannot read duration"),
        (("add", "watch=shop", "--for", "1000w", "--reason", "x"), 1, "at most 3660 days"),
        (("add", "watch=shop", "--for", "1h"), 2, "--reason"),
        (("add", "watch=shop", "--reason", "x"), 2, "--for"),
        (("add", "watch=shop", "--for", "1h", "--reason", "x", "--start", "noon"), 2, "cannot read 'noon'"),
        (("add", "watch=shop", "--for", "1h", "--reason", "x", "--start", "2020-01-01"), 1, "would have ended"),
        (("end", "nothing"), 1, "agentd silence list"),
        (("end", "../reload"), 1, "Not Found"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_what_cannot_be_meant_is_told(agentd: Agentd, desk: Desk, words: tuple[str, ...], code: int, told: str) -> None:
    """And nothing is silenced by it."""
    said = agentd("silence", *words)

    assert said.code == code
    assert told in said.err
    assert "Traceback" not in said.err
    assert agentd("silence", "list", "--expired").out == "Nothing is silenced.\n"


def test_everything_can_be_silenced_on_purpose(agentd: Agentd, desk: Desk) -> None:
    said = agentd("silence", "add", "--all", "--for", "10m", "--reason", "power cut")

    assert "now it mutes 2 alerts" in said.out
    assert "everything" in agentd("silence", "list").out


def test_a_name_that_no_watch_has_is_warned_of(agentd: Agentd, desk: Desk) -> None:
    """The silence is there: the watch may come with the next reload."""
    said = agentd("silence", "add", "watch=shpo", "--for", "1h", "--reason", "x")

    assert (said.code, said.err) == (0, "no watch is called shpo\n")


def test_a_label_that_no_watch_has_is_warned_of(agentd: Agentd, desk: Desk) -> None:
    """`zon` for `zone` would keep nothing quiet, and be noticed at night."""
    said = agentd("silence", "add", "zon=dmz", "severity=warning", "--for", "1h", "--reason", "x")

    assert (said.code, said.err) == (0, "no watch has a label zon\n")


def test_somebody_is_on_it_and_not_any_more(agentd: Agentd, desk: Desk) -> None:
    said = agentd("ack", "shop", "--comment", "disk ordered")
    assert said.out == "shop (f1aa0000) is acknowledged by anna: disk ordered\n"
    assert "anna: disk ordered" in agentd("alerts").out

    assert agentd("ack", "f1aa", "--undo").out == "shop (f1aa0000) is not acknowledged any more\n"
    assert "disk ordered" not in agentd("alerts").out
    again = agentd("ack", "shop", "--undo")
    assert (again.code, again.err) == (1, "agentd: shop is not acknowledged\n")
    assert agentd("ack", "shop", "-o", "json").json["alerts"][0]["acked_by"] == "anna"
    for words in (("nothing",), ("till",), ("f1a",), ("shop", "nothing"), ("../x",)):
        assert agentd("ack", *words).code == 1
    assert agentd("ack").code == 2


def test_no_comment_paints_a_terminal(agentd: Agentd, desk: Desk) -> None:
    """What somebody typed is shown to others."""
    said = [
        agentd("ack", "shop", "--comment", HOSTILE),
        agentd("silence", "add", f'watch="{HOSTILE}"', "--for", "1h", "--reason", HOSTILE),
        agentd("silence", "add", "watch=shop", "--for", "1h", "--reason", HOSTILE),
        agentd("silence", "list"),
        agentd("silence", "list", "-o", "json"),
        agentd("alerts"),
    ]
    assert [each.code for each in said] == [0] * 6
    for each in said:
        assert harmless(each.out + each.err)


def test_what_was_typed_in_another_encoding_is_taken_as_well_as_it_can_be(agentd: Agentd, desk: Desk) -> None:
    """A terminal may still be Latin-1, and the night is no time to find out."""
    typed = "f\udcfcr"  # as Python gives bytes that are not UTF-8

    said = agentd("silence", "add", f"team={typed}", "--for", "1h", "--reason", typed, "-o", "json")
    assert (said.code, said.err) == (0, "")
    assert said.json["silence"]["reason"] == "f\ufffdr"
    assert agentd("ack", "shop", "--comment", typed).code == 0
    assert "f\ufffdr" in agentd("silence", "list").out
    assert agentd("alerts").code == 0
    assert agentd("silence", "end", typed).code == 1


def test_without_a_daemon_silences_and_acknowledgements_are_read(agentd: Agentd, tmp_path: Path) -> None:
    """After a crash one wants to know what was kept from whom; but nothing can be silenced."""
    made = Desk(tmp_path / "s")

    async def live_and_die() -> None:
        living = asyncio.create_task(made.live())
        await asyncio.to_thread(made.ready.wait, 20)
        await asyncio.to_thread(agentd, "silence", "add", "watch=shop", "--for", "1h", "--reason", "disks")
        await asyncio.to_thread(agentd, "ack", "shop")
        made.end.set()
        await living

    asyncio.run(live_and_die())

    listed = agentd("silence", "list")
    assert "watch=shop" in listed.out
    assert "agentd is not running" in listed.err
    assert "anna" in agentd("alerts").out
    for words in (
        ("silence", "add", "watch=shop", "--for", "1h", "--reason", "x"),
        ("silence", "end", "x"),
        ("ack", "x"),
    ):
        said = agentd(*words)
        assert said.code == 1
        assert "no daemon answers on" in said.err
