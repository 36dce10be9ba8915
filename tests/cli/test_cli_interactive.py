"""`agentd interactive` as a person types it, on a terminal and on a pipe, at a daemon and without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from modelserver import ModelServer, Reply, call, calls
from terminal import Terminal
from test_cli_task import HOSTILE, configured, daemon, in_store, models, path, server

from agentd.memory import ledger
from agentd.memory.ledger import RunState

__all__ = ["daemon", "models", "path", "server"]

PROMPT = "agentd> "


def piped(path: Path, *lines: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "agentd", "interactive", "--config", str(path)]
    environment = {**os.environ, "LANG": "C.UTF-8"}
    child = subprocess.run(
        command, input="".join(f"{line}\n" for line in lines).encode(), capture_output=True, timeout=60, env=environment
    )
    out, err = child.stdout.decode(), child.stderr.decode()
    assert child.returncode == code, (out, err)
    assert "Traceback" not in err
    return out


@pytest.fixture(params=["daemon", "here"])
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """With a daemon that runs, and without one."""
    if request.param == "daemon":
        request.getfixturevalue("daemon")
    return str(request.param)


def said(models: ModelServer, number: int) -> list[str]:
    """What the model was told with its request of this number, by its user."""
    return [str(each["content"]) for each in models.requests[number].messages if each["role"] == "user"]


def test_on_a_pipe_each_line_waits_for_the_one_before(path: Path, models: ModelServer, place: str) -> None:
    """A script's second question is not to interrupt the first; and one session remembers all of them."""
    models.answers("The first answer.", "The second answer.", "The third answer.")

    out = piped(path, "one", "two", "", "three")

    answers = [line for line in out.splitlines() if "answer" in line]
    assert answers == ["The first answer.", "The second answer.", "The third answer."]
    assert said(models, 2)[-2:] == ["two", "three"]
    assert "The first answer." in [each["content"] for each in models.requests[2].messages]


def test_the_end_of_the_input_ends_the_session(path: Path, models: ModelServer, tmp_path: Path, place: str) -> None:
    """When what was asked is done: nothing goes on unseen, and nothing is cut off."""
    models.answers(Reply(text="Done at last.", pieces=3, pause_s=0.1))

    out = piped(path, "one")

    assert "Done at last." in out
    assert "the session" not in out
    (run,) = in_store(tmp_path, ledger.runs)[0]
    assert (run.state, run.kind) == (RunState.COMPLETED, "session")


def test_an_input_without_a_word_is_said(path: Path) -> None:
    """Of `agentd interactive </dev/null` one could not tell that it did nothing."""
    command = [sys.executable, "-m", "agentd", "interactive", "--config", str(path)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)

    assert (child.returncode, child.stdout) == (0, b"")
    assert child.stderr.startswith(b"the input ended before anything was asked")


def test_commands(path: Path, models: ModelServer, tmp_path: Path) -> None:
    """What one can say beside the work."""
    models.answers(calls(call("list_files", path=str(tmp_path / "files"))), "One file.")

    out = piped(path, "/help", "/tools", "/models", "/model gpt-9", "/status", "/cancel", "/nonsense", "/steer", "one")

    assert "/follow TEXT" in out
    assert "list_files" in out
    assert "run_command" not in out, "it is not allowed here"
    assert "* default" in out
    assert "there is no model gpt-9" in out
    assert "no session yet" in out
    assert "it is doing nothing" in out
    assert "there is no /nonsense" in out
    assert "s1.1 list_files" in out
    assert out.splitlines()[-2:] == ["One file.", "  so far 30 tokens, $0.0040"]


def test_another_model_begins_a_new_session(tmp_path: Path, models: ModelServer) -> None:
    """A model that somebody chose is the one that is asked."""
    both = {
        name: {
            "provider": "openai-compatible",
            "base_url": models.url,
            "model": name,
            "price": {"input": 0, "output": 0},
        }
        for name in ("large", "small")
    }
    path = configured(tmp_path, models.url, models=both, agent={"model": "large"})

    out = piped(path, "one", "/model small", "two")

    assert "a new session begins with what you write, with small" in out
    assert [asked.json["model"] for asked in models.requests] == ["large", "small"]
    assert "one" not in " ".join(said(models, 1))


def test_follow_comes_after_what_it_does(path: Path, models: ModelServer, place: str) -> None:
    """What was said to follow interrupts nothing."""
    models.answers(Reply(text="First.", delay_s=0.3), "Second.")

    out = piped(path, "one", "/follow and then two")

    assert [line for line in out.splitlines() if line in ("First.", "Second.")] == ["First.", "Second."]
    assert models.abandoned == 0 or "and then two" in said(models, -1)[-1]


def test_what_it_says_paints_nothing(path: Path, models: ModelServer) -> None:
    """A model quotes what it read."""
    models.answers(HOSTILE)

    out = piped(path, f"look at {HOSTILE}")

    assert all(each.isprintable() or each == "\n" for each in out)
    assert "still" in out


