"""
The tools of a run, by name, and whether an input fits.

In: tools, built in or of MCP servers, these with schemas that strangers wrote. Out: tools, specs, complaints.
Promise: an input is checked with a validator that was compiled once, at registration. A schema never makes us fetch
anything, and no schema and no input makes a check take longer than some tens of milliseconds.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from agentd.agent.complaints import complaint
from agentd.agent.port import Tool
from agentd.agent.schemacost import cost_by_depth, depth_and_size
from agentd.errors import AgentdError
from agentd.llm.port import ToolSpec

_LONGEST_SCHEMA = 256 * 1024
_MAX_COST = 5_000_000
_SHOWN = 5


class BadTool(AgentdError):
    """A tool cannot be registered; the message says which and why."""


class _Entry:
    __slots__ = ("costs", "keys", "required", "tool", "validator")

    def __init__(self, tool: Tool) -> None:
        schema = _plain_schema(tool)
        self.tool = tool
        self.validator = _compiled(tool.name, schema)
        self.costs = cost_by_depth(schema)
        properties = schema.get("properties")
        self.keys = tuple(properties) if isinstance(properties, dict) else ()
        required = schema.get("required")
        self.required = tuple(required) if isinstance(required, list) else ()


class Registry:
    """Tools by name, in the order in which they were registered."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._entries: dict[str, _Entry] = {}
        for tool in tools:
            self.register(tool)

    def register(self, tool: Tool) -> None:
        """Raises BadTool: the name is taken, or its schema is none of draft 2020-12 that stands for itself."""
        if tool.name in self._entries:
            raise BadTool(f"tool {tool.name}: there is one of this name already; give it another")
        self._entries[tool.name] = _Entry(tool)

    def get(self, name: str) -> Tool | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.tool

    def list(self) -> list[Tool]:
        return [entry.tool for entry in self._entries.values()]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def specs(self, allowed: Collection[str]) -> tuple[ToolSpec, ...]:
        """What a model is told of the tools it may use: those of `allowed` that there are, in the registry's order."""
        return tuple(entry.tool.spec for name, entry in self._entries.items() if name in allowed)

    def unknown(self, name: str, allowed: Collection[str]) -> str:
        """What to tell a model that called a tool which is not there: what there is, and what it may have meant."""
        usable = [known for known in self._entries if known in allowed]
        near = difflib.get_close_matches(name[:100], usable, 1)
        meant = f" did you mean {near[0]}?" if near else ""
        return f"there is no tool {_short(name)!r};{meant} the tools are: {', '.join(usable[:40]) or 'none'}"

    def complaint(self, name: str, input: Any) -> str | None:
        """
        What is wrong with this input, for the model: which key, and what is wanted. None when it fits.

        name: of a registered tool.
        """
        entry = self._entries[name]
        if type(input) is not dict:
            if not isinstance(input, Mapping):
                return f"{name}: the input is an object with {_keys(entry)}, not {type(input).__name__}"
            input = dict(input)
        shape = depth_and_size(input)
        if shape is None:
            return f"{name}: the input is nested too deeply or too large; ask for less at once"
        depth, size = shape
        if entry.costs[min(depth, len(entry.costs) - 1)] * size > _MAX_COST:
            # A schema that blows up: whoever wrote it may check the rest.
            missing = [key for key in entry.required if key not in input]
            return f"{name}: missing: {', '.join(missing)}" if missing else None
        try:
            if entry.validator.is_valid(input):
                return None
            errors = []
            for error in entry.validator.iter_errors(input):
                errors.append(complaint(error, entry.keys))
                if len(errors) == _SHOWN:
                    break
        except (ValueError, RecursionError, OverflowError) as error:
            return f"{name}: the input is no plain JSON: {str(error)[:200]}"
        return f"{name}: " + "; ".join(dict.fromkeys(errors))


def _plain_schema(tool: Tool) -> dict[str, Any]:
    try:
        text = json.dumps(tool.spec.input_schema, default=dict)
        if len(text) > _LONGEST_SCHEMA:
            raise ValueError(f"it has {len(text)} characters, more than {_LONGEST_SCHEMA}")
        schema = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadTool(f"tool {tool.name}: its input_schema cannot be used: {error}") from error
    if not isinstance(schema, dict):
        raise BadTool(f"tool {tool.name}: its input_schema is no object")
    return schema


def _compiled(name: str, schema: dict[str, Any]) -> Any:
    # Not before there is a tool: the library takes 12 MiB.
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=False,
            # Look-around is common in what zod writes; the limit keeps it short.
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1024 * 1024),
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        what = str(getattr(error, "message", error)).split("\n")[0][:300]
        raise BadTool(f"tool {name}: its input_schema cannot be used: {what}") from error


def _keys(entry: _Entry) -> str:
    return ", ".join(str(key)[:40] for key in entry.keys[:20]) or "its keys"


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}…"
