"""
Spans that another process says are of a run: taken where they are, left where they are not.
"""

from __future__ import annotations

from typing import Any

import pytest

from agentd.telemetry.embedded import received

TRACE = "0" * 31 + "1"


def span(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": "0" * 15 + "2",
        "parent": None,
        "name": "chat default",
        "start_us": 1,
        "end_us": 2,
        "status": "unset",
        "status_text": "",
        "attributes": {"gen_ai.usage.input_tokens": 3},
        "events": [],
        "links": [],
    }
    return whole | changes


def test_what_is_a_span_comes_through_as_it_is() -> None:
    """The store and the page read these names."""
    assert received([span()], TRACE) == [span()]


@pytest.mark.parametrize(
    "said",
    [
        None,
        "spans",
        [None],
        [span(trace_id="f" * 32)],
        [span(start_us="now")],
        [span(attributes=[])],
        [{key: value for key, value in span().items() if key != "name"}],
    ],
)
def test_what_is_none_is_left_out(said: Any) -> None:
    """A host that went wrong must not write into another run's trace, nor break the store."""
    assert received(said, TRACE) == []


def test_keys_that_nobody_knows_are_left_behind() -> None:
    """What is stored is what is documented."""
    assert received([span(more="x" * 10)], TRACE) == [span()]


def test_the_root_is_kept_of_too_many() -> None:
    """It stands last, and without it nothing else can be placed."""
    spans = [span(name=f"n{number}") for number in range(3000)]

    found = received(spans, TRACE)

    assert (len(found), found[-1]["name"]) == (2000, "n2999")
