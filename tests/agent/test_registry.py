"""Tools by name, inputs against their schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toolset import FakeTool

from agentd.agent.registry import BadTool, Registry
from agentd.agent.schemacost import DEEPEST, LARGEST

FETCH = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "pattern": "^https?://"},
        "method": {"enum": ["GET", "HEAD"]},
        "timeout_s": {"type": "number", "maximum": 60},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "when": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "at": {"anyOf": [{"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}]},
    },
    "required": ["url"],
    "additionalProperties": False,
}


def registry(schema: Any) -> Registry:
    return Registry([FakeTool("fetch", schema=schema)])


def test_registered_tool_is_found_and_listed() -> None:
    """Register, get, list."""
    fetch, look = FakeTool("fetch"), FakeTool("look")
    tools = Registry([fetch])
    tools.register(look)

    assert tools.get("look") is look
    assert tools.get("sing") is None
    assert tools.list() == [fetch, look]
    assert "fetch" in tools
    assert len(tools) == 2


def test_name_is_taken_once() -> None:
    """An MCP server must not slip its own read_file in."""
    with pytest.raises(BadTool, match="fetch: there is one of this name"):
        Registry([FakeTool("fetch"), FakeTool("fetch")])


def test_specs_are_those_that_are_allowed() -> None:
    """A model is not tempted by what it may not use."""
    tools = Registry([FakeTool("b"), FakeTool("a"), FakeTool("c")])

    assert [spec.name for spec in tools.specs(("a", "b", "none"))] == ["b", "a"]


def test_unknown_tool_is_answered_with_the_nearest() -> None:
    """Models misspell names of tools."""
    tools = Registry([FakeTool("read_file"), FakeTool("look")])

    assert "did you mean read_file?" in tools.unknown("readfile", ("read_file", "look"))
    assert "the tools are: look" in tools.unknown("zzz", ("look",))
    assert "read_file" not in tools.unknown("readfile", ("look",))


@pytest.mark.parametrize(
    ("input", "says"),
    [
        ({}, "fetch: `url` is missing"),
        ({"url": 5}, "fetch: `url` must be text, not 5"),
        ({"url": "ftp://x"}, 'fetch: `url` must match the pattern ^https?://, unlike "ftp://x"'),
        ({"url": "http://x", "method": "PUT"}, 'fetch: `method` must be one of "GET", "HEAD", not "PUT"'),
        ({"url": "http://x", "timeout_s": 90}, "fetch: `timeout_s`: 90 is greater than the maximum of 60"),
        ({"url": "http://x", "headers": {"a": 1}}, "fetch: `headers.a` must be text, not 1"),
        ({"url": "http://x", "when": []}, "fetch: `when` must be text or a whole number, not a list"),
        ({"url": "http://x", "at": {}}, "fetch: `at.line` is missing"),
        (
            {"url": "http://x", "uri": 1},
            "fetch: `uri` is not known; known are url, method, timeout_s, headers, when, at",
        ),
        ("http://x", "fetch: the input is an object with url, method, timeout_s, headers, when, at, not str"),
    ],
)
def test_complaint_says_which_key_and_what_is_wanted(input: Any, says: str) -> None:
    """The model mends its next call by this line alone."""
    assert registry(FETCH).complaint("fetch", input) == says


def test_several_complaints_come_at_once_but_not_too_many() -> None:
    """One round for all mistakes, in a line of bounded length."""
    schema = {"type": "object", "properties": {f"k{n}": {"type": "integer"} for n in range(40)}}
    said = registry(schema).complaint("fetch", {f"k{n}": "x" * 10_000 for n in range(40)})

    assert said is not None
    assert said.count("must be a whole number") == 5
    assert len(said) < 1000


def test_fitting_input_has_no_complaint() -> None:
    """Silence is consent."""
    assert registry(FETCH).complaint("fetch", {"url": "http://x", "when": 3, "headers": {"a": "b"}}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"type": "objekt"},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"pattern": r"(\w{1,1000}){1,1000}"}}},
        {"$ref": "#/$defs/none"},
        [],
        {"type": "object", "description": "x" * 300_000},
        {"type": "object", "default": {1, 2}},
    ],
)
def test_schema_that_cannot_be_used_is_refused_by_name(schema: Any) -> None:
    """Nothing is fetched for a stranger's schema, and a bad one is known when the tool is registered."""
    with pytest.raises(BadTool, match="tool fetch: its input_schema"):
        registry(schema)


