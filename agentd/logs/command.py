"""
The output of a command as a source, line by line.

In: argv, and whether it keeps running or is run at intervals. Out: batches of lines of its standard output.
Promise: the command never fills our memory (while nobody reads, it waits), and it never outlives `close`. One that
ends is started again: at once when it had run for a minute, else after 1 s, doubling to a minute.

There are no positions: output while we were down, or while the command was, is gone, and a command that says again at
each start what it said before is read again. So nobody knows of silence before the first start, nor from before it was
last blind (`Batch.since`); a pause between two runs counts as watched. What it says on standard error is not read as
lines: its last line tells why the source is blind. It is blind when the command cannot be started, when it fails again
and again, and when a run at intervals is still going when the one after the next is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Callable
from datetime import datetime

from agentd.logs.command_child import Child
from agentd.logs.command_lines import Lines
from agentd.logs.port import Batch, Block, Counters
from agentd.logs.settings import LogSource

STREAM = "command"
_START_WAIT_S = 0.25
_START_POLL_S = 0.1
_START_S = 10.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0
_FINE_S = 10.0
"""After so long a run its failures before are forgotten."""
_FAILURES = 3
_FAILURES_AT_INTERVALS = 2
_SILENT_END_S = 5.0
"""A program that has closed its output is given so long to end."""
_INCOMPLETE_S = 1.0
"""An entry that may go on waits so long for its next line."""
_MOST_INCOMPLETE = 1024 * 1024
_TERM_GRACE_S = 0.5
_TERM_POLL_S = 0.02
_WITHOUT_PIDFD_S = 0.5

Start = Callable[[tuple[str, ...]], Child]
Complete = Callable[[bytes], int]


def open_command(
    argv: tuple[str, ...],
    settings: LogSource,
    *,
    every_s: float | None,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    start: Start = Child,
    complete: Complete | None = None,
) -> Command:
    """
    The lines of a command's output.

    every_s: run it so often, in seconds from start to start, each run read to its end; None: it keeps running.
    complete: how many bytes at the begin of these whole lines are whole entries; the rest waits for its next lines,
    a second at most. None: every line is an entry.
    start: what starts it. Nothing is started before the first read. Raises ConfigError for an unknown encoding.
    """
    return Command(argv, settings, every_s, now, monotonic, start, complete)


class Command:
    """A `Source`. The stream is `command`; offsets count the bytes of text since this start of the command."""

    def __init__(
        self,
        argv: tuple[str, ...],
        settings: LogSource,
        every_s: float | None,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        start: Start,
        complete: Complete | None,
    ) -> None:
        self.counters = Counters()
        self._argv = tuple(argv)
        self._name = shlex.join(argv)[:200]
        self._settings = settings
        self._every_s = every_s
        self._now = now
        self._monotonic = monotonic
        self._start = start
        self._complete = complete
        self._closed = False

        self._child: Child | None = None
        self._lines = self._new_lines()
        self._waiting = b""
        self._offset = 0
        self._began = 0.0
        self._heard = 0.0
        self._silent_since: float | None = None

        self._due: float | None = None
        self._starts = 0
        self._failures = 0
        self._failure = ""
        self._done_at: datetime | None = None
        self._since: datetime | None = None

    def read(self, most_bytes: int) -> Batch:
        batch = Batch()
        if self._closed:
            return batch
        began, at = self._now(), self._monotonic()
        if self._child is None and (self._due is None or at >= self._due):
            self._begin(at)
        child = self._child
        if child is not None and child.started(_START_WAIT_S):
            if child.trouble is not None:
                self._over(at, child.trouble, certain=True)
            else:
                self._take(child, batch, most_bytes, began, at)
        batch.blind = self._blind(at)
        if batch.blind is not None:
            self._since = None
        elif self._since is None:
            self._since = began
        batch.since = self._since
        if batch.blind is None and not batch.more:
            batch.caught_up = self._until(began)
        return batch

    async def wait(self, timeout_s: float) -> None:
        child, at = self._child, self._monotonic()
        if child is None:
            await asyncio.sleep(min(timeout_s, max(0.0, (self._due or at) - at)))
            return
        if not child.started(0):
            await asyncio.sleep(min(timeout_s, _START_POLL_S))
            return
        if self._waiting:
            timeout_s = min(timeout_s, max(0.0, self._heard + _INCOMPLETE_S - at))
        if self._silent_since is not None:
            timeout_s = min(timeout_s, max(0.0, self._silent_since + _SILENT_END_S - at))
        bells = child.bells()
        if not child.rings_at_end:
            timeout_s = min(timeout_s, _WITHOUT_PIDFD_S)
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        for bell in bells:
            loop.add_reader(bell, rung.set)
        try:
            async with asyncio.timeout(timeout_s):
                await rung.wait()
        except TimeoutError:
            pass
        finally:
            for bell in bells:
                loop.remove_reader(bell)

    async def close(self) -> None:
        self._closed = True
        child, self._child = self._child, None
        if child is None:
            return
        try:
            child.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERM_GRACE_S):
                    while child.bells() and child.returncode is None:
                        await asyncio.sleep(_TERM_POLL_S)
                        child.look()
        finally:
            child.end()

    def _new_lines(self) -> Lines:
        return Lines(self.counters, self._settings.max_line, self._settings.encoding)

    def _begin(self, at: float) -> None:
        self._child = self._start(self._argv)
        self._lines = self._new_lines()
        self._waiting = b""
        self._offset = 0
        self._began = self._heard = at
        self._silent_since = None
        self._starts += 1

    def _take(self, child: Child, batch: Batch, most_bytes: int, began: datetime, at: float) -> None:
        # Whether it has ended is looked at first: what it wrote before that then stands in the pipe.
        child.look()
        ended = child.returncode is not None
        data = child.take(most_bytes)
        batch.more = len(data) >= most_bytes
        # A child of its child that left the group may hold the pipe for ever; its words are not waited for.
        over = child.at_end or (ended and not batch.more)
        if data:
            self.counters.bytes += len(data)
            self._heard = at
        text = self._waiting + self._lines.feed(data)
        if over:
            text += self._lines.flush()
        whole = self._whole(text, at, over=over)
        self._waiting = text[whole:]
        if whole:
            batch.blocks.append(Block(STREAM, self._name, text[:whole], self._offset, began, began))
            self._offset += whole
        if self._every_s is None and at - self._began >= _FINE_S:
            self._failures = 0
        if ended and over:
            fine = child.returncode == 0
            self._over(at, _how_it_ended(child), certain=False, fine=fine)
            self._done_at = began if fine else None
        elif over:
            if self._silent_since is None:
                self._silent_since = at
            elif at - self._silent_since >= _SILENT_END_S:
                child.signal(signal.SIGKILL)

    def _whole(self, text: bytes, at: float, *, over: bool) -> int:
        if self._complete is None or over or len(text) > _MOST_INCOMPLETE or at - self._heard >= _INCOMPLETE_S:
            return len(text)
        return self._complete(text) if text else 0

    def _over(self, at: float, how: str, *, certain: bool, fine: bool = False) -> None:
        """This run is over; when is the next?"""
        assert self._child is not None
        self._child.end()
        self._child = None
        if fine:
            self._failures = 0
        else:
            self._failures += self._failures_until_blind if certain else 1
            self._failure = how
        if self._every_s is not None:
            self._due = max(at, self._began + self._every_s)
        else:
            if at - self._began >= _STEADY_S:
                self._starts = 0
            pause_s = _FIRST_PAUSE_S * 2.0 ** min(self._starts - 1, 10) if self._starts else 0.0
            self._due = at + min(pause_s, _LONGEST_PAUSE_S)

    @property
    def _failures_until_blind(self) -> int:
        return _FAILURES if self._every_s is None else _FAILURES_AT_INTERVALS

    def _blind(self, at: float) -> str | None:
        if self._failures >= self._failures_until_blind:
            return self._failure
        child, program, ran_s = self._child, self._argv[0], at - self._began
        if child is None:
            return None
        if self._every_s is not None and ran_s >= 2 * self._every_s:
            return f"{program} is still running after {ran_s:.0f} s; it is to run every {self._every_s:g} s"
        if not child.started(0) and ran_s >= _START_S:
            return f"{program} could not be started within {_START_S:g} s; is its disk dead?"
        return None

    def _until(self, began: datetime) -> datetime | None:
        """Until when nothing is left to read; a command that is down could have said something."""
        if self._every_s is not None:
            done, self._done_at = self._done_at, None
            return done
        running = self._child is not None and self._child.started(0)
        return began if running and self._silent_since is None and not self._waiting else None


def _how_it_ended(child: Child) -> str:
    code = child.returncode or 0
    how = f"ended with status {code}" if code >= 0 else f"was ended by signal {-code}"
    complaint = child.complaint()
    return f"the command {how} again and again" + (f": {complaint}" if complaint else "")
