"""
Tools of MCP servers, beside our own and under the same list of what is allowed: `server.tool`.

In: servers by name, as the configuration has them. Out: a `Tool` for each that `tools:` of its server names.
Promise: what a server does is a result or a ToolFailure, never a crash and never a hang; a dead one is started again,
the next time at once, then after growing pauses. Descriptions, schemas and results are bounded and made plain
(`agentd.agent.mcp_shape`). A server may ask nothing of us: no model, no files, no people.

The library `mcp` (extra `agentd[mcp]`) is imported at the first server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentd import __version__
from agentd.agent.job import McpServer
from agentd.agent.mcp_shape import OPEN_SCHEMA, plain_result, tamed_description, tamed_schema
from agentd.agent.mcp_stdio import Said, clean_environment, stdio_streams
from agentd.agent.port import Tool, ToolContext, ToolFailure
from agentd.agent.tools.saying import clipped, line, readable
from agentd.agent.tools.working import Stop, on_thread
from agentd.clock import Clock, SystemClock
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec
from agentd.secret import SecretMissing, SecretText

if TYPE_CHECKING:
    from mcp import ClientSession

log = logging.getLogger("agentd.agent")

START_S = 15.0
_STOP_S = 6.0
_LOAD_S = 60.0
_MOST_PAGES = 20
_MOST_TOOLS = 1000
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LIVED_S = 30.0
_SAID_CHARS = 2000
_LAST_WORDS_S = 0.3
"""What a dying server says on stderr may come after the end of its messages."""


@asynccontextmanager
async def open_mcp(
    servers: Mapping[str, McpServer],
    *,
    clock: Clock | None = None,
    start_s: float = START_S,
    tell: Callable[[str, str], None] = lambda what, why: None,
) -> AsyncIterator[list[Tool]]:
    """
    The tools of these servers, for as long as the context is open; then all of them are ended.

    Starts those whose `tools` name any, all at once, and waits up to `start_s` seconds for what they offer. A server
    that cannot be started gives its tools all the same, without their schema; a call then tries to start it again.
    tell: gets what is missing, in words of ours alone, and why, which may be the server's own words.
    """
    used = [_Server(name, server, clock or SystemClock(), start_s) for name, server in servers.items() if server.tools]
    try:
        await asyncio.gather(*(server.try_to_start() for server in used))
        yield [tool for server in used for tool in server.tools(tell)]
    finally:
        await asyncio.gather(*(server.stop() for server in used))


class _Server:
    """One server: its present life, if it has one, and how its lives went."""

    def __init__(self, name: str, settings: McpServer, clock: Clock, start_s: float) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._start_s = start_s
        self._life: _Life | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._why = "it was not started"
        self._offered: dict[str, Any] | None = None

    async def try_to_start(self) -> None:
        with contextlib.suppress(ToolFailure):
            await self._session()

    async def stop(self) -> None:
        if self._life is not None:
            await self._life.stop()

    def tools(self, tell: Callable[[str, str], None]) -> list[Tool]:
        found: list[Tool] = []
        if self._offered is None:
            tell(f"MCP server {self.name} did not start: its tools may not be available", self._why)
        for name in dict.fromkeys(self._settings.tools):
            offered = None if self._offered is None else self._offered.get(name)
            if self._offered is not None and offered is None:
                there = ", ".join(sorted(line(each, 60) for each in self._offered)[:20])
                log.warning("mcp_tool_unknown", extra={"server": self.name, "tool": name, "offered": there})
                tell(f"The tool {self.name}.{name} is not available", f"the server does not offer it, but {there}")
                continue
            found.append(_McpTool(self, name, offered))
        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """Raises ToolFailure."""
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED, CallToolRequest, CallToolRequestParams, CallToolResult

        async def told(progress: float, total: float | None, message: str | None) -> None:
            context.report(line(message, 300) if message else f"{progress:g}" + (f" of {total:g}" if total else ""))

        session, life = await self._session()
        # Not session.call_tool(): that holds the result against the server's own schema, whose patterns may hang us.
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments)))
        sending = asyncio.ensure_future(session.send_request(request, CallToolResult, progress_callback=told))
        dying = asyncio.ensure_future(life.over.wait())
        try:
            await asyncio.wait((sending, dying), timeout=context.timeout_s * 0.95, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                if dying.done():
                    raise self._dead(life.why)
                raise ToolFailure(f"{self.name}.{tool} gave no answer in time", ErrorKind.TIMEOUT)
            result = sending.result()
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                await asyncio.wait((dying,), timeout=_LAST_WORDS_S)
                life.end(line(str(error), 300))
            if life.over.is_set():
                raise self._dead(life.why) from error
            raise ToolFailure(f"MCP server {self.name}: {line(str(error), 500)}") from error
        except ToolFailure:
            raise
        except Exception as error:
            # A result that does not fit the protocol, a connection that broke: what it was is for people.
            life.end(f"{type(error).__name__}: {line(str(error), 300)}")
            raise self._dead(life.why) from error
        finally:
            for task in (sending, dying):
                task.cancel()
            await asyncio.gather(sending, dying, return_exceptions=True)
        answer = plain_result(result.content, result.structured_content, context.max_output * 3 // 4)
        if result.is_error:
            said = str(answer.get("text") or answer.get("structured") or "it failed and did not say why")
            raise ToolFailure(clipped(readable(said), _SAID_CHARS)[0])
        return answer

    async def _session(self) -> tuple[ClientSession, _Life]:
        """The running server's session; starts one if there is none. Raises ToolFailure."""
        async with self._starting:
            life = self._life
            if life is not None and life.over.is_set():
                await self._bury(life)
                life = None
            if life is None:
                if self._clock.monotonic() < self._not_before:
                    raise self._dead(self._why)
                life = self._life = _Life(self.name, self._settings, self._clock.monotonic())
                life.begin(self._start_s)
        # Whoever gives up waiting leaves it to start for the next one.
        await life.ready.wait()
        if life.session is None:
            async with self._starting:
                await self._bury(life)
            raise self._dead(life.why)
        if self._offered is None:
            self._offered = life.offered
        return life.session, life

    async def _bury(self, life: _Life) -> None:
        """Once for each life: let it end, and say when the next one may begin."""
        if self._life is not life:
            return
        self._life = None
        await life.stop()
        now = self._clock.monotonic()
        self._failures = 0 if life.session is not None and now - life.began >= _LIVED_S else self._failures + 1
        pause_s = 0.0 if self._failures <= 1 and life.started else _FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)
        self._not_before = now + min(pause_s, _LONGEST_PAUSE_S)
        self._why = life.why or "it ended"
        log.warning("mcp_server_ended", extra={"server": self.name, "why": self._why, "failures": self._failures})

    def _dead(self, why: str) -> ToolFailure:
        wait_s = max(0.0, self._not_before - self._clock.monotonic())
        later = f"; it is started again in {math.ceil(wait_s)} s at the earliest" if wait_s else ""
        return ToolFailure(f"MCP server {self.name} is down: {why}{later}", again=wait_s < 2)


