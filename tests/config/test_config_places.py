"""`agentd check` looks whether what the watches of logs name is there: else they are quiet, and nobody knows why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from config_folder import TOLD, Folder

from agentd.cli import cli
from agentd.config.log_places import check_places
from agentd.errors import Problem


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    for name in ("here.log", "logs/a.log", "logs/b.log", "state/agentd.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    return folder


def configuration(folder: Folder, source: str) -> str:
    return (
        f"{TOLD}daemon: {{state_dir: {folder.path}/state}}\n"
        f"watches: [{{name: w, {source.replace('DIR', str(folder.path))}}}]\n"
    )


def told(folder: Folder, source: str) -> list[Problem]:
    return check_places(folder.load(configuration(folder, source)))


def follow(path: str) -> str:
    return f"log: {{files: ['{path}']}}, rules: [{{name: r, type: any, match: x}}]"


@pytest.mark.parametrize(
    ("source", "key", "words", "cure"),
    [
        (follow("DIR/gone.log"), "log.files[0]", 'there is no "gone.log" in', "check the path"),
        (follow("DIR/nowhere/deep/x.log"), "log.files[0]", 'there is no "nowhere" in', "check the path"),
        (follow("DIR/nowhere/*.log"), "log.files[0]", 'there is no "nowhere" in', "check the path"),
        (follow("DIR/nowhere/**/*.log"), "log.files[0]", 'there is no "nowhere" in', "check the path"),
        (follow("DIR/logs/*.txt"), "log.files[0]", "no file has such a name", "check the pattern"),
        (follow("DIR/logs"), "log.files[0]", "is a folder", "logs/*.log"),
        (follow("DIR/pipe"), "log.files[0]", "no regular file", "command"),
        (follow("DIR/here.log/*.log"), "log.files[0]", "is no folder", "folder and a pattern"),
        (follow("DIR/logs/{a,b}.log"), "log.files[0]", "{a,b} is no pattern", "logs/a.log, "),
        (follow("DIR/state/*.log"), "log.files[0]", "own state_dir", "files of others"),
        (follow("DIR/logs/../state/agentd.log"), "log.files[0]", "own state_dir", "files of others"),
        ("log: {command: [no-such-program]}, rules: []", "log.command[0]", "no program no-such-program", "full path"),
        ("log: {command: [DIR/gone, -f]}, rules: []", "log.command[0]", "gone", "install it"),
        ("log: {command: [DIR/here.log]}, rules: []", "log.command[0]", "cannot be run by", "chmod"),
        ("every: 1m, command: {argv: [no-such-program]}", "command.argv[0]", "no program no-such-program", "full path"),
        ("every: 1m, command: {argv: [./gone], cwd: DIR}", "command.argv[0]", "gone", "install it"),
    ],
)
def test_what_is_not_there_is_told(folder: Folder, source: str, key: str, words: str, cure: str) -> None:
    """One warning, at the path, with what to do."""
    (warning,) = told(folder, source)

    assert warning.warning
    assert warning.key == f"watches[0].{key}"
    assert words in warning.what
    assert cure in warning.cure
    assert warning.line == 4


@pytest.mark.parametrize(
    "source",
    [
        follow("DIR/here.log"),
        follow("DIR/logs/*.log"),
        follow("DIR/**/*.log"),
        "log: {command: [sh, -c, 'true']}, rules: []",
        "enabled: false, log: {files: [/gone]}, rules: []",
        "every: 1m, command: {argv: [/bin/sh]}",
    ],
)
def test_what_is_there_is_passed_over(folder: Folder, source: str) -> None:
    assert told(folder, source) == []


@pytest.mark.parametrize("path", ["DIR/here.log", "DIR/logs/*.log"])
def test_a_file_that_may_not_be_read_names_who_asked(
    folder: Folder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator looks with other rights than the service has: the warning says that those count."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    (warning,) = told(folder, follow(path))

    assert "cannot be read by" in warning.what
    assert "the user of the service counts" in warning.cure


def test_the_check_prints_them_and_the_daemon_does_not_look(folder: Folder) -> None:
    """A look at a dead network file system would keep the daemon from starting."""
    loaded = folder.load(configuration(folder, follow("DIR/gone.log")))
    path = str(folder.path / "agentd.yaml")

    said = CliRunner().invoke(cli, ["check", "-c", path])
    strict = CliRunner().invoke(cli, ["check", "-c", path, "--strict"])

    assert 'watches[0].log.files[0]: there is no "gone.log"' in said.stdout
    assert (said.exit_code, strict.exit_code) == (0, 2)
    assert not any("gone.log" in warning.what for warning in loaded.warnings)


def test_an_included_file_is_told_with_its_own_place(folder: Folder) -> None:
    folder.write(
        yaml.safe_dump({"watches": [{"name": "v", "log": {"files": ["/gone.log"]}, "rules": []}]}), "more.yaml"
    )
    loaded = folder.load(f"include: [more.yaml]\n{TOLD}")

    (warning,) = check_places(loaded)

    assert warning.file.endswith("more.yaml")
