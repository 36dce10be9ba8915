"""What a shell completes, with a daemon and without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.shell_completion import ShellComplete
from commands import Agentd, typed
from running import running

from agentd.cli import COMMANDS, cli


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    watches = [{"name": name, "every": "1h", "http": {"url": "http://127.0.0.1:1/"}} for name in ("shop", "till")]
    whole = {"daemon": {"state_dir": str(tmp_path / "s")}, "watches": watches}
    whole["webhooks"] = {"ops": {"url": "http://127.0.0.1:1/"}}
    (tmp_path / "agentd.yaml").write_text(yaml.safe_dump(whole))
    return typed(monkeypatch, capsys, tmp_path / "agentd.yaml")


def completed(*words: str) -> list[str]:
    """What the last of the words may become."""
    return [each.value for each in ShellComplete(cli, {}, "agentd", "_X").get_completions(list(words[:-1]), words[-1])]


def test_commands_and_options_are_completed(agentd: Agentd) -> None:
    """All of them, in the order of the help."""
    assert completed("") == list(COMMANDS)
    assert completed("key", "") == ["list", "new", "revoke"]
    assert completed("key", "new", "--scope", "o") == ["operate"]


def test_names_come_from_the_running_daemon(agentd: Agentd, tmp_path: Path) -> None:
    """And those of webhooks and keys from the configuration."""
    agentd("key", "new", "dashboard")
    with running(tmp_path / "agentd.yaml"):
        assert completed("pause", "") == ["shop", "till"]
        assert completed("runs", "--watch", "s") == ["shop"]
        assert completed("runs", "") == completed("silence", "end", "") == completed("outbox", "show", "") == []
        assert completed("ack", "") == []
    assert completed("webhook", "test", "o") == ["ops"]
    assert completed("key", "revoke", "d") == ["dashboard"]


@pytest.mark.parametrize("text", [None, "watches: 7", "a: [", "daemon: {state_dir: 1}"])
def test_without_an_answer_nothing_is_completed_and_nothing_said(
    agentd: Agentd, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    """Words in the middle of a line that somebody is typing would be worse than no help."""
    if text is not None:
        (tmp_path / "agentd.yaml").write_text(text)

    assert completed("pause", "") == completed("ack", "") == completed("task", "--model", "") == []
    assert completed("webhook", "test", "-c", "nowhere.yaml", "") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_us_and_is_read_by_its_shell(agentd: Agentd, tmp_path: Path, shell: str) -> None:
    """`make install` puts it away unseen."""
    said = agentd("completion", shell)

    assert said.code == 0
    assert "_AGENTD_COMPLETE" in said.out
    (tmp_path / "script").write_text(said.out)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True).stderr == b""


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_with_it(agentd: Agentd, tmp_path: Path) -> None:
    """The whole way: shell, script, program, answer."""
    (tmp_path / "script").write_text(agentd("completion", "bash").out)
    typed_so_far = "COMP_WORDS=(agentd sta) COMP_CWORD=1"
    story = f". {tmp_path}/script; {typed_so_far}; _agentd_completion agentd; echo ${{COMPREPLY[@]}}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    done = subprocess.run(["bash", "-c", story], capture_output=True, text=True, env={**os.environ, "PATH": path})

    assert (done.stdout, done.stderr) == ("status\n", "")
