"""
What an MCP server says of its tools and gives as results, made fit for a model and for us.

In: descriptions, JSON Schemas and results of a server that nobody vouches for. Out: plain bounded JSON.
Promise: pure; no control characters, no endless texts, no reference that is resolved anywhere, no pattern that a
validator could hang on. What does not fit is left out, so that a call is refused by the server rather than by us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentd.agent.tools.saying import clipped, readable

_DESCRIPTION_CHARS = 1024
_PROPERTY_CHARS = 300
_SCHEMA_BYTES = 32 * 1024
_MOST_NODES = 500
_DEEPEST = 10
_MOST_PROPERTIES = 64
_MOST_VALUES = 100
_DEEPEST_RESULT = 60

OPEN_SCHEMA: Mapping[str, Any] = {"type": "object"}
"""For a tool of which nothing is known: whatever is given goes to the server."""

_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_NUMBERS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"}
)
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})


def tamed_description(text: Any, most: int = _DESCRIPTION_CHARS) -> str:
    words = " ".join(readable(text).split()) if isinstance(text, str) else ""
    return words if len(words) <= most else words[: most - 1] + "…"


def tamed_schema(schema: Any) -> Mapping[str, Any]:
    """A schema of an object with the words that models and validators need; `OPEN_SCHEMA` when it cannot be tamed."""
    if not isinstance(schema, Mapping):
        return OPEN_SCHEMA
    tamed = _Tamer(schema).node(schema, 0)
    tamed["type"] = "object"
    return tamed if len(json.dumps(tamed)) <= _SCHEMA_BYTES else OPEN_SCHEMA


class _Tamer:
    """Walks a schema; references are replaced by what they mean, so that none is left to go in circles."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def node(self, schema: Any, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self._nodes > _MOST_NODES:
            return {}
        if isinstance(schema.get("$ref"), str):
            return self.node(self._meant(schema["$ref"]), depth + 1)
        tamed: dict[str, Any] = {}
        kind = schema.get("type")
        kinds = [each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str)]
        kinds = [each for each in kinds if each in _TYPES]
        if kinds:
            tamed["type"] = kinds[0] if len(kinds) == 1 else sorted(set(kinds))
        if "description" in schema:
            tamed["description"] = tamed_description(schema["description"], _PROPERTY_CHARS)
        for key in _NUMBERS & schema.keys():
            value = schema[key]
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 2**63:
                continue
            if key not in _COUNTS or (isinstance(value, int) and value >= 0):
                tamed[key] = value
        if isinstance(schema.get("enum"), list) and 0 < len(schema["enum"]) <= _MOST_VALUES:
            tamed["enum"] = [_value(each) for each in schema["enum"]]
        for key in ("const", "default"):
            if key in schema:
                tamed[key] = _value(schema[key])
        self._inside(schema, tamed, depth)
        return tamed

    def _inside(self, schema: Mapping[str, Any], tamed: dict[str, Any], depth: int) -> None:
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            kept = [name for name in properties if isinstance(name, str) and name.isprintable() and len(name) <= 128]
            tamed["properties"] = {name: self.node(properties[name], depth + 1) for name in kept[:_MOST_PROPERTIES]}
            required = schema.get("required")
            if isinstance(required, list):
                tamed["required"] = [name for name in tamed["properties"] if name in required]
            if schema.get("additionalProperties") is False and len(kept) == len(tamed["properties"]) == len(properties):
                tamed["additionalProperties"] = False
        if isinstance(schema.get("items"), Mapping):
            tamed["items"] = self.node(schema["items"], depth + 1)
        if isinstance(schema.get("additionalProperties"), Mapping):
            tamed["additionalProperties"] = self.node(schema["additionalProperties"], depth + 1)
        for key in ("anyOf", "oneOf", "allOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and 0 < len(choices) <= 20:
                # One of several that are alike would refuse what fits two of them.
                tamed["anyOf" if key == "oneOf" else key] = [self.node(each, depth + 1) for each in choices]

    def _meant(self, reference: str) -> Any:
        here: Any = self._root
        if not reference.startswith("#/"):
            return {}
        for step in reference[2:].split("/")[:8]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(here, Mapping) or step not in here:
                return {}
            here = here[step]
        return here


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value[:_PROPERTY_CHARS])
    if value is None or isinstance(value, bool | int | float):
        return value
    return clipped(json.dumps(value, default=str)[:_PROPERTY_CHARS], _PROPERTY_CHARS)[0]


def plain_result(blocks: Sequence[Any], structured: Any, most_bytes: int) -> dict[str, Any]:
    """
    What a tool gave.

    blocks: content as the library has it (objects with `type`). Returns `structured` or `text`, and `attachments`:
    what is no text, by its kind and size; `truncated` where it was cut.
    """
    texts: list[str] = []
    attachments: list[dict[str, Any]] = []
    for block in blocks[:_MOST_VALUES]:
        text, attachment = _block(block)
        if text is not None:
            texts.append(text)
        if attachment is not None:
            attachments.append(attachment)
    answer: dict[str, Any] = {}
    if structured is not None:
        try:
            tamed = _plain(structured, 0)
            written = json.dumps(tamed)
        except (RecursionError, ValueError, TypeError):
            tamed, written = None, "(a value that cannot be shown)"
        if tamed is not None and len(written) <= most_bytes:
            answer["structured"] = tamed
        else:
            texts = [written]
    if "structured" not in answer:
        text, cut = clipped(readable("\n".join(texts)), most_bytes)
        answer["text"] = text
        if cut:
            answer["truncated"] = True
    if attachments:
        answer["attachments"] = attachments
    if len(blocks) > _MOST_VALUES:
        answer["truncated"] = True
    return answer


def _block(block: Any) -> tuple[str | None, dict[str, Any] | None]:
    kind = getattr(block, "type", "")
    if kind == "text":
        return str(block.text), None
    if kind in ("image", "audio"):
        return None, {"kind": kind, "mime": tamed_description(block.mime_type, 100), "bytes": len(block.data) * 3 // 4}
    resource = getattr(block, "resource", block)
    about = {"kind": "resource", "uri": tamed_description(str(getattr(resource, "uri", "")), 500)}
    inner = getattr(resource, "text", None)
    return (inner if isinstance(inner, str) else None), about


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEEPEST_RESULT:
        return "…"
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {readable(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or isinstance(value, bool | int | float) else readable(str(value))
