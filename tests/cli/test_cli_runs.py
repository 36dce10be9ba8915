"""`agentd runs` and `agentd replay` as a person types them, beside a daemon and without one."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Agentd
from modelserver import ModelServer, calls
from modelserver import call as model_call
from test_cli_task import FINDING, HOSTILE, agentd, daemon, looks, models, path, server

from agentd.daemon.app import Daemon
from agentd.memory import ledger
from agentd.memory.ledger import Run, RunOutcome, RunState
from agentd.memory.store import Store

__all__ = ["agentd", "daemon", "models", "path", "server"]

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def rows(folder: Path) -> None:
    """Four runs, the last of them of a hostile model."""

    def fill(c: Any) -> None:
        for number, (watch, state) in enumerate(
            [
                ("shop", RunState.COMPLETED),
                ("shop", RunState.FAILED),
                ("task", RunState.QUEUED),
                ("mail", RunState.STOPPED),
            ]
        ):
            id, at = f"run_{number}", NOW + timedelta(minutes=number)
            ledger.queue(c, Run(id, watch, "cron", at, goal=f"look {number}"))
            if state is RunState.QUEUED:
                continue
            ledger.start(c, id, at)
            outcome = RunOutcome(
                finding={"status": "problem", "summary": HOSTILE},
                steps=3,
                model_calls=2,
                input_tokens=1000,
                output_tokens=200,
                usd_nano=None if number else 12_300_000,
            )
            ledger.end(c, id, at + timedelta(seconds=75), state, error="no", outcome=outcome)

    async def write() -> None:
        store = await Store.open(folder / "s", ballast_bytes=65536)
        await store.state.write(fill)
        await store.close()

    asyncio.run(write())


def test_runs_newest_first(agentd: Agentd, tmp_path: Path) -> None:
    """One look at what agents did, how long it took, what it cost; what a model wrote paints nothing."""
    rows(tmp_path)

    said = agentd("runs")

    assert said.code == 0
    heading, *lines = said.out.splitlines()
    assert heading.split() == ["RUN", "WATCH", "KIND", "STATE", "WHEN", "TOOK", "STEPS", "TOKENS", "COST", "WHAT"]
    assert [line.split()[0] for line in lines] == ["run_3", "run_2", "run_1", "run_0"]
    assert "1m15s" in lines[3]
    assert "$0.0123" in lines[3]
    assert "unknown cost" in lines[2], "unknown is never zero"
    assert "look 2" in lines[1]
    assert all(each.isprintable() or each == "\n" for each in said.out)
    assert "agentd is not running; this is what it stored" in said.err


def test_runs_are_filtered(agentd: Agentd, tmp_path: Path) -> None:
    """Of a year of runs one wants the few that failed."""
    rows(tmp_path)

    def ids(*words: str) -> list[str]:
        return [run["id"] for run in agentd("runs", *words, "-o", "json").json["runs"]]

    assert ids("--watch", "shop") == ["run_1", "run_0"]
    assert ids("--state", "failed") == ["run_1"]
    assert ids("--limit", "2") == ["run_3", "run_2"]
    assert agentd("runs", "--watch", "shop", "--state", "queued").out == "No runs queued of shop.\n"
    assert agentd("runs", "--state", "well").code == 2


@pytest.mark.parametrize("place", ["daemon", "here"])
def test_one_run_is_shown_whole(
    agentd: Agentd, models: ModelServer, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    """Goal, plan, what it did and when, decisions, what it found, what it cost."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    lost = calls(model_call("read_file", path=str(tmp_path / "files" / "nothing")))
    models.answers(lost, *looks(tmp_path, json.dumps(FINDING)))
    id = agentd("task", "Why?", "-o", "json").json["task_id"]

    said = agentd("runs", id)

    assert said.code == 0
    sections = said.out.split("\n\n")
    assert "goal     Why?" in sections[0]
    assert "cost     $0.0060, 45 tokens, 3 model calls, 3 steps" in sections[0]
    assert "understanding: Why?" in sections[1]
    timeline = sections[2]
    assert "model default" in timeline
    assert "10+5 tokens, $0.0020 calls read_file" in timeline
    assert "s1.1 read_file" in timeline
    assert "decides: replan" in timeline
    assert "s2.1 list_files" in timeline
    assert "problem (critical): The disk is full." in said.out
    whole = agentd("runs", id, "-o", "json").json
    assert (whole["whole"], whole["record"][0]["kind"]) == (True, "job")


