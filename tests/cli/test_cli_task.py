"""`agentd task` as a person types it: at a daemon, without one, on a terminal and on a pipe."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from commands import Agentd, typed
from modelserver import ModelServer, Reply, call, calls, model_server
from running import running
from terminal import Terminal

from agentd.api.tasks import TaskAsked
from agentd.cli.at_daemon import AtDaemon, read_events
from agentd.cli.client import Refused
from agentd.cli.place import find_place
from agentd.daemon.app import Daemon
from agentd.memory import ledger, run_records, spend
from agentd.memory.ledger import RunState
from agentd.memory.store import Store

HOSTILE = "\x1b[2J\x9b31mred\u202e\u2028still"
FINDING = {
    "status": "problem",
    "severity": "critical",
    "summary": "The disk is full.",
    "claims": [{"text": "/var has no room.", "evidence": ["e1"], "quotes": ["notes.txt"]}],
    "next_steps": ["Remove old logs.", "Make /var larger."],
}


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with model_server() as found:
        yield found


@pytest.fixture
def models(server: ModelServer) -> ModelServer:
    """The server with nothing left of the test before."""
    server._script.clear()
    server.requests.clear()
    server.otherwise = "ok"
    return server


def configured(folder: Path, url: str, **more: Any) -> Path:
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / "notes.txt").write_text("no room left on /var\n")
    price = {"input": 100, "output": 200}
    model = {"provider": "openai-compatible", "base_url": url, "model": "test-model", "price": price}
    whole = {
        "daemon": {"state_dir": str(folder / "s"), "instance": "web-1"},
        "models": {"default": model},
        "agent": {"files": {"allow": [str(folder / "files")]}},
        **more,
    }
    path = folder / "agentd.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


@pytest.fixture
def path(tmp_path: Path, models: ModelServer) -> Path:
    return configured(tmp_path, models.url)


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path) -> Iterator[Agentd]:
    from agentd.telemetry.logging import close_logging

    yield typed(monkeypatch, capsys, path)
    close_logging()


@pytest.fixture
def daemon(path: Path) -> Iterator[Daemon]:
    with running(path) as found:
        yield found


def looks(folder: Path, then: str | Reply) -> tuple[Reply, str | Reply]:
    """A model that looks into the folder first."""
    return calls(call("list_files", path=str(folder / "files")), text="I look."), then


def in_store(folder: Path, *queries: Any) -> list[Any]:
    async def read() -> list[Any]:
        store = await Store.open(folder / "s", read_only=True)
        found = [await store.state.read(query) for query in queries]
        await store.close()
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("place", ["daemon", "here"])
def test_the_answer_alone_is_on_stdout(
    agentd: Agentd, models: ModelServer, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    """A script takes the answer as it is; what it cost stands beside it."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    models.answers(*looks(tmp_path, "There is\tone file."))

    said = agentd("task", "What is there?")

    assert (said.code, said.out) == (0, "There is    one file.\n")
    assert f"runs {'at the daemon' if place == 'daemon' else 'here'}" in said.err
    assert re.search(r"2 steps, 1 tool call, 30 tokens, \$0.0040, .* s, model default", said.err)
    assert models.requests[0].tools


