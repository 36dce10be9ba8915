"""
The ports of the agent: what a tool is, what a run asks of those outside of its process, what it leaves as its record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentd.agent.job import Permissions
from agentd.clock import Clock
from agentd.errors import AgentdError
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec
from agentd.llm.spend import Purse


class NotPermitted(AgentdError):
    """Asked for more than is allowed; the message names it, and what is allowed."""


class ToolFailure(AgentdError):
    """
    A tool could not do what it was asked. The message is read by the model: what, and how to mend.

    again: the same call may well succeed a moment later. retry_after_s: with `rate_limited`.
    """

    def __init__(
        self,
        message: str,
        kind: ErrorKind = ErrorKind.TOOL_ERROR,
        *,
        again: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.again = again
        self.retry_after_s = retry_after_s


class Asking(Protocol):
    """What tools may ask the daemon, which alone opens the stores."""

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        """
        what: `history` (results, alerts, templates of a watch), `memory` (notes and past incidents), `templates`.

        Returns plain JSON. Raises ToolFailure.
        """
        ...


@dataclass(slots=True)
class ToolContext:
    """
    What a call of a tool is given beside its input.

    id: of the task. timeout_s: its whole time; the worker ends it then, whatever it does. cancelled: set when the run
    wants no more of it (it is also cancelled as a task). report: tells partial results (text) while it works.
    max_output: bytes of output that are kept; a tool that can should stop there.
    """

    id: str
    permissions: Permissions
    clock: Clock
    ask: Asking
    timeout_s: float = 10.0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    report: Callable[[str], None] = lambda text: None
    max_output: int = 256 * 1024


class Tool(Protocol):
    """
    One tool. Adding one: a file with a class like this, and a line in `agentd.agent.tools`.

    kind: the class of workers that suits it: `io` waits, `logic` computes.
    repeatable: calling it twice does no more than calling it once; others are not tried again by themselves.
    """

    name: str
    spec: ToolSpec
    kind: WorkerClass
    repeatable: bool

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        """
        Returns a plain JSON value. Raises ToolFailure; any other exception is a defect and becomes `tool_error`.

        input fits the schema already. What it may do stands in `context.permissions` alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """
    One line of a run's record: enough to show the run, and to run it again offline.

    kind: `job plan prompt model steps task result decision observation steer finding outcome event`. at_s: seconds
    since the run's begin, monotonic. data: plain JSON.
    """

    seq: int
    at_s: float
    kind: str
    data: Mapping[str, Any]


class Services(Purse, Asking, Protocol):
    """Everything that a run has from outside: money, answers, and somebody who keeps its record."""

    def record(self, record: Record) -> None:
        """Keep this; never waits, never raises."""
        ...