def test_what_is_hostile_in_a_record_paints_nothing(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """Outputs of tools, words of models and of people: all of it is somebody's text."""
    (tmp_path / "files" / "\x1b[2Jevil").write_text(HOSTILE)
    models.answers(
        calls(model_call("list_files", path=str(tmp_path / "files")), text=HOSTILE),
        calls(model_call(HOSTILE, path=HOSTILE)),
        json.dumps({**FINDING, "summary": HOSTILE}),
    )
    id = agentd("task", HOSTILE, "-o", "json").json["task_id"]

    for words in (("runs", id), ("runs", id, "-o", "json"), ("runs", id, "--export", "-"), ("replay", id), ("runs",)):
        said = agentd(*words)

        assert all(each.isprintable() or each == "\n" for each in said.out + said.err), words


@pytest.mark.parametrize("words", [("runs", "run_9"), ("runs", "run_9", "--export", "-"), ("replay", "run_9")], ids=str)
@pytest.mark.parametrize("place", ["daemon", "here"])
def test_a_run_that_is_not_there(
    agentd: Agentd, tmp_path: Path, place: str, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """A mistyped id is said to be one."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    else:
        rows(tmp_path)

    said = agentd(*words)

    assert said.code == 1
    assert "run_9" in said.err
    assert "`agentd runs` shows them" in said.err


def test_a_run_replays_the_same_beside_a_daemon(
    agentd: Agentd, daemon: Daemon, models: ModelServer, tmp_path: Path
) -> None:
    """From the record alone: no model is asked again, and the store is the daemon's meanwhile."""
    models.answers(*looks(tmp_path, "All is well."))
    id = agentd("task", "Why?", "-o", "json").json["task_id"]
    asked = len(models.requests)

    said = agentd("replay", id)

    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "then  completed in 2 steps: All is well.",
        "now   completed in 2 steps: All is well.",
        "today's code goes the same way",
    ]
    assert len(models.requests) == asked
    assert agentd("replay", id, "-o", "json").json["same"] is True


def test_an_exported_record_replays_anywhere(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """A record in a bug report is all that somebody else needs; what changed is said place by place."""
    models.answers(*looks(tmp_path, "All is well."))
    id = agentd("task", "Why?", "-o", "json").json["task_id"]
    file = tmp_path / "run.jsonl"

    assert f"lines written to {file}" in agentd("runs", id, "--export", str(file)).err
    assert file.stat().st_mode & 0o777 == 0o600
    assert agentd("runs", id, "--export", str(file)).code == 1, "nothing is written over"
    (tmp_path / "agentd.yaml").unlink()
    assert agentd("replay", "--file", str(file)).code == 0

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "outcome":
            line["data"]["answer"] = f"All was lost. {HOSTILE}"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said = agentd("replay", "--file", str(file))
    assert said.code == 1
    assert "outcome 1 was" in said.out
    assert "today's code goes another way: 1 divergence" in said.out
    assert all(each.isprintable() or each == "\n" for each in said.out)
    assert agentd("replay", "--file", str(file), "-o", "json").json["divergences"][0]["what"] == "outcome"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("nonsense\n", ":1: no line of a record"),
        ('{"seq": 1, "at_s": 0, "kind": "job", "data": {}}\n[1]\n', ":2: no line of a record"),
        ('{"seq": "1", "at_s": 0, "kind": "job", "data": {}}\n', ":1: seq is a whole number"),
        ('{"seq": 1, "at_s": 0, "kind": "plan", "data": {}}\n', "hold no job"),
        ('{"seq": 1, "at_s": 0, "kind": "job", "data": {"run": 1}}\n', "cannot be read any more"),
    ],
    ids=str,
)
def test_a_file_that_is_no_record(agentd: Agentd, tmp_path: Path, text: str, says: str) -> None:
    """It says which line, never a traceback."""
    file = tmp_path / "run.jsonl"
    file.write_text(text)

    said = agentd("replay", "--file", str(file))

    assert said.code == 1
    assert says in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("words", [("replay",), ("replay", "a", "--file", "b"), ("runs", "--export", "a")], ids=str)
def test_a_wrong_call(agentd: Agentd, words: tuple[str, ...]) -> None:
    """With what to write instead."""
    said = agentd(*words)

    assert said.code == 2
    assert "name" in said.err


