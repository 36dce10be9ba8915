"""What models were asked is counted from what the agent host says, which is looked at first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentd.daemon.runs.asked import Asked

ANSWERED = {
    "model": "default",
    "answered_by": "local",
    "usage": {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 50, "estimated": False},
    "usd": 0.25,
    "duration_s": 1.5,
}


def test_a_call_counts_for_the_model_that_answered() -> None:
    """What the one that was asked first would have cost nobody paid."""
    asked = Asked()
    asked.take(ANSWERED)
    asked.take(ANSWERED)

    assert dict(asked.calls) == {("local", "ok"): 2}
    assert dict(asked.tokens) == {("local", "input"): 200, ("local", "output"): 40, ("local", "cached"): 100}
    assert dict(asked.usd) == {("local",): 0.5}
    assert {labels: seen.total for labels, seen in asked.took_s} == {("local",): 3.0}


def test_a_call_that_failed_counts_by_how_it_failed() -> None:
    """That a provider is down and that a budget is spent are cured by different people."""
    asked = Asked()
    for kind in ("rate_limited", "interrupted", "budget", "CancelledError"):
        asked.take({"model": "default", "error": {"kind": kind, "message": "…"}, "duration_s": 0.1})

    outcomes = {labels[1] for labels, _ in asked.calls}
    assert outcomes == {"rate_limited", "interrupted", "budget", "other"}


@pytest.mark.parametrize(
    "said",
    [
        '{"model": 7, "error": [], "usage": 3, "usd": "much", "duration_s": null}',
        '{"usage": {"input_tokens": NaN, "output_tokens": -4, "cached_tokens": 1e300}, "usd": Infinity}',
        '{"model": "", "answered_by": {}, "usage": {"input_tokens": true}, "duration_s": -1}',
    ],
)
def test_what_a_host_makes_up_spoils_no_sum(said: str) -> None:
    """It reads what the whole world writes; one NaN, and the sum is none for ever."""
    asked = Asked()
    asked.take(ANSWERED)
    hostile: dict[str, Any] = json.loads(said)
    asked.take(hostile)

    assert dict(asked.usd) == {("local",): 0.25}
    assert dict(asked.tokens) == {("local", "input"): 100, ("local", "output"): 20, ("local", "cached"): 50}
    assert {labels[0] for labels, _ in asked.calls} == {"local", "other"}


def test_models_that_nobody_has_configured_are_bounded() -> None:
    """Names come from the host: a thousand of them are one series."""
    asked = Asked()
    for number in range(2000):
        asked.take({**ANSWERED, "answered_by": f"model-{number}"})

    assert len(dict(asked.usd)) == 51
    assert sum(count for _, count in asked.calls) == 2000
