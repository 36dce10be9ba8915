"""What MCP servers say is made plain and bounded before a model or a validator sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agent.mcp_shape import OPEN_SCHEMA, plain_result, tamed_description, tamed_schema


@dataclass
class Text:
    text: str
    type: str = "text"


@dataclass
class Image:
    data: str
    mime_type: str = "image/png"
    type: str = "image"


def test_an_ordinary_schema_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "LogQL", "maxLength": 1000},
            "limit": {"type": "integer", "minimum": 1, "default": 10},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "order": {"enum": ["asc", "desc"]},
            "ids": {"type": ["array", "null"], "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        },
        "required": ["query"],
        "additionalProperties": False,
    }

    assert tamed_schema(schema) == schema


def test_references_are_replaced_by_what_they_mean() -> None:
    """A validator would otherwise fetch them, or go in circles."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "http://169.254.169.254/schema"}, "c": {"$ref": "#"}},
        "$defs": {"A": {"type": "object", "properties": {"self": {"$ref": "#/$defs/A"}, "x": {"type": "integer"}}}},
    }

    tamed = tamed_schema(schema)

    assert "$ref" not in json.dumps(tamed)
    assert tamed["properties"]["a"]["properties"]["x"] == {"type": "integer"}
    assert (tamed["properties"]["b"], tamed["properties"]["c"]) == ({}, {})
    jsonschema.validate({"a": {"self": {"self": {"x": 1}}}, "b": 1}, dict(tamed))


def test_patterns_that_hang_a_validator_are_left_out() -> None:
    """Python's engine takes years for this one; the server checks its own patterns."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$", "format": "regex"}}}

    assert tamed_schema(schema)["properties"]["a"] == {"type": "string"}


def bush(depth: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": bush(depth - 1) for n in range(9)} if depth else {}}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "x",
        {},
        bush(4),
        {"properties": {f"p{n}": {"type": "string"} for n in range(100_000)}},
        {"properties": {"a": {"enum": ["x" * 100_000] * 99}}},
        {"properties": {"\x1b[2J": {}, "a" * 5000: {}}},
        {"properties": {"a": {"minimum": "1", "maxLength": -1, "type": "any", "enum": [], "anyOf": []}}},
        {"properties": {"a": {"type": {"x": 1}, "description": ["x"], "default": {"a": [1] * 100_000}}}},
        {"allOf": [{"$ref": "#/allOf/0"}] * 20},
    ],
)
def test_hostile_schemas_become_small_and_valid(schema: Any) -> None:
    tamed = dict(tamed_schema(schema))

    assert tamed["type"] == "object"
    assert len(json.dumps(tamed)) <= 32 * 1024
    jsonschema.Draft202012Validator.check_schema(tamed)
    list(jsonschema.Draft202012Validator(tamed).iter_errors({"a": "x"}))


def test_a_deep_schema_ends() -> None:
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"type": "object", "properties": {"a": schema}, "items": schema}

    assert len(json.dumps(tamed_schema(schema))) < 32 * 1024


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
WORDS = st.sampled_from(
    ["type", "properties", "items", "required", "enum", "anyOf", "$ref", "minimum", "maxLength", "description",
     "default", "additionalProperties", "const"]
)  # fmt: skip


@given(st.dictionaries(WORDS, JSON | st.dictionaries(WORDS, JSON, max_size=4), max_size=6))
def test_whatever_comes_a_schema_is_made_of_it(schema: dict[str, Any]) -> None:
    tamed = dict(tamed_schema(schema))

    json.dumps(tamed)
    jsonschema.Draft202012Validator.check_schema(tamed)


def test_descriptions_are_short_and_plain() -> None:
    """They go into every prompt, and may try to give orders with marks that people do not see."""
    assert tamed_description("a\x1b[31m\n\n b\u202e  c") == "a\ufffd[31m b\ufffd c"
    assert len(tamed_description("x" * 100_000)) == 1024
    assert tamed_description(None) == ""


def test_open_schema_takes_everything() -> None:
    jsonschema.validate({"x": [1]}, dict(OPEN_SCHEMA))


def test_text_is_joined_and_what_is_no_text_is_named() -> None:
    answer = plain_result([Text("one"), Image("A" * 400), Text("two\x07")], None, 1000)

    assert answer == {
        "text": "one\ntwo\ufffd",
        "attachments": [{"kind": "image", "mime": "image/png", "bytes": 300}],
    }


def test_structured_results_are_preferred() -> None:
    """The text beside them says the same once more."""
    assert plain_result([Text('{"a": 1}')], {"a": 1, "b": ["x\x00"]}, 1000) == {
        "structured": {"a": 1, "b": ["x\ufffd"]}
    }


def test_results_are_bounded() -> None:
    assert plain_result([Text("x" * 5000)], None, 1000) == {"text": "x" * 1000, "truncated": True}
    large = plain_result([Text("short")], {"rows": ["y" * 100] * 100}, 1000)
    assert large["truncated"] is True
    assert large["text"].startswith('{"rows": ["yyy')
    assert len(large["text"]) == 1000
    assert plain_result([Text("")] * 5000, None, 1000)["truncated"] is True


def test_deep_results_are_cut() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]

    assert len(json.dumps(plain_result([], deep, 1000))) < 1000


@given(JSON)
def test_whatever_comes_a_result_is_plain_json(value: Any) -> None:
    json.dumps(plain_result([], value, 10_000))