class _Life:
    """
    From one start of a server to its end, in a task of its own: what the library opens is to be closed where it was
    opened.

    ready: the start came to an end. session: None before that, and when it failed. over: it ended, or is to end.
    why: for people.
    """

    def __init__(self, name: str, settings: McpServer, began: float) -> None:
        self.began = began
        self.session: ClientSession | None = None
        self.started = False
        self.over = asyncio.Event()
        self.why = ""
        self.offered: dict[str, Any] = {}
        self._name = name
        self._settings = settings
        self.ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, start_s: float) -> None:
        """`ready` is set once it is, or has failed."""
        self._task = asyncio.create_task(self._live(start_s), name=f"mcp-{self._name}")

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.over.set()

    async def stop(self) -> None:
        self.end("it was ended")
        if self._task is not None:
            late = {self._task}
            if self.session is not None:
                _, late = await asyncio.wait(late, timeout=_STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_STOP_S)

    async def _live(self, start_s: float) -> None:
        said = Said()
        try:
            # It takes more than a second, in which the loop would stand still; and it is no fault of the server's.
            await on_thread(_load_library, timeout_s=_LOAD_S)
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(start_s):
                    session = await self._open(stack, said)
                    self.offered = await _offered(session)
                self.session, self.started = session, True
                self.ready.set()
                watching = asyncio.create_task(said.ended.wait())
                over = asyncio.create_task(self.over.wait())
                try:
                    await asyncio.wait((watching, over), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    watching.cancel()
                    over.cancel()
                self.end(said.last or "it ended")
        except TimeoutError:
            self.end(f"it did not start within {start_s:g} s" + (f" ({said.last})" if said.last else ""))
        except asyncio.CancelledError:
            self.end("it was ended")
            raise
        except Exception as error:
            self.end(said.last or _reason(error))
        finally:
            self.over.set()
            self.ready.set()

    async def _open(self, stack: AsyncExitStack, said: Said) -> ClientSession:
        from mcp import Client
        from mcp_types import Implementation

        settings = self._settings
        if settings.command is not None:
            env = clean_environment(_expanded(settings.env))
            transport: Any = stdio_streams(settings.command, env, said)
        else:
            from mcp.client.streamable_http import streamable_http_client

            from agentd.agent.mcp_http import http_client

            client = await stack.enter_async_context(http_client(_expanded(settings.headers)))
            transport = streamable_http_client(SecretText(settings.url or "").expand(), http_client=client)
        opened = await stack.enter_async_context(
            Client(transport, client_info=Implementation(name="agentd", version=__version__), cache=None)
        )
        return opened.session


async def _offered(session: ClientSession) -> dict[str, Any]:
    """The server's tools by name. Raises what the library raises."""
    from mcp_types import PaginatedRequestParams

    found: dict[str, Any] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            if len(found) < _MOST_TOOLS:
                found.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if not cursor:
            break
    return found


class _McpTool:
    kind: WorkerClass = "io"
    repeatable = False

    def __init__(self, server: _Server, tool: str, offered: Any) -> None:
        self.name = f"{server.name}.{tool}"
        self._server = server
        self._tool = tool
        said = "" if offered is None else tamed_description(offered.description)
        schema = OPEN_SCHEMA if offered is None else tamed_schema(offered.input_schema)
        self.spec = ToolSpec(self.name, said or f"{tool} of the MCP server {server.name}", schema)
        hints = getattr(offered, "annotations", None)
        # Only a hint, and the server's own word: it decides about a second try, about nothing else.
        self.repeatable = bool(hints is not None and (hints.read_only_hint or hints.idempotent_hint))

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        return await self._server.call(self._tool, input, context)


def _load_library(stop: Stop) -> None:
    try:
        importlib.import_module("mcp.client.streamable_http")
    except ImportError as error:
        raise ToolFailure("MCP needs the Python package mcp; install agentd[mcp]") from error


def _expanded(values: Mapping[str, str]) -> dict[str, str]:
    return {name: SecretText(value).expand() for name, value in values.items()}


def _reason(error: BaseException) -> str:
    """The first that was no mere consequence, in few words."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, SecretMissing | ToolFailure):
        return str(error)
    if isinstance(error, OSError):
        return f"it cannot be started: {error.strerror or error}"
    return f"{type(error).__name__}: {line(str(error), 300)}"
