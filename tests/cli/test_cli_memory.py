"""`agentd memory` as a person types it: beside a daemon that has the store, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
import yaml
from commands import Agentd, typed

from agentd.memory import ledger, notes, spend, worked
from agentd.memory.ledger import Run, RunState
from agentd.memory.store import Store

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOSTILE = "\x1b[2J\u202ered"
COUNT = 1203


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    path = tmp_path / "agentd.yaml"
    path.write_text(yaml.safe_dump({"daemon": {"state_dir": str(tmp_path / "s")}, "watches": []}))
    return typed(monkeypatch, capsys, path)


def state(c: apsw.Connection) -> None:
    today = spend.day_of(datetime.now(UTC))
    for id, usd_nano in (("a", 12_300_000), ("b", None)):
        spend.reserve(c, id=id, day=today, watch="shop", run="r", model="m", tokens=500, usd_nano=usd_nano)
    ledger.queue(c, Run("r1", "shop", "api", NOW))
    ledger.queue(c, Run("r2", "shop", "api", NOW))
    ledger.end(c, "r2", NOW, RunState.FAILED)


def history(c: apsw.Connection) -> None:
    about: dict[str, Any] = {"at": NOW, "run": "r1", "fingerprint": "f"}
    finding = {"status": "problem", "summary": f"disk full {HOSTILE}"}
    notes.add_final(c, **about, watch="shop", answer="ü", finding=finding)
    notes.add_tool_result(c, **about, watch="shop", step=2, tool="run_command", output={"used": "100%", "path": "/var"})
    notes.add_final(c, **about, watch="mail", answer="the disk is fine")
    for good in (True, True, False):
        worked.learn(
            c,
            kind="log_analysis",
            worker="io",
            shape="3, 1",
            model="large",
            success=good,
            latency_s=2.0,
            tokens=90,
            usd_nano=None,
            now=NOW,
        )


def flood(c: apsw.Connection) -> None:
    for number in range(COUNT):
        notes.add_final(c, at=NOW, run=f"r{number}", watch="shop", fingerprint=None, answer=f"disk {number}")


def kept(folder: Path, *changes: Callable[[apsw.Connection], None]) -> None:
    async def write() -> None:
        store = await Store.open(folder, ballast_bytes=65536)
        await store.state.write(state)
        for change in changes:
            await store.history.write(change)
        await store.close()

    asyncio.run(write())


def test_stats_say_what_is_remembered_what_it_cost_and_what_worked(agentd: Agentd, tmp_path: Path) -> None:
    """What the agent learned is the user's to see, money first."""
    kept(tmp_path / "s", history)

    said = agentd("memory", "stats")
    assert said.code == 0
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in said.out.splitlines() if line}
    assert facts["findings"] == "2"
    assert facts["tool results"] == "1"
    assert facts["runs"] == "1 failed, 1 queued"
    assert facts["spent today"] == "$0.0123, 1000 tokens, 2 calls, 1 of unknown price"
    (row,) = [line for line in said.out.splitlines() if line.startswith("log_analysis")]
    assert "2 of 3" in row
    assert "unknown" in row

    answer = agentd("memory", "stats", "--kind", "log_analysis", "--output", "json").json
    assert answer["notes"] == {"final": 2, "tool_result": 1}
    assert answer["spent_today"] == {"usd": 0.0123, "tokens": 1000, "calls": 2, "unknown_calls": 1}
    assert (answer["worked"][0]["usd"], answer["worked"][0]["latency_s"]) == (None, 2.0)
    assert answer["advice"] == [
        "graph '3, 1' went well 2 of 3 times (2.0 s each)",
        "worker class 'io' went well 2 of 3 times (2.0 s each)",
    ]
    assert agentd("memory", "stats", "--kind", "other", "-o", "json").json["worked"] == []


def test_a_young_store_has_nothing_to_tell(agentd: Agentd, tmp_path: Path) -> None:
    """An empty table needs a word, not a traceback."""
    kept(tmp_path / "s")

    assert "No runs are remembered yet." in agentd("memory", "stats").out
    assert "Nothing that is remembered has disk." in agentd("memory", "search", "disk").out
    assert agentd("memory", "export").out == ""


