"""
The agent host: a process of its own that runs agents, so that the daemon loads no model library and cannot be harmed.

In: connections on one listening socket, inherited as a descriptor or handed over by systemd; each begins with a `Job`.
Out: records, events, questions, and an `Outcome` for each.
Promise: a run lives as long as its connection. The process ends when it has nothing to do, after so many runs, or when
it grew too large, and then only between runs; a run that outlives its deadline takes the whole process group with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentd import __version__
from agentd.agent.job import Job, Outcome
from agentd.agent.kin import MARK, kill_marked, mark
from agentd.agent.port import Record, ToolFailure
from agentd.agent.wire import BrokenWire, TooLarge, Wire, fields_of
from agentd.clock import SystemClock
from agentd.fleet.messages import Control, ErrorKind
from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Quote

if TYPE_CHECKING:
    from agentd.agent.lending import Lending
    from agentd.agent.run import Running
    from agentd.llm.client import Models
    from agentd.telemetry.embedded import RunSpan
    from agentd.telemetry.traces import Traces

log = logging.getLogger("agentd.agent")

IDLE_S = 60.0
IDLE_VARIABLE = "AGENTD_AGENT_IDLE_S"
MOST_RUNS = 1000
MEMORY_BYTES = 384 * 2**20
GRACE_S = 15.0
_WITHOUT_REST = 10
_LOOK_S = 1.0
_CUT_CHARS = 2**20
_ANSWER_CHARS = 2**18
_MOST_ARTIFACTS = 200
_LAST_SPANS_S = 2.0


class RemoteServices:
    """What a run has from outside, over its connection. Every question ends when the connection does."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._closed = False

    async def reserve(self, quote: Quote) -> None:
        await self._ask("reserve", {"id": quote.id, "model": quote.model, "tokens": quote.tokens, "usd": quote.usd})

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        taken = {"input": usage.input_tokens, "output": usage.output_tokens, "cached": usage.cached_tokens}
        await self._ask("settle", {"id": quote.id, "model": quote.model, "usage": taken, "usd": usd})

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        return await self._ask("query", {"what": what, "args": dict(args)})

    def record(self, record: Record) -> None:
        line = {"seq": record.seq, "at_s": record.at_s, "kind": record.kind}
        try:
            self._wire.send("record", **line, data=record.data)
        except TooLarge:
            # The store would cut it to less than that.
            from agentd.memory.columns import bounded_json, from_json

            self._wire.send("record", **line, data=from_json(bounded_json(record.data, _CUT_CHARS)))

    async def _ask(self, what: str, args: Mapping[str, Any]) -> Any:
        if self._closed:
            raise ToolFailure("the daemon is gone", ErrorKind.CANCELLED)
        number = next(self._numbers)
        try:
            self._wire.send("ask", id=number, what=what, args=args)
        except TooLarge as error:
            raise ToolFailure(f"the question is too long: {error}", ErrorKind.INVALID_INPUT) from error
        waiting = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            answer = await waiting
        finally:
            self._open.pop(number, None)
        if (refused := answer.get("budget")) is not None:
            raise BudgetSpent(str(answer.get("message")), str(refused))
        if (failed := answer.get("error")) is not None:
            raise ToolFailure(str(answer.get("message")), ErrorKind(failed))
        return answer.get("value")

    def answered(self, frame: Mapping[str, Any]) -> None:
        waiting = self._open.get(frame.get("id", 0))
        if waiting is not None and not waiting.done():
            waiting.set_result(dict(frame))

    def close(self) -> None:
        """Nobody answers any more."""
        self._closed = True
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_result({"error": ErrorKind.CANCELLED.value, "message": "the daemon is gone"})