def test_schema_is_not_read_from_files(tmp_path: Path) -> None:
    """Nor from anywhere else: it is there, and it is not looked at."""
    (tmp_path / "schema.json").write_text('{"type": "object"}')

    with pytest.raises(BadTool, match="Retrieval is disabled"):
        registry({"$ref": f"file://{tmp_path}/schema.json"})


def nested(levels: int, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = {"a": leaf}
    return leaf


def test_schema_nested_without_end_is_refused() -> None:
    """A recursion limit that is hit at registration is hit in no run."""
    schema: Any = {"type": "object"}
    for _ in range(3000):
        schema = {"properties": {"a": schema}}

    with pytest.raises(BadTool):
        registry(schema)


def doubling(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)
    }
    defs[f"d{levels}"] = {"type": "string"}
    return {"type": "object", "required": ["q"], "$ref": "#/$defs/d0", "$defs": defs}


def itself() -> dict[str, Any]:
    return {"type": "object", "allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}


def everyone_refers_to_everyone(count: int) -> dict[str, Any]:
    names = [f"d{n}" for n in range(count)]
    defs = {name: {"anyOf": [{"$ref": f"#/$defs/{other}"} for other in names if other != name]} for name in names}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": defs}


def hostile_inputs() -> list[tuple[Any, Any]]:
    pattern = {"type": "object", "properties": {"a": {"pattern": "^(?=(a+)+$)(a|aa)+$(?!x)"}}}
    return [
        (doubling(60), {"q": 1}),
        (itself(), nested(DEEPEST, {})),
        (everyone_refers_to_everyone(25), {}),
        (pattern, {"a": "a" * 50_000 + "b"}),
        ({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 50_000 + "b"}),
        ({"$ref": "#"}, {}),
        ({"type": "object"}, nested(5000, {})),
        ({"type": "object"}, {"a": [0] * (LARGEST + 1)}),
        ({"type": "object", "properties": {"a": {"uniqueItems": True}}}, {"a": [{"n": n} for n in range(40_000)]}),
    ]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("schema", "input"), hostile_inputs())
def test_no_schema_and_no_input_hangs_a_check(schema: Any, input: Any) -> None:
    """Checked in full, the first of these would take until the end of the world."""
    said = registry(schema).complaint("fetch", input)

    assert said is None or said.startswith("fetch: ")


def test_schema_too_costly_still_asks_for_what_is_required() -> None:
    """The rest is checked by the server that wrote the schema."""
    tools = registry(doubling(60))

    assert tools.complaint("fetch", {}) == "fetch: missing: q"
    assert tools.complaint("fetch", {"q": 1}) is None


def test_recursive_schema_of_an_honest_server_is_checked() -> None:
    """Filters of filters are common, and the input is small."""
    schema = {
        "type": "object",
        "properties": {"filter": {"$ref": "#/$defs/f"}},
        "$defs": {
            "f": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "properties": {"and": {"type": "array", "items": {"$ref": "#/$defs/f"}}}},
                    {"type": "object", "properties": {"or": {"type": "array", "items": {"$ref": "#/$defs/f"}}}},
                ]
            }
        },
    }
    tools = registry(schema)

    assert tools.complaint("fetch", {"filter": {"and": ["x", {"or": ["y", {"and": ["z"]}]}]}}) is None
    assert tools.complaint("fetch", {"filter": 7}) is not None


def test_look_around_in_a_pattern_is_taken() -> None:
    """Generators of schemas write it for mail addresses."""
    tools = registry({"type": "object", "properties": {"mail": {"pattern": r"^(?!\.)(?!.*\.\.)\S+@\S+$"}}})

    assert tools.complaint("fetch", {"mail": "a@b.c"}) is None
    assert tools.complaint("fetch", {"mail": ".a@b.c"}) is not None


@pytest.mark.parametrize("value", [float("nan"), 10**400, "\ud800", (1, 2), {1: 2}, b"x", object()])
def test_odd_value_never_raises(value: Any) -> None:
    """A check answers; it does not end the run."""
    registry(FETCH).complaint("fetch", {"url": value})
    registry({"type": "object"}).complaint("fetch", {"url": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(FETCH["properties"])), inner),  # type: ignore[call-overload]  # keys of a constant above
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_answered(input: Any) -> None:
    """Models send anything."""
    said = registry(FETCH).complaint("fetch", input)

    assert said is None or said.startswith("fetch: ")
