"""
What single keys cannot know: that names point at something, that a watch has one source and one schedule, that
conditions compile.

In: raw data as it was read, whether or not the models took it, so that one mistake does not hide another.
Out: problems with places, and the compiled conditions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agentd.condition import Condition, compile_condition
from agentd.condition.types import Types
from agentd.config.alerting import ALERT_VARIABLES
from agentd.config.complaints import Locate, did_you_mean, show
from agentd.config.document import KeyPath, dotted
from agentd.config.readable import types_of
from agentd.config.service import DaemonSettings, MemorySettings
from agentd.config.watches import OTHER_SOURCES, Watch
from agentd.cron import parse_cron
from agentd.errors import ConfigError, Problem
from agentd.settings import show_duration
from agentd.watch.probe import Kind
from agentd.watch.systemd import full_name


@dataclass(slots=True)
class Entry:
    """One watch or webhook as written: raw is its mapping, path where it stands in its file, whole with defaults."""

    name: str
    raw: dict[str, Any]
    path: KeyPath
    locate: Locate
    whole: dict[str, Any] = field(default_factory=dict)

    def problem(self, path: KeyPath, what: str, cure: str = "", *, key: bool = False, warning: bool = False) -> Problem:
        return problem(self.locate, (*self.path, *path), what, cure, key=key, warning=warning)


@dataclass(slots=True)
class Names:
    """What may be pointed at, whether or not it is valid itself."""

    webhooks: Collection[str]
    watches: Mapping[str, Collection[str]]
    models: Collection[str]
    hooks: Collection[str]


def problem(
    locate: Locate, path: KeyPath, what: str, cure: str = "", *, key: bool = False, warning: bool = False
) -> Problem:
    place = locate(path, key)
    return Problem(place.file, place.line, place.column, dotted(path) or "file", what, cure, warning)


class Compiler:
    """Compiles conditions, each text once for each set of variables."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Condition | ConfigError] = {}

    def condition(self, text: str, kind: str, variables: Collection[str], types: Types | None = None) -> Condition:
        """kind names the variables. Raises ConfigError."""
        known = self._known.get((kind, text))
        if known is None:
            try:
                known = compile_condition(text, variables, types)
            except ConfigError as error:
                known = error
            self._known[kind, text] = known
        if isinstance(known, ConfigError):
            raise known
        return known


def _is_misspelled(watch: Entry, kinds: Collection[str]) -> bool:
    """Whether a key that nobody knows may be meant for a source: that is told elsewhere."""
    import difflib  # only for what is spelled wrong

    return any(difflib.get_close_matches(key, kinds, n=1) for key in watch.raw)


def check_source(watch: Entry, kinds: Mapping[str, Kind]) -> Iterator[Problem]:
    """Exactly one source; at most one schedule; none where beats set the pace."""
    sources = [name for name in (*kinds, *OTHER_SOURCES) if name in watch.raw]
    if not sources and not _is_misspelled(watch, kinds):
        yield watch.problem((), "has no source", f"add one of {', '.join((*kinds, *OTHER_SOURCES))}")
    if len(sources) > 1:
        extra = " and ".join(f"`{name}`" for name in sources)
        yield watch.problem((sources[1],), f"has {len(sources)} sources: {extra}", "make a watch of each", key=True)
    schedules = [key for key in ("every", "cron") if watch.raw.get(key) is not None]
    if "heartbeat" in sources:
        for key in (*schedules, *(["on"] if watch.raw.get("on") else [])):
            yield watch.problem((key,), "a heartbeat keeps no schedule of ours", f"remove `{key}`", key=True)
    elif len(schedules) > 1:
        yield watch.problem(("cron",), "has both `every` and `cron`", "remove one of them", key=True)
    if sources == ["goal"] and not schedules and not watch.raw.get("on"):
        yield watch.problem(("goal",), "nothing ever starts this goal", "add `every`, `cron` or `on`", key=True)
    if ("log" in sources or "journal" in sources) and not watch.raw.get("rules"):
        yield watch.problem((), "has no rules, so no line of it matters", "add `rules`", warning=True)


def check_schedule(entry: Entry, cron: Any, timezone: Any) -> Iterator[Problem]:
    """The cron line and the zone can be read."""
    zone = timezone if isinstance(timezone, str) else "UTC"
    if not is_zone(zone):
        if "timezone" in entry.raw:
            yield entry.problem(
                ("timezone",), f"{show(zone)} is no time zone", 'write an IANA name such as "Europe/Berlin" or "UTC"'
            )
        zone = "UTC"
    if isinstance(cron, str):
        try:
            parse_cron(cron, zone)
        except ConfigError as error:
            yield entry.problem(("cron",), *_split(error))


