"""Tools of real MCP servers, over stdio and over HTTP on loopback: they work, and they harm nobody when they do not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from loopback import free_port
from tool_calls import context

from agentd.agent.job import McpServer
from agentd.agent.mcp import open_mcp
from agentd.agent.mcp_stdio import MAX_MESSAGE
from agentd.agent.port import Tool, ToolContext, ToolFailure
from agentd.clock import SystemClock
from agentd.fleet.messages import ErrorKind
from agentd.testing import FakeClock

SERVER = str(Path(__file__).with_name("mcp_server.py"))
PLAIN = str(Path(__file__).with_name("mcp_plain.py"))
OFFERED = ("echo", "add", "environment", "much", "fail", "die", "hang", "steps", "pid")


def stdio(*tools: str, **more: Any) -> McpServer:
    return McpServer(command=(sys.executable, PLAIN), tools=tools or OFFERED, **more)


def by_script(code: str, *tools: str) -> McpServer:
    return McpServer(command=(sys.executable, "-c", code), tools=tools or ("x",))


@asynccontextmanager
async def opened(**servers: McpServer) -> AsyncIterator[dict[str, Tool]]:
    async with open_mcp(servers) as tools:
        yield {tool.name: tool for tool in tools}


async def call(tool: Tool, /, given: ToolContext | None = None, **input: Any) -> Any:
    answer = await tool.call(input, given or context())
    json.dumps(answer, allow_nan=False)
    return answer


async def failing(tool: Tool, /, given: ToolContext | None = None, **input: Any) -> ToolFailure:
    with pytest.raises(ToolFailure) as caught:
        await call(tool, given, **input)
    return caught.value


@pytest.fixture(scope="module")
def http_url() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(2000):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the server did not start"
            os.sched_yield()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["stdio", "http"])
def small(request: pytest.FixtureRequest) -> McpServer:
    if request.param == "stdio":
        return stdio()
    return McpServer(url=request.getfixturevalue("http_url"), tools=OFFERED)


async def test_tools_are_called_by_server_and_name(small: McpServer) -> None:
    async with opened(small=small) as tools:
        assert await call(tools["small.echo"], text="hello") == {"structured": {"result": "hello"}}
        assert await call(tools["small.add"], a=1, b=2) == {"structured": {"result": 3}}
        assert set(tools) == {f"small.{name}" for name in OFFERED}


async def test_the_librarys_own_server_over_stdio() -> None:
    """The newest revision of the protocol, by those who write it."""
    server = McpServer(command=(sys.executable, SERVER), tools=("echo", "die"))

    async with opened(small=server) as tools:
        assert await call(tools["small.echo"], text="hello") == {"structured": {"result": "hello"}}
        assert "out of coffee" in str(await failing(tools["small.die"]))


async def test_only_named_tools_are_there(small: McpServer) -> None:
    """The list of the configuration holds for servers too; what a server offers beside it does not exist."""
    few = small.model_copy(update={"tools": ("echo", "no_such_tool")})

    async with opened(small=few) as tools:
        assert list(tools) == ["small.echo"]


async def test_descriptions_and_schemas_are_tamed(small: McpServer) -> None:
    async with opened(small=small) as tools:
        spec = tools["small.echo"].spec

    assert spec.name == "small.echo"
    assert spec.description.startswith("Say it \ufffd[31magain\ufffd, very")
    assert len(spec.description) <= 1024
    assert spec.input_schema == {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


async def test_a_tool_that_fails_is_a_failure(small: McpServer) -> None:
    async with opened(small=small) as tools:
        failure = await failing(tools["small.fail"])
        assert failure.kind is ErrorKind.TOOL_ERROR
        assert "\x07" not in str(failure)
        assert await call(tools["small.add"], a=1, b=1)


async def test_a_wrong_input_is_the_servers_word(small: McpServer) -> None:
    async with opened(small=small) as tools:
        assert await failing(tools["small.add"], a="one")


async def test_a_hung_call_ends_and_others_go_on(small: McpServer) -> None:
    """The server is alive; only that one call is given up."""
    async with opened(small=small) as tools:
        hung = asyncio.ensure_future(failing(tools["small.hang"], context(timeout_s=0.4)))
        assert await call(tools["small.add"], a=1, b=2) == {"structured": {"result": 3}}
        assert (await hung).kind is ErrorKind.TIMEOUT
        assert await call(tools["small.add"], a=1, b=2) == {"structured": {"result": 3}}


async def test_cancelling_a_call_leaves_the_server(small: McpServer) -> None:
    async with opened(small=small) as tools:
        task = asyncio.ensure_future(call(tools["small.hang"]))
        await call(tools["small.add"], a=1, b=2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call(tools["small.add"], a=1, b=2) == {"structured": {"result": 3}}


async def test_results_are_bounded(small: McpServer) -> None:
    async with opened(small=small) as tools:
        answer = await call(tools["small.much"], context(max_output=10_000), size=500_000)

    assert answer["truncated"] is True
    assert len(json.dumps(answer)) < 10_000


async def test_progress_is_reported(small: McpServer) -> None:
    told: list[str] = []
    given = context()
    given.report = told.append

    async with opened(small=small) as tools:
        await call(tools["small.steps"], given)

    assert told == ["half way"]


async def test_a_server_gets_what_it_is_given_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of models stand in our environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("GRAFANA", "token-of-grafana")

    async with opened(small=stdio(env={"TOKEN": "${env:GRAFANA}"})) as tools:
        said = (await call(tools["small.environment"]))["structured"]["result"]

    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "HOME", "TOKEN"}
    assert "TOKEN=token-of-grafana" in said


async def test_a_missing_secret_is_said() -> None:
    async with opened(small=stdio("echo", env={"TOKEN": "${env:NOT_THERE_AT_ALL}"})) as tools:
        assert "NOT_THERE_AT_ALL" in str(await failing(tools["small.echo"], text="x"))


async def test_a_dead_server_is_a_failure_and_is_started_again(tmp_path: Path) -> None:
    """Once at once; what it said last is told."""
    lifes = tmp_path / "lifes"
    server = McpServer(command=(sys.executable, PLAIN, str(lifes)), tools=OFFERED)

    async with opened(small=server) as tools:
        first = (await call(tools["small.pid"]))["structured"]["result"]
        failure = await failing(tools["small.die"])
        second = (await call(tools["small.pid"]))["structured"]["result"]

    assert "out of coffee" in str(failure)
    assert failure.again
    assert first != second
    assert lifes.read_text() == "++"


async def test_a_server_that_dies_at_once_is_not_started_all_the_time(tmp_path: Path) -> None:
    """Every start costs seconds of CPU."""
    lifes = tmp_path / "lifes"
    server = by_script(
        f"open({str(lifes)!r}, 'a').write('+'); import sys; print('no licence', file=sys.stderr); sys.exit(1)"
    )

    async with opened(bad=server) as tools:
        failures = [await failing(tools["bad.x"]) for _ in range(5)]

    assert lifes.read_text() == "+"
    assert "no licence" in str(failures[0])
    assert "at the earliest" in str(failures[0])


def test_pauses_grow_and_end() -> None:
    """By the clock: 1 s after the first failure, then doubling to a minute."""
    clock = FakeClock()
    starts: list[float] = []

    async def story() -> None:
        server = McpServer(command=("/no/such/program",), tools=("x",))
        real = asyncio.create_subprocess_exec

        async def counted(*argv: Any, **more: Any) -> Any:
            starts.append(clock.monotonic())
            return await real(*argv, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agentd.agent.mcp_stdio.asyncio.create_subprocess_exec", counted)
            async with open_mcp({"bad": server}, clock=clock) as (tool,):
                for _ in range(400):
                    await failing(tool)
                    clock.tick(0.5)

    with asyncio.Runner() as runner:
        runner.run(story())

    gaps = [later - sooner for sooner, later in pairwise(starts)]
    assert gaps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


async def test_a_server_that_cannot_be_started_harms_no_other() -> None:
    async with opened(
        bad=McpServer(command=("/no/such/program",), tools=("x",)), worse=McpServer(tools=("y",)), small=stdio("add")
    ) as tools:
        assert await call(tools["small.add"], a=1, b=2)
        assert "cannot be started" in str(await failing(tools["bad.x"]))
        await failing(tools["worse.y"])


@pytest.mark.parametrize("start_s", [0.001, 0.3])
async def test_a_server_that_never_answers_is_given_up(start_s: float) -> None:
    """Also when its time is over before its process is there: that must not be left behind (pytest would warn)."""
    async with open_mcp({"mute": by_script("import time; time.sleep(1000)")}, start_s=start_s) as (tool,):
        assert "did not start" in str(await failing(tool))


async def test_noise_on_its_output_is_passed_over() -> None:
    """Banners and stray prints are common; the server of these tests prints one."""
    async with opened(small=stdio("add")) as tools:
        assert await call(tools["small.add"], a=1, b=2)


@pytest.mark.parametrize(
    "noise",
    ["sys.stdout.write('x' * 100_000_000)", "[print('{' * 1000) for _ in range(100_000)]",
     "print('{\"jsonrpc\": \"2.0\", \"id\": 1, \"result\": 7}')", "os.write(1, b'\\xff\\xfe' * 1000 + b'\\n')"],
    ids=["endless line", "many lines", "wrong answer", "bytes"],
)  # fmt: skip
async def test_garbage_ends_in_a_failure(noise: str) -> None:
    """Bounded memory, and no exception that anybody else sees."""
    code = f"import os, sys, time\nsys.stdin.readline()\n{noise}\nsys.stdout.flush()\ntime.sleep(1000)"

    async with open_mcp({"bad": by_script(code)}, start_s=1.5) as (tool,):
        assert isinstance(await failing(tool), ToolFailure)


def test_a_message_has_a_bound() -> None:
    assert MAX_MESSAGE <= 8 * 1024 * 1024


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_everything_is_ended_with_the_context() -> None:
    """A server that takes no notice of its closed input, and what it started, are killed."""
    code = (
        "import subprocess, signal, sys, os, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "sys.stderr.write(f'pids {os.getpid()} {child.pid}\\n'); sys.stderr.flush()\n"
        "time.sleep(1000)"
    )

    async with open_mcp({"stubborn": by_script(code)}, start_s=1.0) as (tool,):
        said = str(await failing(tool))

    pids = [int(word) for word in said.partition("pids ")[2].split(")")[0].split()[:2]]
    assert len(pids) == 2
    async with asyncio.timeout(10):
        while any(lives(pid) for pid in pids):  # killed, but the kernel takes its time
            await asyncio.sleep(0)


async def test_a_server_stands_in_our_process_group() -> None:
    """Whoever kills the group of the agent host at its deadline kills its servers."""
    async with opened(small=stdio("pid")) as tools:
        pid = (await call(tools["small.pid"]))["structured"]["result"]
        assert os.getpgid(pid) == os.getpgid(0)


async def test_servers_without_tools_are_not_started(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    async with open_mcp({"idle": McpServer(command=("touch", str(marker)))}) as tools:
        assert tools == []

    assert not marker.exists()


async def test_an_http_server_that_is_down_is_a_failure_until_it_is_up() -> None:
    port = free_port()
    server = McpServer(url=f"http://127.0.0.1:{port}/mcp", tools=("add",))

    async with open_mcp({"small": server}, clock=SystemClock()) as (tool,):
        assert "down" in str(await failing(tool, a=1, b=2))


async def test_proxies_of_the_environment_are_not_used(http_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async with opened(small=McpServer(url=http_url, tools=("add",))) as tools:
        assert await call(tools["small.add"], a=1, b=2)