class Reaper:
    """
    A thread that kills this process, and all that it started, when a run is past its deadline or the daemon is dead.

    The loop may be the very thing that hangs, so that nothing on it can be relied on. solo: this process leads its
    group, which is then what is killed. lifeline: a pipe whose other end the daemon holds: it ends with the daemon.
    """

    def __init__(self, *, solo: bool, lifeline: int | None = None) -> None:
        self._lifeline = () if lifeline is None else (lifeline,)
        self._deadlines: dict[int, float] = {}
        self._numbers = itertools.count()
        self._solo = solo
        threading.Thread(target=self._watch, name="reaper", daemon=True).start()

    def expect(self, within_s: float) -> int:
        number = next(self._numbers)
        self._deadlines[number] = time.monotonic() + within_s
        return number

    def done(self, number: int) -> None:
        self._deadlines.pop(number, None)

    def _watch(self) -> None:
        while True:
            dead, _, _ = select.select(self._lifeline, (), (), _LOOK_S)
            if dead or any(deadline < time.monotonic() for deadline in list(self._deadlines.values())):
                kill_everything(self._solo)


def kill_everything(solo: bool) -> None:
    """End this process and what it started, at once."""
    kill_children()
    if solo:
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_children() -> None:
    """End what this process started, as far as it can be found."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    if own := mark():
        kill_marked(own[MARK])


def end_as_told() -> None:
    """To be stopped is no failure, which is what systemd takes a death by a signal for."""
    kill_children()
    os._exit(0)


class Host:
    """idle_s, most_runs, memory_bytes: when the process makes room for a fresh one. solo, lifeline: see `Reaper`."""

    def __init__(
        self,
        *,
        idle_s: float = IDLE_S,
        most_runs: int = MOST_RUNS,
        memory_bytes: int = MEMORY_BYTES,
        solo: bool = False,
        lifeline: int | None = None,
    ) -> None:
        self._idle_s = idle_s
        self._most_runs = most_runs
        self._memory_bytes = memory_bytes
        self._reaper = Reaper(solo=solo, lifeline=lifeline)
        self._running = 0
        self._begun = 0
        self._quiet_since = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lent: Lending | None = None
        self._traces: Traces | None = None
        self._wires: dict[str, Wire] = {}

    async def serve(self, listening: socket.socket) -> None:
        """Take runs until it is time to end."""
        server = await asyncio.start_unix_server(self._connected, sock=listening)
        async with server:
            while not self._may_end():  # noqa: ASYNC110  # nobody tells how much memory is taken
                await asyncio.sleep(_LOOK_S)
            # Who connects from here on waits in the socket's queue for the process after this one.
            server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._lent is not None:
            await self._lent.close()
        if self._traces is not None:
            await self._traces.close(_LAST_SPANS_S)

    def _may_end(self) -> bool:
        if self._running:
            # Who comes after that waits for the last of those under way; so it is the last resort.
            return self._begun >= _WITHOUT_REST * self._most_runs
        if self._begun >= self._most_runs:
            return True
        return time.monotonic() - self._quiet_since >= self._idle_s or _resident_bytes() > self._memory_bytes

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._running += 1
        self._begun += 1
        wire = Wire(reader, writer)
        try:
            await self._serve_run(wire)
        except BrokenWire as error:
            log.error("wire_broken", extra={"error": str(error)})
        except Exception:
            log.exception("run_crashed")
        finally:
            wire.close()
            self._tasks.discard(task)
            self._running -= 1
            self._quiet_since = time.monotonic()

    async def _serve_run(self, wire: Wire) -> None:
        # Whoever is hung up on before this word knows that nothing was begun, and comes again.
        wire.send("hello", pid=os.getpid(), version=__version__)
        first = await wire.read()
        if first is None:
            return
        if first["do"] != "run":
            raise BrokenWire(f"a connection begins with `run`, not with `{first['do'][:20]}`")
        job = Job.model_validate(first["job"])
        async with self._lending().models_of(job) as models:
            await self._run(job, models, wire)

    def _lending(self) -> Lending:
        """Models are shared by all runs here: rates and breakers are the provider's, not a run's."""
        if self._lent is None:
            from agentd.agent.lending import Lending

            self._lent = Lending(SystemClock())
        return self._lent

    async def _run(self, job: Job, models: Models, wire: Wire) -> None:
        from agentd.agent.run import Running

        self._trace(job)
        self._wires[job.run] = wire
        services = RemoteServices(wire)
        running = Running(job, services, models=models)
        running.subscribe(lambda event: wire.show("event", **_shown(event)))
        number = self._reaper.expect(job.limits.time_s + GRACE_S)
        listening = asyncio.create_task(self._listen(wire, services, running))
        try:
            outcome = await running.run()
            wire.send("outcome", outcome=_said(outcome))
            await wire.drain()
        finally:
            self._reaper.done(number)
            self._wires.pop(job.run, None)
            services.close()
            listening.cancel()
            await asyncio.wait([listening])

    def _trace(self, job: Job) -> None:
        """From the first run on, as it says: a run's spans go to the daemon, and to a collector if there is one."""
        if self._traces is None:
            from agentd.telemetry.traces import open_traces

            self._traces = open_traces(
                otlp_endpoint=job.otlp_endpoint, sample=1.0, instance=job.instance, keep=self._traced
            )
            self._traces.use_everywhere()

    def _traced(self, spans: list[RunSpan]) -> None:
        wire = self._wires.get(str(spans[-1]["attributes"].get("gen_ai.conversation.id")))
        if wire is not None:
            wire.show("spans", spans=spans)

    async def _listen(self, wire: Wire, services: RemoteServices, running: Running) -> None:
        while (frame := await wire.read()) is not None:
            if frame["do"] == "answer":
                services.answered(frame)
            elif frame["do"] == "control":
                running.control(Control.from_json(fields_of(frame)))
        services.close()
        running.control(Control("cancel", "", "the daemon is gone"))