def check_missed(watch: Entry, kinds: Collection[str]) -> Iterator[Problem]:
    """Warn of probes that are to make up for what they missed."""
    if any(kind in watch.raw for kind in kinds) and watch.raw.get("missed") in ("once", "all"):
        what = "a look at the past is no use: probes always skip missed checks"
        yield watch.problem(("missed",), what, key=True, warning=True)


def is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a path out of the database, an unknown name
        return False
    return True


def check_conditions(
    watch: Entry, kinds: Mapping[str, Kind], compiler: Compiler, conditions: list[Condition]
) -> Iterator[Problem]:
    """Compile what a probe must show into `conditions`; report what does not compile."""
    kind = next((kinds[name] for name in kinds if name in watch.raw), None)
    texts = watch.whole.get("expect")
    if kind is None or not isinstance(texts, list | tuple):
        return
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            continue
        try:
            condition = compiler.condition(text, kind.name, kind.variables, types_of(kind.name))
        except ConfigError as error:
            yield watch.problem(("expect", index), *_split(error))
            continue
        conditions.append(condition)
        if "cert_days_left" in condition.variables and _is_without_tls(watch.raw.get("http")):
            what = "asks for a certificate, and an http:// address has none"
            yield watch.problem(("expect", index), what, "watch the https:// address, or remove the condition")


def _is_without_tls(http: Any) -> bool:
    # A redirect may lead to https.
    url = http.get("url") if isinstance(http, dict) else None
    return isinstance(url, str) and url.lower().startswith("http://") and not http.get("follow_redirects")


_LITTLE_MEMORY = 128 * 2**20
_LITTLE_STORE = 16 * 2**20


def check_sense(watch: Entry, typed: Watch) -> Iterator[Problem]:
    """Warn of times that can be meant, but hardly are; only of what the watch itself says."""
    if "every" in watch.raw and typed.every is not None and typed.every < timedelta(seconds=1):
        what = f"a look every {show_duration(typed.every)} is a load on the target and on this machine"
        yield watch.problem(("every",), what, "write 1s or more", warning=True)
    if "timeout" in watch.raw and typed.every is not None and typed.timeout > typed.every:
        what = f"is longer than the time between two checks, {show_duration(typed.every)}: a slow one skips the next"
        yield watch.problem(("timeout",), what, "write a shorter one, or a longer `every`", warning=True)


def check_sizes(root: Entry, daemon: DaemonSettings, memory: MemorySettings) -> Iterator[Problem]:
    """Warn of sizes that leave no room to work in."""
    if daemon.memory_limit < _LITTLE_MEMORY:
        what = "is little: the daemon would start anew again and again"
        yield root.problem(("daemon", "memory_limit"), what, "write 128MiB or more", warning=True)
    if memory.max_size < _LITTLE_STORE:
        what = "is little: next to no history would be kept"
        yield root.problem(("memory", "max_size"), what, "write 16MiB or more", warning=True)


def check_references(watch: Entry, names: Names) -> Iterator[Problem]:
    """Webhooks, watches, models and hooks that a watch names are there."""
    yield from check_named(watch, ("notify",), watch.raw.get("notify"), "webhook", names.webhooks)
    yield from _check_escalations(watch, ("escalate",), watch.raw.get("escalate"), names)
    yield from check_named(watch, ("depends_on",), watch.raw.get("depends_on"), "watch", names.watches)
    yield from check_named(watch, ("model",), watch.raw.get("model"), "model", names.models)
    if isinstance(asked := watch.raw.get("investigate"), dict):
        yield from check_named(watch, ("investigate", "model"), asked.get("model"), "model", names.models)
    events = watch.raw.get("on")
    for index, event in enumerate(events if isinstance(events, list) else ()):
        if not isinstance(event, str):
            continue
        sort, _, name = event.partition(":")
        path = ("on", index)
        if sort == "alert":
            yield from check_named(watch, path, name, "watch", names.watches)
        elif sort == "hook":
            yield from check_named(watch, path, name, "hook", names.hooks)
        elif sort == "log" and "/" in name:
            other, _, rule = name.partition("/")
            yield from check_named(watch, path, other, "watch", names.watches)
            if other in names.watches:
                yield from check_named(watch, path, rule, "rule", names.watches[other])
        elif sort == "unit":
            try:
                full_name(name)
            except ValueError as error:
                yield watch.problem(path, *_split(ConfigError(str(error))))


