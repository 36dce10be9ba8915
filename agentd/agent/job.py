"""
What a run is asked, what it may do and spend, and what came of it: plain values that travel to the agent host and back.

Promise: all of it is JSON (`model_dump(mode="json")`, `model_validate`), names secrets and never holds one. What may
be done stands in `Permissions` alone, and those come from the configuration alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentd.llm.settings import ModelSettings
from agentd.records import Severity


class _Value(BaseModel):
    # Built with the first run: a daemon that asks no agent needs none of them.
    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False, defer_build=True
    )


class Permissions(_Value):
    """
    What tools may do. Empty: nothing.

    tools: names of tools (of MCP servers: `server.tool`). read: folders beneath which files may be read, absolute.
    write: whether files beneath `read` may be written. commands: argv patterns, `*` stands for one word that does not
    begin with `-`. forbid: prefixes of command lines that are refused whatever `commands` says. http: hosts, `*.x.y`
    for those beneath x.y; private_networks: whether addresses of private networks may be reached. working_directory:
    of commands. environment: names and values that commands get beside PATH and LANG.
    log_files: paths and globs of the logs that `search_log` reads, by watch. journal: whether query_journal may read.
    """

    tools: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: bool = False
    commands: tuple[tuple[str, ...], ...] = ()
    forbid: tuple[str, ...] = ()
    http: tuple[str, ...] = ()
    private_networks: bool = False
    working_directory: str = "/"
    environment: dict[str, str] = {}
    log_files: dict[str, tuple[str, ...]] = {}
    journal: bool = True


class McpServer(_Value):
    """
    An MCP server: a command on stdio or an address of streamable HTTP; tools: those of it that may be used.

    env, headers: of the one and the other; values may name secrets.
    """

    command: tuple[str, ...] | None = None
    url: str | None = None
    tools: tuple[str, ...] = ()
    env: dict[str, str] = {}
    headers: dict[str, str] = {}


class Limits(_Value):
    """
    Where a run ends. time_s: of the whole run. usd, tokens: of the whole run; None: no limit of its own.

    retries: how often a failed task is tried again by the executor. observation_bytes: of one step, as the model sees
    it. output_bytes: of one tool's output, as it is kept.
    """

    max_steps: int = 20
    retries: int = 3
    retry_delay_s: float = 1.0
    max_parallel: int = 8
    tool_timeout_s: float = 10.0
    time_s: float = 120.0
    usd: float | None = None
    tokens: int | None = None
    window_messages: int = 30
    observation_bytes: int = 16 * 1024
    output_bytes: int = 256 * 1024


class Exhibit(_Value):
    """
    Evidence that is there before the first step: the alert, a digest of a log, what was found the last time.

    id: such as `e1`, to be cited. title: one line. text: hostile, delimited as data.
    """

    id: str
    title: str
    text: str


class RunbookStep(_Value):
    """One call of the runbook: evidence that is gathered without asking a model."""

    tool: str
    input: dict[str, Any] = {}


class Job(_Value):
    """
    One run.

    watch: whose run it is, or `task`. kind: `goal` of a watch on its schedule, `investigate` an alert, `task` of a
    person, `session`: a task that stays open for further prompts. fingerprint: of the alert that is investigated.
    models: by their name in the config; model: the one to ask first, None: there is none, and `why_no_model` says why.
    permissions: what is allowed; runbook: gathered first. strategies: lines about what worked before.
    watches: names of those that can be asked about. scenario: of the
    prompts; None: inferred from the goal. prompts: folder of templates of the user.
    plugins: entry points of tools of third parties. now: ISO 8601, the run's begin.
    traceparent: of the span that the run belongs to. otlp_endpoint: where its own spans go, besides to the daemon.
    """

    run: str
    goal: str
    watch: str = "task"
    kind: Literal["goal", "investigate", "task", "session"] = "task"
    fingerprint: str | None = None
    severity: Severity = Severity.WARNING
    labels: dict[str, str] = {}
    instance: str = ""
    now: str = ""
    timezone: str = "UTC"
    watches: tuple[str, ...] = ()
    scenario: str | None = None
    prompts: str | None = None
    exhibits: tuple[Exhibit, ...] = ()
    runbook: tuple[RunbookStep, ...] = ()
    strategies: tuple[str, ...] = ()
    permissions: Permissions = Permissions()
    limits: Limits = Limits()
    models: dict[str, ModelSettings] = {}
    model: str | None = None
    why_no_model: str = "none is configured"
    mcp: dict[str, McpServer] = {}
    plugins: tuple[str, ...] = ()
    priority: Literal["low", "normal", "high", "critical"] = "normal"
    metadata: dict[str, Any] = {}
    traceparent: str | None = None
    content: Literal["none", "redacted", "full"] = "none"
    otlp_endpoint: str | None = None


_Words = Annotated[str, Field(max_length=4000)]
_Line = Annotated[str, Field(max_length=1000)]
_Id = Annotated[str, Field(max_length=200)]
_Title = Annotated[str, Field(max_length=200)]
"""Findings go into alerts, messages and memory: whoever sends one is held to about twice what `finding` ever makes."""


class Claim(_Value):
    """
    One thing that a finding says. evidence: ids of what it rests on; quotes: words of these, verbatim.

    unverified: a quote or an id of it was struck out.
    """

    text: _Words
    evidence: tuple[_Id, ...] = Field(default=(), max_length=8)
    quotes: tuple[_Line, ...] = Field(default=(), max_length=8)
    unverified: bool = False


class Finding(_Value):
    """
    The validated answer of a run.

    status: `ok`: nobody needs to look; `problem`; `unclear`. unverified: a quote was struck out that is not in what it
    cites. analysis: why there is none: `unavailable (reason)`. sources: what the ids are that claims cite, a line each.
    """

    status: Literal["ok", "problem", "unclear"] = "unclear"
    severity: Severity = Severity.WARNING
    summary: _Words
    claims: tuple[Claim, ...] = Field(default=(), max_length=20)
    next_steps: tuple[_Line, ...] = Field(default=(), max_length=20)
    confidence: float | None = Field(default=None, ge=0, le=1)
    unverified: bool = False
    analysis: _Line | None = None
    sources: dict[_Id, _Title] = Field(default={}, max_length=20)


class AgentPlan(_Value):
    """What the supervisor made of the goal before it acted."""

    understanding: str
    approach: str = ""
    complexity: Literal["simple", "moderate", "complex"] = "simple"
    estimated_steps: int = 1
    requirements: tuple[str, ...] = ()


OutcomeState = Literal["completed", "failed", "stopped", "cancelled"]


class Outcome(_Value):
    """
    What came of a run. answer: the model's own last words. error: why it failed, stopped or was cancelled.

    usd: None when a price was not known; tokens, model_calls: of all models together. artifacts: files it wrote.
    """

    state: OutcomeState
    answer: str = ""
    finding: Finding | None = None
    plan: AgentPlan | None = None
    error: str | None = None
    steps: int = 0
    tool_calls: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = 0.0
    models: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    duration_s: float = 0.0
