"""
What the calls in a model's guide look like: with paths, hosts and commands that the run may use.

In: the tools' specs, permissions. Out: the same specs, their schemas with `examples`.
Promise: pure. Small models copy what they are shown: a copy is then denied by nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentd.agent.job import Permissions
from agentd.llm.port import ToolSpec

_GLOB = re.compile(r"[*?\[]")
_LOCAL = re.compile(r"localhost|[0-9.]+|\[?[0-9a-f]*:[0-9a-f:]*\]?", re.IGNORECASE)


def with_examples(specs: Sequence[ToolSpec], allowed: Permissions) -> tuple[ToolSpec, ...]:
    """Tools that are none of ours, and what nothing is allowed for, stay as they are."""
    known = _examples(allowed)
    return tuple(_with(spec, known.get(spec.name, {})) for spec in specs)


def _with(spec: ToolSpec, examples: Mapping[str, Any]) -> ToolSpec:
    properties = spec.input_schema.get("properties")
    if not examples or not isinstance(properties, Mapping):
        return spec
    shown = {
        name: {**each, "examples": [examples[name]]} if examples.get(name) else each
        for name, each in properties.items()
    }
    return replace(spec, input_schema={**spec.input_schema, "properties": shown})


def _examples(allowed: Permissions) -> dict[str, dict[str, Any]]:
    """By tool and key; what is empty is no example."""
    folder = next(iter(allowed.read), "")
    host = next((host for host in allowed.http if "*" not in host), "")
    url = f"{'http' if _LOCAL.fullmatch(host) else 'https'}://{host}/" if host else ""
    whole = (words for words in allowed.commands if "*" not in words)
    words = next(whole, next(iter(allowed.commands), ()))
    return {
        "read_file": {"path": _log(allowed) or _within(folder, "app.log")},
        "write_file": {"path": _within(folder, "notes.txt")},
        "list_files": {"path": folder},
        "search_log": {"watch": next(iter(allowed.log_files), "")},
        "http_get": {"url": url},
        "tls_info": {"host": host},
        "dns_lookup": {"name": "" if _LOCAL.fullmatch(host) else host},
        "run_command": {"argv": ["NAME" if word == "*" else word for word in words]},
    }


def _log(allowed: Permissions) -> str:
    """A log that there is, and that may be read."""
    logs = (path for paths in allowed.log_files.values() for path in paths if not _GLOB.search(path))
    folders = [folder.rstrip("/") for folder in allowed.read]
    return next((path for path in logs if any(path.startswith(f"{folder}/") for folder in folders)), "")


def _within(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder else ""
