"""
How a model is told which actions there are: examples to follow, a grammar to be held to, native special tools.

In: the tools a run may use, with JSON Schemas of whoever wrote them (MCP servers among them). Out: text, JSON Schema.
Promise: bounded, whatever these schemas hold. The guide shows each tool once as an action ready to be copied; the
grammar uses only keywords that llama.cpp, vLLM and the strict mode of OpenAI-compatible servers know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentd.llm.port import ToolSpec

MAX_TOOLS = 100
_DESCRIPTION_CHARS = 140
_EXAMPLE_CHARS = 400
_MAX_PROPERTIES = 40
_MAX_ENUM = 50
_MAX_DEPTH = 6
_OPTIONAL_SHOWN = 6
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

_BY_NAME = {
    "url": "https://shop.example/health",
    "path": "/var/log/syslog",
    "file": "/var/log/syslog",
    "folder": "/var/log",
    "directory": "/var/log",
    "argv": "df",
    "host": "shop.example",
    "hostname": "shop.example",
    "pattern": "error",
    "query": "error",
    "unit": "nginx.service",
    "since": "2026-01-31T09:00:00Z",
    "until": "2026-01-31T10:00:00Z",
}
_BY_FORMAT = {"uri": "https://shop.example/health", "date-time": "2026-01-31T09:00:00Z", "hostname": "shop.example"}

_FINDING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["ok", "problem", "unclear"]},
        "severity": {"type": "string", "enum": ["info", "warning", "critical"]},
        "summary": {"type": "string", "description": "The answer in one to three sentences"},
        "claims": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "description": "One thing that you found"},
                    "evidence": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Ids of the evidence it rests on, such as e4",
                    },
                    "quotes": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Words copied from that evidence, exactly",
                    },
                },
                "required": ["text", "evidence", "quotes"],
                "additionalProperties": False,
            },
        },
        "next_steps": {"type": "array", "items": {"type": "string"}},
        "confidence": {"type": "number"},
    },
    "required": ["status", "severity", "summary", "claims", "next_steps", "confidence"],
    "additionalProperties": False,
}
_TEXT = {"type": "string"}
_LONGEST = {"summary": 600, "evidence": 20, "quotes": 200, "understanding": 400, "approach": 400}
_LONGEST_OTHER = 300
_MOST_ITEMS = {"evidence": 4, "quotes": 2}
_MOST_OTHER = 6
_MOST_CALLS = 8
_MOST_IDS = 30
_SHORT = {"type": "string", "maxLength": 40}
_PLAN: dict[str, Any] = {
    "understanding": {"type": "string", "description": "What is asked, in your own words"},
    "approach": {"type": "string", "description": "How you will find it out"},
    "complexity": {"type": "string", "enum": ["simple", "moderate", "complex"]},
    "estimated_steps": {"type": "integer"},
    "requirements": {"type": "array", "items": _TEXT},
}


def _bounded(schema: Any, name: str = "") -> Any:
    """The schema with an end to every text and list. name: of the property that it is of."""
    if isinstance(schema, list):
        return [_bounded(each, name) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema:
        return schema
    if schema.get("type") == "string":
        return {**schema, "maxLength": _LONGEST.get(name, _LONGEST_OTHER)}
    if schema.get("type") == "array":
        return {**schema, "items": _bounded(schema["items"], name), "maxItems": _MOST_ITEMS.get(name, _MOST_OTHER)}
    if "properties" in schema:
        return {**schema, "properties": _bounded(schema["properties"])}
    return {key: _bounded(value, key) for key, value in schema.items()}


def finding_answer(evidence: Sequence[str] = ()) -> dict[str, Any]:
    """
    Grammar of the answer of whoever must come to a finding.

    evidence: ids of all that there is, oldest first; the newest of them are those that a claim can cite.
    """
    answer: dict[str, Any] = _bounded(_FINDING)
    if evidence:
        ids = {"type": "array", "items": {"enum": list(evidence[-_MOST_IDS:])}, "maxItems": _MOST_ITEMS["evidence"]}
        answer["properties"]["claims"]["items"]["properties"]["evidence"] = ids
    return answer


def special_tools(finding: Mapping[str, Any] = _FINDING) -> tuple[ToolSpec, ...]:
    """The tools that are no tools: how a model with native calls says that it is done, plans, or runs a graph."""
    return (
        ToolSpec("finish", "Give your final answer and end. Call it alone, when you know enough.", finding),
        ToolSpec(
            "plan",
            "Say what you understood and how you will go about it. Call it first, together with the first tools.",
            {
                "type": "object",
                "properties": _PLAN,
                "required": ["understanding", "approach"],
                "additionalProperties": False,
            },
        ),
        ToolSpec(
            "run_graph",
            "Run several tools where some must wait for others. What has nothing to wait for runs at once.",
            {
                "type": "object",
                "properties": {
                    "tasks": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "id": {"type": "string", "description": "A name of your own, such as a"},
                                "tool": {"type": "string", "description": "Name of the tool"},
                                "input": {"type": "object", "description": "The tool's own arguments"},
                                "depends_on": {
                                    "type": "array",
                                    "items": _TEXT,
                                    "description": "Ids of tasks that must have ended well before",
                                },
                                "timeout": {"type": "number", "description": "Seconds it may take"},
                            },
                            "required": ["id", "tool", "input"],
                            "additionalProperties": False,
                        },
                    }
                },
                "required": ["tasks"],
                "additionalProperties": False,
            },
        ),
    )


SPECIAL_TOOLS: tuple[ToolSpec, ...] = special_tools()


EXAMPLE_ANSWER = "what you found, in one to three sentences"


def action_guide(tools: Sequence[ToolSpec], answer: Any = EXAMPLE_ANSWER) -> str:
    """
    How to write actions, by examples made from the tools' own schemas.

    answer: what a Final shows as its answer; None: no Final is shown, for what stands beside this shows one.
    """
    tools = tools[:MAX_TOOLS]
    final = None if answer is None else _json({"type": "Final", "answer": answer})
    lines = ["Answer with exactly one JSON object and nothing else."]
    if not tools:
        return "\n".join([*lines, "There are no tools." + (f" Give your answer: {final}" if final else "")])
    lines += ["", "Call a tool:"]
    lines += [example_call(tool) + _remark(tool) for tool in tools]
    calls = [_call(tool) for tool in (tools[0], tools[min(1, len(tools) - 1)])]
    lines += ["", "Call several at once:", _short({"type": "Parallel", "actions": calls})]
    tasks = [
        {"id": "a", "tool": calls[0]["tool"], "input": calls[0]["input"]},
        {"id": "b", "tool": calls[1]["tool"], "input": calls[1]["input"], "depends_on": ["a"]},
    ]
    lines += ["Call some after others have ended well:", _short({"type": "Graph", "tasks": tasks})]
    plan = {
        "type": "Plan",
        "understanding": "what is asked",
        "approach": "how you will find it out",
        "complexity": "simple",
        "estimated_steps": 2,
        "requirements": [],
        "actions": [calls[0]],
    }
    lines += ["In your first answer, plan and begin:", _short(plan)]
    return "\n".join([*lines, "When you know enough:", final] if final else lines)


def example_call(tool: ToolSpec) -> str:
    """A call of this tool as JSON text, as short as its schema allows."""
    return _short(_call(tool))


def example_input(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An input with what the schema requires, else with the first that it knows."""
    value = _example(schema, "", _MAX_DEPTH, schema)
    return value if isinstance(value, dict) else {}


