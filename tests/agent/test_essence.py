"""Evidence in one line: what it is called tells a person where to look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentd.agent.essence import essence_of, title_of
from agentd.fleet.messages import ErrorKind, Result


@pytest.mark.parametrize(
    ("result", "input", "title"),
    [
        (
            Result("s1.2", "http_get", {"status": 503}),
            {"url": "https://shop.example/"},
            "s1.2 http_get https://shop.example/: 503",
        ),
        (Result("s2.1", "read_file", "x"), {"path": "/var/log/app.log"}, "s2.1 read_file /var/log/app.log"),
        (
            Result("s1.1", "run_command", None, ErrorKind.TIMEOUT),
            {"argv": ["df", "-h"]},
            "s1.1 run_command df -h: timeout",
        ),
        (Result("s1.1", "box.look", {"status": {"a": 1}}), {"where": "shelf", "token": "t0p"}, "s1.1 box.look shelf"),
        (Result("s1.1", "box.look", None), {}, "s1.1 box.look"),
    ],
)
def test_a_title_says_tool_target_and_outcome(result: Result, input: Mapping[str, Any], title: str) -> None:
    """It is all that a message tells of what it cites."""
    assert title_of(result, input) == title


def test_an_essence_is_one_bounded_line() -> None:
    """It goes into messages, whatever a log holds."""
    assert essence_of("\n---\n  first words  \nmore", 80) == "first words"
    assert essence_of("[" * 50_000, 80)[-1] == "…"
    assert len(essence_of('{"a": "' + "x" * 5000 + '"}', 80)) == 80
    assert essence_of("", 80) == ""