def _said(outcome: Outcome) -> dict[str, Any]:
    """The outcome with as much of it as anybody keeps."""
    short = {"answer": outcome.answer[:_ANSWER_CHARS], "artifacts": outcome.artifacts[:_MOST_ARTIFACTS]}
    return outcome.model_copy(update=short).model_dump(mode="json")


def _shown(event: Any) -> dict[str, Any]:
    from agentd.agent.events import event_json

    return event_json(event)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def listening_socket(fd: int | None) -> socket.socket:
    """The socket by its number, or the one that systemd hands over (sd_listen_fds(3)). Raises SystemExit."""
    if fd is None:
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
            sys.exit("the agent host takes its socket from the daemon (--fd) or from systemd (agentd-agent.socket)")
        fd = 3
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def main(arguments: list[str] | None = None) -> None:
    """`python -m agentd.agent.host`: started by the daemon or by systemd, never by hand."""
    parser = argparse.ArgumentParser(prog="agentd agent host", description=__doc__)
    parser.add_argument("--fd", type=int, help="number of the listening socket")
    parser.add_argument("--lifeline", type=int, help="number of the pipe that ends with the daemon")
    idle = os.environ.get(IDLE_VARIABLE, str(IDLE_S))
    parser.add_argument("--idle", type=float, default=idle, help="seconds without a run after which it ends")
    parser.add_argument("--runs", type=int, default=MOST_RUNS, help="runs after which it ends")
    parser.add_argument("--memory", type=int, default=MEMORY_BYTES, help="bytes above which it ends between runs")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", default="auto")
    given = parser.parse_args(arguments)
    from agentd.secret import read_secrets_from
    from agentd.telemetry.logging import close_logging, open_logging
    from agentd.telemetry.redact import register_secret

    listening = listening_socket(given.fd)
    read_secrets_from(dict(os.environ), register_secret)
    open_logging(given.log_level, given.log_format)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end_as_told())
    host = Host(
        idle_s=given.idle,
        most_runs=given.runs,
        memory_bytes=given.memory,
        solo=os.getpgrp() == os.getpid(),
        lifeline=given.lifeline,
    )
    try:
        asyncio.run(host.serve(listening))
    finally:
        close_logging()


if __name__ == "__main__":
    main()
