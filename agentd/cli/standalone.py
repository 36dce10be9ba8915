"""
A task in this process: the same run as the agent host's, with its budgets and its record in the store.

In: the configuration, what is asked. Out: events, the task's view.
Promise: we are the store's owner meanwhile, so that no two spend the same dollar. Where there is no store to be had it
is said so, and then the budget of this one run holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentd.agent.events import AgentEvent, event_json
from agentd.agent.job import Job, Outcome
from agentd.agent.permissions import NotPermitted
from agentd.agent.port import Record, ToolFailure
from agentd.agent.run import Running
from agentd.api.tasks import MOST_LINES, TaskAsked, task_view
from agentd.cli.client import Refused, who
from agentd.cli.errand import Tell
from agentd.cli.place import Place
from agentd.clock import Clock, SystemClock
from agentd.config.loader import load
from agentd.config.models import Config
from agentd.daemon.runs.account import Account
from agentd.daemon.runs.agents import row_of
from agentd.daemon.runs.answers import Answers
from agentd.daemon.runs.desk import Desk
from agentd.daemon.runs.dispatch import new_run_id
from agentd.daemon.runs.jobs import in_its_scenario, make_job, spend_limits
from agentd.daemon.runs.tasks import TASK, check_scenario
from agentd.errors import ConfigError, StoreBusy, StoreError
from agentd.fleet.messages import ONE_PROMPT, Control, ErrorKind
from agentd.llm.port import Usage
from agentd.llm.spend import Quote
from agentd.memory import alerts as alert_rows
from agentd.memory import audit, ledger
from agentd.memory.ledger import Priority, Run, RunState
from agentd.memory.retention import Retention
from agentd.memory.store import Store
from agentd.records import Alert
from agentd.secret import read_secrets_from
from agentd.telemetry.redact import register_secret

log = logging.getLogger("agentd.cli")

Json = dict[str, Any]

_CLOSE_S = 5.0
_NOT_UNDER_WAY = 409


@contextlib.asynccontextmanager
async def open_standalone(place: Place, asked: TaskAsked, *, insist: bool, tell: Tell) -> AsyncIterator[Standalone]:
    """
    insist: go on when another process has the store. Raises ConfigError, InvalidConfig, StoreError.
    """
    loaded = await asyncio.to_thread(load, place.path, environment=place.environment)
    read_secrets_from(loaded.environment, register_secret)
    config, clock = loaded.config, SystemClock()
    run = Run(
        asked.task_id or new_run_id(),
        TASK,
        f"asked by {who()}",
        clock.now(),
        kind="session" if asked.session else "task",
        goal=asked.task,
        priority=Priority[asked.priority.upper()],
        asked=asked.as_asked(),
    )
    instance = config.daemon.instance or socket.gethostname()
    async with contextlib.AsyncExitStack() as stack:
        try:
            job = make_job(run, config, now=clock.now(), instance=instance)
            await asyncio.to_thread(check_scenario, job)
        except NotPermitted as error:
            raise ConfigError(str(error)) from error
        store = await _store(place, config, insist=insist, tell=tell)
        books: _Books | None = None
        if store is not None:
            stack.push_async_callback(store.close)
            job = await asyncio.to_thread(in_its_scenario, job)
            books = await _open_books(store, config, clock, run, job)
            job = await books.answers.advised(job)
        errand = Standalone(run, job, books, clock, tell)
        stack.push_async_callback(errand.close)
        yield errand


async def _store(place: Place, config: Config, *, insist: bool, tell: Tell) -> Store | None:
    memory = config.memory
    keep = Retention(memory.max_size, memory.results, memory.rollups, memory.runs, memory.events)
    try:
        return await Store.open(place.state_dir, keep=keep)
    except StoreBusy as busy:
        if not insist:
            raise StoreError(
                f"{busy}; it does not answer on {place.socket}: it may be starting or stopping, so try again, or "
                "write --standalone to go on without its books"
            ) from busy
        why = str(busy).partition(";")[0]
    except (StoreError, OSError) as error:
        why = str(error)
    tell(f"{why}. Nothing of this is kept, and only the budget of this one run holds")
    return None


@dataclass(frozen=True, slots=True)
class _Known:
    watches: Mapping[str, Any]
    alerts: Mapping[str, Alert]


@dataclass(frozen=True, slots=True)
class _Books:
    """The store, open as ours, and what of it a run needs."""

    store: Store
    answers: Answers
    desk: Desk
    account: Account


async def _open_books(store: Store, config: Config, clock: Clock, run: Run, job: Job) -> _Books:
    found = await store.state.read(alert_rows.load_all)
    known = _Known({watch.name: watch for watch in config.watches}, {alert.fingerprint: alert for alert in found})
    answers = Answers(known, store, clock, lambda: config)
    limits = spend_limits(job, config)
    desk = Desk(job, limits, state=store.state, clock=clock, refused=lambda refusal: None, ask=answers.ask)

    def enter(c: Any) -> None:
        ledger.queue(c, run)
        ledger.start(c, run.id, run.due_at)
        audit.append(c, run.trigger.removeprefix("asked by "), "task", run.id, run.goal[:200], run.due_at)

    await store.state.write(enter)
    return _Books(store, answers, desk, Account(job, store.history, clock))


class _Services:
    """What the run has from outside."""

    def __init__(self, books: _Books | None, lines: list[Record]) -> None:
        self._books = books
        self._lines = lines

    async def reserve(self, quote: Quote) -> None:
        if self._books is not None:
            try:
                await self._books.desk.reserve(quote)
            except StoreError as error:
                # A store that cannot write cannot set money aside: then none is spent.
                raise ToolFailure(f"the store cannot keep this now: {error}") from error

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        if self._books is not None:
            try:
                await self._books.desk.settle(quote, usage, usd)
            except StoreError as error:
                log.warning("spend_not_settled", extra={"error": str(error)})

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        if self._books is None:
            raise ToolFailure("nothing is remembered here: there is no store", ErrorKind.TOOL_ERROR)
        return await self._books.desk.query(what, args)

    def record(self, record: Record) -> None:
        if self._books is not None:
            self._books.account.take(record)
        if record.kind in ("plan", "result") and len(self._lines) < MOST_LINES:
            self._lines.append(record)


class Standalone:
    """One task; it begins with the first look at its events."""

    where = "here"

    def __init__(self, run: Run, job: Job, books: _Books | None, clock: Clock, tell: Tell) -> None:
        self.id = run.id
        self._run = replace(run, state=RunState.RUNNING, started_at=run.due_at)
        self._books = books
        self._clock = clock
        self._tell = tell
        self._lines: list[Record] = []
        self._running = Running(job, _Services(books, self._lines))
        self._events: asyncio.Queue[Json | None] = asyncio.Queue()
        self._running.subscribe(self._told)
        self._task = asyncio.create_task(self._live(), name=f"run:{run.id}")

    async def events(self) -> AsyncIterator[Json]:
        while (event := await self._events.get()) is not None:
            yield event

    async def view(self) -> Json:
        return task_view(self._run, self._lines)

    async def say(self, kind: Literal["steer", "follow_up", "cancel", "end"], text: str = "") -> None:
        if self._task.done():
            raise Refused(f"{self.id} is not under way: nobody hears this", _NOT_UNDER_WAY)
        self._running.control(Control(kind, ONE_PROMPT if kind == "cancel" else self.id, text))

    async def cancel(self) -> None:
        if not self._task.done():
            self._running.control(Control("cancel", self.id, f"cancelled by {who()}"))

    def abandon(self) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()

    async def close(self) -> None:
        """Cancelled, when it is still under way. Twice is once."""
        await self.cancel()
        done, _ = await asyncio.wait([self._task], timeout=_CLOSE_S)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_S)

    def _told(self, event: AgentEvent) -> None:
        self._events.put_nowait(event_json(event))

    async def _live(self) -> None:
        outcome: Outcome | None = None
        state, error = RunState.FAILED, "a defect in agentd"
        try:
            outcome = await self._running.run()
            state, error = RunState(outcome.state), outcome.error or ""
        except asyncio.CancelledError:
            state, error = RunState.CANCELLED, "it did not end when it was asked to"
            raise
        except Exception as defect:
            log.exception("run_crashed", extra={"run": self.id})
            error = f"a defect in agentd: {defect!r}"[:500]
        finally:
            try:
                await self._end(state, error or None, outcome)
            finally:
                self._events.put_nowait(None)

    async def _end(self, state: RunState, error: str | None, outcome: Outcome | None) -> None:
        now = self._clock.now()
        came = None if outcome is None else row_of(outcome)
        self._run = replace(self._run, state=state, ended_at=now, error=error, outcome=came or self._run.outcome)
        if self._books is None:
            return
        finding = outcome.finding if outcome is not None else None
        well = state is RunState.COMPLETED and (finding is None or finding.analysis is None)
        self._books.account.close(outcome, ok=well)
        try:
            await self._books.store.state.write(
                lambda c: ledger.end(c, self.id, now, state, error=error, outcome=came),
            )
        except StoreError as trouble:
            self._tell(f"the end of this run could not be kept: {trouble}")
