"""What a message says of what an agent found, whichever format writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentd.deliver.formats import Message
from agentd.deliver.formats.digest import Digest, digest
from agentd.deliver.payload import examples
from agentd.records import EventType

NOW = datetime(2026, 11, 20, 9, 0, 3, tzinfo=UTC)
EXAMPLES = {example["type"]: example["data"] for example in examples()}
FINDING = {
    "status": "problem",
    "severity": "warning",
    "summary": "the pool is empty",
    "claims": [{"text": "it waits", "evidence": ["E1"], "quotes": ["pool\nexhausted"], "unverified": True}],
    "next_steps": [],
}


def told(type: str, **changed: Any) -> Digest:
    return digest(Message("msg_1", EventType(type), NOW, EXAMPLES[type] | changed))


def test_a_finding_says_what_was_asked_and_which_run_it_was() -> None:
    """Nobody knows otherwise what the answer answers, nor where the rest of it is: `agentd runs RUN`."""
    facts = dict(told("goal.finding").facts)

    assert facts["Goal"] == "Review the errors of the last 24 hours."
    assert facts["Run"] == "run_5f1c"


def test_a_claim_comes_with_what_it_quotes() -> None:
    """Words of the log are what convinces; they stand on one line, and what was struck out is said."""
    said = told("goal.finding", finding=FINDING).analysis

    assert said is not None
    assert said.lines == ("claim: it waits (unverified) [E1] “pool exhausted”",)


def test_an_update_with_a_finding_says_it_once() -> None:
    """The reason's text is the summary again, which stands below with what it rests on."""
    reason_text = f"an agent looked into it: {FINDING['summary']}"
    data = {"reason": "finding", "reason_text": reason_text, "finding": FINDING, "cost": {"run": "run_9"}}
    update = told("alert.updated", **data)

    assert dict(update.facts)["Reason"] == "an agent looked into it"
    assert dict(update.facts)["Run"] == "run_9"
    assert update.analysis is not None
    assert update.analysis.summary == "the pool is empty"


def test_an_update_whose_finding_was_too_large_still_says_it() -> None:
    """The payload drops a finding before it drops the alert."""
    data = {"reason": "finding", "reason_text": "an agent looked into it: the pool is empty", "finding": None}

    assert dict(told("alert.updated", **data).facts)["Reason"].endswith("the pool is empty")


def test_cost_of_another_shape_is_no_run() -> None:
    """An older version may have stored it."""
    odd: list[Any] = [None, [], {"run": None}, {"usd": 1}, "run_1"]
    for cost in odd:
        assert "Run" not in dict(told("alert.updated", finding=FINDING, cost=cost).facts)
