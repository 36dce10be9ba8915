"""
Old and short names of keys, and the present ones: `model:` for `models.default`, `execution:`, `tools:`, `service:`.

In: a mapping as a file, the environment or a request has it. Out: the same in present names, where each key stood, and
notes of what it is called now. All of the house beyond this file knows the present names alone.
Promise: what is not known here is left as it is, for the models to refuse; nothing is said twice without a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentd.config.agents import AgentSettings
from agentd.config.complaints import did_you_mean, show
from agentd.config.document import KeyPath, dotted

SECTIONS = ("model", "execution", "tools", "service")
"""Old keys at the top of a file."""
BIND_ADDRESS = "BIND_ADDRESS"
"""An old variable of the environment, without our prefix: where the API listens."""
TASK_TIMEOUT: KeyPath = ("api", "task_timeout")
"""What several old keys mean; the shortest of them holds."""

_FILE_TOOLS = ("read_file", "list_files", "write_file")
_COMMAND_TOOLS = ("run_command",)
_DEFAULT_PORT = 8787
_LEVELS = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug"}
_TOUCHED = (*SECTIONS, "models", "agent", "api")

Read = Callable[[Any], Any]


@dataclass(slots=True)
class Translated:
    """
    data: in present names. moved: by the path that a value has now, the one that it had. notes: old path and the
    present key, dotted, or what else is to be said. problems: old path, what, cure.
    """

    data: Any
    moved: dict[KeyPath, KeyPath] = field(default_factory=dict)
    notes: list[tuple[KeyPath, str]] = field(default_factory=list)
    problems: list[tuple[KeyPath, str, str]] = field(default_factory=list)

    def written(self, path: KeyPath) -> KeyPath:
        """Where the value that is at `path` now was written."""
        for _ in range(len(_RENAMED)):
            end = next((end for end in range(len(path), 0, -1) if path[:end] in self.moved), None)
            if end is None:
                break
            path = (*self.moved[path[:end]], *path[end:])
        return path


def seconds(value: Any) -> Any:
    """A bare number of seconds, as old keys have it, in the words of today; what is none stays as it is."""
    bare = isinstance(value, int | float) and not isinstance(value, bool)
    if bare or (isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII)):
        return f"{value}s"
    return value


def listen_on(value: Any) -> Any:
    """One address as a list of them; without a port it gets ours."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    has_port = text.startswith("unix:") or re.search(r"(^[^:]*|\]):\d+$", text)
    if not has_port:
        text = f"[{text}]:{_DEFAULT_PORT}" if ":" in text and not text.startswith("[") else f"{text}:{_DEFAULT_PORT}"
    return [text]


def _same(value: Any) -> Any:
    return value


def _level(value: Any) -> Any:
    return _LEVELS.get(value.lower(), value.lower()) if isinstance(value, str) else value


def _cors(value: Any) -> Any:
    if isinstance(value, list):
        return {"allowed_origins": value}
    if isinstance(value, Mapping) and "origins" in value:
        return {**{key: each for key, each in value.items() if key != "origins"}, "allowed_origins": value["origins"]}
    return value


