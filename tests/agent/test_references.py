"""Outputs put into inputs."""

from __future__ import annotations

from typing import Any

import pytest

from agentd.agent.references import BadReference, referred, renamed, resolved

OUTPUTS = {"t1": {"lines": ["first", "second"], "count": 2, "on": True}, "s1.2": "plain"}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("${t1.count}", 2),
        ("${t1.on}", True),
        ("${t1.lines}", ["first", "second"]),
        ("${t1.lines.0}", "first"),
        ("${t1.lines.-1}", "second"),
        ("${s1.2}", "plain"),
        ("n=${t1.count}, ${t1.lines.1}!", "n=2, second!"),
        ("all: ${t1.lines}", 'all: ["first", "second"]'),
        ({"a": ["${t1.count}"]}, {"a": [2]}),
        ("${HOME}/x", "${HOME}/x"),
        ("${t2}", "${t2}"),
        ("$ {t1}", "$ {t1}"),
    ],
)
def test_reference_becomes_the_value(given: Any, value: Any) -> None:
    """Alone it keeps its type, in a text it is text; what is no task's id stays."""
    assert resolved(given, OUTPUTS, OUTPUTS) == value


def test_output_is_not_read_for_references() -> None:
    """A page that says ${secret} must not be handed another task's output."""
    assert resolved("${a}", {"a": "${b}", "b": "hidden"}, ("a", "b")) == "${b}"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("${t1.line}", "t1 has no 'line'; it is an object with lines, count, on"),
        ("${t1.lines.7}", "t1.lines has no '7'; it is a list of 2"),
        ("${t1.lines.99999999999999999999}", "has no"),
        ("${t1.lines.²}", None),
        ("${s1.2.x}", "it is text"),
        ("${gone}", "gave no output"),
    ],
)
def test_reference_to_nothing_says_what_there_is(given: str, says: str | None) -> None:
    """The model reads it and mends its input."""
    if says is None:
        assert resolved(given, OUTPUTS, OUTPUTS) == given
        return
    with pytest.raises(BadReference, match=says.replace(".", r"\.")):
        resolved(given, OUTPUTS, {*OUTPUTS, "gone"})


def test_text_of_references_has_a_bound() -> None:
    """A few words of input must not become gigabytes."""
    with pytest.raises(BadReference, match="too long"):
        resolved("${a}" * 3 + ".", {"a": "x" * 500_000}, ("a",))


def test_longest_id_is_meant() -> None:
    """Ids have dots as paths do."""
    assert referred("${s1.2.x}", {"s1", "s1.2"}) == {"s1.2"}


def test_renamed_keeps_paths_and_strangers() -> None:
    """Tasks get ids of the run, and what they say of each other must follow."""
    given = {"a": "${t1.x.0} and ${HOME}", "b": ["${t2}"]}

    assert renamed(given, {"t1": "s3.1", "t2": "s3.2"}) == {"a": "${s3.1.x.0} and ${HOME}", "b": ["${s3.2}"]}