def test_status_beside_a_daemon_names_the_process_that_agents_work_in(
    agentd: Agentd, daemon: Daemon, models: ModelServer
) -> None:
    """It is started when there is something to do; one looks for it in `top`."""
    assert agentd("status", "-o", "json").json["agents"]["host_pid"] is None
    models.answers("All is well.")
    agentd("task", "Why?")

    said = agentd("status", "-o", "json").json["agents"]

    assert said["host_pid"] == daemon.host.pid
    assert (said["running"], said["queued"], said["model"]) == (0, 0, "default")
    assert said["today"]["tokens"] == 15


def test_a_run_that_was_cut_off_replays_up_to_there(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """A daemon that was killed is why one looks; that its record ends is no divergence."""
    models.answers(*looks(tmp_path, "All is well."))
    id = agentd("task", "Why?", "-o", "json").json["task_id"]
    file = tmp_path / "run.jsonl"
    agentd("runs", id, "--export", str(file))
    lines = [line for line in file.read_text().splitlines() if json.loads(line)["kind"] not in ("outcome", "finding")]
    while json.loads(lines[-1])["kind"] != "result":
        lines.pop()
    file.write_text("".join(f"{line}\n" for line in lines))

    said = agentd("replay", "--file", str(file))

    assert said.code == 0
    assert said.out.splitlines() == [
        "the record ends where the run was cut off; what there is of it is compared",
        "today's code goes the same way up to there",
    ]
    assert agentd("replay", "--file", str(file), "-o", "json").json["cut_off"] is True


def test_a_watch_that_nobody_knows_is_said_to_be_unknown(agentd: Agentd, tmp_path: Path) -> None:
    """A mistyped name must not read like a calm watch; one that was removed still has its runs."""
    rows(tmp_path)

    said = agentd("runs", "--watch", "shp")

    assert (said.code, said.out) == (1, "")
    assert "no watch 'shp', and no run of it is kept" in said.err
    assert agentd("runs", "--watch", "mail").code == 0
    assert agentd("runs", "--watch", "task", "--state", "failed").out == "No runs failed of task.\n"


@pytest.mark.parametrize("place", ["daemon", "here"])
def test_an_id_is_known_by_its_beginning(
    agentd: Agentd, models: ModelServer, place: str, request: pytest.FixtureRequest
) -> None:
    """Nobody types 24 characters; where two begin so, both are named."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    ids = [agentd("task", f"Why {number}?", "-o", "json").json["task_id"] for number in range(2)]

    for typed in (ids[0][:-8], ids[0][4:12]):
        assert agentd("runs", typed, "-o", "json").json["id"] == ids[0]
        assert agentd("replay", typed).code == 0
        assert json.loads(agentd("runs", typed, "--export", "-").out.splitlines()[0])["kind"] == "job"
    both = agentd("runs", "run_")
    assert both.code == 1
    assert "2 runs begin with 'run_'" in both.err
    assert all(id in both.err for id in ids)


def test_a_run_is_cancelled_by_its_id(agentd: Agentd, daemon: Daemon, models: ModelServer) -> None:
    """Also one that a watch began, which nobody waits for."""
    id = agentd("task", "Why?", "-o", "json").json["task_id"]

    over = agentd("runs", id[:12], "--cancel")

    assert over.code == 1
    assert f"{id} has ended already" in over.err
    assert agentd("runs", "--cancel").code == 2


def test_what_was_found_takes_one_line(agentd: Agentd, tmp_path: Path) -> None:
    """A pipe is for grep: a row stays a line, and no answer makes it a page."""
    rows(tmp_path)

    async def lengthen() -> None:
        store = await Store.open(tmp_path / "s", ballast_bytes=65536)
        outcome = RunOutcome(answer="long " * 200)
        await store.state.write(lambda c: ledger.start(c, "run_2", NOW))
        await store.state.write(lambda c: ledger.end(c, "run_2", NOW, RunState.COMPLETED, outcome=outcome))
        await store.close()

    asyncio.run(lengthen())
    (line,) = [line for line in agentd("runs").out.splitlines() if line.startswith("run_2")]

    assert line.rstrip().endswith("long…") or line.rstrip().endswith("…")
    assert len(line.split("long ", 1)[1]) <= 100
