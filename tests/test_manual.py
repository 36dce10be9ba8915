"""The manual pages: made from the code, whole, and read by man without a complaint."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agentd.cli import cli
from agentd.cli.manual import NAMES, make_pages
from agentd.cli.manual.roff import escaped, page, paragraph, term, verbatim
from agentd.config.schema import config_schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: (ROOT / "units/man" / name).read_text() for name in NAMES}


def plain(roff: str) -> str:
    """The words of a page without what marks them."""
    words = re.sub(r"\\f[BRI]|\\%|\\&|\\:", "", roff)
    for sign, letter in (("\\-", "-"), ("\\(ga", "`"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\(ti", "~"), ("\\(rs", "\\")):
        words = words.replace(sign, letter)
    return words


def test_the_pages_are_what_the_code_makes() -> None:
    """`make man` and a commit were forgotten when this fails."""
    assert make_pages((ROOT / "conf/agentd.example.yaml").read_text()) == PAGES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", ["man --warnings=w -E UTF-8 -l", "groff -ww -man -Tutf8 -z"])
def test_man_has_no_complaint(program: str, name: str) -> None:
    """A letter that is taken for a request is lost to the reader."""
    words = program.split()
    if not shutil.which(words[0]):
        pytest.skip(f"there is no {words[0]}")
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANROFFOPT": "-ww"}

    done = subprocess.run([*words, ROOT / "units/man" / name], capture_output=True, text=True, env=environment)

    assert (done.returncode, done.stderr) == (0, "")


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{context.command_path} {name}"
        yield path, command
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, info_name=name, parent=context))


def test_every_command_stands_in_the_page_with_its_options() -> None:
    """What is not in there is found by nobody."""
    text = plain(PAGES["agentd.8"])

    for path, command in commands(cli, click.Context(cli, info_name="agentd")):
        if not isinstance(command, click.Group):
            assert f'"{path}' in text, path
        for option in command.params:
            if isinstance(option, click.Option):
                assert [name for name in option.opts if name not in text] == [], path


def test_every_key_of_the_configuration_stands_in_the_page() -> None:
    """By its whole path where its model is met first."""
    text = plain(PAGES["agentd.yaml.5"])
    schema = config_schema()

    assert [key for key in schema["properties"] if f'.SS "{key}"' not in text] == []
    for name, model in schema["$defs"].items():
        for key in model.get("properties", {}):
            assert re.search(rf"^[\w.\[\]]+\.{re.escape(key)}$", text, re.MULTILINE), f"{name}.{key}"


def test_no_letter_becomes_a_request(tmp_path: Path) -> None:
    """Help texts are written for a terminal, and nobody thinks of troff."""
    if not shutil.which("groff"):
        pytest.skip("there is no groff")
    text = ".so /etc/passwd \\n 'quoted' -x `typed` ~ ^ \"…\" →"
    file = tmp_path / "x.8"
    parts = [f".SH {escaped('X')}", paragraph(text), term(".so", text), verbatim(f".so\n'br\n  {text}\n\\")]
    file.write_text(page("X", 8, "1", "M", parts))

    done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-P-cbou", file], capture_output=True, text=True)

    assert done.stderr == ""
    shown = " ".join(done.stdout.split())
    assert ".so /etc/passwd \\n 'quoted' -x typed ~ ^ \"…\" →" in shown
    assert ".so 'br .so /etc/passwd \\n 'quoted' -x `typed` ~ ^ \"…\" → \\" in shown


def test_the_module_writes_them(tmp_path: Path) -> None:
    """As `make man` calls it."""
    words = [sys.executable, "-m", "agentd.cli.manual", f"{ROOT}/conf/agentd.example.yaml", f"{tmp_path}/new"]

    subprocess.run(words, check=True, cwd=ROOT)

    assert {each.name: each.read_text() for each in (tmp_path / "new").iterdir()} == PAGES
