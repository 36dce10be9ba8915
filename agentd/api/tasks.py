"""
Tasks of agents over HTTP: what is asked, what comes back, and the port behind it.

In: requests as JSON. Out: `TaskAsked`, checked; views with the states that callers know.
Promise: what a request asks for can only narrow what the configuration allows; more is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from agentd.clock import iso
from agentd.errors import ConfigError
from agentd.memory.ledger import Run, RunState
from agentd.memory.run_records import Line
from agentd.telemetry.redact import STARS

Json = dict[str, Any]

MAX_GOAL_CHARS = 32 * 1024
MOST_IN_BATCH = 100
MOST_LINES = 5000
"""Lines of a run's record that are shown at once."""
MOST_SHOWN_CHARS = 2**20
"""Of a record, or of the outputs of a task, in one answer: to write it must not hold up the daemon."""
_SHOWN_CHARS = 4096
_TEXT_CHARS = 16 * 1024
_GOAL_CHARS = 1000
_SUMMARY_CHARS = 500
STATES: Mapping[RunState, str] = {
    RunState.QUEUED: "pending",
    RunState.RUNNING: "in_progress",
    RunState.COMPLETED: "completed",
    RunState.FAILED: "failed",
    RunState.STOPPED: "stopped",
    RunState.CANCELLED: "cancelled",
    RunState.INTERRUPTED: "failed",
}
STATUSES = tuple(dict.fromkeys(STATES.values()))
"""Of tasks, as callers know them."""
TASK_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"


