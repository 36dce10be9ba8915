"""What was changed while the daemon ran is laid over the files: whole, bounded, and never in the way of a start."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from config_folder import TOLD, Folder

from agentd.config.loader import load
from agentd.config.overlay import (
    LIVE,
    MAX_BYTES,
    MAX_MODELS,
    NAME,
    Overlay,
    amended,
    check_overlay,
    is_live,
    lay_over,
    leaves,
    patched,
    read_overlay,
    save_overlay,
    set_aside,
)
from agentd.errors import ConfigError, InvalidConfig, StoreError, StoreFull

WATCH = "watches: [{name: web, http: {url: 'http://127.0.0.1/'}}]\n"
BASE = TOLD + WATCH
LOCAL = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "model": "small"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    (tmp_path / "state").mkdir()
    folder.environment = {"STATE_DIRECTORY": str(tmp_path / "state")}
    return folder


def lay(folder: Folder, data: Any) -> Path:
    path = folder.path / "state" / NAME
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_it_is_laid_over_the_files_and_below_the_environment(folder: Folder) -> None:
    """The order is the promise: an operator's own variable is the last word."""
    lay(folder, {"agent": {"max_steps": 5, "retries": 6, "max_parallel": 7}})
    folder.write("AGENTD_AGENT__RETRIES=8\n", ".env")
    folder.environment["AGENTD_AGENT__MAX_PARALLEL"] = "9"
    loaded = folder.load(BASE + "agent: {max_steps: 2, retries: 2, tool_timeout: 3s}\n")
    agent = loaded.config.agent

    assert (agent.max_steps, agent.retries, agent.max_parallel) == (5, 8, 9)
    assert loaded.origins["agent.max_steps"] == "overlay"
    assert loaded.origins["agent.retries"] == ".env AGENTD_AGENT__RETRIES"
    assert loaded.origins["agent.max_parallel"] == "environment AGENTD_AGENT__MAX_PARALLEL"
    assert loaded.origins["agent.tool_timeout"].endswith("agentd.yaml:4")
    assert loaded.overlay.keys == ("agent.max_parallel", "agent.max_steps", "agent.retries")
    assert not loaded.warnings


@pytest.mark.parametrize("how", ["file", "variable", "dotenv"])
def test_it_is_looked_for_where_the_daemon_keeps_its_state(folder: Folder, how: str) -> None:
    """`agentd check` must see what `agentd run` sees."""
    state = folder.path / "elsewhere"
    save = {"agent": {"max_steps": 5}}
    state.mkdir()
    save_overlay(state, save)
    if how == "variable":
        folder.environment["AGENTD_DAEMON__STATE_DIR"] = str(state)
    if how == "dotenv":
        folder.write(f"AGENTD_DAEMON__STATE_DIR={state}\n", ".env")
    loaded = folder.load(BASE + (f"daemon: {{state_dir: {state}}}\n" if how == "file" else ""))

    assert loaded.config.agent.max_steps == 5


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"agent": {"max_steps": 5, "max_steps": 6}}', "twice"),
        ('{"agent": {"max_steps": NaN}}', "NaN"),
        ("[1]", "no mapping"),
        ('{"daemon": {"log_level": "debug"}}', "daemon.log_level"),
        ('{"agent": {"tools": ["run_command"]}}', "agent.tools"),
        ('{"watches": []}', "watches"),
        ('{"models": {"default": {"api_key": "${file:/etc/shadow}"}}}', "names a secret"),
        ('{"agent": {"max_steps": null}}', "null"),
        ('{"agent": {"max_steps": 0}}', "does not fit"),
        ('{"agent": {"model": "nobody"}}', "there is no model"),
        ('{"agent": {"max_steps": 5}, "api": 7}', "api"),
        ('{"models": {"a": ' + '{"rate": ' * 20 + "1" + "}" * 20 + "}}", "deeper"),
        ('{"models": {"a": {"model": "' + "x" * MAX_BYTES + '"}}}', "larger"),
    ],
)
def test_one_that_cannot_be_used_is_passed_over_and_said_to_be(folder: Folder, content: str, word: str) -> None:
    """A daemon that does not start because of it would be worse than the file's own limits."""
    path = lay(folder, content)
    loaded = folder.load(BASE)

    assert loaded.config.agent.max_steps == 20
    assert loaded.overlay.wrong is not None
    assert word in loaded.overlay.wrong
    assert not loaded.overlay.data
    (warning,) = loaded.warnings
    assert (warning.file, warning.key) == (str(path), "overlay")
    assert "not in effect" in warning.what
    assert path.exists(), "to look is not to change"

    aside = set_aside(loaded.overlay)
    assert aside is not None
    assert aside.read_text() == content
    assert not folder.load().warnings


