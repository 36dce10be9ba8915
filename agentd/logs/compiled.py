"""
Rules made ready to be asked: patterns and conditions compiled, and everything wrong with them found at load.

In: the rules of a watch. Out: one Asked per rule, or what is wrong, by rule and key.
Promise: what compiles here never raises later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentd.condition import Condition, compile_condition
from agentd.errors import ConfigError
from agentd.logs.patterns import Pattern, compile_pattern
from agentd.logs.port import Entry
from agentd.logs.settings import Rule

_NO_GROUPS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Asked:
    """
    One rule's questions to an entry.

    counts_all: entries that do not match count too, in the whole.
    """

    rule: Rule
    match: Pattern | None
    ignore: tuple[Pattern, ...]
    when: Condition | None
    counts_all: bool

    def groups(self, text: bytes) -> Mapping[str, str] | None:
        """The named groups of `match`, which stands in the text or not (None)."""
        if self.match is None:
            return _NO_GROUPS
        if self.match.names:
            return self.match.groups(text)
        return _NO_GROUPS if self.match.finds(text) else None

    def ignores(self, text: bytes) -> bool:
        return any(pattern.finds(text) for pattern in self.ignore)

    def holds(self, entry: Entry, groups: Mapping[str, str]) -> bool:
        """Whether `when` holds; True where there is none."""
        return self.when is None or self.when.holds(_values(self.when.variables, entry, groups))


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """What is wrong with one key of one rule: `rules[index].key`."""

    index: int
    key: str
    error: ConfigError


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """
    Rules in their order. problems: everything found; where there are any, `asked` must not be used.
    """

    asked: tuple[Asked, ...]
    problems: tuple[RuleProblem, ...] = ()

    def checked(self) -> CompiledRules:
        """Itself; raises the first problem as ConfigError."""
        for problem in self.problems:
            raise problem.error
        return self


def compile_rules(rules: Sequence[Rule]) -> CompiledRules:
    """Compile all that the rules ask; never raises, and finds every problem at once."""
    asked, problems = [], []

    for index, rule in enumerate(rules):
        match = when = None
        ignore: list[Pattern] = []
        try:
            match = compile_pattern(rule.match) if rule.match is not None else None
        except ConfigError as error:
            problems.append(RuleProblem(index, "match", error))
        try:
            when = compile_condition(rule.when, None) if rule.when is not None else None
        except ConfigError as error:
            problems.append(RuleProblem(index, "when", error))
        for number, text in enumerate((rule.ignore,) if isinstance(rule.ignore, str) else rule.ignore or ()):
            try:
                ignore.append(compile_pattern(text))
            except ConfigError as error:
                key = "ignore" if isinstance(rule.ignore, str) else f"ignore[{number}]"
                problems.append(RuleProblem(index, key, error))
        asked.append(Asked(rule, match, tuple(ignore), when, rule.type == "percentage"))
    return CompiledRules(tuple(asked), tuple(problems))


def value_of(name: str, groups: Mapping[str, str], entry: Entry) -> str | None:
    """
    What a name stands for, as text: a named group, else a field; None when the entry has neither.

    A dot goes into a field (`http.status`), unless a field has the dotted name itself. Numbers, true, false and null
    are written as JSON writes them, and so are lists and maps.
    """
    if name in groups:
        return groups[name]
    here: Any = entry.fields
    if name not in here:
        if "." not in name:
            return None
        for step in name.split("."):
            if not isinstance(here, Mapping) or step not in here:
                return None
            here = here[step]
    else:
        here = here[name]
    return here if isinstance(here, str) else _written(here)


def _written(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(type(value).__name__)


def _values(names: frozenset[str], entry: Entry, groups: Mapping[str, str]) -> dict[str, Any]:
    """What a condition reads: groups, then `line` and `fields`, then the fields."""
    values: dict[str, Any] = {}
    for name in names:
        if name in groups:
            values[name] = groups[name]
        elif name == "line":
            values[name] = entry.text
        elif name == "fields":
            values[name] = dict(entry.fields)
        elif name in entry.fields:
            values[name] = entry.fields[name]
    return values