# In this order: what one line makes another may take up.
_RENAMED: tuple[tuple[KeyPath, KeyPath, Read], ...] = (
    (("model",), ("models", "default"), _same),
    (("models", "*", "model_name"), ("models", "*", "model"), _same),
    (("models", "*", "endpoint"), ("models", "*", "base_url"), _same),
    (("models", "*", "api_base"), ("models", "*", "base_url"), _same),
    (("models", "*", "timeout_seconds"), ("models", "*", "timeout"), seconds),
    (("models", "*", "max_retries"), ("models", "*", "retries"), _same),
    (("execution", "max_steps"), ("agent", "max_steps"), _same),
    (("execution", "max_retries"), ("agent", "retries"), _same),
    (("execution", "retry_delay"), ("agent", "retry_delay"), seconds),
    (("execution", "retry_delay_seconds"), ("agent", "retry_delay"), seconds),
    (("agent", "max_retries"), ("agent", "retries"), _same),
    (("agent", "retry_delay_seconds"), ("agent", "retry_delay"), seconds),
    (("agent", "tool_timeout_seconds"), ("agent", "tool_timeout"), seconds),
    (("tools", "working_directory"), ("agent", "working_directory"), _same),
    (("tools", "allowed_paths"), ("agent", "files", "allow"), _same),
    (("tools", "forbidden_commands"), ("agent", "commands", "forbid"), _same),
    (("service", "max_concurrent_tasks"), ("api", "max_concurrent_tasks"), _same),
    (("service", "default_task_timeout"), ("api", "task_timeout"), seconds),
    (("service", "default_task_timeout_seconds"), ("api", "task_timeout"), seconds),
    (("execution", "timeout"), ("api", "task_timeout"), seconds),
    (("execution", "timeout_seconds"), ("api", "task_timeout"), seconds),
    (("agent", "timeout_seconds"), ("api", "task_timeout"), seconds),
    (("api", "task_timeout_seconds"), ("api", "task_timeout"), seconds),
    (("api", "default_task_timeout"), ("api", "task_timeout"), seconds),
    (("service", "log_level"), ("daemon", "log_level"), _level),
    (("service", "cors"), ("api", "cors"), _cors),
    (("service", "rate_limiting"), ("api", "rate_limiting"), _same),
    (("service", "bind_address"), ("api", "listen"), listen_on),
    (("api", "bind_address"), ("api", "listen"), listen_on),
)
_SWITCHES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("enable_file_operations", _FILE_TOOLS),
    ("file_operations", _FILE_TOOLS),
    ("enable_command_execution", _COMMAND_TOOLS),
    ("command_execution", _COMMAND_TOOLS),
)
_METRICS = ("metrics", "enable_metrics")
_OLD_SWITCHES = frozenset({*(key for key, _ in _SWITCHES), *_METRICS})


def translate(data: Any, *, tools: Iterable[Any] | None = None) -> Translated:
    """
    data: whatever was read; it is not changed. tools: those that agents may use where `data` does not say so itself,
    for the switches that add to them; default: the default's.
    """
    result = Translated(data)
    if not isinstance(data, Mapping) or not any(_is_old(key, data.get(key)) for key in _TOUCHED if key in data):
        return result
    whole = result.data = {
        key: _copied(value) if key in (*_TOUCHED, "daemon") else value for key, value in data.items()
    }
    for old, new, read in _RENAMED:
        for found, target in _matching(whole, old, new):
            _move(result, found, target, read)
    for section in ("tools", "agent"):
        for key, names in _SWITCHES:
            _switch(result, (section, key), names, tools)
    for key in _METRICS:
        _metrics(result, ("service", key))
    for section in SECTIONS:
        _refuse_the_rest(result, section)
    return result