def test_a_failure_is_said_and_seen_by_the_code(path: Path, models: ModelServer, place: str) -> None:
    """And the next line may go better."""
    models.otherwise = 401

    out = piped(path, "one", code=1)

    assert "failed: no model could be asked" in out


def test_typing_while_it_works_steers(path: Path, models: ModelServer, place: str) -> None:
    """The one thing that a terminal is for: to say 'not that' at once."""
    models.otherwise = Reply(hang=True)
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look at a\n")
        models.wait(lambda: len(models.requests) == 1)
        models.answers("b is well.")

        terminal.type("rather look at b\n")

        terminal.until("b is well.")
        terminal.until("so far")
        terminal.type("/quit\n")
        assert terminal.end() == 0
    assert said(models, 1)[-1] == "rather look at b"


def test_ctrl_c_ends_what_it_does_and_no_more(path: Path, models: ModelServer, place: str) -> None:
    """It keeps what it knows; with nothing to end, a second one leaves."""
    models.otherwise = Reply(hang=True)
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look at a\n")
        models.wait(lambda: len(models.requests) == 1)

        terminal.type("\x03")

        terminal.until("cancelled; it keeps what it knows")
        terminal.until("so far")
        terminal.seen = ""
        models.answers("a it was.")
        terminal.type("what was it?\n")
        terminal.until("a it was.")
        terminal.until("so far")
        assert "look at a" in " ".join(said(models, 1))
        terminal.type("\x03")
        terminal.until("Ctrl-C once more")
        terminal.type("\x03")
        terminal.end()


def test_what_comes_does_not_tear_what_is_typed(path: Path, models: ModelServer) -> None:
    """The line under way is written anew below what came."""
    models.answers(Reply(text="It is well.", delay_s=0.5))
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look\n")
        models.wait(lambda: len(models.requests) == 1)
        terminal.type("half a li")
        terminal.until("It is well.")
        shown = terminal.until(f"{PROMPT}half a li")
        terminal.type("ne\n")
        models.wait(lambda: len(models.requests) == 2)
        terminal.type("\x04")
        terminal.end()
    assert "\r\x1b[KIt is well." in shown
    assert said(models, 1)[-1] == "half a line"


def test_history_is_there(path: Path, models: ModelServer) -> None:
    """The arrow brings the last line back."""
    pytest.importorskip("readline")
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look again\n")
        terminal.until("so far")
        terminal.type("\x1b[A\n")
        models.wait(lambda: len(models.requests) == 2)
        terminal.type("/quit\n")
        terminal.end()
    assert said(models, 1)[-1] == "look again"


def test_the_terminal_is_left_as_it_was(path: Path, models: ModelServer) -> None:
    """Whoever leaves in the middle of a line must not find a shell that shows nothing."""
    import termios

    with Terminal("interactive", "-c", str(path)) as terminal:
        before = termios.tcgetattr(terminal.ours)
        terminal.until(PROMPT)
        terminal.type("\x03")
        terminal.until("Ctrl-C once more")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert termios.tcgetattr(terminal.ours)[3] == before[3]


def test_a_session_at_the_daemon_ends_with_whoever_had_it(
    path: Path, models: ModelServer, tmp_path: Path, place: str
) -> None:
    """/quit ends it at once, also what it does."""
    models.otherwise = Reply(hang=True)
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look\n")
        models.wait(lambda: len(models.requests) == 1)
        terminal.type("/quit\n")
        terminal.end()
    models.wait(lambda: models.answering == 0)
    (run,) = in_store(tmp_path, ledger.runs)[0]
    assert run.state is RunState.CANCELLED


def test_sigint_reaches_a_pipe_too(path: Path, models: ModelServer) -> None:
    """A script that is interrupted cancels what it asked for."""
    models.otherwise = Reply(hang=True)
    command = [sys.executable, "-m", "agentd", "interactive", "--config", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(b"look\n")
        child.stdin.flush()
        models.wait(lambda: len(models.requests) == 1)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    assert b"cancelled; it keeps what it knows" in out
    assert child.returncode == 1


def test_what_it_says_is_seen_while_it_comes(path: Path, models: ModelServer, place: str) -> None:
    """Half a minute of silence looks like a hang; and what has come is not said again."""
    models.answers(Reply(text="The first line.\nThe second one.", pieces=31, pause_s=0.02))
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look\n")
        terminal.until("… thinking")
        terminal.until("The first line.")
        shown = terminal.until("so far")
        terminal.type("/quit\n")
        terminal.end()
    assert shown.count("The first line.") == 1
    assert shown.count("The second one.") == 1


def test_a_line_that_steers_is_said_to(path: Path, models: ModelServer) -> None:
    """Whoever types while it works sees that it was no new question."""
    models.otherwise = Reply(hang=True)
    with Terminal("interactive", "-c", str(path)) as terminal:
        terminal.until(PROMPT)
        terminal.type("look at a\n")
        models.wait(lambda: len(models.requests) == 1)
        assert "steering" not in terminal.seen
        models.answers("b is well.")
        terminal.type("rather look at b\n")
        terminal.until("… steering it")
        terminal.until("b is well.")
        terminal.type("/quit\n")
        terminal.end()
