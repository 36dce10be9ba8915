"""
What the configuration may say and this version does not do yet: one table, each line to go as the feature lands.

In: the raw data. Out: warnings that say so plainly, so that nobody relies on what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentd.config.complaints import Locate
from agentd.config.document import KeyPath, dotted
from agentd.errors import Problem

ROOT: dict[KeyPath, str] = {
    ("api", "keys"): "API keys",
    ("api", "socket_access"): "access by user on the unix socket",
    ("api", "rate_limiting"): "rates of API keys",
    ("api", "cors"): "pages of other origins",
}

WATCH: dict[str, str] = {
    "public": "a public status page",
}

_CALM: tuple[Any, ...] = (None, False, "none")


def unserved_in_root(data: Mapping[str, Any], locate: Locate) -> Iterator[Problem]:
    """Warnings about keys outside of watches and webhooks."""
    for path, feature in ROOT.items():
        here: Any = data
        for step in path:
            here = here.get(step) if isinstance(here, dict) else None
        if here in _CALM or here in ([], {}):
            continue
        yield _warning(locate, path, f"this version does not act on {feature}")


def unserved_in_watch(raw: Mapping[str, Any], prefix: KeyPath, locate: Locate, is_probe: bool) -> Iterator[Problem]:
    """Warnings about keys of one watch."""
    for key, feature in WATCH.items():
        if key in raw and raw[key] not in _CALM and raw[key] not in ([], {}):
            yield _warning(locate, (*prefix, key), f"this version does not act on {feature}")
    if is_probe and raw.get("missed") in ("once", "all"):
        yield _warning(locate, (*prefix, "missed"), "a look at the past is no use: probes always skip missed checks")


def thinned(warnings: list[Problem], most: int = 3) -> list[Problem]:
    """At most so many warnings of the same words, the last of them counting the rest."""
    by_words: dict[str, list[Problem]] = {}
    for warning in warnings:
        by_words.setdefault(warning.what, []).append(warning)
    kept: list[Problem] = []
    for what, group in by_words.items():
        kept += group[:most]
        if len(group) > most:
            last = kept.pop()
            kept.append(
                Problem(
                    last.file,
                    last.line,
                    last.column,
                    last.key,
                    f"{what} (and {len(group) - most} more)",
                    last.cure,
                    True,
                )
            )
    return kept


def _warning(locate: Locate, path: KeyPath, what: str) -> Problem:
    place = locate(path, True)
    return Problem(place.file, place.line, place.column, dotted(path), what, warning=True)
