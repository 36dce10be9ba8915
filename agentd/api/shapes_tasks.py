"""
What the API answers about tasks and runs of agents: as types, for the OpenAPI document and for people.

As `shapes`: nothing here is looked at while an answer is made; moments are texts of ISO 8601 in UTC.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from agentd.api.shapes import Json


class TaskResult(TypedDict):
    success: bool
    summary: str
    details: NotRequired[Json]
    artifacts: NotRequired[list[Any]]
    execution_time: float | None


class TaskMetrics(TypedDict):
    """What it took. cached_tokens: of the input tokens, those that the provider had kept."""

    steps: int
    tool_calls: int
    model_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    usd: float | None
    models: list[str]


TaskStatus = Literal["pending", "in_progress", "completed", "failed", "cancelled", "stopped"]


class TaskLine(TypedDict):
    task_id: str
    status: TaskStatus
    task: str
    kind: str
    priority: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    result: TaskResult | None
    metrics: TaskMetrics
    trace_id: str | None
    batch_id: str | None
    after: str | None


class Plan(TypedDict):
    """How the agent understood what was asked, and what it meant to do."""

    understanding: NotRequired[str]
    approach: NotRequired[str]
    complexity: NotRequired[str]
    estimated_steps: NotRequired[int | None]
    requirements: NotRequired[list[str]]


class Step(TypedDict):
    id: str | None
    tool: str | None
    ok: bool
    error: str | None
    message: str
    duration_s: float | None
    output: str


class Task(TaskLine):
    plan: Plan | None
    steps: list[Step]
    metadata: Json
    repeated: NotRequired[bool]


class TaskEvent(TypedDict):
    """One of Server-Sent Events. data: JSON of a line of the record. `end` is the last, and without an id."""

    id: NotRequired[str]
    event: str
    data: str


class Tasks(TypedDict):
    tasks: list[TaskLine]
    next: str | None


class Batch(TypedDict):
    batch_id: str
    mode: Literal["parallel", "sequential"]
    on_failure: Literal["continue", "stop"]
    repeated: bool
    tasks: list[Task]


class Run(TypedDict):
    id: str
    watch: str
    kind: str
    trigger: str
    state: str
    goal: str | None
    fingerprint: str | None
    due_at: str
    started_at: str | None
    ended_at: str | None
    status: str | None
    summary: str | None
    error: str | None
    steps: int
    model_calls: int
    tokens: int
    usd: float | None
    models: list[str]


class Runs(TypedDict):
    runs: list[Run]
    next: str | None


class RecordLine(TypedDict):
    """at_s: seconds since the run began."""

    seq: int
    at_s: float
    kind: str
    data: Json


class RunWithAnswer(Run):
    answer: str
    finding: Json | None
    plan: Json | None
    asked: Json


class RunWhole(RunWithAnswer):
    record: list[RecordLine]
    whole: bool
    next: int | None


class Tool(TypedDict):
    name: str
    description: str
    input_schema: Json | None
    allowed: bool


class Tools(TypedDict):
    tools: list[Tool]


class Model(TypedDict):
    name: str
    provider: str
    model: str
    base_url: str | None
    protocol: str | None
    context_tokens: int | None
    fallback: list[str]
    default: bool


class Models(TypedDict):
    models: list[Model]
