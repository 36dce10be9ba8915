"""
How much work a JSON Schema can make of one input, told before it is done.

`$ref` lets thirty lines stand for a billion checks, and the library does every one of them. In: a schema. Out: for
each depth of an input, how many subschemas may be tried on its way down. Promise: an upper bound, found in time
proportional to the schema; it errs on the side of more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DEEPEST = 32
"""Levels of objects and lists that an input may have."""
LARGEST = 100_000
"""Values that an input may have in all."""
_CAP = 10**9

_HERE_ONE = ("not", "if", "then", "else")
_HERE_MANY = ("allOf", "anyOf", "oneOf")
_BELOW_ONE = (
    "items",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "propertyNames",
)
_BELOW_NAMED = ("properties", "patternProperties")


def cost_by_depth(schema: Mapping[str, Any]) -> list[int]:
    """Checks for an input of depth 0, 1, … `DEEPEST`; at most a billion. A reference within itself costs all of it."""
    if not any(word in str(schema) for word in ("$ref", "$dynamicRef")):
        return [_plain_cost(schema)] * (DEEPEST + 1)
    anchors: dict[str, Any] = {}
    _collect(schema, anchors, 0)
    memory: dict[tuple[int, int], int] = {}

    def cost(node: Any, depth: int) -> int:
        if not isinstance(node, dict):
            return 1
        key = (id(node), depth)
        if (known := memory.get(key)) is not None:
            return known
        memory[key] = _CAP  # whoever comes back here without having gone down an input goes round in a circle
        total = 1
        for inner in _here(node):
            total += cost(inner, depth)
        for word in ("$ref", "$dynamicRef"):
            if isinstance(where := node.get(word), str):
                total += cost(_target(schema, where, anchors), depth)
        if depth:
            for inner in _below(node):
                total += cost(inner, depth - 1)
        memory[key] = total = min(total, _CAP)
        return total

    try:
        # From below, so that each step finds the next lower depth done and the recursion stays as deep as the schema.
        return [cost(schema, depth) for depth in range(DEEPEST + 1)]
    except RecursionError:
        return [_CAP] * (DEEPEST + 1)


def depth_and_size(value: Any) -> tuple[int, int] | None:
    """Levels and number of values of an input; None when either is beyond `DEEPEST` or `LARGEST`."""
    level = [value]
    depth, size = 0, 1
    while True:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
            if size + len(below) > LARGEST:
                return None
        if not below:
            return depth, size
        depth += 1
        size += len(below)
        if depth > DEEPEST:
            return None
        level = below


def _plain_cost(node: Any) -> int:
    """Subschemas in all: without references each is met at most once for a value."""
    count, to_visit = 0, [node]
    while to_visit:
        item = to_visit.pop()
        if isinstance(item, dict):
            count += 1
            to_visit.extend(item.values())
        elif isinstance(item, list):
            to_visit.extend(item)
    return count


def _here(node: dict[str, Any]) -> Iterator[Any]:
    for word in _HERE_ONE:
        if word in node:
            yield node[word]
    for word in _HERE_MANY:
        if isinstance(inner := node.get(word), list):
            yield from inner
    if isinstance(named := node.get("dependentSchemas"), dict):
        yield from named.values()


def _below(node: dict[str, Any]) -> Iterator[Any]:
    for word in _BELOW_ONE:
        if word in node:
            yield node[word]
    if isinstance(items := node.get("prefixItems"), list):
        yield from items
    for word in _BELOW_NAMED:
        if isinstance(named := node.get(word), dict):
            yield from named.values()


def _collect(node: Any, anchors: dict[str, Any], depth: int) -> None:
    if isinstance(node, dict):
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(word), str):
                anchors[f"#{name}"] = node
        if isinstance(name := node.get("$id"), str):
            anchors[name] = node
    if depth < 200 and isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            _collect(inner, anchors, depth + 1)


def _target(schema: Mapping[str, Any], where: str, anchors: Mapping[str, Any]) -> Any:
    """What a reference names; the whole schema where that cannot be told, which errs on the side of more."""
    if where in anchors:
        return anchors[where]
    if not where.startswith("#"):
        return schema
    node: Any = schema
    for part in where[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key[:9]) < len(node):
            node = node[int(key[:9])]
        else:
            return schema
    return node
