"""One watch, one alert, what was done: with a daemon that answers, and from its store when it is down."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Agentd, typed
from running import running

from agentd.api.tasks import MOST_LINES
from agentd.memory import alerts, ledger, run_records
from agentd.memory.ledger import Run, RunState
from agentd.memory.run_records import RunLine
from agentd.memory.store import Store

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOSTILE = "\x1b[2J\u202ered"


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    broken = {"argv": ["sh", "-c", f"echo '{HOSTILE}'; exit 7"]}
    watches = [
        {"name": "disk", "every": "1h", "command": broken, "fail_after": 1, "expect": ["exit_code == 0"]},
        {"name": "calm", "every": "1h", "command": {"argv": ["true"]}, "description": "why it is here"},
    ]
    whole = {"daemon": {"state_dir": str(tmp_path / "s"), "instance": "web-1"}, "watches": watches}
    (tmp_path / "agentd.yaml").write_text(yaml.safe_dump(whole))
    return typed(monkeypatch, capsys, tmp_path / "agentd.yaml")


def calm(text: str) -> bool:
    return all(each.isprintable() or each == "\n" for each in text)


@pytest.fixture
def lived(agentd: Agentd, tmp_path: Path) -> dict[str, str]:
    """What a daemon said while it ran, and is not there any more to say."""
    said = {}
    with running(tmp_path / "agentd.yaml"):
        assert agentd("watches", "check", "disk").code == 3
        assert agentd("pause", "calm", "--reason", f"we {HOSTILE} rest").code == 0
        id = said["id"] = agentd("alerts", "-o", "json").json["alerts"][0]["fingerprint"]
        for name, words in {
            "watch": ("watches", "disk"),
            "watch json": ("watches", "show", "disk", "-o", "json"),
            "alert": ("alerts", id[:6]),
            "alert json": ("alerts", id, "-o", "json"),
            "audit": ("audit",),
            "audit json": ("audit", "-o", "json"),
        }.items():
            answer = agentd(*words)
            assert (answer.code, answer.err) == (0, ""), name
            said[name] = answer.out
        assert agentd("alerts", id, "--exit-code").code == 3
        assert agentd("watches", "dsk").code == agentd("alerts", "ffffffff").code == 1
    return said


def test_a_watch_is_shown_whole(lived: dict[str, str]) -> None:
    """State, conditions, values, alert, settings: what one asks in the night."""
    said = lived["watch"]

    for word in ("disk", "failing", "exit_code == 0", "alerts", lived["id"][:8], "settings", "fail_after: 1"):
        assert word in said
    assert calm(said)


def test_an_alert_is_shown_whole(lived: dict[str, str]) -> None:
    """What it is, since when, and what happened to it."""
    said = lived["alert"]

    for word in ("disk", "firing", lived["id"], "history", "alert.firing"):
        assert word in said
    assert calm(said)


def test_what_was_done_is_listed(lived: dict[str, str]) -> None:
    """Who paused it, and why?"""
    said = lived["audit"]

    assert "pause" in said
    assert "calm" in said
    assert calm(said)


def test_without_a_daemon_the_same_is_read_from_its_store(agentd: Agentd, lived: dict[str, str]) -> None:
    """When the daemon is what is broken, its memory is what there is."""
    watch, alert, audit = agentd("watches", "disk"), agentd("alerts", lived["id"][:6]), agentd("audit")

    for said in (watch, alert, audit):
        assert said.code == 0
        assert "agentd is not running" in said.err
        assert calm(said.out)
    assert "fail_after: 1" in watch.out
    assert "alert.firing" in alert.out
    assert audit.out.split()[:4] == lived["audit"].split()[:4]


def test_programs_find_the_same_keys_in_both(agentd: Agentd, lived: dict[str, str]) -> None:
    """A script must not break when the daemon does."""
    import json

    for name, words in (("watch json", ("watches", "disk")), ("alert json", ("alerts", lived["id"]))):
        assert json.loads(lived[name]).keys() == agentd(*words, "-o", "json").json.keys()
    assert agentd("watches", "-o", "json", "disk").json["name"] == "disk"
    assert agentd("audit", "-o", "json").json == json.loads(lived["audit json"])


def test_an_alert_that_is_gone_is_shown_from_history(agentd: Agentd, lived: dict[str, str], tmp_path: Path) -> None:
    """A message leads to it for weeks, with or without a daemon."""

    async def forget() -> None:
        store = await Store.open(tmp_path / "s", ballast_bytes=65536)
        await store.state.write(lambda c: alerts.delete(c, lived["id"]))
        await store.close()

    asyncio.run(forget())

    for id in (lived["id"], lived["id"][:8]):
        found = agentd("alerts", id, "-o", "json").json
        assert (found["watch"], found["state"], found["occurrences"]) == ("disk", "firing", 1)
        assert found["fingerprint"] == lived["id"]
    assert "alert.firing" in agentd("alerts", lived["id"][:8]).out


def test_what_is_not_there_is_said(agentd: Agentd, lived: dict[str, str]) -> None:
    """With the nearest name, where there is one."""
    assert "did you mean `disk`?" in agentd("watches", "dsk").err
    assert "no alert 'ffffffff'" in agentd("alerts", "ffffffff").err
    assert "no alert ''" in agentd("alerts", "").err
    assert {agentd("watches", "dsk").code, agentd("alerts", "ffffffff").code} == {1}


def test_the_audit_trail_is_read_page_by_page(agentd: Agentd, lived: dict[str, str]) -> None:
    """It may be long."""
    first = agentd("audit", "--limit", "1", "-o", "json").json
    more = agentd("audit", "--limit", "1")
    assert first["next"] is None or f"--before {first['next']}" in more.err

    assert agentd("audit", "--before", first["deeds"][0]["id"], "-o", "json").json["deeds"] == [
        deed for deed in agentd("audit", "-o", "json").json["deeds"] if deed["id"] != first["deeds"][0]["id"]
    ]


def long_run(folder: Path, lines: list[RunLine]) -> None:
    async def write() -> None:
        store = await Store.open(folder / "s", ballast_bytes=65536)

        def queue(c: Any) -> None:
            ledger.queue(c, Run("run_long", "task", "asked", NOW, goal="look"))
            ledger.start(c, "run_long", NOW)
            ledger.end(c, "run_long", NOW, RunState.COMPLETED)

        await store.state.write(queue)
        await store.history.write(lambda c: run_records.save(c, "run_long", NOW, lines))
        await store.close()

    asyncio.run(write())


@pytest.mark.parametrize("beside", [True, False], ids=["daemon", "store"])
def test_a_long_record_is_shown_to_its_end(agentd: Agentd, tmp_path: Path, beside: bool) -> None:
    """What went wrong stands on its last lines."""
    count = 2 * MOST_LINES + 5
    long_run(tmp_path, [RunLine(seq, float(seq), "note", {"text": "x" * 40}) for seq in range(count)])

    if beside:
        with running(tmp_path / "agentd.yaml"):
            run = agentd("runs", "run_long", "-o", "json").json
    else:
        run = agentd("runs", "run_long", "-o", "json").json

    assert [line["seq"] for line in run["record"]] == list(range(count))
    assert (run["whole"], run["next"]) == (True, None)


def test_a_gap_in_a_long_record_is_said(agentd: Agentd, tmp_path: Path) -> None:
    """Also where it lies in another part of it than the first."""
    count = 2 * MOST_LINES
    lines = [RunLine(seq, float(seq), "note", {}) for seq in range(count) if seq != MOST_LINES + 7]
    long_run(tmp_path, lines)

    assert agentd("runs", "run_long", "-o", "json").json["whole"] is False
