"""
Which of the keys in force still stand, when the configuration as a whole cannot be taken over.

In: what is in force, the files as they are now. Out: the same with no key that was taken away, or made less.
Promise: a key leaves only where the file it came from can be read and no longer holds it; nothing is added, and none is
given more than it had. Never raises for what is on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from agentd.config import old_names
from agentd.config.document import Document, read_document
from agentd.config.key_files import FOLDER, find_key_files
from agentd.config.loader import Loaded
from agentd.config.service import ApiKey, Scope

_SCOPES: tuple[Scope, ...] = get_args(Scope)


def with_standing_keys(loaded: Loaded, main: Path) -> Loaded:
    """
    loaded: what is in force. main: the main file. Returns `loaded` itself when all its keys stand. Blocking.

    A file that is gone from `keys.d` holds no keys; a main file that is gone, or any that cannot be read or is no
    mapping, says nothing about them. A key in the environment stands.
    """
    if not loaded.config.api.keys:
        return loaded
    files, unsure = _files(main)
    offered = {(str(raw.get("name")), str(raw.get("hash"))): raw for _, raws in files for raw in raws}
    read = {file for file, _ in files}
    kept: list[tuple[int, ApiKey]] = []
    for index, key in enumerate(loaded.config.api.keys):
        file = loaded.origins.get(f"api.keys[{index}].name", "").rpartition(":")[0]
        now = offered.get((key.name, key.hash.text))
        if now is not None:
            kept.append((index, _at_most(key, now)))
        elif not _is_gone(file, read, unsure, main):
            kept.append((index, key))
    keys = tuple(key for _, key in kept)
    if keys == loaded.config.api.keys:
        return loaded
    api = loaded.config.api.model_copy(update={"keys": keys})
    origins = {key: origin for key, origin in loaded.origins.items() if not key.startswith("api.keys[")}
    for place, (index, _) in enumerate(kept):
        of_key = f"api.keys[{index}]."
        for name, origin in loaded.origins.items():
            if name.startswith(of_key):
                origins[f"api.keys[{place}].{name.removeprefix(of_key)}"] = origin
    return replace(loaded, config=loaded.config.model_copy(update={"api": api}), origins=origins)


def _files(main: Path) -> tuple[list[tuple[str, list[dict[str, Any]]]], set[str]]:
    """The files that say which keys they hold, with these; and those that are there and do not."""
    paths, hindered = find_key_files(main)
    files, unsure = [], {problem.file for problem in hindered}
    for path in (main, *paths):
        document, problems = read_document(path)
        keys = None if problems and document.data is None else _keys_in(document, is_main=path == main)
        if keys is None:
            unsure.add(str(path))
        else:
            files.append((str(path), list(keys)))
    return files, unsure


def _keys_in(document: Document, *, is_main: bool) -> Iterator[dict[str, Any]] | None:
    data = document.data
    if data is None and not is_main:
        return iter(())
    if not isinstance(data, dict):
        return None
    api = (old_names.translate(data).data if is_main else data).get("api") or {}
    keys = api.get("keys") or [] if isinstance(api, dict) else None
    return (each for each in keys if isinstance(each, dict)) if isinstance(keys, list) else None


def _is_gone(file: str, read: set[str], unsure: set[str], main: Path) -> bool:
    if file in read:
        return True
    folder = main.parent / FOLDER
    return Path(file).parent == folder and file not in unsure and str(folder) not in unsure


def _at_most(key: ApiKey, now: dict[str, Any]) -> ApiKey:
    """What may be done was taken back in part: that holds too."""
    scope = now.get("scope", "read")
    if scope in _SCOPES and _SCOPES.index(scope) < _SCOPES.index(key.scope):
        return key.model_copy(update={"scope": scope})
    return key
