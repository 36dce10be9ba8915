"""
The number of an inode says little: a packed log gives its own back, and the next file that is made gets it.
"""

from __future__ import annotations

import json
from pathlib import Path

from following import Follower


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def test_a_rotated_file_with_the_inode_of_another_logs_lost_file_is_read(tmp_path: Path) -> None:
    """While we were down the other log was packed, and what was its inode became one of ours: it is still ours."""
    ours, other = tmp_path / "ours.log", tmp_path / "other.log"
    write(ours, "one")
    write(other, "other one")
    follower = Follower(tmp_path / "*.log")
    follower.read()
    ours.rename(tmp_path / "ours.log.2")
    write(ours, "two")
    ours.rename(tmp_path / "ours.log.1")
    write(ours, "three")
    stored = json.loads(follower.positions[str(other)])
    stored["current"]["ino"] = (tmp_path / "ours.log.1").stat().st_ino
    follower.positions[str(other)] = json.dumps(stored)
    other.unlink()
    write(other, "other two")
    follower.restart()

    assert sorted(follower.read()) == ["other two", "three", "two"]
    follower.close()


def test_a_log_that_went_by_a_siblings_name_is_still_the_other_ones(tmp_path: Path) -> None:
    """Its beginning tells: a worker's own log is not read again as what became of ours."""
    ours, other = tmp_path / "worker.log", tmp_path / "worker.1.log"
    write(ours, "one")
    write(other, "other one")
    follower = Follower(ours, other)
    follower.read()
    write(other, "other two")
    ours.unlink()
    write(ours, "two")
    follower.restart()

    assert sorted(follower.read()) == ["other two", "two"]
    follower.close()


def test_an_empty_logs_inode_makes_no_other_file_its_own(tmp_path: Path) -> None:
    """Nothing else is known of it; had it become the new file, what it was rotated to would have been passed over."""
    ours, other = tmp_path / "ours.log", tmp_path / "other.log"
    ours.touch()
    follower = Follower(tmp_path / "*.log")
    follower.read()
    write(ours, "one")
    ours.rename(tmp_path / "ours.log.1")
    write(ours, "two")
    write(other, "other one")
    stored = json.loads(follower.positions[str(ours)])
    stored["current"]["ino"] = other.stat().st_ino
    follower.positions[str(ours)] = json.dumps(stored)
    follower.restart()

    assert sorted(follower.read()) == ["one", "other one", "two"]
    follower.close()


def test_a_link_turned_to_a_file_that_is_followed_already_reads_nothing_twice(tmp_path: Path) -> None:
    """`*.log` names the link and the files that it leads to, and a new one may be seen before the link is turned."""
    link = tmp_path / "app.log"
    first, second, third = (tmp_path / name for name in ("first", "app-20260102.log", "app-20260103.log"))
    write(first, "one")
    link.symlink_to(first)
    follower = Follower(tmp_path / "*.log")
    follower.read()
    for number, target in enumerate([second, third], 2):
        target.touch()
        follower.read()
        write(target, f"{number} before")
        new = tmp_path / "new"
        new.symlink_to(target)
        new.rename(link)
        write(target, f"{number} after")
        follower.read()
        write(target, f"{number} later")
        follower.restart()
        follower.read()

    assert sorted(follower.lines) == sorted(["one", "2 before", "2 after", "2 later", "3 before", "3 after", "3 later"])
    follower.close()