Asked = TypeVar("Asked", bound=BaseModel)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _seconds(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("write a number of seconds")
    return value


class Constraints(_Asked):
    """Each can only narrow what the configuration allows. max_execution_time: seconds."""

    max_execution_time: Annotated[float | None, BeforeValidator(_seconds)] = Field(
        default=None, gt=0, le=86_400, allow_inf_nan=False
    )
    max_steps: Annotated[int | None, BeforeValidator(_seconds)] = Field(default=None, ge=1, le=1000)
    allowed_paths: list[Annotated[str, Field(max_length=4096)]] | None = Field(default=None, max_length=100)


class Context(_Asked):
    """Where and with what the task is done. environment: names that the configuration lets be set."""

    working_directory: str | None = Field(default=None, max_length=4096)
    environment: dict[str, Annotated[str, Field(max_length=8192)]] | None = Field(default=None, max_length=50)
    tools: list[Annotated[str, Field(max_length=200)]] | None = Field(default=None, max_length=200)
    constraints: Constraints = Constraints()


class TaskAsked(_Asked):
    """
    One task. task_id: chosen by the caller, so that asking again is not asking twice; else one is made.

    session: it stays open for further messages. model: by its name in the configuration. scenario: of the prompts.
    """

    task: str = Field(min_length=1, max_length=MAX_GOAL_CHARS)
    task_id: str | None = Field(default=None, pattern=TASK_ID)
    context: Context = Context()
    priority: Literal["low", "normal", "high", "critical"] = "normal"
    metadata: dict[str, Any] = Field(default={}, max_length=100)
    model: str | None = Field(default=None, max_length=63)
    scenario: str | None = Field(default=None, max_length=63)
    session: bool = False

    def as_asked(self) -> Json:
        """What the ledger keeps beyond the goal."""
        wanted: Json = {
            "model": self.model,
            "scenario": self.scenario,
            "metadata": self.metadata,
            "working_directory": self.context.working_directory,
            "environment": self.context.environment,
            "tools": self.context.tools,
            **self.context.constraints.model_dump(),
        }
        return {key: value for key, value in wanted.items() if value not in (None, {})}


class BatchAsked(_Asked):
    """
    Tasks that belong together. sequential: each begins when the one before it has ended, in whatever way.

    on_failure, of a sequential batch: with `stop`, what has not begun is cancelled once a task ends otherwise than
    completed.
    """

    tasks: list[TaskAsked] = Field(min_length=1, max_length=MOST_IN_BATCH)
    mode: Literal["parallel", "sequential"] = "parallel"
    on_failure: Literal["continue", "stop"] = "continue"

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [each.task_id for each in self.tasks if each.task_id is not None]
        if len(ids) != len(set(ids)):
            raise PydanticCustomError(
                "same_task_id", "two of the tasks have the same task_id; each is a task of its own"
            )
        return self


class Message(_Asked):
    """
    What is said to a task under way: `steer` interrupts what it does now, `follow_up` comes after it.

    `cancel` ends what a session works on now, which stays open; `end` closes it.
    """

    kind: Literal["steer", "follow_up", "cancel", "end"]
    text: str = Field(default="", max_length=MAX_GOAL_CHARS)


def read_task(body: Mapping[str, Any]) -> TaskAsked:
    """Raises ConfigError for what cannot be meant."""
    return _read(TaskAsked, body)


def _read(model: type[Asked], body: Mapping[str, Any]) -> Asked:
    try:
        return model.model_validate({key: value for key, value in body.items() if key != "by"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the task"
        raise ConfigError(f"{where}: {first['msg'].lower()}") from error


class TaskService(Protocol):
    """The daemon's side. Every method gives plain JSON values."""

    async def submit(self, asked: TaskAsked, *, by: str) -> Json:
        """
        The task's view, and `repeated`: whether its task_id was known already; then it is the task as it stands.

        Raises ConfigError for what is not allowed, Conflict when the task_id is that of something else, TooMany when
        the queue is full.
        """
        ...

    async def submit_batch(self, asked: BatchAsked, *, by: str) -> Json:
        """
        `{batch_id, mode, on_failure, repeated, tasks}`, the tasks' views in their order, without steps.

        All of them or none. Those whose task_id is known are taken as they stand; the same ids make the same batch_id.
        repeated: all were known. Raises as `submit`; a ConfigError or Conflict says which task.
        """
        ...

    async def tasks(self, *, status: str | None, limit: int, before: str | None = None) -> Json:
        """
        `{tasks, next}`: what people asked for, newest first, each as `task_line`.

        status: one of `STATUSES`. before: the `next` of the page above, the id of its last task; None: from the newest.
        next: None on the last page. Raises ConfigError for a status that there is not, NotFound for such a `before`.
        """
        ...

    async def task(self, id: str) -> Json:
        """Raises NotFound."""
        ...

    async def cancel(self, id: str, *, by: str) -> Json:
        """Raises NotFound, Conflict when it has ended."""
        ...

    async def say(self, id: str, message: Message, *, by: str) -> Json:
        """Raises NotFound, Conflict when it is not under way."""
        ...

    def events(self, id: str, after: int) -> AsyncIterator[Json]:
        """What the agent does, as it does it, each with its `seq`; ends with the task. Raises NotFound."""
        ...

    async def runs(self, *, watch: str | None, state: str | None, limit: int, before: str | None = None) -> list[Json]:
        """
        Newest first. before: the id of the last run of the page above. Raises NotFound when there is no such run.
        """
        ...

    async def run(self, id: str, after: int = -1) -> Json:
        """One run with its record, line by line, behind line `after`. Raises NotFound."""
        ...

    async def tools(self) -> list[Json]: ...

    async def models(self) -> list[Json]: ...


def task_view(run: Run, lines: Iterable[Line] = ()) -> Json:
    """
    A task as callers see it. lines: of its record, at least plans and results: what was done, oldest first; taken one
    at a time. after: the task of its batch whose end it waits for, or has waited for.
    """
    plan: Json | None = None
    steps: list[Json] = []
    room = MOST_SHOWN_CHARS
    for line in lines:
        if line.kind == "plan":
            plan = _without(dict(line.data), "own")
        elif line.kind == "result":
            steps.append(step := _step(line.data, min(room, _SHOWN_CHARS)))
            room -= len(step["output"])
    outcome, ended = run.outcome, run.ended_at is not None
    finding = outcome.finding or {}
    took_s = (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else None
    return {
        "task_id": run.id,
        "status": STATES[run.state],
        "task": run.goal,
        "kind": run.kind,
        "priority": run.priority.word,
        "created_at": iso(run.due_at),
        "started_at": None if run.started_at is None else iso(run.started_at),
        "ended_at": None if run.ended_at is None else iso(run.ended_at),
        "result": {
            "success": run.state is RunState.COMPLETED,
            "summary": finding.get("summary") or outcome.answer or run.error or "",
            "details": {"answer": outcome.answer, "finding": outcome.finding, "error": run.error},
            "artifacts": list(outcome.artifacts),
            "execution_time": took_s,
        }
        if ended
        else None,
        "plan": outcome.plan or plan,
        "steps": steps,
        "metrics": {
            "steps": outcome.steps,
            "tool_calls": outcome.tool_calls,
            "model_calls": outcome.model_calls,
            "input_tokens": outcome.input_tokens,
            "output_tokens": outcome.output_tokens,
            "cached_tokens": outcome.cached_tokens,
            "usd": None if outcome.usd_nano is None else outcome.usd_nano / 1e9,
            "models": list(outcome.models),
        },
        "metadata": run.asked.get("metadata", {}),
        "trace_id": run.trace_id,
        "batch_id": run.batch,
        "after": run.after,
    }


def task_line(run: Run) -> Json:
    """A task in a list: as `task_view`, without what may be long."""
    view = task_view(run)
    if view["result"] is not None:
        result = view["result"]
        view["result"] = {key: result[key] for key in ("success", "execution_time")} | {
            "summary": result["summary"][:_SUMMARY_CHARS]
        }
    for key in ("plan", "steps", "metadata"):
        del view[key]
    return view | {"task": run.goal[:_GOAL_CHARS]}


def run_view(run: Run) -> Json:
    """A run in a list."""
    outcome = run.outcome
    finding = outcome.finding or {}
    return {
        "id": run.id,
        "watch": run.watch,
        "kind": run.kind,
        "trigger": run.trigger,
        "state": run.state.value,
        "goal": run.goal[:_GOAL_CHARS],
        "fingerprint": run.fingerprint,
        "due_at": iso(run.due_at),
        "started_at": None if run.started_at is None else iso(run.started_at),
        "ended_at": None if run.ended_at is None else iso(run.ended_at),
        "status": finding.get("status"),
        "summary": finding.get("summary") or outcome.answer[:500],
        "error": run.error,
        "steps": outcome.steps,
        "model_calls": outcome.model_calls,
        "tokens": outcome.input_tokens + outcome.output_tokens,
        "usd": None if outcome.usd_nano is None else outcome.usd_nano / 1e9,
        "models": list(outcome.models),
    }


def run_with_record(run: Run, lines: Iterable[Line], *, after: int = -1) -> Json:
    """
    A run alone, with its record line by line, long texts cut. lines: those behind `after`, taken one at a time.

    whole: no line behind `after` is missing. next: where to go on when there is more than fits into one answer.
    """
    record: list[Json] = []
    size, whole, going_on = 0, True, None
    for line in lines:
        if size >= MOST_SHOWN_CHARS or len(record) == MOST_LINES:
            whole, going_on = False, record[-1]["seq"]
            break
        expected = record[-1]["seq"] + 1 if record else after + 1
        whole = whole and (line.seq == expected or (expected == 0 and line.seq == 1))
        data = _shortened(line.data)
        size += len(json.dumps(data, ensure_ascii=False, default=str))
        record.append({"seq": line.seq, "at_s": line.at_s, "kind": line.kind, "data": data})
    return run_view(run) | {
        "goal": run.goal,
        "answer": run.outcome.answer,
        "finding": run.outcome.finding,
        "plan": run.outcome.plan,
        "asked": _without_values(run.asked),
        "record": record,
        "whole": whole and bool(record or after >= 0),
        "next": going_on,
    }


def _without_values(asked: Mapping[str, Any]) -> Json:
    """What was asked, the variables for commands by their names alone: their values are often passwords."""
    shown = dict(asked)
    if isinstance(environment := shown.get("environment"), Mapping):
        shown["environment"] = dict.fromkeys(environment, STARS)
    return shown


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_CHARS else value[:_TEXT_CHARS] + "…"
    if isinstance(value, Mapping):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(each) for each in value]
    return value


def _step(data: Mapping[str, Any], chars: int) -> Json:
    """A finished call of a tool, for callers; of its output so many characters."""
    output = data.get("output")
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    return {
        "id": data.get("task"),
        "tool": data.get("tool"),
        "ok": data.get("error") is None,
        "error": data.get("error"),
        "message": str(data.get("message", ""))[:_SHOWN_CHARS],
        "duration_s": data.get("duration_s"),
        "output": text[:chars],
    }


def _without(data: Json, key: str) -> Json:
    return {name: value for name, value in data.items() if name != key}
