"""What a model says, while it comes: whole lines, once each."""

from __future__ import annotations

from typing import Any

import click
import pytest

from agentd.cli.streaming import Stream

START = {"event": "MessageStart", "role": "assistant"}
END = {"event": "MessageEnd", "role": "assistant"}
THINKING = "  … thinking"


def delta(text: str) -> dict[str, Any]:
    return {"event": "MessageUpdate", "kind": "text", "delta": text}


def shown(stream: Stream, *events: dict[str, Any]) -> list[str]:
    return [click.unstyle(line) for event in events for line in stream.take(event)]


def test_lines_are_shown_when_they_are_whole() -> None:
    """Not in the pieces in which they come, which the line that is being typed would tear."""
    stream = Stream(80)

    assert shown(stream, START, delta("All is ")) == [THINKING]
    assert shown(stream, delta("well.\nAnd")) == ["All is well."]
    assert shown(stream, delta(" good."), END) == ["And good."]
    assert stream.has_shown("All is well.\nAnd good.\n")
    assert not stream.has_shown("All is well.")


def test_a_remark_stands_on_a_line_of_its_own() -> None:
    """It is no word of the answer, which is shown once more when it was not shown whole."""
    stream = Stream(80)
    remark = {"event": "MessageUpdate", "kind": "remark", "delta": "default cannot be reached; asking two"}

    assert shown(stream, START, remark, delta("Well.")) == [THINKING, "  … default cannot be reached; asking two"]
    assert shown(stream, END) == ["Well."]
    assert stream.has_shown("Well.")


def test_a_long_line_is_shown_where_it_would_wrap() -> None:
    """A paragraph is one line to a model, and takes half a minute."""
    stream = Stream(20)

    assert shown(stream, START, delta("one two three four five six seven")) == [THINKING, "one two three four"]
    assert shown(stream, END) == ["five six seven"]


@pytest.mark.parametrize("text", ['{"final": 1}', "[1]", "```json\n{}\n```", "  {", "", "<tool_call>"])
def test_an_action_is_not_shown(text: str) -> None:
    """It is for the executor; its calls are shown, and its answer at the end."""
    stream = Stream(80)

    assert shown(stream, START, *map(delta, text), END) == [THINKING]
    assert not stream.has_shown(text)


def test_what_begins_like_an_action_and_is_none_is_shown() -> None:
    """Two ticks may be the begin of code."""
    stream = Stream(80)

    assert shown(stream, START, delta("`"), delta("df` shows it.\n")) == [THINKING, "`df` shows it."]


def test_words_paint_nothing() -> None:
    """A model quotes what it read."""
    assert shown(Stream(80), START, delta("\x1b[2Jred\n"))[1] == "\\x1b[2Jred"


def test_a_message_that_begins_anew_is_another() -> None:
    """One that broke off is asked again; what of it was shown is not the answer."""
    stream = Stream(80)
    shown(stream, START, delta("All is"), END, START, delta("lost."), END)

    assert stream.has_shown("lost.")