def action_schema(
    tools: Sequence[ToolSpec], answer: Mapping[str, Any] | None = None, *, final: bool = True
) -> dict[str, Any]:
    """
    JSON Schema of one action, usable as a grammar; without tools, of a Final alone.

    answer: of a Final's answer; default: a finding, or text. final: whether it may be one. What a Final or a Plan holds
    is bounded: a small model that has begun to repeat itself within a string comes out of it and to the action's end.
    `anyOf` rather than `oneOf`, which some strict servers refuse; an input is looser here than its own schema where
    that uses keywords outside of the common ground: it is checked again before the tool runs.
    """
    tools = tools[:MAX_TOOLS]
    answer = {"anyOf": [finding_answer(), _TEXT]} if answer is None else dict(answer)
    last = _action("Final", {"answer": answer})
    plan: dict[str, Any] = _bounded(_PLAN)
    definitions: dict[str, Any] = {}
    kinds = []
    if tools:
        definitions = {f"input_{number}": _common(tool.input_schema) for number, tool in enumerate(tools)}
        names = [(tool.name, {"$ref": f"#/$defs/input_{number}"}) for number, tool in enumerate(tools)]
        definitions["call"] = {
            "anyOf": [_action("ToolCall", {"tool": {"const": name}, "input": input}) for name, input in names]
        }
        definitions["task"] = {
            "anyOf": [
                _object(
                    {
                        "id": _SHORT,
                        "tool": {"const": name},
                        "input": input,
                        "depends_on": {"type": "array", "items": _SHORT, "maxItems": _MOST_CALLS},
                    }
                )
                for name, input in names
            ]
        }
        calls = {"type": "array", "items": {"$ref": "#/$defs/call"}, "minItems": 1, "maxItems": _MOST_CALLS}
        plan["actions"] = calls
        kinds = [
            {"$ref": "#/$defs/call"},
            _action("Parallel", {"actions": calls}),
            _action("Graph", {"tasks": {**calls, "items": {"$ref": "#/$defs/task"}}}),
            _action("Plan", plan),
        ]
    schema: dict[str, Any] = {"anyOf": [*kinds, last] if final or not kinds else kinds}
    return {**schema, "$defs": definitions} if definitions else schema


