"""All built-in tools: their schemas are tight, their descriptions short; plugins load only when they are named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import jsonschema
import pytest
from agent_run import Keeper, OneModel, final, job
from tool_calls import Asked, call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import Tool, ToolContext
from agentd.agent.run import Running
from agentd.agent.tools import BUILT_IN, plugins
from agentd.agent.tools.query_history import QueryHistory
from agentd.agent.tools.query_memory import QueryMemory
from agentd.errors import ConfigError
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec
from agentd.testing import FakeClock, ScriptedModel

NAMES = {
    "http_get", "read_file", "write_file", "list_files", "run_command", "search_log", "query_history", "query_memory",
    "query_journal", "dns_lookup", "tls_info",
}  # fmt: skip


def test_every_tool_is_there_once() -> None:
    assert {tool.name for tool in BUILT_IN} == NAMES
    assert len(BUILT_IN) == len(NAMES)


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool.name)
def test_a_schema_is_tight(tool: Tool) -> None:
    """A model's input is hostile: nothing beyond what is named, everything bounded, everything checkable."""
    schema = dict(tool.spec.input_schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    for name, each in schema["properties"].items():
        kind = each["type"]
        if kind == "string":
            assert "enum" in each or "maxLength" in each, name
        elif kind == "integer":
            assert {"minimum", "maximum"} <= each.keys(), name
        elif kind == "array":
            assert {"maxItems", "items"} <= each.keys(), name
        else:
            assert kind == "boolean", name
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"shell": "rm -rf /"}, schema)


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool.name)
def test_a_tool_is_described_in_few_words(tool: Tool) -> None:
    """Every word is paid for at every step."""
    assert tool.spec.name == tool.name
    assert 20 < len(tool.spec.description) < 260
    assert len(json.dumps(tool.spec.input_schema)) < 2000


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool.name)
async def test_without_permissions_nothing_is_done(tool: Tool) -> None:
    """Empty permissions mean nothing; only the daemon itself can be asked, and the journal unless it is closed."""
    inputs: dict[str, dict[str, Any]] = {
        "http_get": {"url": "http://127.0.0.1/"},
        "read_file": {"path": "/etc/hostname"},
        "write_file": {"path": "/tmp/agentd-was-here", "content": "x"},
        "list_files": {"path": "/"},
        "run_command": {"argv": ["true"]},
        "search_log": {"path": "/var/log/syslog"},
        "dns_lookup": {"name": "localhost"},
        "tls_info": {"host": "localhost"},
    }
    if tool.name in inputs:
        await failing(tool, context(), ErrorKind.DENIED, **inputs[tool.name])


async def test_history_is_asked_of_the_daemon() -> None:
    """The stores are not opened here; times are made absolute."""
    ask = Asked()
    given = context(ask=ask, clock=FakeClock())

    await call(QueryHistory(), given, what="results", watch="shop", since="2h", limit=5)
    await call(QueryHistory(), given, what="templates", watch="app")
    await call(QueryMemory(), given, query="disk full", watch="root-disk")

    assert ask.queries == [
        ("history", {"kind": "results", "limit": 5, "watch": "shop", "since": "2026-01-05T10:00:00.000Z"}),
        ("templates", {"kind": "templates", "limit": 50, "watch": "app"}),
        ("memory", {"query": "disk full", "limit": 10, "watch": "root-disk"}),
    ]
    await failing(QueryHistory(), given, ErrorKind.INVALID_INPUT, what="results")
    await failing(QueryHistory(), given, ErrorKind.INVALID_INPUT, what="alerts", since="soon")


class Fine:
    name = "fine"
    spec = ToolSpec("fine", "A tool of somebody else", {"type": "object"})
    kind: WorkerClass = "logic"
    repeatable = True

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        return {"fine": True}


class Nameless(Fine):
    name = "rm -rf"


class Specless(Fine):
    name = "specless"
    spec = None  # type: ignore[assignment]


class Taken(Fine):
    name = "read_file"
    spec = ToolSpec("read_file", "Not ours", {"type": "object"})


def broken() -> Tool:
    raise RuntimeError("no licence")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("fine", f"{__name__}:Fine", "agentd.tools"),
        EntryPoint("nameless", f"{__name__}:Nameless", "agentd.tools"),
        EntryPoint("specless", f"{__name__}:Specless", "agentd.tools"),
        EntryPoint("read_file", f"{__name__}:Taken", "agentd.tools"),
        EntryPoint("renamed", f"{__name__}:Fine", "agentd.tools"),
        EntryPoint("broken", f"{__name__}:broken", "agentd.tools"),
        EntryPoint("evil", "no_such_module_of_evil:Tool", "agentd.tools"),
    ]
    monkeypatch.setattr("agentd.agent.tools.third_party.entry_points", lambda group: points)


@pytest.mark.usefixtures("installed")
async def test_a_named_plugin_is_a_tool() -> None:
    (tool,) = plugins(["fine", "fine"])

    assert await call(tool, context()) == {"fine": True}


@pytest.mark.usefixtures("installed")
def test_what_is_not_named_is_not_loaded() -> None:
    """A package that somebody installed for another purpose must not run in the agent host."""
    assert plugins([]) == []
    assert "no_such_module_of_evil" not in sys.modules


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "Install its package"),
        ("nameless", "letters"),
        ("specless", "ToolSpec"),
        ("read_file", "taken"),
        ("renamed", "entry point"),
        ("broken", "no licence"),
        ("evil", "no_such_module_of_evil"),
    ],
)
def test_a_plugin_that_does_not_fit_is_explained(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        plugins([name], taken=[tool.name for tool in BUILT_IN])


@pytest.mark.usefixtures("installed")
async def test_a_plugin_that_does_not_load_costs_its_own_tool_alone() -> None:
    """Four of five packages are sound: a run needs them the more while the fifth is broken."""
    names = ("broken", "read_file", "fine", "missing")
    keeper, model = Keeper(), ScriptedModel({"type": "ToolCall", "tool": "fine", "input": {}}, final("done"))
    asked = job(plugins=names).model_copy(update={"permissions": Permissions(tools=names)})

    await Running(asked, keeper, models=OneModel(model)).run()

    assert [each["output"] for each in keeper.of("result")] == [{"fine": True}]
    reasons = [each["reason"] for each in keeper.of("event") if each["type"] == "plugin_unavailable"]
    assert [name for name in names for reason in reasons if repr(name) in reason] == ["broken", "read_file", "missing"]


def test_the_list_of_tools_is_light() -> None:
    """Whoever only wants to know the names pays for no library of models, DNS or MCP."""
    code = (
        "import sys; import agentd.agent.tools, agentd.agent.mcp; "
        "print([name for name in ('mcp', 'dns', 'psutil', 'anyio', 'httpx2', 'jsonschema', 're2', 'rich') "
        "if name in sys.modules])"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
