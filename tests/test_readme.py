"""
The README is true: its configurations load, its commands and files exist.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from agentd.cli import COMMANDS, cli
from agentd.config.loader import load
from agentd.watch import KINDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SECRETS = {"AUDIT_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "SLACK_URL": "https://slack.example/x"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `agentd …` of the README, in blocks and in running text."""
    lines = [line.lstrip("$# ").split("#")[0] for block in blocks("console") for line in block.splitlines()]
    lines += re.findall(r"`(agentd [^`]*)`", README)
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("agentd ")]


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.split("\n")[0].rstrip(":"))
def test_configurations_load_without_a_warning(text: str, tmp_path: Path) -> None:
    """What is copied from here must work."""
    path = tmp_path / "agentd.yaml"
    path.write_text(text)

    loaded = load(path, environment={**SECRETS, "BACKUP_TOKEN": "0123456789abcdef"})

    assert [str(problem) for problem in loaded.warnings if "nobody is told" not in str(problem)] == []
    assert loaded.config.probes


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist_with_their_options(words: list[str]) -> None:
    """A command of the README that is not there is the first thing that a newcomer meets."""
    command: click.Command = cli
    context = click.Context(command, info_name="agentd")
    for word in words:
        if word == "…" or not isinstance(command, click.Group):
            break
        found = command.get_command(context, word)
        assert found is not None, word
        command = found
    options = {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_kind_of_probe_is_in_the_table() -> None:
    """What is not in the table does not exist for a reader."""
    assert {key for key in re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE) if key in KINDS} == set(KINDS)


def test_named_files_are_there() -> None:
    """Links and paths go stale first."""
    named = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r"`((?:conf|units|tests|agentd)/[\w./-]+)`", README)

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_command_is_mentioned() -> None:
    """A command that nobody reads of is not used."""
    assert [name for name in COMMANDS if f"agentd {name}" not in README and name != "demo"] == []