def check_named(entry: Entry, path: KeyPath, named: Any, sort: str, known: Collection[str]) -> Iterator[Problem]:
    """`named`, a name or a list of names, all stand in `known`."""
    if isinstance(named, list):
        for index, name in enumerate(named):
            if isinstance(name, str):
                yield from check_named(entry, (*path, index), name, sort, known)
    elif isinstance(named, str) and named not in known:
        yield entry.problem(path, f"there is no {sort} {show(named)}", did_you_mean(named, known))


def _check_escalations(entry: Entry, path: KeyPath, raw: Any, names: Names) -> Iterator[Problem]:
    for index, each in enumerate(raw if isinstance(raw, list) else ()):
        if isinstance(each, dict):
            yield from check_named(entry, (*path, index, "notify"), each.get("notify"), "webhook", names.webhooks)


def check_cycles(watches: Mapping[str, Entry]) -> Iterator[Problem]:
    """No watch depends on itself, over however many others; and of those that start each other, a warning."""
    parents = {name: _listed(watch, "depends_on") for name, watch in watches.items()}
    for name, circle in _circles(parents):
        what = f"depends on itself: {' → '.join(circle)}"
        yield watches[name].problem(("depends_on",), what, "break the circle")
    causes = {
        name: [event.removeprefix("alert:") for event in _listed(watch, "on") if event.startswith("alert:")]
        for name, watch in watches.items()
    }
    for name, circle in _circles(causes):
        what = f"its alert starts it again: {' → '.join(reversed(circle))}; once round, such an event is passed over"
        yield watches[name].problem(("on",), what, "break the circle", warning=True)


def _circles(edges: Mapping[str, Collection[str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each circle once, from the node that it comes back to, with the node whose edge closes it."""
    done: set[str] = set()
    for start in edges:
        if start in done or not edges[start]:
            continue
        trail = [start]
        stack = [iter(edges[start])]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                done.add(trail.pop())
            elif following in trail:
                yield trail[-1], (*trail[trail.index(following) :], following)
            elif following in edges and following not in done:
                trail.append(following)
                stack.append(iter(edges[following]))


def _listed(watch: Entry, key: str) -> list[str]:
    value = watch.raw.get(key)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def check_root(root: Entry, names: Names, compiler: Compiler) -> Iterator[Problem]:
    """What stands outside of watches and webhooks."""
    models = root.raw.get("models")
    for name, model in models.items() if isinstance(models, dict) else ():
        if isinstance(model, dict):
            others = [each for each in names.models if each != name]
            yield from check_named(root, ("models", name, "fallback"), model.get("fallback"), "other model", others)
    alerting = root.raw.get("alerting")
    if not isinstance(alerting, dict):
        return
    yield from check_named(root, ("alerting", "notify"), alerting.get("notify"), "webhook", names.webhooks)
    yield from _check_escalations(root, ("alerting", "escalate"), alerting.get("escalate"), names)
    for key, conditions in (("routes", ("when",)), ("inhibit", ("when", "mutes")), ("maintenance", ("when",))):
        listed = alerting.get(key)
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            if not isinstance(each, dict):
                continue
            path = ("alerting", key, index)
            yield from _check_texts(root, path, each, conditions, compiler)
            yield from check_named(root, (*path, "notify"), each.get("notify"), "webhook", names.webhooks)
            yield from _check_escalations(root, (*path, "escalate"), each.get("escalate"), names)
            inner = Entry(key, each, (*root.path, *path), root.locate)
            yield from check_schedule(inner, each.get("cron"), each.get("timezone"))


def _check_texts(
    root: Entry, path: KeyPath, raw: dict[str, Any], keys: Collection[str], compiler: Compiler
) -> Iterator[Problem]:
    for key in keys:
        if not isinstance(text := raw.get(key), str):
            continue
        try:
            compiler.condition(text, "", ALERT_VARIABLES)
        except ConfigError as error:
            yield root.problem((*path, key), *_split(error))


def _split(error: ConfigError) -> tuple[str, str]:
    what, _, cure = str(error).partition("; ")
    return what, cure
