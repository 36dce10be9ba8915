"""
One call of one tool, from its start to its one `Result`.

Promise: the call ends once and in time, whatever the tool does: it may hang, swallow its cancellation, raise anything,
return anything. One asyncio task runs the tool; the deadline and everything after are callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from agentd.agent.plain import plain, text_within
from agentd.agent.port import Tool, ToolContext, ToolFailure
from agentd.agent.registry import Registry
from agentd.fleet.messages import ErrorKind, Result, Task

log = logging.getLogger("agentd.agent")

GRACE_S = 0.05
"""What a tool gets to clean up before its worker goes on without it; it may still end by itself after that."""
_LONGEST_MESSAGE = 2000
_LONGEST_UPDATE = 4000
_MAX_UPDATES = 1000

MakeContext = Callable[[Task], ToolContext]
Ended = Callable[[Result], None]
Update = Callable[[str], None]


class Doing(Protocol):
    """Of a worker what its calls need. abandoned: calls that were given up and have not ended yet."""

    name: str
    registry: Registry
    make_context: MakeContext
    abandoned: set[asyncio.Task[Result]]


class Call:
    """One call under way."""

    __slots__ = (
        "_began",
        "_context",
        "_ended",
        "_loop",
        "_running",
        "_task",
        "_timeout_s",
        "_timer",
        "_update",
        "_updates",
        "_who",
        "_why",
    )

    def __init__(self, who: Doing, task: Task, ended: Ended, update: Update | None, timeout_s: float) -> None:
        self._who = who
        self._task = task
        self._ended: Ended | None = ended
        self._update = update
        self._updates = 0
        self._timeout_s = timeout_s
        self._why: ErrorKind | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[Result] | None = None
        self._context: ToolContext | None = None
        self._loop = loop = asyncio.get_running_loop()
        self._began = loop.time()
        try:
            refused = self._prepare()
        except Exception as error:
            log.exception("task_not_begun", extra={"task": task.id, "tool": task.tool})
            refused = self._failed(ErrorKind.TOOL_ERROR, _told(error))
        if refused is not None:
            loop.call_soon(self._end, refused)

    def _prepare(self) -> Result | None:
        task, who = self._task, self._who
        context = who.make_context(task)
        allowed = context.permissions.tools
        tool = who.registry.get(task.tool)
        if tool is None:
            return self._failed(ErrorKind.TOOL_NOT_FOUND, who.registry.unknown(task.tool, allowed))
        if task.tool not in allowed:
            usable = ", ".join(allowed[:40]) or "none"
            return self._failed(ErrorKind.DENIED, f"{task.tool} is not allowed here; allowed are: {usable}")
        wrong = who.registry.complaint(task.tool, task.input)
        if wrong is not None:
            return self._failed(ErrorKind.INVALID_INPUT, wrong)
        context.id = task.id
        context.timeout_s = self._timeout_s
        if self._update is not None:
            context.report = self._report
        self._context = context
        self._running = running = self._loop.create_task(self._perform(tool, context))
        running.add_done_callback(self._done)
        self._timer = self._loop.call_later(self._timeout_s, self._stop, ErrorKind.TIMEOUT)
        return None

    def cancel(self) -> None:
        """End it: at once if it has not begun or heeds its cancellation, else after `GRACE_S`."""
        if self._ended is not None and self._why is None:
            self._stop(ErrorKind.CANCELLED)

    async def _perform(self, tool: Tool, context: ToolContext) -> Result:
        try:
            output = await tool.call(self._task.input, context)
        except ToolFailure as failure:
            return self._failed(
                failure.kind,
                str(failure),
                again=_worth_another(failure, tool),
                retry_after_s=failure.retry_after_s,
            )
        except TimeoutError as error:
            message = str(error) or "something it waited for took too long"
            return self._failed(ErrorKind.TIMEOUT, f"{self._task.tool}: {message}", again=tool.repeatable)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: asyncio would end the whole loop with it
            return self._failed(ErrorKind.TOOL_ERROR, _told(error))
        return Result(
            self._task.id,
            self._task.tool,
            plain(output, context.max_output),
            None,
            "",
            self._task.attempt,
            self._loop.time() - self._began,
            self._who.name,
        )

    def _failed(
        self, kind: ErrorKind, message: str, *, again: bool = False, retry_after_s: float | None = None
    ) -> Result:
        return Result(
            self._task.id,
            self._task.tool,
            None,
            kind,
            text_within(message, _LONGEST_MESSAGE),
            self._task.attempt,
            self._loop.time() - self._began,
            self._who.name,
            retry_after_s,
            again,
        )

    def _stop(self, why: ErrorKind) -> None:
        """Ask the tool to end, and go on without it if it does not."""
        running, context = self._running, self._context
        if self._why is not None or running is None or context is None or running.done():
            return  # its result is on its way
        self._why = why
        if self._timer is not None:
            self._timer.cancel()
        context.cancelled.set()
        running.cancel()
        self._timer = self._loop.call_later(GRACE_S, self._abandon)

    def _abandon(self) -> None:
        running = self._running
        if running is None or running.done():
            return
        log.warning("tool_abandoned", extra={"task": self._task.id, "tool": self._task.tool})
        # The loop holds its tasks weakly: one that nobody else holds may vanish in mid-work.
        self._who.abandoned.add(running)
        self._end(self._stopped())

    def _done(self, running: asyncio.Task[Result]) -> None:
        if self._ended is None:
            self._who.abandoned.discard(running)
            if not running.cancelled():
                running.exception()  # read, so that asyncio does not report it as never read
            return
        if self._why is not None:
            if not running.cancelled():
                running.exception()
            self._end(self._stopped())
        elif running.cancelled():
            self._end(self._failed(ErrorKind.TOOL_ERROR, f"{self._task.tool} cancelled itself; it may be tried again"))
        elif (error := running.exception()) is not None:
            self._end(self._failed(ErrorKind.TOOL_ERROR, _told(error)))
        else:
            self._end(running.result())

    def _stopped(self) -> Result:
        if self._why is ErrorKind.TIMEOUT:
            tool = self._who.registry.get(self._task.tool)
            message = f"{self._task.tool} took longer than {self._timeout_s:g} s and was ended"
            return self._failed(ErrorKind.TIMEOUT, message, again=tool is not None and tool.repeatable)
        return self._failed(ErrorKind.CANCELLED, "cancelled while it ran")

    def _end(self, result: Result) -> None:
        ended, self._ended = self._ended, None
        if self._timer is not None:
            self._timer.cancel()
        if ended is not None:
            ended(result)

    def _report(self, text: Any) -> None:
        if self._update is None or self._ended is None or self._updates >= _MAX_UPDATES:
            return
        self._updates += 1
        try:
            self._update(text_within(str(text), _LONGEST_UPDATE))
        except Exception:
            log.exception("listener_failed", extra={"event": "update"})


def _worth_another(failure: ToolFailure, tool: Tool) -> bool:
    """Whoever says "too often" has not done it; else only the tool knows whether twice does harm."""
    if failure.kind is ErrorKind.RATE_LIMITED:
        return True
    return tool.repeatable and (failure.again or failure.kind is ErrorKind.TIMEOUT)


def _told(error: BaseException) -> str:
    """An exception for the model: its kind and what it says."""
    try:
        said = str(error)
    except Exception:
        said = ""
    name = type(error).__name__
    return f"{name}: {said[:_LONGEST_MESSAGE]}" if said else name
