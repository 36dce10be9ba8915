"""
What a configuration is read from, before anything of it is typed: files, overlay, `.env`, environment.

In: the path of the main file, and the environment. Out: `Sources`: data in present names with every override in it, and
where each value stands.
Promise: never raises for what is on disk; what is wrong is a problem with its place.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentd.config import environment, old_names
from agentd.config.checks import Entry, problem
from agentd.config.complaints import Locate, did_you_mean, known_keys
from agentd.config.document import Document, KeyPath, Place, dotted, read_document
from agentd.config.environment import Overrides
from agentd.config.key_files import check_key_file, find_key_files, with_keys
from agentd.config.models import Config
from agentd.config.origins import OVERLAY, origins_of
from agentd.config.overlay import Overlay, lay_over, read_overlay
from agentd.config.service import DaemonSettings
from agentd.errors import Problem

INCLUDED_KEYS = ("watches", "webhooks")
NOT_LAID = Overlay(Path())
"""For what is looked at by itself."""


@dataclass(slots=True)
class Sources:
    """
    root: the main file's mapping in present names, overlay and environment in it. files: all that were read.
    overrides: what the environment set. notices: old names, and what they are called now.
    """

    path: Path
    environment: dict[str, str]
    overlay: Overlay | None = None
    alone: bool = False
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    root: Entry = field(default_factory=lambda: Entry("", {}, (), lambda path, key: Place("")))
    overrides: Overrides = field(default_factory=lambda: Overrides({}))

    def read(self) -> bool:
        """Read the main file and what it includes. False when there is no mapping in the main file."""
        return self.take(self._read(self.path))

    def take(self, document: Document) -> bool:
        """The same for a main file that is read already. alone: nothing is read that it names, nor the environment."""
        if not isinstance(document.data, dict):
            if not self.problems:
                what = "is empty" if document.data is None else "is no mapping of keys"
                cure = "`agentd init DIR` writes a first one"
                self.problems.append(Problem(document.file, *document.start, "file", what, cure))
            return False
        self._take_root(document)
        if not self.alone:
            self.root = with_keys(self.root, self._key_files())
        self.documents = [document, *([] if self.alone else self._included(document))]
        return True

    def _read(self, path: Path) -> Document:
        document, problems = read_document(path)
        self.files.append(path)
        self.problems += problems
        return document

    def _take_root(self, document: Document) -> None:
        """The main file's mapping with the overlay and the overrides of the environment in it."""
        old = old_names.translate(document.data)
        for path, what, cure in old.problems:
            self.problems.append(Problem(*_at(document.place(path, key=True)), dotted(path), what, cure))
        for path, told in old.notes:
            place = document.place(path, key=True)
            self.notices.append(Problem(*_at(place), dotted(path), f"an old name; its name is {told} now", "", True))
        data: dict[str, Any] = old.data
        folder = self.path.parent
        dotenv, problems = ({}, []) if self.alone else environment.read_dotenv(folder)
        self.problems += problems
        dotenv_file = str(folder / ".env")
        variables: Mapping[str, str] = {} if self.alone else self.environment
        whole = {**dotenv, **self.environment}

        def override(data: dict[str, Any]) -> Overrides:
            return environment.apply_overrides(data, variables, dotenv, dotenv_file, known_keys(Config))

        if self.overlay is None:
            self.overlay = self._find_overlay(override(data).data, whole)
        overlay = self.overlay
        laid = lay_over(data, overlay.data) if overlay.data else data
        overrides = self.overrides = override(laid)
        self.problems += overrides.problems
        for where, name, told in overrides.notes:
            self.notices.append(Problem(where, 0, 0, name, f"an old name; its name is {told} now", "", True))
        self.environment = whole

        def from_overlay(path: KeyPath) -> bool:
            return bool(overlay.data) and overlay.sets(path)

        def locate(path: KeyPath, key: bool) -> Place:
            if origin := overrides.origin(path):
                return Place(f"{origin[1]} ({origin[0]})")
            if from_overlay(path) or (overlay.data and not _has(data, path) and _has(overlay.data, path)):
                return Place(str(overlay.path))
            return document.place(old.written(path), key=key)

        self.root = Entry("", overrides.data, (), locate)

    def _find_overlay(self, data: Mapping[str, Any], environment: Mapping[str, str]) -> Overlay:
        if self.alone:
            return NOT_LAID
        section = data.get("daemon")
        named = section.get("state_dir") if isinstance(section, dict) else None
        if named is not None and not isinstance(named, str):
            return NOT_LAID  # the model says so
        try:
            return read_overlay(
                DaemonSettings(state_dir=None if named is None else Path(named)).find_state_dir(environment)
            )
        except (ValidationError, RuntimeError):  # a home that is not known
            return NOT_LAID

    def origins(self) -> dict[str, str]:
        """By dotted key, where the value comes from; of a watch as a whole."""
        overlay = self.overlay or NOT_LAID

        def origin(path: KeyPath) -> str:
            if found := self.overrides.origin(path):
                return f"{environment.ORIGIN if found[1] == environment.ORIGIN else '.env'} {found[0]}"
            if overlay.data and overlay.sets(path):
                return OVERLAY
            place = self.root.locate(path, False)
            return f"{place.file}:{place.line}" if place.line else place.file

        return origins_of(self.root.raw, origin, self.documents)

    # Further files

    def _key_files(self) -> list[Document]:
        paths, problems = find_key_files(self.path)
        self.problems += problems
        documents = [self._read(path) for path in paths]
        for document in documents:
            self.problems += check_key_file(document)
        return documents

    def _included(self, document: Document) -> list[Document]:
        patterns = self.root.raw.get("include")
        found: dict[Path, Document] = {}
        for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
            if not isinstance(pattern, str):
                continue
            for path in self._matching(pattern, index):
                if path in found or path in self.files or _same_file(path, self.path):
                    continue  # a wide glob meets the files of keys as well
                found[path] = self._read(path)
                self._check_included(found[path])
        return [each for each in found.values() if isinstance(each.data, dict)]

    def _matching(self, pattern: str, index: int) -> list[Path]:
        folder, root = self.path.parent, self.root
        where = ("include", index)
        try:
            if glob.has_magic(pattern):
                names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
                if not names:
                    self.problems += _passed_over(pattern, folder, root, where)
                return [folder / name for name in names]
            if (folder / pattern).exists():
                return [folder / pattern]
        except (OSError, ValueError) as error:
            self.problems.append(root.problem(where, f"cannot be looked for: {error}", "write a path or a glob"))
            return []
        cure = "create it, or write a glob: *.yaml"
        self.problems.append(root.problem(where, f"there is no file {folder / pattern}", cure))
        return []

    def _check_included(self, document: Document) -> None:
        if document.data is None:
            return
        if not isinstance(document.data, dict):
            cure = "an included file holds `watches:` and `webhooks:`"
            self.problems.append(Problem(*_at(document.place(())), "file", "is no mapping of keys", cure))
            return
        for key in document.data:
            if key in INCLUDED_KEYS:
                continue
            known = key in known_keys(Config) or key in old_names.SECTIONS
            what = "stands in an included file" if known else "is no key known here"
            cure = f"move it to {self.path}" if known else did_you_mean(key, INCLUDED_KEYS)
            self.problems.append(Problem(*_at(document.place((key,), key=True)), dotted((key,)), what, cure))

    # Sorting out what was read

    def webhooks(self) -> dict[str, Entry]:
        """Those of all files by name; a second one of a name is a problem."""
        entries: dict[str, Entry] = {}
        for number, document in enumerate(self.documents):
            locate = self.root.locate if number == 0 else _locate_in(document)
            data = self.root.raw if number == 0 else document.data
            webhooks = data.get("webhooks")
            if webhooks is not None and not isinstance(webhooks, dict):
                cure = "write NAME: {url: …} for each"
                self.problems.append(problem(locate, ("webhooks",), "is not a mapping", cure))
                continue
            for name, raw in (webhooks or {}).items():
                entry = Entry(name, raw, ("webhooks", name), locate)
                if name in entries:
                    self.problems.append(_second(entry, entries[name], "webhook"))
                    continue
                entries[name] = entry
        return entries

    def watches(self) -> list[Entry]:
        """Those of all files; a second one of a name is a problem."""
        entries: list[Entry] = []
        by_name: dict[str, Entry] = {}
        for document in self.documents:
            locate = _locate_in(document)
            watches = document.data.get("watches")
            if watches is not None and not isinstance(watches, list):
                cure = "write one watch an item, each begun by `- name:`"
                self.problems.append(problem(locate, ("watches",), "is not a list", cure))
                continue
            for index, raw in enumerate(watches or ()):
                path = ("watches", index)
                if not isinstance(raw, dict):
                    self.problems.append(problem(locate, path, "is not a mapping", "write `name:` and a source"))
                    continue
                name = raw.get("name")
                entry = Entry(name if isinstance(name, str) else "", raw, path, locate)
                if entry.name in by_name:
                    self.problems.append(_second(entry, by_name[entry.name], "watch", "name"))
                elif entry.name:
                    by_name[entry.name] = entry
                entries.append(entry)
        return entries


def _at(place: Place) -> tuple[str, int, int]:
    return place.file, place.line, place.column


def _has(data: Any, path: KeyPath) -> bool:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _second(entry: Entry, first: Entry, sort: str, *path: str) -> Problem:
    place = first.locate((*first.path, *path), not path)
    return entry.problem(
        path,
        f"a second {sort} is called {entry.name}",
        f"rename one; the first stands at {place.file}:{place.line}:{place.column}",
        key=not path,
    )


def _passed_over(pattern: str, folder: Path, root: Entry, where: KeyPath) -> Iterator[Problem]:
    """A warning where a glob meets nothing and yet there are files beside what it looks for: `*.yaml`, and `a.yml`."""
    inside, _, last = pattern.rpartition("/")
    if glob.has_magic(inside) or not last.endswith((".yaml", ".yml")):
        return
    others = sorted(glob.glob("*.y*ml", root_dir=folder / inside)) if inside else []
    if others:
        what = f"matches no file, though {folder / inside / others[0]} is there"
        yield root.problem(where, what, "rename the file, or widen the glob", warning=True)


def _locate_in(document: Document) -> Locate:
    return lambda path, key: document.place(path, key=key)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
