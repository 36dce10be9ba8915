"""Outputs as plain JSON of bounded size."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agent.plain import plain


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({1: "x", None: "y"}, {"1": "x", "null": "y"}),
        (float("nan"), "nan"),
        ([float("inf")], ["inf"]),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00+00:00"),
        (b"caf\xc3\xa9", "café"),
        ({"s": {1}}, {"s": [1]}),
        ("a\ud800b", "a?b"),
        ({"a": "\ud800"}, {"a": "?"}),
        (None, None),
        (True, True),
        ("", ""),
    ],
)
def test_whatever_a_tool_gives_becomes_json(value: Any, as_json: Any) -> None:
    """Results are kept, sent and shown as JSON."""
    assert plain(value, 10_000) == as_json


def test_number_beyond_writing_is_named() -> None:
    """Python itself refuses to write it."""
    assert plain([10**5000], 1000) == ["[a number of 16610 bits]"]


def test_what_cannot_be_written_says_so() -> None:
    """A defect in a tool's value is no reason to lose its run."""
    assert plain(Hostile(), 1000) == "[an output that cannot be written as JSON: RuntimeError]"


def test_circle_ends() -> None:
    """It has no end of its own."""
    assert "cut: nested too deeply" in json.dumps(plain(circle(), 1000))


def test_long_text_is_cut_and_says_so() -> None:
    """A cut that cannot be seen reads like the end."""
    assert plain("x" * 5000, 100) == "x" * 100 + "\n[cut: 100 of 5000 characters]"


def test_cut_never_splits_a_character() -> None:
    """Half a character is no text."""
    kept = plain("é" * 100, 25)

    assert kept.startswith("é" * 12 + "\n[cut")


def test_long_list_is_cut_and_says_how_much_is_missing() -> None:
    """The first rows are worth having."""
    cut = plain([{"n": n} for n in range(10_000)], 500)

    assert cut[0] == {"n": 0}
    assert cut[-1].startswith("[cut: ")
    assert len(json.dumps(cut)) < 1500


def test_wide_object_is_cut_too() -> None:
    """Keys are text as well."""
    cut = plain({f"key-{n}": "x" * 50 for n in range(10_000)}, 500)

    assert cut["[cut]"].endswith("more keys")
    assert len(json.dumps(cut)) < 1500


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(ANY, st.integers(0, 200))
def test_result_is_always_json_and_bounded(value: Any, limit: int) -> None:
    """Strict JSON, in UTF-8, not much larger than allowed."""
    found = plain(value, limit)
    text = json.dumps(found, allow_nan=False, ensure_ascii=False)

    assert json.loads(text) == found
    assert len(text.encode()) <= 8 * limit + 4000
