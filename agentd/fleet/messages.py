"""
What a supervisor and its workers say to each other: `Task`, `Result`, `Control`.

Promise: all of it is plain JSON (`to_json`, `from_json`), so that a worker may be in this process or on another
machine. A task that began has exactly one result for each attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

WorkerClass = Literal["io", "logic"]
DEFAULT_TIMEOUT_S = 10.0
ONE_PROMPT = "prompt"
"""As the target of a `cancel`: ends what a session works on, and leaves it open."""


class ErrorKind(StrEnum):
    """Why a task did not give what it was asked for: a closed list; what is done about it depends on this alone."""

    TOOL_NOT_FOUND = "tool_not_found"
    TOOL_ERROR = "tool_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    RATE_LIMITED = "rate_limited"
    INVALID_INPUT = "invalid_input"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Task:
    """
    One call of one tool.

    id: unique within the run (`s3.1`: third step, first call). depends_on: ids of tasks of the same graph that must
    have ended well before. timeout_s: seconds it may take. attempt: counted from 1. kind: class of worker that
    suits it. call_id: of the model's tool call that asked for it, if one did.
    """

    id: str
    tool: str
    input: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = DEFAULT_TIMEOUT_S
    depends_on: tuple[str, ...] = ()
    attempt: int = 1
    kind: WorkerClass = "io"
    run: str = ""
    call_id: str | None = None
    traceparent: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        return cls(**{**data, "depends_on": tuple(data.get("depends_on", ()))})


@dataclass(frozen=True, slots=True)
class Result:
    """
    What came of a task. output: plain JSON value, None when it failed. message: what is wrong, for model and people.

    retry_after_s: with `rate_limited`. worker: who did it. duration_s: monotonic. again: the same call may go better
    another time, and does no harm if the first did its work after all.
    """

    task: str
    tool: str
    output: Any = None
    error: ErrorKind | None = None
    message: str = ""
    attempt: int = 1
    duration_s: float = 0.0
    worker: str = ""
    retry_after_s: float | None = None
    again: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        error = data.get("error")
        return cls(**{**data, "error": ErrorKind(error) if error else None})


@dataclass(frozen=True, slots=True)
class Control:
    """What the supervisor tells workers, or people a run. target: id of a run or task. text: of steer and follow_up."""

    kind: Literal["cancel", "steer", "follow_up", "end"]
    target: str
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Control:
        return cls(**data)
