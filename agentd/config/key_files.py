"""
API keys in files of their own: `keys.d/*.yaml` beside the main file, as `agentd key new` writes them.

In: the documents of these files, the main file's mapping. Out: the mapping with the keys of all, each of which still
knows its place. Promise: such a file holds keys and nothing else, so that whoever may add one changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentd.config.checks import Entry
from agentd.config.complaints import Locate
from agentd.config.document import Document, KeyPath, Place, dotted
from agentd.errors import Problem

FOLDER = "keys.d"
_FORM = "such a file holds `api:` with `keys:`, a list, and nothing else"


def find_key_files(main: Path) -> tuple[list[Path], list[Problem]]:
    """main: the main file. The files beside it by name, and what hinders from looking for them."""
    folder = main.parent / FOLDER
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".yaml" and path.name[0] != "."), []
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        cure = "run this as the daemon's user, or as root"
        return [], [Problem(str(folder), 0, 0, "file", f"cannot be looked into: {error.strerror}", cure)]


def check_key_file(document: Document) -> Iterator[Problem]:
    """What stands in it and is no key."""
    data = document.data
    if data is None:
        return
    if not isinstance(data, dict):
        yield _problem(document, (), "is no mapping of keys")
        return
    yield from _strangers(document, (), data, "api")
    api = data.get("api", {})
    if not isinstance(api, dict):
        yield _problem(document, ("api",), "is no mapping of keys")
        return
    yield from _strangers(document, ("api",), api, "keys")
    if not isinstance(api.get("keys", []), list):
        yield _problem(document, ("api", "keys"), "is no list")


def _strangers(document: Document, path: KeyPath, data: dict[str, Any], wanted: str) -> Iterator[Problem]:
    for key in data:
        if key != wanted:
            yield _problem(document, (*path, key), "does not belong into a file of keys", key=True)


def with_keys(root: Entry, documents: Sequence[Document]) -> Entry:
    """root: of the main file. Its keys come first; where its `api` is none, it stays as it is."""
    found = [(document, index) for document in documents for index in range(len(_keys_in(document.data)))]
    api = root.raw.get("api") or {}
    if not found or not isinstance(api, dict) or not isinstance(api.get("keys") or [], list):
        return root
    own: list[Any] = api.get("keys") or []
    keys = [*own, *(each for document in documents for each in _keys_in(document.data))]

    def locate(path: KeyPath, key: bool) -> Place:
        if path[:2] == ("api", "keys") and len(path) > 2 and isinstance(path[2], int) and path[2] >= len(own):
            document, index = found[path[2] - len(own)]
            return document.place(("api", "keys", index, *path[3:]), key=key)
        return root.locate(path, key)

    wrapped: Locate = locate
    return Entry(root.name, {**root.raw, "api": {**api, "keys": keys}}, root.path, wrapped, root.whole)


def _keys_in(data: Any) -> list[Any]:
    api = data.get("api") if isinstance(data, dict) else None
    keys = api.get("keys") if isinstance(api, dict) else None
    return keys if isinstance(keys, list) else []


def _problem(document: Document, path: KeyPath, what: str, *, key: bool = False) -> Problem:
    place = document.place(path, key=key)
    return Problem(place.file, place.line, place.column, dotted(path) or "file", what, _FORM)
