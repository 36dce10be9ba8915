"""
Which files the patterns name.

In: patterns as the configuration gives them.  Out: paths, the folders that decide about them, what could not be looked
at. `*`, `?` and `[…]` work within one name, `**` as a whole name stands for any number of folders (links to folders
are not gone into). As in a shell, a name that begins with a dot must be asked for with a dot.
Promise: what is not there is no trouble; a folder that cannot be read is, and the others are looked at all the same.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_MAGIC = re.compile(r"[*?\[]")
_DEEPEST = 32
_SETTLED_NS = 50_000_000


@dataclass(slots=True)
class Found:
    """
    What one look gave.

    paths: absolute, in the order of the patterns, each once; not looked at whether they are files.
    folders: each folder that was listed, or that holds a named file, and its mtime (ns) before that; -1: look again.
    waiting: the deepest existing folders above folders that are not there yet, and their mtime (ns).
    unseen: why, by path, for every folder that could not be looked at, or file that may be there.
    """

    paths: dict[str, None] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    @property
    def trouble(self) -> list[str]:
        """The same for people: `path: reason`."""
        return [f"{os.fsencode(path).decode('utf-8', 'backslashreplace')}: {why}" for path, why in self.unseen.items()]


class Globs:
    """The patterns of one source."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = tuple(dict.fromkeys(os.path.abspath(pattern) for pattern in patterns))
        self._steps = [[_Step(part) for part in pattern.split("/")[1:]] for pattern in self.patterns]

    def naming(self, path: str) -> list[str]:
        """The patterns that name this absolute path, whether or not it exists."""
        names = path.split("/")[1:]
        return [
            pattern for pattern, steps in zip(self.patterns, self._steps, strict=True) if _names(steps, names, 0, 0)
        ]

    def find(self) -> Found:
        """Look once. Blocking; as long as it takes to list the folders."""
        found = Found()
        for steps in self._steps:
            _walk("/", steps, 0, found, 0)
        return found


class _Step:
    """One name of a pattern."""

    __slots__ = ("any_depth", "literal", "match", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.any_depth = text == "**"
        self.literal = not _MAGIC.search(text)
        self.match = re.compile(fnmatch.translate(text)).match

    def names(self, name: str) -> bool:
        if self.literal:
            return name == self.text
        return (not name.startswith(".") or self.text.startswith(".")) and self.match(name) is not None


def _names(steps: list[_Step], names: list[str], i: int, j: int) -> bool:
    while i < len(steps):
        if steps[i].any_depth:
            if i == len(steps) - 1:
                return j < len(names) and not any(name.startswith(".") for name in names[j:])
            return _names(steps, names, i + 1, j) or (
                j < len(names) and not names[j].startswith(".") and _names(steps, names, i, j + 1)
            )
        if j >= len(names) or not steps[i].names(names[j]):
            return False
        i, j = i + 1, j + 1
    return j == len(names)


def _walk(folder: str, steps: list[_Step], i: int, found: Found, depth: int) -> None:
    while i < len(steps) - 1 and steps[i].literal:
        folder = os.path.join(folder, steps[i].text)
        i += 1
    mtime_ns = _look(folder, found)
    if mtime_ns is None:
        return
    found.folders.setdefault(folder, mtime_ns)
    step = steps[i]
    last = i == len(steps) - 1
    if step.literal:
        path = os.path.join(folder, step.text)
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            found.unseen[path] = _reason(error)
            return
        found.paths.setdefault(path)
        return
    if step.any_depth and not last:
        _walk(folder, steps, i + 1, found, depth)
    for name, is_folder, is_link in _entries(folder, found):
        path = os.path.join(folder, name)
        if step.any_depth:
            if name.startswith("."):
                continue
            if is_folder and not is_link and depth < _DEEPEST:
                _walk(path, steps, i, found, depth + 1)
            elif last and not is_folder:
                found.paths.setdefault(path)
        elif step.names(name):
            if not last and is_folder:
                _walk(path, steps, i + 1, found, depth)
            elif last and not is_folder:
                found.paths.setdefault(path)


def _look(folder: str, found: Found) -> int | None:
    """The folder's mtime; when it is not there, the one above that is gets noted."""
    try:
        return settled_mtime_ns(folder)
    except (FileNotFoundError, NotADirectoryError):
        above = folder
        while above != "/":
            above = os.path.dirname(above)
            try:
                found.waiting.setdefault(above, settled_mtime_ns(above))
            except OSError:
                continue
            break
    except OSError as error:
        found.unseen[folder] = _reason(error)
    return None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def settled_mtime_ns(folder: str) -> int:
    """
    The folder's mtime; -1 when it is so recent that a further change may leave it as it is. Raises OSError.

    The kernel stamps with its last tick, up to 10 ms ago.
    """
    mtime_ns = os.stat(folder).st_mtime_ns
    return mtime_ns if abs(time.time_ns() - mtime_ns) > _SETTLED_NS else -1


def _entries(folder: str, found: Found) -> Iterator[tuple[str, bool, bool]]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        found.unseen[folder] = _reason(error)
        return
    yield from listed


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
