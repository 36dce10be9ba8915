"""
Agents and their limits: `embeddings`, `agent` and `budgets` of the configuration file.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from agentd.config.values import Url
from agentd.secret import Secret
from agentd.settings import Duration, Name, PositiveDuration, Settings


class EmbeddingsSettings(Settings):
    """An endpoint that turns text into vectors, for recall by meaning."""

    base_url: Url = Field(description="Address of an OpenAI-compatible API")
    model: str = Field(min_length=1, description="Name of the model there")
    api_key: Secret | None = Field(default=None, description="Key to the endpoint")


class AgentFiles(Settings):
    """Files that tools may read."""

    allow: tuple[str, ...] = Field(default=(), description="Folders; nothing outside of them is opened")
    write: bool = Field(default=False, description="Whether tools may write there")


class AgentCommands(Settings):
    """Commands that tools may run; never through a shell."""

    allow: tuple[tuple[str, ...], ...] = Field(
        default=(), description='Patterns of argv; "*" stands for one word that does not begin with -'
    )
    forbid: tuple[str, ...] = Field(default=(), description="Beginnings that are refused whatever `allow` says")


class AgentHttp(Settings):
    """Hosts that tools may ask."""

    allow: tuple[str, ...] = Field(default=(), description="Hosts, such as *.example.com")
    private_networks: bool = Field(default=False, description="Whether addresses of private networks may be reached")


class McpServer(Settings):
    """An MCP server whose tools agents may use; a command to start, or an address."""

    command: tuple[str, ...] | None = Field(default=None, min_length=1, description="argv of a server on stdio")
    url: Url | None = Field(default=None, description="Address of a server over streamable HTTP")
    tools: tuple[str, ...] = Field(default=(), description="Those of its tools that may be used")
    env: dict[str, Secret] = Field(default={}, description="Environment of the command; values may name secrets")
    headers: dict[str, Secret] = Field(default={}, description="Headers sent to the address; values may name secrets")


class AgentSettings(Settings):
    """What agents may do, at most; a watch or a request can only narrow it."""

    model: str | None = Field(default=None, description="Which of `models` is asked; default: the one called default")
    max_steps: int = Field(default=20, ge=1, le=1000, description="Steps of one run, at most")
    retries: int = Field(default=3, ge=0, le=100, description="How often a failed task is tried again")
    retry_delay: Duration = Field(default=timedelta(seconds=1), description="Time before it is tried again")
    max_parallel: int = Field(default=8, ge=1, le=1000, description="Tasks of one run that run at once")
    tool_timeout: PositiveDuration = Field(default=timedelta(seconds=10), description="Time given to one tool")
    tools: tuple[str, ...] = Field(
        default=(
            "http_get",
            "read_file",
            "list_files",
            "search_log",
            "query_history",
            "query_memory",
            "query_journal",
            "dns_lookup",
            "tls_info",
        ),
        description="Tools that may be used; of MCP servers: SERVER.TOOL. write_file and run_command are off until "
        "they are named here",
    )
    working_directory: Path = Field(default=Path("/"), description="Folder that commands run in")
    environment: tuple[str, ...] = Field(
        default=(), description="Names of environment variables that requests may set for commands"
    )
    files: AgentFiles = Field(default=AgentFiles(), description="Files that tools may read")
    commands: AgentCommands = Field(default=AgentCommands(), description="Commands that tools may run")
    http: AgentHttp = Field(default=AgentHttp(), description="Hosts that tools may ask")
    mcp: dict[Name, McpServer] = Field(default={}, description="MCP servers by name")
    prompts: Path | None = Field(default=None, description="Folder of prompt templates: global, project and scenario")


class Budget(Settings):
    """What may be spent; the first limit that is reached ends it."""

    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="US dollars")
    tokens: int | None = Field(default=None, ge=0, description="Tokens, read and written")
    time: PositiveDuration | None = Field(default=None, description="Wall time")


class DayBudget(Settings):
    """What may be spent in a day (UTC); the first limit that is reached ends it."""

    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="US dollars")
    tokens: int | None = Field(default=None, ge=0, description="Tokens, read and written")


class BudgetSettings(Settings):
    """Checked before a call is made."""

    run: Budget = Field(
        default=Budget(tokens=100_000, time=timedelta(minutes=5)),
        description="One run; default: 100,000 tokens and 5 minutes",
    )
    watch_per_day: DayBudget = Field(default=DayBudget(), description="All runs of one watch in a day (UTC)")
    daemon_per_day: DayBudget = Field(
        default=DayBudget(tokens=2_000_000), description="All runs of a day (UTC); default: 2,000,000 tokens"
    )


class Step(Settings):
    """One call of a runbook: evidence that is gathered before, or without, a model."""

    tool: str = Field(min_length=1, description="Tool to call")
    input: dict[str, Any] = Field(default={}, description="What it is given")


class Investigation(Settings):
    """What an agent is asked when the watch's alert fires."""

    goal: str = Field(min_length=1, description="What to find out")
    model: str | None = Field(default=None, description="Which of `models`; default: the one called default")
    wait: Duration = Field(
        default=timedelta(0),
        description="How long the message waits for the finding; 0s: the finding follows as an update",
    )
    tools: tuple[str, ...] | None = Field(default=None, description="Tools it may use; at most those of `agent`")
    budget: Budget | None = Field(default=None, description="What it may spend")
    scenario: str | None = Field(default=None, description="Which prompt template; default: inferred")
    runbook: tuple[Step, ...] = Field(default=(), description="Calls of tools that are made first, without a model")
