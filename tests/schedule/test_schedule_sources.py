"""Files and units as sources of events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd.schedule.files import Files
from agentd.schedule.units import Units


def changes(files: Files, *paths: Path) -> list[tuple[str, str]]:
    found, hidden = files.look([str(path) for path in paths])
    assert hidden == {}
    return [(Path(change.path).name, change.what) for change in found]


def test_a_file_comes_changes_is_replaced_and_goes(tmp_path: Path) -> None:
    """Four things that happen to a file, each told once."""
    files, path = Files(), tmp_path / "flag"
    assert changes(files, path) == []

    path.write_text("a")
    assert changes(files, path) == [("flag", "created")]
    assert changes(files, path) == []
    path.write_text("longer")
    assert changes(files, path) == [("flag", "changed")]
    os.utime(path, ns=(1, 1))
    assert changes(files, path) == [("flag", "changed")]
    (tmp_path / "new").write_text("longer")
    os.utime(tmp_path / "new", ns=(1, 1))
    os.replace(tmp_path / "new", path)
    assert changes(files, path) == [("flag", "replaced")]
    path.unlink()
    assert changes(files, path) == [("flag", "removed")]


def test_what_is_there_at_the_first_look_is_no_news(tmp_path: Path) -> None:
    """Or each restart would start all that waits for a file."""
    (tmp_path / "old").touch()

    assert changes(Files(), tmp_path / "old") == []


def test_a_file_under_a_path_that_is_none_is_not_there(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "file" / "below"
    (tmp_path / "file").touch()

    assert changes(files, path) == []


def test_a_file_that_cannot_be_looked_at_has_not_gone(tmp_path: Path) -> None:
    """Not being allowed to look is no news of the file."""
    files, loop = Files(), tmp_path / "loop"
    loop.touch()
    changes(files, loop)
    kept = loop.stat()
    loop.rename(tmp_path / "away")
    loop.symlink_to(loop)

    found, hidden = files.look([str(loop)])
    loop.unlink()
    (tmp_path / "away").rename(loop)

    assert found == []
    assert list(hidden) == [str(loop)]
    assert loop.stat().st_ino == kept.st_ino
    assert changes(files, loop) == []


@pytest.mark.parametrize("stamp", [-(2**62), 2**63 - 1])
def test_a_time_beyond_the_calendar_is_no_harm(tmp_path: Path, stamp: int) -> None:
    """Anybody may set any time to a file of his own."""
    files, path = Files(), tmp_path / "odd"
    files.look([str(path)])
    path.touch()
    os.utime(path, ns=(stamp, stamp))

    assert changes(files, path) == [("odd", "created")]


def test_a_unit_that_fails_is_told_once() -> None:
    units = Units()
    units.want(["nginx", "postgresql*"])
    assert units.compare(["nginx.service"]) == [], "failed before we looked"

    assert units.compare(["nginx.service", "postgresql@15.service"]) == [("postgresql*", "postgresql@15.service")]
    assert units.compare(["nginx.service", "postgresql@15.service"]) == []
    assert units.compare([]) == []
    assert units.compare(["nginx.service"]) == [("nginx", "nginx.service")]


def test_a_unit_wanted_later_begins_anew() -> None:
    """A reload that names another unit says nothing new of the first."""
    units = Units()
    units.want(["a"])
    units.compare([])
    units.want(["a", "b"])

    assert units.compare(["a.service", "b.service"]) == [("a", "a.service")]