def test_what_is_wrong_in_the_files_is_told_and_not_the_overlay(folder: Folder) -> None:
    lay(folder, {"agent": {"model": "nobody"}})
    problem = folder.problem(BASE + "daemon: {log_level: loud}\n")

    assert problem.key == "daemon.log_level"


def test_a_change_that_does_not_fit_is_an_error_where_it_is_tried_out(folder: Folder) -> None:
    """Before it is written down, it is not passed over in silence."""
    folder.load(BASE)
    wanted = Overlay(folder.path / "state" / NAME, {"agent": {"max_steps": 0}})

    with pytest.raises(InvalidConfig) as caught:
        load(folder.path / "agentd.yaml", environment=folder.environment, overlay=wanted)
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(wanted.path), "agent.max_steps")


def test_whatever_lies_there_holds_nobody_up(folder: Folder) -> None:
    """A pipe would have whoever opens it wait for ever."""
    path = folder.path / "state" / NAME
    os.mkfifo(path)
    assert folder.load(BASE).overlay.wrong is not None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert folder.load().overlay.wrong is not None
    path.unlink()
    path.mkdir()
    assert folder.load().overlay.wrong is not None
    assert set_aside(folder.load().overlay) is None, "what could not be read is not put away"


def test_no_state_folder_is_no_overlay(folder: Folder) -> None:
    for state in ("/no/such/folder", "/dev/null", "~nobody-of-this-name/x", "a\\0b"):
        loaded = folder.load(BASE + f'daemon: {{state_dir: "{state}"}}\n')
        assert not loaded.overlay.data
    assert folder.problem(BASE + "daemon: {state_dir: [a]}\n").key == "daemon.state_dir"


def test_it_is_written_for_the_daemon_alone_and_in_place_of_the_old_one(tmp_path: Path) -> None:
    """Keys stand in it."""
    save_overlay(tmp_path, {"agent": {"max_steps": 5}})
    (path,) = tmp_path.iterdir()
    before = path.stat().st_ino
    save_overlay(tmp_path, {"agent": {"max_steps": 6}})

    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_ino != before, "written beside, then renamed"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_overlay(tmp_path).data == {"agent": {"max_steps": 6}}

    save_overlay(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    save_overlay(tmp_path, {})


@pytest.mark.parametrize(
    ("code", "sort"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError)]
)
def test_a_full_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sort: type[Exception]
) -> None:
    """Half an overlay would be none at the next start."""
    save_overlay(tmp_path, {"agent": {"max_steps": 5}})

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(sort, match="nothing was changed"):
        save_overlay(tmp_path, {"agent": {"max_steps": 6}})

    assert read_overlay(tmp_path).data == {"agent": {"max_steps": 5}}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_a_killed_daemon_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.new").write_text("half")
    save_overlay(tmp_path, {"agent": {"max_steps": 5}})

    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_it_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        save_overlay(tmp_path, {"models": {"a": {"model": "x" * MAX_BYTES}}})
    with pytest.raises(ConfigError):
        save_overlay(tmp_path, {"agent": {"max_steps": float("inf")}})
    with pytest.raises(ConfigError):
        check_overlay({"models": {str(number): LOCAL for number in range(MAX_MODELS + 1)}})
    assert list(tmp_path.iterdir()) == []


def test_null_takes_a_key_out() -> None:
    data = {"agent": {"max_steps": 5, "retries": 1}, "models": {"a": {"model": "x"}}}

    assert patched(data, {"agent": {"max_steps": None}}) == {"agent": {"retries": 1}, "models": {"a": {"model": "x"}}}
    assert patched(data, {"agent": {"max_steps": None, "retries": None}}) == {"models": {"a": {"model": "x"}}}
    assert patched(data, {"models": None, "agent": {"retries": 2}}) == {"agent": {"max_steps": 5, "retries": 2}}
    assert patched(data, {"models": {"b": {"model": None}}}) == data
    assert data["agent"] == {"max_steps": 5, "retries": 1}


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("models.default", True),
        ("models.default.rate.requests", True),
        ("models", False),
        ("budgets.run.usd", True),
        ("api.rate_limiting.burst_size", True),
        ("api.rate_limiting", False),
        ("api.task_timeout", True),
        ("api.task_timeout.x", False),
        ("api", False),
        ("agent.max_steps", True),
        ("agent.tools", False),
        ("agent.commands.allow", False),
        ("agent.prompts", False),
        ("embeddings.base_url", False),
        ("", False),
    ],
)
def test_what_is_live(key: str, live: bool) -> None:
    """The table is the whole of what the API can change: each line of it is a decision."""
    assert is_live(tuple(key.split("."))) is live