def _action(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return _object({"type": {"const": kind}, **properties})


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _call(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "ToolCall", "tool": tool.name, "input": example_input(tool.input_schema)}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(action: dict[str, Any]) -> str:
    """The action as JSON; where inputs make it long, they are left empty."""
    text = _json(action)
    if len(text) <= _EXAMPLE_CHARS:
        return text
    bare: dict[str, Any] = {**action, "input": {}} if "input" in action else dict(action)
    for key in ("actions", "tasks"):
        if key in bare:
            bare[key] = [dict(each, input={}) for each in bare[key]]
    return _json(bare)


def _remark(tool: ToolSpec) -> str:
    """What it does, and what else it takes, on the same line."""
    first = re.split(r"(?<=[.!?])\s", " ".join(tool.description.split()), maxsplit=1)[0]
    what = first if len(first) <= _DESCRIPTION_CHARS else first[: _DESCRIPTION_CHARS - 1] + "…"
    properties, required = _properties(tool.input_schema)
    shown = example_input(tool.input_schema)
    more = [name[:40] for name in properties if name not in required and name not in shown]
    also = f" (also: {', '.join(more[:_OPTIONAL_SHOWN])})" if more else ""
    return f"  # {what}{also}" if what or also else ""


def _properties(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    properties = schema.get("properties")
    required = schema.get("required")
    return (
        properties if isinstance(properties, Mapping) else {},
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else [],
    )


def _example(schema: Any, name: str, depth: int, root: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list | tuple) and schema[key]:
            return schema[key][0]
    if schema.get("default") is not None:
        return schema["default"]
    for key in ("anyOf", "oneOf", "allOf"):
        options = [each for each in schema.get(key) or () if _resolved(each, root).get("type") != "null"]
        if options and depth > 0 and "properties" not in schema:
            return _example(options[0], name, depth - 1, root)
    kind = schema.get("type")
    kind = next((each for each in kind if each != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object" or (kind is None and "properties" in schema) or (kind is None and not name):
        properties, required = _properties(schema)
        names = required or list(properties)[:1]
        return {each: _example(properties.get(each), each, depth - 1, root) for each in names[:8]} if depth > 0 else {}
    if kind == "array":
        least = schema.get("minItems")
        count = max(1, least) if isinstance(least, int) and least <= 4 else 1
        return [_example(schema.get("items"), name.removesuffix("s"), depth - 1, root)] * count if depth > 0 else []
    if kind in ("integer", "number"):
        least = schema.get("minimum", 10)
        most = schema.get("maximum", least)
        return min(max(10, least), most) if isinstance(least, int) and isinstance(most, int | float) else least
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _BY_FORMAT.get(str(schema.get("format"))) or _BY_NAME.get(name.lower()) or "…"


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind a local reference; of anything else that is no object, the one that allows all."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = root if reference.startswith("#") else {}
        for step in reference.removeprefix("#").split("/")[1:10]:
            schema = schema.get(step) if isinstance(schema, Mapping) else None
    return {}


def _common(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An input's schema in common keywords; always of an object."""
    found = _narrowed(schema, _MAX_DEPTH, schema)
    return found if found.get("type") == "object" else {"type": "object"}


def _narrowed(schema: Any, depth: int, root: Mapping[str, Any]) -> dict[str, Any]:
    """What of the schema every server knows; where that cannot be said, the schema that allows all."""
    schema = _resolved(schema, root)
    if depth <= 0:
        return {}
    if isinstance(schema.get("const"), str | int | float):
        return {"const": schema["const"]}
    values = schema.get("enum")
    if isinstance(values, list | tuple) and 0 < len(values) <= _MAX_ENUM:
        return {"enum": list(values)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and 0 < len(options) <= _MAX_ENUM and "properties" not in schema:
            return {"anyOf": [_narrowed(each, depth - 1, root) for each in options]}
    kind = schema.get("type")
    if isinstance(kind, list):
        return {"anyOf": [_narrowed(dict(schema, type=each), depth, root) for each in kind if each in _TYPES]}
    if kind == "object" or (kind is None and "properties" in schema):
        properties, required = _properties(schema)
        if (
            not properties
            or len(properties) > _MAX_PROPERTIES
            or schema.get("additionalProperties") not in (None, False)
        ):
            return {"type": "object"}
        return {
            "type": "object",
            "properties": {str(name): _narrowed(each, depth - 1, root) for name, each in properties.items()},
            "required": [name for name in required if name in properties],
            "additionalProperties": False,
        }
    if kind == "array":
        return {"type": "array", "items": _narrowed(schema.get("items"), depth - 1, root)}
    return {"type": kind} if kind in _TYPES else {}
