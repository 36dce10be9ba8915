"""
The examples in conf/examples run, against a real daemon and a model that a test plays.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import free_port
from modelserver import ModelServer, call, calls, model_server
from running import running

from agentd.config.key_hash import make_key

EXAMPLES = Path(__file__).resolve().parent.parent / "conf" / "examples"


@dataclass(frozen=True)
class Place:
    """A folder with a configuration. model: asked by its agents. url, key: of the daemon over TCP."""

    folder: Path
    model: ModelServer
    url: str
    key: str

    @property
    def config(self) -> Path:
        return self.folder / "agentd.yaml"

    @property
    def socket(self) -> str:
        return str(self.folder / "state" / "api.sock")

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """An example, to its end."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
        return subprocess.run(words, env={**own, **environment}, capture_output=True, text=True, timeout=60)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    key, hashed = make_key("example")
    (tmp_path / "notes.txt").write_text("the pump is off")
    with model_server() as model:
        settings: dict[str, Any] = {
            "daemon": {"state_dir": str(tmp_path / "state"), "memory_limit": "64GiB"},
            "api": {"listen": [f"127.0.0.1:{port}"], "keys": [{"name": "example", "hash": hashed, "scope": "operate"}]},
            "models": {"default": {"provider": "openai-compatible", "base_url": model.url, "model": "test"}},
            "agent": {"tools": ["read_file"], "files": {"allow": [str(tmp_path)]}},
        }
        found = Place(tmp_path, model, f"http://127.0.0.1:{port}", key)
        found.config.write_text(yaml.safe_dump(settings))
        model.answers(calls(call("read_file", path=str(tmp_path / "notes.txt"))), 'The pump is "off".')
        yield found


def test_in_process(place: Place) -> None:
    """The daemon lives in the program, and ends with it."""
    done = place.run(sys.executable, str(EXAMPLES / "in_process.py"), str(place.config), "What do the notes say?")

    assert (done.returncode, done.stdout) == (0, 'The pump is "off".\n'), done.stderr
    assert "completed after 1 steps" in done.stderr


@pytest.mark.parametrize("over", ["unix socket", "TCP"])
def test_client(place: Place, over: str) -> None:
    """Where the daemon is and who asks is all that differs."""
    place.model.otherwise = "Switch it on."
    address, key = (place.socket, "") if over == "unix socket" else (place.url, place.key)
    words = [sys.executable, str(EXAMPLES / "client.py"), address, "What do the notes say?", "What to do?"]
    with running(place.config):
        done = place.run(*words, AGENTD_KEY=key, AGENTD_ID="e")
        again = place.run(*words, AGENTD_KEY=key, AGENTD_ID="e")

    assert done.stdout == 'completed: The pump is "off".\ncompleted: Switch it on.\n', done.stderr
    assert done.stderr == "… read_file\n"
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert len(place.model.requests) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl; `units/prepare test` brings it")
@pytest.mark.parametrize("over", ["unix socket", "TCP", "TCP without a key"])
def test_api_sh(place: Place, over: str) -> None:
    """What works in a shell works everywhere."""
    environment = {"AGENTD": place.socket} if over == "unix socket" else {"AGENTD": place.url}
    if over == "TCP":
        environment["AGENTD_KEY"] = place.key
    with running(place.config):
        done = place.run("sh", str(EXAMPLES / "api.sh"), 'What do the "notes" say?\nIn C:\\', **environment)

    if over == "TCP without a key":
        assert done.returncode != 0
        assert "401" in done.stderr
        assert place.model.requests == []
        return
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["status"], view["task"]) == ("completed", 'What do the "notes" say? In C:\\')
    assert view["result"]["summary"] == 'The pump is "off".'
    assert "event: ToolExecutionEnd" in done.stderr
    assert place.key not in done.stdout + done.stderr
