"""
Settings that come by environment: `.env` beside the file, and `AGENTD_…` variables that override keys.

In: the environment, the main file's data. Out: the data with the overrides in it, and where each came from.
AGENTD_DAEMON__LOG_LEVEL=debug sets `daemon.log_level`; a value is read as YAML (`5`, `true`, `[a, b]`), a secret as
it stands. The real environment wins over `.env`, and a present name over an old one (AGENTD_MODEL__MODEL_NAME).
A name that means no key is an error: a typing slip must not pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentd.config.complaints import SECRET_KEYS, did_you_mean
from agentd.config.document import KeyPath, dotted, parse_value
from agentd.config.old_names import BIND_ADDRESS, SECTIONS, TASK_TIMEOUT, is_shorter, translate
from agentd.config.overlay import leaves
from agentd.errors import Problem

if TYPE_CHECKING:
    from dotenv.parser import Binding

PREFIX = "AGENTD_"
RESERVED = frozenset({"AGENTD_CONFIG"})
ORIGIN = "environment"


@dataclass(slots=True)
class Overrides:
    """
    data: the root mapping with overrides applied; what the file gave is not changed.
    variables: by path of each overridden key, the variable's name and its origin (`environment` or the .env file).
    notes: variables of old names, as (origin, name, the present key).
    """

    data: dict[str, Any]
    variables: dict[KeyPath, tuple[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def origin(self, path: KeyPath) -> tuple[str, str] | None:
        """The variable that set the value at `path` or around it."""
        if not self.variables:
            return None
        return next((found for end in range(len(path), 0, -1) if (found := self.variables.get(path[:end]))), None)


def read_dotenv(folder: Path) -> tuple[dict[str, str], list[Problem]]:
    """The variables of `.env` in this folder; none when there is no such file."""
    path = folder / ".env"
    try:
        if not path.is_file():
            return {}, []
        # The parser itself: what stands above it tells of lines it cannot read in a log of its own.
        from dotenv.parser import parse_stream

        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except OSError as error:
        return {}, [
            Problem(str(path), 0, 0, "file", f"cannot be read: {error.strerror}", "allow it, or remove the file")
        ]
    except UnicodeDecodeError:
        return {}, [Problem(str(path), 0, 0, "file", "is not UTF-8 text", "save it as UTF-8")]
    values = {each.key: each.value for each in bindings if each.key is not None and each.value is not None}
    return values, [_unread(path, each) for each in bindings if each.error]


def _unread(path: Path, binding: Binding) -> Problem:
    text = binding.original.string  # begins with the empty lines before it
    line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
    return Problem(str(path), line, 1, "file", "this line cannot be read", "write NAME=value", warning=True)


def apply_overrides(
    data: dict[str, Any],
    environment: Mapping[str, str],
    dotenv: Mapping[str, str],
    dotenv_file: str,
    roots: Collection[str],
) -> Overrides:
    """
    Set the keys that AGENTD_… variables name.

    environment: the real one; dotenv: what `.env` says, which counts where the real one is silent.
    roots: the keys that a file may have at its top.
    """
    overrides = Overrides(data)

    def rank(name: str) -> tuple[bool, bool, str]:
        return name in environment, not _is_old(name), name

    for name in sorted({*environment, *dotenv}, key=rank):
        if name != BIND_ADDRESS and (not name.startswith(PREFIX) or name in RESERVED):
            continue
        origin = ORIGIN if name in environment else dotenv_file
        value = environment[name] if name in environment else dotenv[name]
        if name == BIND_ADDRESS:
            if value.strip():
                _override(overrides, name, ["api", "bind_address"], value, origin)
            continue
        parts = name.removeprefix(PREFIX).split("__")
        root = parts[0].lower()
        if root not in roots and (root not in SECTIONS or len(parts) == 1):
            if len(parts) > 1:
                _refuse(overrides, origin, name, f"there is no key `{root}`", did_you_mean(root, roots))
            continue
        if root == "watches":
            _refuse(overrides, origin, name, "watches stand in files only", "write the watch into the configuration")
            continue
        _override(overrides, name, parts, value, origin)
    return overrides


def _is_old(name: str) -> bool:
    return name == BIND_ADDRESS or name.removeprefix(PREFIX).split("__")[0].lower() in SECTIONS


def _override(overrides: Overrides, name: str, parts: list[str], text: str, origin: str) -> None:
    try:
        value: Any = text if parts[-1].lower() in SECRET_KEYS and not text.startswith("[") else parse_value(text)
    except ValueError as error:
        what, _, cure = str(error).partition("; ")
        _refuse(overrides, origin, name, f"its value {what}" if what.startswith(("is", "holds")) else what, cure)
        return
    nested = value
    for part in reversed(parts):
        nested = {part.lower(): nested}
    agent = overrides.data.get("agent")
    translated = translate(nested, tools=agent.get("tools") if isinstance(agent, dict) else None)
    for path, what, cure in translated.problems:
        _refuse(overrides, origin, name, f"`{dotted(path)}` {what}", cure)
    if translated.problems:
        return
    if not translated.notes:
        _set(overrides, name, parts, value, origin)
        return
    overrides.notes += [(origin, name, told) for _, told in translated.notes[-1:]]
    for path, each in leaves(translated.data):
        if path == TASK_TIMEOUT and _holds_already(overrides, path, each, origin):
            continue
        _set(overrides, name, [str(step) for step in path], each, origin)


def _holds_already(overrides: Overrides, path: KeyPath, value: Any, origin: str) -> bool:
    """Old names say it for a task and for the service; the shorter holds, as it does in files."""
    if overrides.variables.get(path, ("", ""))[1] != origin:
        return False
    here: Any = overrides.data
    for step in path:
        here = here[step]
    return is_shorter(here, value)


def _set(overrides: Overrides, name: str, parts: list[str], value: Any, origin: str) -> None:
    path: list[str | int] = []
    above: list[Any] = []
    here: Any = overrides.data
    for depth, part in enumerate(parts):
        step: str | int | None = None
        if isinstance(here, dict) and part:
            step = next((key for key in here if _same(key, part)), part.lower())
        elif isinstance(here, list) and part.isdecimal() and len(part) < 10 and int(part) < len(here):
            step = int(part)
        if step is None:
            at = dotted(tuple(path))
            _refuse(
                overrides, origin, name, f"`{at}` has no `{part.lower()}` to set", "see `agentd schema` for the keys"
            )
            return
        above.append(here)
        path.append(step)
        if depth < len(parts) - 1:
            inner = here[int(step)] if isinstance(here, list) else here.get(step)
            here = {} if inner is None else inner
    for container, step in zip(reversed(above), reversed(path), strict=True):
        copy: Any = container.copy()
        copy[step] = value
        value = copy
    overrides.data = value
    overrides.variables[tuple(path)] = (name, origin)


def _same(key: str, part: str) -> bool:
    return re.sub("[-.]", "_", key).lower() == part.lower()


def _refuse(overrides: Overrides, origin: str, name: str, what: str, cure: str) -> None:
    overrides.problems.append(Problem(origin, 0, 0, name, what, cure))
