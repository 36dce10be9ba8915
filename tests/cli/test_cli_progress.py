"""What is made of an agent's events, for people: pure, bounded, and calm about nonsense."""

from __future__ import annotations

import io
from typing import Any

import pytest

from agentd.cli.answer import event_line, finding_lines, prose, shown_usd
from agentd.cli.live import picture
from agentd.cli.progress import MOST_CALLS, Progress


def told(progress: Progress, *events: dict[str, Any]) -> Progress:
    for second, event in enumerate(events):
        progress.take(event, float(second))
    return progress


def start(id: str, **more: Any) -> dict[str, Any]:
    return {"event": "ToolExecutionStart", "id": id, "tool": "look", "input": {"at": "x"}, **more}


def end(id: str, **more: Any) -> dict[str, Any]:
    return {"event": "ToolExecutionEnd", "id": id, "tool": "look", "output": "", "duration_s": 2.0, **more}


def said(usd: float | None) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"event": "MessageEnd", "role": "assistant", "content": "", "model": "m", "usage": usage, "usd": usd}


def drawn(progress: Progress) -> str:
    from rich.console import Console

    console = Console(width=120, file=io.StringIO())
    with console.capture() as capture:
        console.print(picture(progress, 1.0))
    return capture.get()


def test_calls_have_states_and_times() -> None:
    """The graph as it stands: what runs, what went well, what failed and why."""
    progress = told(
        Progress(0.0),
        start("a"),
        start("b", depends_on=["a"]),
        start("c"),
        {"event": "ToolExecutionUpdate", "id": "c", "tool": "look", "partial": "half"},
        end("a"),
        end("b", error="timeout", message="10 s"),
    )

    assert [(call.id, call.state, call.took_s) for call in progress.calls.values()] == [
        ("a", "ok", 2.0),
        ("b", "failed", 2.0),
        ("c", "running", None),
    ]
    assert progress.calls["b"].depends_on == ("a",)
    assert (progress.calls["b"].note, progress.calls["c"].note) == ("timeout: 10 s", "half")


def test_a_call_that_is_tried_again_runs_again() -> None:
    """A failure that is being mended is no failure."""
    progress = told(Progress(0.0), start("a"), end("a", error="timeout"), start("a"))

    assert progress.calls["a"].state == "running"


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    """A sum that leaves something out is a lie."""
    assert told(Progress(0.0), said(0.5), said(0.25)).usd == 0.75
    progress = told(Progress(0.0), said(0.5), said(None), said(0.5))
    assert (progress.usd, progress.tokens) == (None, 45)
    assert (shown_usd(None), shown_usd(0.0), shown_usd(0.00004)) == ("unknown cost", "$0.0000", "$0.000040")


def test_a_run_without_end_takes_no_room_without_end() -> None:
    """An agent may call tools all night."""
    delta = {"event": "MessageUpdate", "kind": "text", "delta": "x" * 1000}
    progress = told(Progress(0.0), *(start(str(number)) for number in range(MOST_CALLS + 50)), *[delta] * 50)

    assert len(progress.calls) == MOST_CALLS
    assert len(progress.text) <= 8000


def test_that_another_model_is_asked_is_shown_until_it_speaks() -> None:
    """Both ways to follow a task, the picture and the lines, say why nothing comes for a while."""
    remark = {"event": "MessageUpdate", "kind": "remark", "delta": "default cannot be reached; asking two"}
    text = {"event": "MessageUpdate", "kind": "text", "delta": "All is well."}
    progress = told(Progress(0.0), remark)

    assert "asking two" in drawn(progress)
    assert "asking two" not in drawn(told(progress, text))
    assert event_line(remark) == "default cannot be reached; asking two"


@pytest.mark.parametrize(
    "event", [{}, {"event": "News"}, {"event": 1}, end("nobody"), {"event": "MessageUpdate"}], ids=str
)
def test_nonsense_changes_nothing(event: dict[str, Any]) -> None:
    """A daemon of tomorrow may tell what we do not know."""
    assert told(Progress(0.0), event) == Progress(0.0)
    assert event_line(event) is None or "\n" not in str(event_line(event))


def test_what_is_not_verified_says_so_first() -> None:
    """Whoever reads only the first words must not take it for proven."""
    finding = {"status": "problem", "severity": "critical", "summary": "It burns.", "unverified": True}

    assert next(finding_lines(finding)) == "unverified: problem (critical): It burns."


def test_a_text_of_several_lines_stays_in_its_place() -> None:
    """A claim that is a list must not look like several claims."""
    claim = {"text": "one\ntwo", "evidence": ["e1"], "quotes": ["a\nb"], "unverified": True}

    lines = "\n".join(finding_lines({"status": "ok", "summary": "Fine.", "claims": [claim], "confidence": 0.5}))

    assert lines.splitlines() == [
        "ok: Fine.",
        "  confidence 50%",
        "",
        "  - one",
        "    two [e1] (unverified)",
        "      | a",
        "      | b",
    ]
    assert prose("\ta\x1b[2J") == "    a\\x1b[2J"
