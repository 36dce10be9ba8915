"""
Running a run again from its records: today's code against what happened then.

In: the records of one run. Out: the outcome that today's code comes to, and where it goes another way.
Promise: model answers, results of tools, the order in which they came, what people said and the time all come from the
records; no network, no file of the run and no clock is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentd.agent.account import Account
from agentd.agent.divergence import Divergence, divergences
from agentd.agent.events import Listeners, TurnStart
from agentd.agent.evidence import Exhibits
from agentd.agent.inbox import Inbox
from agentd.agent.job import Job, Outcome
from agentd.agent.port import Record
from agentd.agent.prompts import MOST_GOAL_BYTES, Prompts, load_prompts
from agentd.agent.registry import Registry
from agentd.agent.session import Agent
from agentd.agent.spans import Spans
from agentd.agent.supervisor import Supervisor
from agentd.agent.tape import RecordedExecutor, RecordedModel, Tape
from agentd.errors import AgentdError
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec

__all__ = ["CannotReplay", "Divergence", "Replayed", "replay"]


class CannotReplay(AgentdError):
    """The records do not suffice."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """outcome: today's. recorded: that of then, None when the run was interrupted. divergences: in their order."""

    outcome: Outcome
    recorded: Outcome | None
    divergences: tuple[Divergence, ...]
    records: tuple[Record, ...]


class _RecordedPrompts:
    """The system prompt as it was; what a goal becomes is today's."""

    def __init__(self, text: str, scenario: str) -> None:
        self._text = text
        self._scenario = scenario
        self._today = load_prompts(None)

    def system(self, job: Job, *, tools: Sequence[ToolSpec] = (), guide: str = "") -> str:
        return self._text

    def goal(self, job: Job, *, exhibits: Exhibits | None = None, limit_bytes: int = MOST_GOAL_BYTES) -> str:
        return self._today.goal(job, exhibits=exhibits, limit_bytes=limit_bytes)

    def scenario(self, job: Job) -> str:
        return self._scenario


class _Kept:
    def __init__(self) -> None:
        self.records: list[Record] = []

    @property
    def prompts(self) -> int:
        """Worked on beside the goal."""
        return sum(record.kind == "event" and record.data.get("type") == "prompt" for record in self.records)

    def record(self, record: Record) -> None:
        self.records.append(record)


async def replay(
    records: Sequence[Record], *, registry: Registry | None = None, prompts: Prompts | None = None
) -> Replayed:
    """
    registry: today's tools, so that changed descriptions show; None: they are as they were then. prompts: of the
    user's folder as it is today; None: the built-in ones, or for a run with a folder of its own its prompt as it was.
    Raises CannotReplay.
    """
    tape = Tape(records)
    job = _job(tape)
    seen = tape.first("prompt")
    specs, kinds = _tools(seen, registry)
    kept, listeners, inbox = _Kept(), Listeners(), Inbox()
    account = Account(kept, tape.clock)
    supervisor = Supervisor(
        job,
        model=RecordedModel(tape, seen) if seen else None,
        why_no_model=_why_no_model(tape, job),
        executor=RecordedExecutor(tape, job.limits.max_parallel),
        specs=specs,
        kind_of=lambda name: kinds.get(name, "io"),
        prompts=prompts or _prompts(job, seen),
        account=account,
        listeners=listeners,
        spans=Spans(job.model_copy(update={"traceparent": None})),
        inbox=inbox,
        missing=_missing(tape),
    )
    agent = Agent(job, supervisor, account=account, listeners=listeners, inbox=inbox, timed=False)
    tape.agent, tape.inbox = agent, inbox
    listeners.subscribe(lambda event: tape.before_the_question() if isinstance(event, TurnStart) else None)
    outcome = await agent.prompt()
    while (text := tape.prompt(kept.prompts)) is not None:
        outcome = await agent.prompt(text)
    await agent.end()
    last = tape.last("outcome")
    return Replayed(
        outcome,
        Outcome.model_validate(last) if last else None,
        divergences(tape.records, kept.records),
        tuple(kept.records),
    )


def _job(tape: Tape) -> Job:
    data = tape.first("job")
    if data is None:
        raise CannotReplay("the records hold no job; the run ended before it began, or its records were rotated away")
    try:
        return Job.model_validate(data)
    except ValueError as error:
        raise CannotReplay(f"the job that was recorded cannot be read any more: {error}") from error


def _prompts(job: Job, seen: dict[str, Any] | None) -> Any:
    return _RecordedPrompts(seen["text"], seen.get("scenario", "")) if job.prompts and seen else load_prompts(None)


def _why_no_model(tape: Tape, job: Job) -> str:
    return next(
        (
            str(record.data.get("reason"))
            for record in tape.records
            if record.kind == "event" and record.data.get("type") == "no_model"
        ),
        job.why_no_model,
    )


def _missing(tape: Tape) -> list[str]:
    told = (record.data.get("told") for record in tape.records if record.kind == "event")
    return [str(each) for each in told if each]


def _tools(
    seen: dict[str, Any] | None, registry: Registry | None
) -> tuple[tuple[ToolSpec, ...], dict[str, WorkerClass]]:
    specs, kinds = [], {}
    for tool in (seen or {}).get("tools", ()):
        today = registry.get(tool["name"]) if registry else None
        specs.append(today.spec if today else ToolSpec(tool["name"], tool["description"], tool["input_schema"]))
        kinds[tool["name"]] = today.kind if today else tool.get("kind", "io")
    return tuple(specs), kinds
