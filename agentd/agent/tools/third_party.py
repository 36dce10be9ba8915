"""
Tools of third parties: entry points of the group `agentd.tools`, loaded only when the configuration names them.

An entry point names a class of tools, a function that makes one, or a tool. Promise: what is not named is not even
imported, and what does not fit the port is an error at load that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, cast

from agentd.agent.port import Tool
from agentd.errors import ConfigError
from agentd.llm.port import ToolSpec

GROUP = "agentd.tools"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def plugins(names: Iterable[str], *, taken: Iterable[str] = ()) -> list[Tool]:
    """
    The tools of the named entry points, in that order.

    taken: names of tools that there are already. Raises ConfigError, `what; how to mend`.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    seen = set(taken)
    found = []
    for name in dict.fromkeys(names):
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"there is no plugin tool {name!r}; installed: {there}. Install its package, or leave it out"
            )
        try:
            tool = _made(known[name].load())
        except Exception as error:
            raise ConfigError(
                f"plugin tool {name!r} cannot be loaded: {type(error).__name__}: {error}; "
                "mend its package, or leave it out"
            ) from error
        wrong = _wrong_with(tool, name)
        if wrong is None and tool.name in seen:
            wrong = f"its name {tool.name} is taken by another tool"
        if wrong is not None:
            raise ConfigError(f"plugin tool {name!r} cannot be used: {wrong}; mend its package, or leave it out")
        seen.add(tool.name)
        found.append(cast(Tool, tool))
    return found


def _made(thing: Any) -> Any:
    return thing() if isinstance(thing, type) or (callable(thing) and not hasattr(thing, "spec")) else thing


def _wrong_with(tool: Any, entry_point: str) -> str | None:
    name, spec = getattr(tool, "name", None), getattr(tool, "spec", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "its `name` must be letters, digits and _"
    if name != entry_point:
        # What a run may use is listed by the one name, and called by the other.
        return f"its `name` is {name}; it must be that of its entry point"
    if not isinstance(spec, ToolSpec) or spec.name != name:
        return "its `spec` must be a ToolSpec of the same name"
    if spec.input_schema.get("type") != "object":
        return "its `spec.input_schema` must be of an object"
    if getattr(tool, "kind", None) not in ("io", "logic"):
        return "its `kind` must be io or logic"
    if not isinstance(getattr(tool, "repeatable", None), bool):
        return "its `repeatable` must be true or false"
    return None if callable(getattr(tool, "call", None)) else "it has no `call`"
