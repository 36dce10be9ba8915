"""
Probes, webhook formats and tools of third parties: entry points, of which only those are loaded that are named.

    [project.entry-points."agentd.probes"]
    snmp = "my_package.snmp:SNMP"              # an agentd.watch.probe.Kind
    [project.entry-points."agentd.formats"]
    matrix = "my_package.matrix"               # a module like those of agentd.deliver.formats
    [project.entry-points."agentd.tools"]
    ldap_search = "my_package:LdapSearch"      # an agentd.agent.port.Tool

In: the names under `daemon.plugins`. Out: kinds and formats that the rest of the house finds where it finds its own;
tools are loaded where agents run. Promise: what is not named is not imported; what was loaded stays until the process
ends, so that a watch which uses it can be taken away in good order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from agentd.config.checks import Entry
from agentd.config.complaints import did_you_mean, show
from agentd.config.watches import OTHER_SOURCES, Watch
from agentd.deliver.formats import FORMATS
from agentd.errors import ConfigError, Problem
from agentd.watch import KINDS
from agentd.watch.probe import Kind

PROBES = "agentd.probes"
FORMS = "agentd.formats"
TOOLS = "agentd.tools"
_GROUPS = (PROBES, FORMS, TOOLS)

_loaded: dict[tuple[str, str], str] = {}


def load_plugins(root: Entry, names: Sequence[object], tools: list[str]) -> Iterator[Problem]:
    """Load what is named; problems stand at the name. tools: gets the names of those that are tools."""
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue  # the model says so
        where = ("daemon", "plugins", index)
        found = [(group, point) for group in _GROUPS for point in entry_points(group=group, name=name)]
        if not found:
            known = sorted({point.name for group in _GROUPS for point in entry_points(group=group)})
            cure = did_you_mean(name, known) if known else "install its package into agentd's environment"
            yield root.problem(where, f"there is no plugin {show(name)}", cure)
        for group, point in found:
            if group == TOOLS:
                tools.append(name)
                continue
            try:
                _load(group, point)
            except ConfigError as error:
                yield root.problem(where, str(error), "mend its package, or leave it out")


def _load(group: str, point: EntryPoint) -> None:
    """Once for each in the life of the process. Raises ConfigError."""
    value = f"{point.value}"
    if _loaded.get((group, point.name)) == value:
        return
    if (group, point.name) not in _loaded and point.name in (KINDS if group == PROBES else FORMATS):
        raise ConfigError(f"{show(point.name)} is the name of something that comes along")
    try:
        thing = point.load()
    except Exception as error:
        raise ConfigError(f"cannot be loaded: {type(error).__name__}: {error}") from error
    if group == PROBES:
        KINDS[point.name] = _kind(point.name, thing)
    else:
        FORMATS[point.name] = _form(thing)
    _loaded[group, point.name] = value


def _kind(name: str, thing: object) -> Kind:
    if not isinstance(thing, Kind):
        raise ConfigError(f"is a {type(thing).__name__}; a probe is an agentd.watch.probe.Kind")
    if thing.name != name:
        raise ConfigError(f"calls itself {show(thing.name)}, and its entry point {show(name)}")
    if name in OTHER_SOURCES or name in Watch.model_fields:
        raise ConfigError(f"{show(name)} is a key of every watch already")
    return thing


def _form(thing: object) -> str:
    if not isinstance(thing, ModuleType):
        raise ConfigError(f"is a {type(thing).__name__}; a format is a module with `check` and `render`")
    if not callable(getattr(thing, "check", None)):
        raise ConfigError("has no `check(settings)`")
    if not any(callable(getattr(thing, part, None)) for part in ("render", "send")):
        raise ConfigError("has neither `render(message, settings)` nor `send`")
    return thing.__name__
