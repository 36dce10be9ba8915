"""Processes of an agent host are found by their mark, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.agent.kin import MARK, family_of, kill_marked, mark, new_mark

Children = dict[str, "subprocess.Popen[bytes]"]


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """One of this host, one of another host of this daemon, one of another daemon, one that nobody marked."""
    family = family_of(tmp_path)
    marks = {
        "mine": f"{family}1",
        "sibling": f"{family}2",
        "stranger": new_mark(family_of(tmp_path / "other")),
        "nobody's": None,
    }
    started = {}
    for name, own in marks.items():
        env = {} if own is None else {MARK: own}
        started[name] = subprocess.Popen(["/bin/sleep", "1000"], env=env, start_new_session=True)
    yield started
    for child in started.values():
        child.kill()
        child.wait()


def ended(children: Children) -> set[str]:
    """Those that were killed; a moment is given to them."""
    for child in children.values():
        try:
            child.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    return {name for name, child in children.items() if child.returncode is not None}


def test_whoever_carries_the_mark_is_killed_and_nobody_else(tmp_path: Path, children: Children) -> None:
    """A session of its own hides it from its group, and the death of its parents from their tree."""
    assert kill_marked(f"{family_of(tmp_path)}1") == 1

    assert ended(children) == {"mine"}


def test_all_hosts_of_a_daemon_are_one_family(tmp_path: Path, children: Children) -> None:
    """After a crash nobody knows their marks any more; those of another daemon on the machine live on."""
    assert kill_marked(family_of(tmp_path)) == 2

    assert ended(children) == {"mine", "sibling"}


def test_nobody_kills_himself_and_all_hand_the_mark_on(tmp_path: Path) -> None:
    """The host clears up behind itself before it ends."""
    own = new_mark(family_of(tmp_path))
    code = (
        "import subprocess, sys; from agentd.agent.kin import kill_marked, mark\n"
        "child = subprocess.Popen(['/bin/sleep', '1000'], env=mark())\n"
        "print(kill_marked(sys.argv[1]), child.wait(5))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, own], env={**os.environ, MARK: own}, capture_output=True, text=True, timeout=30
    )

    assert done.stdout.split() == ["1", "-9"], done.stderr


def test_where_nobody_is_marked_nothing_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agentd task` without a daemon: its commands end with it in other ways."""
    monkeypatch.delenv(MARK, raising=False)

    assert mark() == {}