@pytest.mark.parametrize("place", ["daemon", "here"])
def test_the_task_as_json_is_the_same_everywhere(
    agentd: Agentd, models: ModelServer, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    """A program must not care who did it."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    models.answers(*looks(tmp_path, json.dumps(FINDING)))

    said = agentd("task", "What is there?", "--output", "json")

    assert said.code == 3, "what it found is a problem"
    view = said.json
    assert (view["status"], view["task"], view["kind"]) == ("completed", "What is there?", "task")
    assert view["result"]["success"] is True
    assert view["result"]["details"]["finding"]["status"] == "problem"
    assert view["plan"]["understanding"]
    assert [(step["tool"], step["ok"]) for step in view["steps"]] == [("list_files", True)]
    assert json.loads(view["steps"][0]["output"])["found"] == 1
    assert (view["metrics"]["input_tokens"], view["metrics"]["usd"]) == (20, 0.004)


def test_a_finding_is_laid_out(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """Summary, claims with what they rest on, what to do next, what it cost; and a code for scripts."""
    models.answers(*looks(tmp_path, json.dumps(FINDING)))

    said = agentd("task", "Why does it fail?")

    assert said.code == 3
    lines = said.out.splitlines()
    assert lines[2].startswith("  - /var has no room. [e1 s1.1 list_files /")
    assert [*lines[:2], *lines[3:8]] == [
        "problem (critical): The disk is full.",
        "",
        "      | notes.txt",
        "",
        "next",
        "  1. Remove old logs.",
        "  2. Make /var larger.",
    ]
    assert "30 tokens, $0.0040" in said.out


def test_verbose_tells_what_happens_in_words(
    agentd: Agentd, daemon: Daemon, models: ModelServer, tmp_path: Path
) -> None:
    """Whoever wonders what it does sees it line by line."""
    models.answers(*looks(tmp_path, "All is well."))

    said = agentd("task", "What is there?", "-o", "verbose")

    lines = [line.split("s  ", 1)[1] for line in said.out.splitlines()[:-1]]
    begins = [
        "begins run_",
        "step 1",
        "asks the model",
        "the model answers (default, 10 tokens read, 5 written, $0.0020)",
    ]
    begins += ["s1.1 calls list_files {", "s1.1 list_files gave in ", "step 1: goes on", "step 2", "asks the model"]
    begins += ["the model answers (default, ", "step 2: ", "completed: All is well."]
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True)), lines
    assert not [line for line in lines if "Start" in line or "End" in line], "these are words of programs"
    assert said.out.splitlines()[-1] == "All is well."


@pytest.mark.parametrize("output", ["text", "verbose", "json"])
@pytest.mark.parametrize("place", ["daemon", "here"])
def test_what_a_model_says_paints_nothing(
    agentd: Agentd, models: ModelServer, place: str, output: str, request: pytest.FixtureRequest
) -> None:
    """A web page that it read must not write on the terminal of whoever asked."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    finding = {**FINDING, "summary": HOSTILE, "next_steps": [HOSTILE], "claims": [{"text": HOSTILE, "quotes": []}]}
    models.answers(json.dumps(finding, ensure_ascii=False))

    said = agentd("task", f"look at {HOSTILE}", "-o", output)

    assert said.code == 3
    assert all(each.isprintable() or each == "\n" for each in said.out + said.err)
    assert "still" in said.out


def test_without_a_daemon_the_books_are_kept(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """What was spent here counts today, whoever spends next; and the run can be looked at later."""
    models.answers(*looks(tmp_path, "All is well."))

    assert agentd("task", "What is there?").code == 0

    (run,), counts = in_store(tmp_path, ledger.runs, lambda c: spend.today(c, spend.day_of(_now())))
    assert (run.state, run.watch, run.kind, run.goal) == (RunState.COMPLETED, "task", "task", "What is there?")
    assert run.trigger.startswith("asked by ")
    assert (run.outcome.answer, run.outcome.steps, run.outcome.usd_nano) == ("All is well.", 2, 4_000_000)
    assert (counts.tokens, counts.usd_nano) == (30, 4_000_000)
    lines = _records(tmp_path, run.id)
    assert run_records.is_whole(lines)
    assert lines[-1].kind == "outcome"


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _records(folder: Path, run: str) -> list[run_records.RunLine]:
    async def read() -> list[run_records.RunLine]:
        store = await Store.open(folder / "s", read_only=True)
        found = await store.history.read(lambda c: run_records.of(c, run))
        await store.close()
        return found

    return asyncio.run(read())


def test_the_budget_of_the_day_holds_without_a_daemon(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """Asking again from the command line must not be the way around it."""
    path = configured(tmp_path, models.url, budgets={"daemon_per_day": {"tokens": 4000}})
    assert path.exists()

    said = agentd("task", "What is there?", "-o", "json")

    assert said.code == 1
    assert said.json["status"] == "failed"
    assert "the budget of today (UTC) holds" in said.json["result"]["details"]["error"]
    assert models.requests == []


def test_without_a_store_it_says_so_and_works(agentd: Agentd, models: ModelServer, tmp_path: Path) -> None:
    """Somebody without the right to write there still gets an answer, and knows what is not kept."""
    (tmp_path / "s").write_text("no folder")
    models.answers("All is well.")

    said = agentd("task", "What is there?")

    assert (said.code, said.out) == (0, "All is well.\n")
    assert "Nothing of this is kept, and only the budget of this one run holds" in said.err


def test_standalone_beside_a_daemon_says_whose_the_books_are(
    agentd: Agentd, daemon: Daemon, models: ModelServer
) -> None:
    """It is asked for, so it is done; but nobody is to wonder where the run is."""
    models.answers("All is well.")

    said = agentd("task", "What is there?", "--standalone")

    assert (said.code, said.out) == (0, "All is well.\n")
    assert "owns it. Nothing of this is kept" in said.err
    assert "runs here" in said.err


def test_who_has_the_store_and_does_not_answer_is_waited_for(agentd: Agentd, tmp_path: Path) -> None:
    """A daemon that is just starting: its books are not to be gone around by accident."""

    async def beside() -> Any:
        store = await Store.open(tmp_path / "s", ballast_bytes=65536)
        said = await asyncio.to_thread(agentd, "task", "What is there?")
        await store.close()
        return said

    said = asyncio.run(beside())

    assert said.code == 1
    assert "it may be starting or stopping" in said.err
    assert "--standalone" in said.err


@pytest.mark.parametrize("place", ["daemon", "here"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tool", "rm_everything"), "rm_everything"),
        (("--model", "gpt-9"), "there is no model 'gpt-9'"),
        (("--scenario", "gardening"), "scenario 'gardening' is not known; one of architecture"),
        (("--timeout", "soon"), "--timeout"),
        (("--max-steps", "0"), "--max-steps"),
        (("",), "the task is empty"),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused(
    agentd: Agentd, models: ModelServer, request: pytest.FixtureRequest, place: str, words: tuple[str, ...], says: str
) -> None:
    """With the same code wherever it would be done, and before a model is asked."""
    if place == "daemon":
        request.getfixturevalue("daemon")

    said = agentd("task", *(words if words == ("",) else ("What is there?", *words)))

    assert said.code == 2
    assert says in said.err
    assert models.requests == []


def test_what_is_asked_narrows(agentd: Agentd, daemon: Daemon, models: ModelServer, tmp_path: Path) -> None:
    """Tools and steps: less than the configuration allows, as the person said."""
    models.otherwise = calls(call("list_files", path=str(tmp_path / "files")))

    said = agentd("task", "Look.", "--tool", "list_files", "--max-steps", "2", "--priority", "high", "-o", "json")

    assert said.code == 1
    assert (said.json["status"], said.json["metrics"]["steps"], said.json["priority"]) == ("stopped", 2, "high")
    assert "read_file" not in models.requests[0].tools
    assert "list_files" in models.requests[0].tools


def test_a_task_from_stdin(path: Path, models: ModelServer) -> None:
    """A long task is written in a file, not in quotes."""
    models.answers("All is well.")
    child = _agentd(path, "task", "-", input="What is\nthere?\n")

    assert (child.returncode, child.stdout) == (0, "All is well.\n")
    assert "What is\nthere?" in models.requests[0].last


def test_a_failing_model_is_a_failed_task(agentd: Agentd, models: ModelServer) -> None:
    """With the reason, and a code that a script sees."""
    models.otherwise = 401

    said = agentd("task", "What is there?")

    assert said.code == 1
    assert "failed: no model could be asked" in said.err
    assert "401" in said.err or "key" in said.err


def _agentd(path: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentd", *words, "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


@pytest.mark.parametrize("place", ["daemon", "here"])
def test_ctrl_c_cancels(path: Path, models: ModelServer, place: str, request: pytest.FixtureRequest) -> None:
    """And says so; the run is cancelled, not just left alone."""
    if place == "daemon":
        request.getfixturevalue("daemon")
    models.otherwise = Reply(hang=True)
    command = [sys.executable, "-m", "agentd", "task", "What is there?", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        models.wait(lambda: len(models.requests) == 1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)

    assert (child.returncode, out) == (1, "")
    assert "cancelling; Ctrl-C once more leaves at once" in err
    assert "cancelled: cancelled by" in err
    models.wait(lambda: models.answering == 0)


def test_the_second_ctrl_c_leaves_at_once(path: Path, daemon: Daemon, models: ModelServer) -> None:
    """A daemon that does not answer must not hold a terminal."""
    models.otherwise = Reply(hang=True)
    command = [sys.executable, "-m", "agentd", "task", "What is there?", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        models.wait(lambda: len(models.requests) == 1)
        assert child.stderr is not None
        control, daemon.agents.runs.cancel = daemon.agents.runs.cancel, _never  # type: ignore[method-assign]  # hangs
        child.send_signal(signal.SIGINT)
        while "cancelling" not in (line := child.stderr.readline()):
            assert line
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(10) == 130
    daemon.agents.runs.cancel = control  # type: ignore[method-assign]  # as it was

    assert "left; `agentd runs run_" in rest


async def _never(id: str, why: str) -> bool:
    await asyncio.Event().wait()
    return True


def test_a_terminal_shows_it_live(path: Path, daemon: Daemon, models: ModelServer, tmp_path: Path) -> None:
    """Plan, calls with their states, the words as they come, tokens and cost; and nothing of it is left behind."""
    go_on = asyncio.Event()
    delta = {"choices": [{"index": 0, "delta": {"content": "It looks as if"}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {"content": " all is well."}, "finish_reason": "stop"}]}
    models.answers(*looks(tmp_path, Reply(stream=[delta, go_on, last, "[DONE]"])))
    with Terminal("task", "What is there?", "-c", str(path)) as terminal:
        terminal.until("✓")
        terminal.until("s1.1   list_files")
        terminal.until("plan: What is there?")
        terminal.until("It looks as if")
        assert "$0.0020" in terminal.until("15 tokens")
        assert models._loop is not None
        models._loop.call_soon_threadsafe(go_on.set)
        terminal.until("It looks as if all is well.")
        assert terminal.end() == 0

    assert terminal.seen.count("\x1b[?25l") == terminal.seen.count("\x1b[?25h"), "the cursor is back"
    after = terminal.seen[terminal.seen.rindex("\x1b[?25h") :]
    assert "It looks as if all is well." in after
    assert "list_files" not in after, "the picture is gone"


def test_ctrl_c_on_a_terminal_cancels(path: Path, models: ModelServer) -> None:
    """As somebody really types it."""
    models.otherwise = Reply(hang=True)
    with Terminal("task", "What is there?", "-c", str(path)) as terminal:
        models.wait(lambda: len(models.requests) == 1)
        terminal.until("turn 1")

        terminal.type("\x03")

        terminal.until("cancelled by")
        assert terminal.end() == 1


# At the daemon's socket


async def test_events_come_once_over_a_broken_stream(path: Path, models: ModelServer, tmp_path: Path) -> None:
    """A connection that breaks is taken up where it broke: nothing twice, nothing lost."""
    go_on = asyncio.Event()
    chunk = {"choices": [{"index": 0, "delta": {"content": "a b c d"}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {"content": " e f g h"}, "finish_reason": "stop"}]}
    models.otherwise = Reply(stream=[chunk, go_on, last, "[DONE]"])
    place = find_place(path)
    with running(path):
        errand = await AtDaemon.submit(place, TaskAsked(task="Say it."))
        kinds, text, broken = [], "", 0
        loop = models._loop
        assert loop is not None
        listen = errand._listen

        async def breaking() -> Any:
            nonlocal broken
            async for event in listen():
                yield event
                if broken < 3:
                    broken += 1
                    raise httpx.ReadError("cut")

        errand._listen = breaking  # type: ignore[method-assign]  # breaks off after an event
        async for event in errand.events():
            kinds.append(event["event"])
            text += event.get("delta", "")
            if text:
                loop.call_soon_threadsafe(go_on.set)
        view = await errand.view()

    assert broken == 3
    assert view["status"] == "completed"
    assert kinds[:4] == ["AgentStart", "TurnStart", "MessageStart", "MessageUpdate"]
    assert (kinds[-1], text) == ("AgentEnd", "a b c d e f g h")


async def test_lines_end_with_newlines_alone() -> None:
    """A line separator in a model's words splits no event."""
    told = {"seq": 1, "event": "MessageUpdate", "delta": "a\u2028b\x85c"}
    data = json.dumps(told, ensure_ascii=False)
    whole = f": still here\n\nid: 1\nevent: MessageUpdate\ndata: {data}\n\nevent: end\ndata: {{}}\n\n".encode()

    async def chunks() -> Any:
        for place in range(0, len(whole), 7):
            yield whole[place : place + 7]

    assert [event async for event in read_events(chunks())] == [told]


async def test_a_daemon_that_is_gone_for_good_is_said_to_be(path: Path, models: ModelServer) -> None:
    """The task is its own, and where to look for it is said."""
    models.otherwise = Reply(hang=True)
    place = find_place(path)
    with running(path):
        submitted = await AtDaemon.submit(place, TaskAsked(task="Say it."))
    errand = AtDaemon(place, submitted.id, patience_s=0.0)

    with pytest.raises(Refused, match=f"agentd runs {submitted.id}"):
        async for _ in errand.events():
            pass
