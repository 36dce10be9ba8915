"""Parameters that several endpoints take."""

from __future__ import annotations

from agentd.api.endpoint import Param


def limit(default: int, most: int = 1000) -> Param:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Param("limit", schema, "At most so many")


def text(name: str, what: str, *, most: int = 200) -> Param:
    return Param(name, {"type": "string", "maxLength": most}, what)


def choice(name: str, choices: tuple[str, ...], what: str) -> Param:
    return Param(name, {"type": "string", "enum": list(choices)}, what)


EVERYTHING = Param("all", {"type": "boolean", "default": False}, "Also what is over")
_ON = "Where to go on: write the `next` of the page before"
BEFORE_ID = Param("before", {"type": "string", "maxLength": 200}, _ON)
BEFORE_NUMBER = Param("before", {"type": "string", "maxLength": 18, "pattern": "^[0-9]+$"}, _ON)