def _is_old(key: str, value: Any) -> bool:
    if key in SECTIONS:
        return True
    if not isinstance(value, Mapping):
        return False
    names = {old[-1] for old, _, _ in _RENAMED if old[0] == key}
    if key == "models":
        return any(isinstance(model, Mapping) and not names.isdisjoint(model) for model in value.values())
    return not (names | (_OLD_SWITCHES if key == "agent" else frozenset())).isdisjoint(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _matching(data: dict[str, Any], old: KeyPath, new: KeyPath) -> list[tuple[KeyPath, KeyPath]]:
    if "*" not in old:
        return [(old, new)] if _has(data, old) else []
    names = data.get(str(old[0]))
    return [
        (found, (new[0], name, *new[2:]))
        for name in (list(names) if isinstance(names, Mapping) else ())
        if _has(data, found := (old[0], name, *old[2:]))
    ]


def _has(data: Any, path: KeyPath) -> bool:
    for step in path:
        if not isinstance(data, Mapping) or step not in data:
            return False
        data = data[step]
    return True


def _move(result: Translated, old: KeyPath, new: KeyPath, read: Read) -> None:
    above = _at(result.data, old[:-1])
    value = above[old[-1]]
    if old[0] == "model" and not isinstance(value, Mapping | None):
        del above[old[-1]]
        result.problems.append((old, f"is {show(value)}, not a mapping", "write `provider:` and `model:` below it"))
        return
    if not _can_hold(result.data, new[:-1]):
        return  # the models say what is wrong with it
    del above[old[-1]]
    result.notes.append((result.written(old), dotted(new)))
    _put(result, old, new, read(value))


def _put(result: Translated, old: KeyPath, new: KeyPath, value: Any) -> None:
    here = result.data
    for step in new[:-1]:
        if here.get(step) is None:
            here[step] = {}
        here = here[step]
    last = new[-1]
    if last not in here:
        here[last] = value
        result.moved[new] = old
    elif isinstance(value, Mapping) and isinstance(here[last], Mapping):
        for key, each in value.items():
            _put(result, (*old, key), (*new, key), each)
    elif new == TASK_TIMEOUT:
        # Old files say it for a task and for the service; both held.
        if is_shorter(value, here[last]):
            here[last] = value
            result.moved[new] = old
    elif here[last] != value:
        other = dotted(result.written(new))
        what = f"says something else than `{other}`"
        what += "" if other == dotted(new) else f", and both mean `{dotted(new)}`"
        result.problems.append((result.written(old), what, "remove one of them"))


def is_shorter(one: Any, other: Any) -> bool:
    """Of two durations; False where one of them is none."""
    from agentd.settings import parse_duration

    try:
        return parse_duration(one) < parse_duration(other)
    except ValueError:
        return False


def _can_hold(data: Any, path: KeyPath) -> bool:
    for step in path:
        data = data.get(step)
        if data is None:
            return True
        if not isinstance(data, Mapping):
            return False
    return True


def _at(data: Any, path: KeyPath) -> Any:
    for step in path:
        data = data[step]
    return data


def _switch(result: Translated, old: KeyPath, names: tuple[str, ...], tools: Iterable[Any] | None) -> None:
    data = result.data
    if not _has(data, old):
        return
    value = _at(data, old[:-1]).pop(old[-1])
    if not isinstance(value, bool):
        result.problems.append((old, f"{show(value)} is neither true nor false", "write true or false"))
        return
    agent = data.get("agent")
    if agent is None:
        agent = data["agent"] = {}
    if not isinstance(agent, dict):
        return
    if "tools" not in agent:
        agent["tools"] = list(AgentSettings().tools if tools is None else tools)
        result.moved[("agent", "tools")] = old
    listed = agent["tools"]
    if not isinstance(listed, list):
        return
    missing = [name for name in names if name not in listed]
    agent["tools"] = [*listed, *missing] if value else [name for name in listed if name not in names]
    told = "agent.tools"
    if names == _FILE_TOOLS:
        files = agent.setdefault("files", {})
        if isinstance(files, dict) and "write" not in files:
            files["write"] = value
            result.moved[("agent", "files", "write")] = old
        told = "agent.tools and agent.files.write"
    result.notes.append((old, told))


def _metrics(result: Translated, old: KeyPath) -> None:
    if not _has(result.data, old):
        return
    value = _at(result.data, old[:-1]).pop(old[-1])
    if not isinstance(value, bool):
        result.problems.append((old, f"{show(value)} is neither true nor false", "write true or false"))
        return
    result.notes.append((old, "GET /metrics, which is always there"))


def _refuse_the_rest(result: Translated, section: str) -> None:
    """What a section holds that has no other name; the section itself is none of today."""
    if section not in result.data:
        return
    rest = result.data.pop(section)
    if rest is not None and not isinstance(rest, Mapping):
        result.problems.append(((section,), f"is {show(rest)}, not a mapping", "write its keys below it, indented"))
        return
    known = [str(old[1]) for old, _, _ in _RENAMED if old[0] == section and len(old) > 1]
    known += [key for key, _ in _SWITCHES] if section == "tools" else [*_METRICS] if section == "service" else []
    for key in rest or ():
        result.problems.append(((section, key), "is no key known here", did_you_mean(str(key), known)))
