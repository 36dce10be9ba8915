"""
Whether a rule has what its type needs, and nothing that its type passes over.

In: a rule whose single keys are valid. Out: (path of the key, what is wrong, how to mend it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentd.logs.rules.distinct import MOST_VALUES
from agentd.logs.settings import Rule, RuleType

Complaint = tuple[tuple[str | int, ...], str, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """Which of the keys that not every type reads a type needs, and may have."""

    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


SHAPES: dict[RuleType, Shape] = {
    "any": Shape(),
    "frequency": Shape(("count", "within")),
    "spike": Shape(("within", "times"), ("count",)),
    "flatline": Shape(("within",), ("fewer_than",)),
    "new_value": Shape(("field",), ("learn",)),
    "change": Shape(("field",)),
    "cardinality": Shape(("field", "within"), ("more_than", "fewer_than")),
    "percentage": Shape(("within", "more_than"), ("count",)),
    "blocklist": Shape(("field", "values")),
    "allowlist": Shape(("field", "values")),
    "novel": Shape((), ("learn", "per_hour")),
}

_CHOSEN = ("count", "within", "times", "fewer_than", "more_than", "field", "values", "learn", "per_hour")
_EXAMPLES = {
    "count": "count: 5",
    "within": "within: 10m",
    "times": "times: 3",
    "more_than": "more_than: 30%",
    "field": "field: user",
    "values": "values: [root, admin]",
}


def check_rule(rule: Rule) -> Iterator[Complaint]:
    """Everything wrong with one rule; the paths begin below the rule, () is the rule itself."""
    shape = SHAPES[rule.type]
    given = {key for key in _CHOSEN if key in rule.model_fields_set and getattr(rule, key) is not None}
    for key in shape.needs:
        if key not in given:
            yield (), f"a rule of type {rule.type} needs `{key}`", f"add e.g. {_EXAMPLES[key]}"
    for key in _CHOSEN:
        if key in given and key not in shape.needs and key not in shape.may:
            yield (key,), f"a rule of type {rule.type} has no use for it", _use(key)
    if "values" in given and "values" in shape.needs and not rule.values:
        yield ("values",), "is empty", "name the values, or remove the rule"
    yield from _CHECKS.get(rule.type, _nothing)(rule)


def _use(key: str) -> str:
    types = [name for name, shape in SHAPES.items() if key in (*shape.needs, *shape.may)]
    return f"remove it; it is for {', '.join(types)}"


def _nothing(rule: Rule) -> Iterator[Complaint]:
    return iter(())


def _flatline(rule: Rule) -> Iterator[Complaint]:
    if rule.fewer_than == 0:
        yield ("fewer_than",), "0 lines are never fewer than 0", "write 1 or more"


def _spike(rule: Rule) -> Iterator[Complaint]:
    if rule.times is not None and rule.times <= 1:
        yield ("times",), f"{rule.times:g} times the usual is no spike", "write more than 1, e.g. 3"


def _cardinality(rule: Rule) -> Iterator[Complaint]:
    if rule.more_than is None and rule.fewer_than is None:
        yield (), "a rule of type cardinality needs `more_than` or `fewer_than`", "add e.g. more_than: 20"
    if rule.more_than is not None and rule.fewer_than is not None:
        yield ("fewer_than",), "stands beside `more_than`", "make a rule of each"
    if rule.more_than is not None and not isinstance(rule.more_than, int):
        yield ("more_than",), f"{rule.more_than:g} is no number of values", "write a whole number, e.g. 20"
    elif rule.more_than is not None and not 0 < rule.more_than <= MOST_VALUES:
        yield ("more_than",), f"{rule.more_than} is out of range", f"write 1 to {MOST_VALUES}"
    if rule.fewer_than is not None and not 0 < rule.fewer_than <= MOST_VALUES:
        yield ("fewer_than",), f"{rule.fewer_than} is out of range", f"write 1 to {MOST_VALUES}"


def _percentage(rule: Rule) -> Iterator[Complaint]:
    if rule.more_than is not None and not 0 <= rule.more_than < 100:
        yield ("more_than",), f"{rule.more_than:g}% is never exceeded", 'write 0% to 99%, e.g. "30%"'
    if rule.match is None and rule.when is None:
        yield (), "a rule of type percentage needs `match` or `when`: the share of which lines?", "add one of them"


_CHECKS = {"flatline": _flatline, "spike": _spike, "cardinality": _cardinality, "percentage": _percentage}
