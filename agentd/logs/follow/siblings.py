"""
What a log file is called once it has been rotated away, and which such files lie beside it.

In: names and folders.  Out: the rotated siblings of a file, the newest first.
Known forms, each also with `.gz`: `app.log.1`, `app.log-20260101`, `app.log-2026010113`, `app.log-1767225600`,
`app.log-20260101-1767225600`, `app.log.2026-01-01[_10-00]`, `app.log.old`, and with the extension last
(`app.1.log`, `app-20260101.log`, `app.2026-01-01.0.log`): logrotate with and without `dateext`, `dateformat` and
`extension`, the rotating handlers of Python, logback and the like. Siblings in another folder (`olddir`) are not found.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Literal

from agentd.logs.follow.globs import settled_mtime_ns

Style = Literal["number", "stamp", "old", "packed", "inner number", "inner stamp"]

_STAMP = (
    r"\d{4}-\d{2}-\d{2}(?:[-_T.]\d{2}[-:_]?\d{2}(?:[-:_]?\d{2})?|[-_.]\d{1,10})?"
    r"|\d{8}(?:[-_T.]?\d{1,10})?|\d{9,10}"
)
_SUFFIX = rf"(?:\.(?P<number>\d{{1,5}})|[-._](?P<stamp>{_STAMP})|[.-](?P<old>old|bak|prev|save))"
_OUTER = re.compile(rf"(?P<base>.+?){_SUFFIX}")
_INNER = re.compile(rf"(?P<stem>.+?){_SUFFIX}(?P<extension>\.[A-Za-z]\w{{0,9}})")
_PACKED = re.compile(r"\.(?:gz|z|bz2|xz|zst|lz4)$")


@dataclass(frozen=True, slots=True)
class Form:
    """
    One way to read a name as that of a rotated file.

    base: what the live file would be called. age: sorts, within one style, the newest first.
    """

    base: str
    style: Style
    age: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sibling:
    path: str
    style: Style
    age: tuple[int, ...]
    stat: os.stat_result

    @property
    def identity(self) -> tuple[int, int]:
        return self.stat.st_dev, self.stat.st_ino


def forms(name: str) -> list[Form]:
    """Every way to read `name` as rotated; the ones that leave the live file's whole name in front come first."""
    found: list[Form] = []
    plain = _PACKED.sub("", name)
    if plain != name:
        found.append(Form(plain, "packed", ()))
    if match := _OUTER.fullmatch(plain):
        if match["number"]:
            found.append(Form(match["base"], "number", (int(match["number"]),)))
        elif match["stamp"]:
            found.append(Form(match["base"], "stamp", _age(match["stamp"])))
        else:
            found.append(Form(match["base"], "old", ()))
    if match := _INNER.fullmatch(plain):
        base = match["stem"] + match["extension"]
        if match["number"]:
            found.append(Form(base, "inner number", (int(match["number"]),)))
        elif match["stamp"]:
            found.append(Form(base, "inner stamp", _age(match["stamp"])))
    return found


def outer_bases(path: str) -> list[str]:
    """The paths of which this one, by a name that says so plainly, is a rotated sibling; nearest first."""
    folder, name = os.path.split(path)
    return [os.path.join(folder, form.base) for form in forms(name) if not form.style.startswith("inner")]


def is_sibling(path: str, of: str) -> bool:
    """Whether `path` may be what became of the file `of`."""
    folder, name = os.path.split(path)
    base_folder, base = os.path.split(of)
    return folder == base_folder and any(form.base == base for form in forms(name))


class Folders:
    """The rotated files of every folder, listed again only when a folder has changed."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[int, dict[str, list[tuple[str, Form]]]]] = {}

    def siblings(self, path: str) -> tuple[list[Sibling], bool]:
        """
        The rotated siblings of `path`, regular files only, the newest first within a style.

        Where the plain file and its packed twin both exist (it is being packed), only the plain one.
        Also whether the folder stood still meanwhile; if not, one may be missing. Raises OSError.
        """
        folder, name = os.path.split(path)
        for _ in range(3):
            before_ns = os.stat(folder).st_mtime_ns
            families = self._list(folder)
            found = _look(folder, families.get(name, []))
            if os.stat(folder).st_mtime_ns == before_ns:
                return found, True
        return found, False

    def _list(self, folder: str) -> dict[str, list[tuple[str, Form]]]:
        mtime_ns = settled_mtime_ns(folder)
        known = self._listed.get(folder)
        if known is not None and known[0] == mtime_ns >= 0:
            return known[1]
        families: dict[str, list[tuple[str, Form]]] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                for form in forms(entry.name):
                    families.setdefault(form.base, []).append((entry.name, form))
        for family in families.values():
            family.sort(key=lambda member: (member[1].style, member[1].age, member[0]))
        self._listed[folder] = mtime_ns, families
        return families

    def forget(self) -> None:
        """Let the listings go: they are needed only while files are being rotated."""
        self._listed.clear()


def _look(folder: str, family: list[tuple[str, Form]]) -> list[Sibling]:
    # The newest first: a rotation only moves files towards older names, so none slips past between two looks.
    found: dict[str, Sibling] = {}
    for name, form in family:
        path = os.path.join(folder, name)
        try:
            seen = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(seen.st_mode):
            found[path] = Sibling(path, form.style, form.age, seen)
    return [
        sibling
        for path, sibling in found.items()
        if _PACKED.sub("", path) == path or _PACKED.sub("", path) not in found
    ]


def _age(stamp: str) -> tuple[int, ...]:
    return tuple(-int(digits) for digits in re.findall(r"\d+", stamp))
