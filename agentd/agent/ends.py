"""
How a prompt ends: what the model's last words are worth, and what is reported when there are none.

In: a final answer, or why there is none, and the evidence. Out: an `End`, and of that and the account an `Outcome`.
Promise: whatever was found is in it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentd.agent.account import Account
from agentd.agent.evidence import Exhibits
from agentd.agent.finding import NO_ANALYSIS, read_finding, without_model
from agentd.agent.job import AgentPlan, Finding, Job, Outcome, OutcomeState

MAX_STEPS_ANSWER = "Stopped: max steps reached"
TIME_ANSWER = "Stopped: time limit reached"
REPETITION_ANSWER = "Stopped: repeated calls without progress"
LONGEST_ERROR = 1000


@dataclass(frozen=True, slots=True)
class End:
    """How a prompt ended."""

    state: OutcomeState
    answer: str = ""
    finding: Finding | None = None
    error: str | None = None


def completed(job: Job, exhibits: Exhibits, final: Any) -> End:
    """The model gave its answer. A person's task has a finding only if the model wrote one."""
    if job.kind in ("task", "session") and not _is_finding(final):
        return End("completed", _answer_text(final))
    finding = read_finding(final, exhibits, severity=job.severity)
    written = isinstance(final, str) and final.lstrip()[:1] != "{"
    return End("completed", str(final) if written else finding.summary, finding)


def nobody_asked(job: Job, exhibits: Exhibits, reason: str) -> End:
    """There is no model, or none any more. A goal has its evidence; a task that a person set has no answer."""
    finding = without_model(exhibits, reason, severity=job.severity)
    if job.kind in ("goal", "investigate"):
        return End("completed", finding.summary, finding)
    return End("failed", finding=finding, error=f"no model could be asked: {reason}"[:LONGEST_ERROR])


def failed(job: Job, exhibits: Exhibits, reason: str) -> End:
    reason = reason[:LONGEST_ERROR]
    return End("failed", finding=without_model(exhibits, reason, severity=job.severity), error=reason)


def stopped(job: Job, exhibits: Exhibits, answer: str) -> End:
    """answer: one of those above, which say at what limit."""
    why = answer.removeprefix("Stopped: ")
    finding = without_model(exhibits, why, severity=job.severity)
    gathered = finding.summary.removeprefix(NO_ANALYSIS)
    return End("stopped", answer, finding.model_copy(update={"summary": f"{answer}. {gathered}"}), why)


def outcome_of(end: End, account: Account, plan: AgentPlan | None) -> Outcome:
    return Outcome(
        state=end.state,
        answer=end.answer,
        finding=end.finding,
        plan=plan,
        error=end.error,
        steps=account.steps,
        tool_calls=account.tool_calls,
        model_calls=account.model_calls,
        input_tokens=account.usage.input_tokens,
        output_tokens=account.usage.output_tokens,
        cached_tokens=account.usage.cached_tokens,
        usd=account.usd,
        models=tuple(account.models),
        artifacts=tuple(account.artifacts),
        duration_s=round(account.elapsed_s, 6),
    )


def _is_finding(final: Any) -> bool:
    if isinstance(final, str):
        try:
            final = json.loads(final)
        except (ValueError, RecursionError):
            return False
    return isinstance(final, Mapping) and bool({"status", "claims"} & final.keys())


def _answer_text(final: Any) -> str:
    """The last words of a model that was set a task."""
    if isinstance(final, Mapping):
        for key in ("answer", "summary", "result"):
            if isinstance(final.get(key), str):
                return str(final[key])
    return final if isinstance(final, str) else json.dumps(final, ensure_ascii=False, default=str)
