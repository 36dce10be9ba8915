"""
Where each value of the configuration in effect comes from.

In: the merged data, the documents that it was read from. Out: for each dotted key `file:line`, `environment AGENTD_…`,
`.env AGENTD_…` or `overlay`; nothing for a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentd.config.document import Document, KeyPath, dotted

OVERLAY = "overlay"

Origin = Callable[[KeyPath], str]


def origins_of(root: Any, origin: Origin, documents: Sequence[Document]) -> dict[str, str]:
    """
    origin: of a path in the main file's merged data. documents: the main file first, then what it includes.

    A watch is one key (`watches[3]`, counted over all files), or ten thousand of them would take megabytes.
    """
    found = dict(_origins(root, origin))
    number = 0
    for index, document in enumerate(documents):
        if index and isinstance(webhooks := document.data.get("webhooks"), dict):
            for key, place in _origins({"webhooks": webhooks}, _placing(document)):
                found.setdefault(key, place)
        watches = document.data.get("watches")
        for each in range(len(watches) if isinstance(watches, list) else 0):
            found[f"watches[{number}]"] = _placing(document)(("watches", each))
            number += 1
    return found


def _placing(document: Document) -> Origin:
    def origin(path: KeyPath) -> str:
        place = document.place(path)
        return f"{place.file}:{place.line}" if place.line else place.file

    return origin


def _origins(data: Any, origin: Origin, path: KeyPath = ()) -> Iterator[tuple[str, str]]:
    pairs: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        below = (*path, key)
        if below == ("watches",):
            continue
        if isinstance(value, dict | list) and value:
            yield from _origins(value, origin, below)
            continue
        yield dotted(below), origin(below)
