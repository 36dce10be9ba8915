"""What holds for every command: JSON for programs, help for each option, colours on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from commands import Agentd, typed
from terminal import Terminal

from agentd.cli import cli

WITHOUT_JSON = {
    "agentd run": "it is the daemon",
    "agentd demo": "it is a story",
    "agentd init": "it writes files",
    "agentd schema": "it is JSON",
    "agentd memory export": "it writes lines of JSON",
    "agentd interactive": "it is a talk",
    "agentd doctor restore": "it is for an hour in which a person reads",
    "agentd completion": "it is a script",
}


def leaves(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{context.command_path} {name}", command
        if isinstance(command, click.Group):
            yield from leaves(command, click.Context(command, info_name=name, parent=context))


COMMANDS = dict(leaves(cli, click.Context(cli, info_name="agentd")))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_answers_programs_too(path: str) -> None:
    """Those that do not have a reason."""
    outputs = [each for each in COMMANDS[path].params if "--output" in each.opts]

    assert bool(outputs) != (path in WITHOUT_JSON)
    for each in outputs:
        assert isinstance(each.type, click.Choice)
        assert "json" in each.type.choices


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_says_what_it_and_each_option_does(path: str) -> None:
    """In plain words, without marks that only a page could show."""
    command = COMMANDS[path]

    assert command.help
    assert [mark for mark in ("**", "\x1b", "``") if mark in command.help] == []
    assert [each.name for each in command.params if isinstance(each, click.Option) and not each.help] == []


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    return typed(monkeypatch, capsys, tmp_path / "agentd.yaml")


@pytest.mark.parametrize(("text", "code"), [("watches: []", 0), ("watches: 7", 2)])
def test_problems_of_a_configuration_are_read_by_programs(agentd: Agentd, tmp_path: Path, text: str, code: int) -> None:
    """A pipeline wants to put them beside the lines of a change."""
    (tmp_path / "agentd.yaml").write_text(text)

    said = agentd("check", "-o", "json")

    problems = said.json["problems"]
    assert (said.code, said.json["ready"]) == (code, code == 0)
    assert all(each["warning"] for each in problems) is (code == 0)
    assert problems[0]["file"] == f"{tmp_path}/agentd.yaml"
    assert {"line", "column", "key", "what", "cure"} < problems[0].keys()


@pytest.mark.parametrize("refused", [True, False])
def test_a_terminal_gets_colours_unless_it_refuses_them(
    agentd: Agentd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """https://no-color.org: some cannot see them, and some terminals cannot show them."""
    broken = {"name": "x", "every": "1h", "command": {"argv": ["false"]}}
    (tmp_path / "agentd.yaml").write_text(yaml.safe_dump({"daemon": {"state_dir": str(tmp_path)}, "watches": [broken]}))
    if refused:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)

    with Terminal("test", "x") as terminal:
        assert terminal.end() == 3

    assert "failing" in terminal.seen
    assert ("\x1b[" in terminal.seen) is not refused
