"""
Files as a source of events: did one come, go, change, or was it replaced by another?

In: paths, looked at every two seconds. Out: what became of each since the last look.
Promise: what cannot be looked at (no permission, a dead disk) has not changed; it is compared again when it can be.

Polled: one `stat` of a handful of paths costs less than what it takes to be sure of inotify over renames of folders,
links and network file systems.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from agentd.clock import EPOCH, from_us

LOOK_EVERY_S = 2.0

What = Literal["created", "changed", "replaced", "removed"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another; links are followed."""

    device: int
    inode: int
    modified_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """size, modified_at: of the file as it is now; None when it was removed."""

    path: str
    what: What
    size: int | None = None
    modified_at: datetime | None = None


def compare(path: str, before: Stamp | None, after: Stamp | None) -> Change | None:
    """What became of a file; None stands for no file, and in the answer for no change."""
    if before == after:
        return None
    if after is None:
        return Change(path, "removed")
    what: What = "changed"
    if before is None:
        what = "created"
    elif (before.device, before.inode) != (after.device, after.inode):
        what = "replaced"
    return Change(path, what, after.size, _moment(after.modified_ns))


class Files:
    """The files that events are wanted of. Blocking; used by one thread at a time."""

    def __init__(self) -> None:
        self._seen: dict[str, Stamp | None] = {}

    def look(self, paths: Collection[str]) -> tuple[list[Change], dict[str, str]]:
        """
        What happened to these since the last look, and which of them could not be looked at, and why.

        The first look at a path only learns how it stands.
        """
        changes, hidden = [], {}
        for path in self._seen.keys() - set(paths):
            del self._seen[path]
        for path in paths:
            try:
                after = _stamp(path)
            except (OSError, ValueError) as error:
                hidden[path] = str(error)
                continue
            if path in self._seen and (change := compare(path, self._seen[path], after)):
                changes.append(change)
            self._seen[path] = after
        return changes, hidden


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _moment(nanoseconds: int) -> datetime:
    try:
        return from_us(nanoseconds // 1000)
    except OverflowError:  # anybody may set any time
        return EPOCH