def test_nothing_live_permits_or_runs_anything() -> None:
    """Whoever adds a line here reads this first."""
    words = ("tools", "files", "commands", "http", "mcp", "prompts", "environment", "directory", "hooks", "keys")
    assert not [key for key in LIVE for word in words if word in key]
    assert {key.split(".")[0] for key in LIVE} == {"models", "budgets", "api", "agent"}


def test_a_part_may_be_taken_out_whole() -> None:
    assert is_live(("agent",), taken_out=True)
    assert is_live(("models",), taken_out=True)
    assert is_live(("api", "rate_limiting"), taken_out=True)
    assert not is_live(("daemon",), taken_out=True)
    assert not is_live(("agent", "tools"), taken_out=True)


def test_another_provider_keeps_what_is_no_providers() -> None:
    model = {**LOCAL, "api_key": "k", "retries": 7, "fallback": ["b"]}
    files: dict[str, Any] = {"models": {"a": model}, "agent": {"max_steps": 1}}

    laid = lay_over(files, {"models": {"a": {"provider": "zhipu", "model": "glm-4"}}})
    assert laid["models"]["a"] == {"provider": "zhipu", "model": "glm-4", "retries": 7, "fallback": ["b"]}
    same = lay_over(files, {"models": {"a": {"provider": "local", "model": "large"}}})["models"]["a"]
    assert (same["base_url"], same["api_key"], same["model"]) == (LOCAL["base_url"], "k", "large")
    added = lay_over(files, {"models": {"b": {"provider": "zhipu", "model": "glm-4"}}})
    assert set(added["models"]) == {"a", "b"}
    assert files["models"]["a"]["api_key"] == "k"


def test_a_change_of_provider_forgets_the_key_that_was_laid_over_before() -> None:
    """The amended model names no provider itself; what it is now does."""
    before = {"models": {"a": {"api_key": "of-openai", "temperature": 1}}}
    change = {"models": {"a": {"provider": "zhipu", "model": "glm-4"}}}

    assert amended(before, change, {"a": "openai"})["models"]["a"] == {
        "temperature": 1,
        "provider": "zhipu",
        "model": "glm-4",
    }
    assert amended(before, change, {"a": "zhipu"})["models"]["a"]["api_key"] == "of-openai"
    assert amended(before, {"models": {"a": None}}, {"a": "openai"}) == {}


def test_an_address_that_is_laid_over_brings_its_own_key(folder: Folder) -> None:
    """Neither the file's key nor the environment's goes to an address that came over the API."""
    models = "models: {a: {provider: deepseek, model: m, api_key: 'a-key-0123456789'}}\n"
    elsewhere = {"base_url": "http://elsewhere.example/v1"}
    lay(folder, {"models": {"a": elsewhere}})
    assert "no key of its own" in str(folder.load(BASE + models).overlay.wrong)
    keyless = models.replace(", api_key: 'a-key-0123456789'", "")
    assert "no key of its own" in str(folder.load(BASE + keyless).overlay.wrong)

    lay(folder, {"models": {"a": {**elsewhere, "api_key": "own"}}})
    assert folder.load(BASE + models).overlay.wrong is None
    folder.environment["AGENTD_MODELS__A__API_KEY"] = "of-the-operator"
    assert "no key of its own" in str(folder.load().overlay.wrong)

    del folder.environment["AGENTD_MODELS__A__API_KEY"]
    lay(folder, {"models": {"b": LOCAL}})
    assert folder.load().overlay.wrong is None, "a local server asks for none"


def test_a_key_in_it_is_no_plain_secret_in_a_file(folder: Folder) -> None:
    """It is where it belongs, and a warning at each start would say otherwise."""
    lay(folder, {"models": {"a": {**LOCAL, "api_key": "a-key-0123456789"}}})

    assert not folder.load(BASE).warnings


def test_leaves_are_values_with_their_paths() -> None:
    data = {"a": {"b": 1, "c": {}}, "d": [1]}

    assert list(leaves(data)) == [(("a", "b"), 1), (("a", "c"), {}), (("d",), [1])]
    assert Overlay(Path("x"), data).sets(("d", 0))
    assert not Overlay(Path("x"), data).sets(("a",))
