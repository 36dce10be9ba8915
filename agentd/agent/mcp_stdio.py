"""
An MCP server as a child process, spoken to over its standard input and output.

In: argv and a complete environment. Out: the two streams that the library's client speaks through.
Promise: a message is at most `MAX_MESSAGE` bytes; what is no message is passed over; the last of what the server said
on stderr is kept for people. The child stays in our process group, so that whoever kills that kills it too; when the
streams close it is asked to end, then killed with everything it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agentd.agent.kin import mark
from agentd.agent.tools.saying import line

MAX_MESSAGE = 4 * 1024 * 1024
_END_S = 0.7
_TERM_S = 0.7
_KILL_S = 3.0
_STDERR_BYTES = 2000


class Said:
    """What is known of a child beside its messages. last: of its stderr, for people. ended: no more will come."""

    def __init__(self) -> None:
        self.stderr = bytearray()
        self.why = ""
        self.ended = asyncio.Event()

    @property
    def last(self) -> str:
        text = self.stderr.decode("utf-8", "replace").strip()
        said = text.rpartition("\n")[2] if text else ""
        return "; ".join(each for each in (self.why, line(said, 300)) if each)


@asynccontextmanager
async def stdio_streams(argv: Sequence[str], env: Mapping[str, str], said: Said) -> AsyncIterator[tuple[Any, Any]]:
    """The streams (to read, to write). Raises OSError when the program cannot be started."""
    import anyio
    from mcp.shared.message import SessionMessage

    process = await _started(argv, env)
    try:
        to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_session, incoming, outgoing, from_session, anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process, to_session, said)
            tasks.start_soon(_write, process, from_session, said)
            tasks.start_soon(_listen, process, said)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()
    finally:
        await _put_away(process)


async def _started(argv: Sequence[str], env: Mapping[str, str]) -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd="/",
            limit=MAX_MESSAGE,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cancelled itself, it would leave behind a child that nobody knows of.
        with contextlib.suppress(OSError, ValueError):
            await _put_away(await starting)
        raise


async def _put_away(process: asyncio.subprocess.Process) -> None:
    """End it, and everything it started; when there is no more time for that, at once."""
    started = _descendants(process.pid)
    ending = asyncio.ensure_future(_end(process))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([ending])
        raise
    finally:
        _kill(process, started)


async def _read(process: asyncio.subprocess.Process, to_session: Any, said: Said) -> None:
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    assert process.stdout is not None
    async with to_session:
        while True:
            try:
                raw = await process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                said.why = said.why or "it ended"
                break
            except (asyncio.LimitOverrunError, OSError) as error:
                too_long = isinstance(error, asyncio.LimitOverrunError)
                said.why = f"it sent a message of more than {MAX_MESSAGE} bytes" if too_long else str(error)
                break
            try:
                message = SessionMessage(jsonrpc_message_adapter.validate_json(raw, by_name=False))
            except (ValueError, RecursionError):  # a banner, a stray print
                continue
            try:
                await to_session.send(message)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                break
    said.ended.set()


async def _write(process: asyncio.subprocess.Process, from_session: Any, said: Said) -> None:
    assert process.stdin is not None
    async with from_session:
        async for message in from_session:
            raw = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                process.stdin.write(raw.encode() + b"\n")
                await process.stdin.drain()
            except (OSError, RuntimeError):
                said.why = said.why or "it takes no more messages"
                said.ended.set()
                return


async def _listen(process: asyncio.subprocess.Process, said: Said) -> None:
    assert process.stderr is not None
    with contextlib.suppress(OSError):
        while piece := await process.stderr.read(65536):
            said.stderr += piece
            del said.stderr[:-_STDERR_BYTES]


async def _end(process: asyncio.subprocess.Process) -> None:
    """By the specification: close its input, wait, then signals."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, RuntimeError):
        process.stdin.close()
    for wait_s, signal_it in ((_END_S, process.terminate), (_TERM_S, process.kill), (_KILL_S, None)):
        try:
            async with asyncio.timeout(wait_s):
                await _exited(process)
            return
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                if signal_it is not None:
                    signal_it()


async def _exited(process: asyncio.subprocess.Process) -> None:
    # Not wait(): that waits for the pipes' ends too, which a grandchild may hold open.
    while process.returncode is None:  # noqa: ASYNC110  nothing tells of the exit alone
        await asyncio.sleep(0.01)


def _descendants(pid: int) -> list[Any]:
    import psutil

    try:
        found: list[Any] = psutil.Process(pid).children(recursive=True)
    except (psutil.Error, OSError):
        return []
    return found


def _kill(process: asyncio.subprocess.Process, descendants: list[Any]) -> None:
    import psutil

    if process.returncode is None:
        descendants = descendants + _descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for each in descendants:
        # psutil looks whether the number still means the same process.
        with contextlib.suppress(psutil.Error, OSError):
            each.kill()
    transport = getattr(process, "_transport", None)
    if transport is not None:
        with contextlib.suppress(OSError):
            transport.close()


def clean_environment(configured: Mapping[str, str]) -> dict[str, str]:
    """What a server gets: a search path, a locale, a home, and what the configuration gives it; none of our secrets."""
    from agentd.watch.command import clean_environment as clean

    home = os.environ.get("HOME")
    return {**clean(), **({"HOME": home} if home else {}), **configured, **mark()}