def test_a_search_shows_places_that_paint_nothing(agentd: Agentd, tmp_path: Path) -> None:
    """Notes quote logs and models; a terminal must not obey them."""
    kept(tmp_path / "s", history)

    said = agentd("memory", "search", "disk", "full")

    (_, row) = said.out.splitlines()
    assert "shop" in row
    assert "[disk] [full]" in row
    assert "\x1b[2J" not in said.out
    assert "\u202e" not in said.out
    assert [each["watch"] for each in agentd("memory", "search", "disk", "--watch", "mail", "-o", "json").json] == [
        "mail"
    ]
    assert [
        each["tool"] for each in agentd("memory", "search", "/var", "--type", "tool_result", "-o", "json").json
    ] == ["run_command"]
    assert agentd("memory", "search", "is disk", "-o", "json").json == [], "a phrase in its order"
    assert len(agentd("memory", "search", "disk is", "-o", "json").json) == 1
    assert len(agentd("memory", "search", "dis*", "--alert", "f", "-o", "json").json) == 2


def test_a_search_for_no_word_is_a_wrong_call(agentd: Agentd, tmp_path: Path) -> None:
    """Marks alone would find nothing for ever."""
    said = agentd("memory", "search", '"*"')

    assert said.code == 2
    assert "at least one with letters or digits" in said.err


def test_an_export_is_a_line_of_json_for_each_note(agentd: Agentd, tmp_path: Path) -> None:
    """What is remembered is the user's, to take elsewhere."""
    kept(tmp_path / "s", history)

    said = agentd("memory", "export")

    about = {"run": "r1", "watch": "shop", "fingerprint": "f", "at": "2026-01-05T12:00:00.000Z"}
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {
            "type": "final",
            "answer": "ü",
            "finding": {"status": "problem", "summary": f"disk full {HOSTILE}"},
            **about,
        },
        {"type": "tool_result", "step": 2, "tool": "run_command", "output": {"used": "100%", "path": "/var"}, **about},
        {"type": "final", "answer": "the disk is fine", "finding": None, **about, "watch": "mail"},
    ]
    assert said.out.isascii()
    assert said.err == ""
    assert len(agentd("memory", "export", "--watch", "mail").out.splitlines()) == 1
    assert len(agentd("memory", "export", "--type", "tool_result").out.splitlines()) == 1


def test_an_export_to_a_file_is_private_and_writes_nothing_over(agentd: Agentd, tmp_path: Path) -> None:
    """Outputs of tools are in there; and a typo must not cost another file."""
    kept(tmp_path / "s", flood)
    file = tmp_path / "notes.jsonl"

    said = agentd("memory", "export", str(file))

    assert (said.code, said.out) == (0, "")
    assert f"{COUNT} notes written" in said.err
    assert [json.loads(line)["run"] for line in file.read_text().splitlines()] == [f"r{n}" for n in range(COUNT)]
    assert file.stat().st_mode & 0o777 == 0o600
    again = agentd("memory", "export", str(file))
    assert again.code == 1
    assert "is there already" in again.err
    nowhere = agentd("memory", "export", str(tmp_path / "no" / "where"))
    assert nowhere.code == 1
    assert "cannot be made" in nowhere.err


def test_a_long_export_shows_a_bar_on_a_terminal(tmp_path: Path, agentd: Agentd) -> None:
    """A year of notes takes a while; whoever waits wants to see that it goes on."""
    kept(tmp_path / "s", flood)
    config = str(tmp_path / "agentd.yaml")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "agentd", "memory", "export", str(tmp_path / "out"), "--config", config]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.DEVNULL, env=environment) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:
                break  # the other end is closed
            if not more:
                break
            seen += more
        assert child.wait() == 0
    os.close(ours)

    assert f"/{COUNT}".encode() in seen


def test_it_reads_beside_the_daemon(agentd: Agentd, tmp_path: Path) -> None:
    """The one who has the store open is busy watching; reading needs no leave of it."""
    kept(tmp_path / "s", history)

    async def beside() -> tuple[int, str]:
        store = await Store.open(tmp_path / "s", ballast_bytes=65536)
        await store.history.write(
            lambda c: notes.add_final(c, at=NOW, run="r9", watch="w", fingerprint=None, answer="just now")
        )
        said = await asyncio.to_thread(agentd, "memory", "search", "just", "-o", "json")
        await store.close()
        return said.code, said.json[0]["run"]

    assert asyncio.run(beside()) == (0, "r9")


def test_without_a_store_it_says_so(agentd: Agentd) -> None:
    """The first thing that goes wrong is the wrong folder."""
    said = agentd("memory", "stats")

    assert said.code == 1
    assert "has agentd run with this state_dir?" in said.err
