"""
What single keys cannot know of watches of logs: that the source is one, that patterns and conditions compile, that
rules have what their type needs, and that their names can be told apart.

In: a watch as written, valid or not. Out: problems with places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from agentd.alert.lifecycle import BLIND_RULE
from agentd.config.checks import Entry
from agentd.config.complaints import did_you_mean, show
from agentd.config.document import KeyPath
from agentd.config.log_sense import FIELDS, check_sense
from agentd.errors import ConfigError, Problem
from agentd.logs.settings import JournalSource, LogSource, Rule

_WITHOUT_EFFECT = ("fail_after", "recover_after", "timeout")
_INDEXED = re.compile(r"(\w+)\[(\d+)\]")
_ALWAYS_A_FIELD = ("message", "timestamp", "level")


def check_log(watch: Entry) -> Iterator[Problem]:
    """Everything about `log`, `journal` and `rules` of one watch."""
    is_log = "log" in watch.raw or "journal" in watch.raw
    if not is_log:
        if watch.raw.get("rules"):
            what = "is about lines, and this watch has no `log` and no `journal`"
            yield watch.problem(("rules",), what, "remove it, or make a watch of the log", key=True)
        return
    yield from _check_beside(watch)
    source: LogSource | JournalSource | None = None
    if isinstance(raw := watch.raw.get("log"), dict | None) and "log" in watch.raw:
        yield from _check_files(watch, raw or {})
        source = _typed(LogSource, raw or {})
    elif isinstance(raw := watch.raw.get("journal"), dict | None):
        source = _typed(JournalSource, raw or {})
    if isinstance(source, LogSource):
        yield from _check_reading(watch, source)
    elif source is not None:
        yield from _check_journal(watch, source)
    yield from _check_rules(watch, source)


def _typed(model: type[Any], raw: Any) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None  # told by whoever reads the whole watch


def _check_beside(watch: Entry) -> Iterator[Problem]:
    """What other watches have and logs do not."""
    if watch.raw.get("expect"):
        cure = "write rules: `match` for patterns, `when` for conditions on fields"
        yield watch.problem(("expect",), "a log has no checks that could meet it", cure, key=True)
    command = isinstance(log := watch.raw.get("log"), dict) and log.get("command") is not None
    for key in ("every", "cron", "on"):
        if watch.raw.get(key) and not (command and key == "every"):
            what = "a log is read as it is written, and keeps no schedule"
            yield watch.problem((key,), what, f"remove `{key}`", key=True)
    for key in _WITHOUT_EFFECT:
        if watch.raw.get(key) is not None:
            cure = "remove it; rules have `count`, `within` and `resolve_after`"
            yield watch.problem((key,), "has no effect on a log", cure, key=True, warning=True)


def _check_files(watch: Entry, raw: dict[str, Any]) -> Iterator[Problem]:
    files, command = raw.get("files"), raw.get("command")
    if not files and not command:
        yield watch.problem(("log",), "names nothing to read", "add `files: [/var/log/…]` or `command: […]`", key=True)
    if files and command:
        cure = "make a watch of each"
        yield watch.problem(("log", "command"), "stands beside `files`", cure, key=True)
    for index, each in enumerate(files if isinstance(files, list) else ()):
        if isinstance(each, str) and not each.startswith("/"):
            what = f"{show(each)} is no absolute path"
            yield watch.problem(("log", "files", index), what, "write it from the root, e.g. /var/log/app/*.log")
        elif isinstance(each, str) and "\0" in each:
            yield watch.problem(("log", "files", index), "no file has such a name", "remove the NUL")


def _check_reading(watch: Entry, source: LogSource) -> Iterator[Problem]:
    # Here, not above: a configuration without logs needs none of it.
    from agentd.logs.follow.text import find_encoding
    from agentd.logs.multiline import make_joiner
    from agentd.logs.parse import make_parser

    if source.format == "regex" and source.pattern is None:
        cure = r"add e.g. pattern: '^(?P<level>[A-Z]+) (?P<message>.*)$'"
        yield watch.problem(("log", "format"), "regex needs `pattern`", cure)
    elif source.format != "regex" and source.pattern is not None:
        yield watch.problem(("log", "pattern"), "is for format regex", "add `format: regex`, or remove it", key=True)
    elif source.format == "regex":
        try:
            make_parser(source)
        except ConfigError as error:
            yield watch.problem(("log", "pattern"), *_split(error))
    if source.multiline is not None:
        try:
            make_joiner(source.multiline)
        except ConfigError as error:
            yield watch.problem(("log", "multiline"), *_split(error))
    try:
        find_encoding(source.encoding)
    except ConfigError as error:
        yield watch.problem(("log", "encoding"), *_split(error))


def _check_journal(watch: Entry, source: JournalSource) -> Iterator[Problem]:
    from agentd.logs.journal_filter import Filter

    try:
        Filter(source)
    except ConfigError as error:
        yield watch.problem(("journal", "match"), *_split(error))


def _check_rules(watch: Entry, source: LogSource | JournalSource | None) -> Iterator[Problem]:
    raw = watch.raw.get("rules")
    listed = raw if isinstance(raw, list) else []
    yield from _check_names(watch, listed)
    rules = {index: rule for index, each in enumerate(listed) if (rule := _typed(Rule, each)) is not None}
    if not rules:
        return
    # Here, not above: a configuration without logs loads none of their rules.
    from agentd.logs.rules.check import check_rule

    for index, rule in rules.items():
        for path, what, cure in check_rule(rule):
            yield watch.problem(("rules", index, *path), what, cure, key=bool(path))

    from agentd.logs.compiled import compile_rules

    places, compiled = list(rules), compile_rules(list(rules.values()))
    bad = set()
    for problem in compiled.problems:
        index = places[problem.index]
        bad.add((index, problem.key))
        yield watch.problem(("rules", index, *_key_path(problem.key)), *_split(problem.error))
    unsound = {index for index, _ in bad}
    asked = dict(zip(places, compiled.asked, strict=True))
    sound = {index: each for index, each in asked.items() if index not in unsound}
    fields = _fields_of(source)
    yield from check_sense(watch, source, sound, fields)
    if fields is None or not isinstance(source, LogSource) or source.format not in ("plain", "regex"):
        return
    for index, each in asked.items():
        if (index, "match") not in bad:
            yield from _check_fields(watch, index, each.rule, set(each.match.names) if each.match else set(), fields)


def _check_names(watch: Entry, listed: list[Any]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, each in enumerate(listed):
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            continue
        if name == BLIND_RULE:
            what = f"{name} is kept for the alert that says that the watch cannot look"
            yield watch.problem(("rules", index, "name"), what, "choose another")
        if name in first:
            place = watch.locate((*watch.path, "rules", first[name], "name"), False)
            cure = f"rename one; the first stands at {place.file}:{place.line}:{place.column}"
            yield watch.problem(("rules", index, "name"), f"a second rule is called {name}", cure)
        first.setdefault(name, index)


def _fields_of(source: LogSource | JournalSource | None) -> set[str] | None:
    """The fields an entry can have; None where only the entries know."""
    if not isinstance(source, LogSource):
        return None
    if source.format != "regex":
        known = FIELDS.get(source.format)
        return None if known is None else set(known)
    from agentd.logs.patterns import compile_pattern

    try:
        groups = compile_pattern(source.pattern or "").names
    except ConfigError:
        return None
    return {*groups, *_ALWAYS_A_FIELD}


def _check_fields(watch: Entry, index: int, rule: Rule, groups: set[str], fields: set[str]) -> Iterator[Problem]:
    named: list[tuple[KeyPath, str]] = [(("by", number), name) for number, name in enumerate(rule.by)]
    if rule.field is not None:
        named.append((("field",), rule.field))
    for path, name in named:
        where = ("rules", index, *path)
        if name not in groups and name not in fields:
            what = f"no line has {show(name)}: it is neither a group of `match` nor a field"
            yield watch.problem(where, what, did_you_mean(name, sorted(groups | fields)))
        elif rule.type == "percentage" and name not in fields:
            what = f"only matching lines have {show(name)}, and their share of all lines is asked for"
            yield watch.problem(where, what, did_you_mean(name, sorted(fields)))


def _key_path(key: str) -> KeyPath:
    found = _INDEXED.fullmatch(key)
    return (found[1], int(found[2])) if found else (key,)


def _split(error: ConfigError) -> tuple[str, str]:
    what, _, cure = str(error).partition("; ")
    return what, cure
