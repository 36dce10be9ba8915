"""
Runs of agents, from the row that asks for one to the transaction that ends it.

In: rows of the ledger, queued by transitions, schedules, events and requests. Out: findings handed on, rows ended.
Promise: what is queued is run, in the order of priority and age, one run of a watch at a time and no more at once than
allowed; what people ask for never takes all places from what watches start. What a crash finds running is interrupted,
never run again by itself. The end of a run and what it tells are one transaction, tried until the store takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import apsw
from opentelemetry.trace import Status, StatusCode, Tracer, format_trace_id

from agentd.agent.caller import Call, HostDied
from agentd.agent.job import Job, Outcome
from agentd.clock import Clock
from agentd.daemon.runs.account import Account
from agentd.daemon.runs.asked import Asked
from agentd.daemon.runs.desk import Ask, Desk
from agentd.daemon.runs.host import AgentHost
from agentd.daemon.runs.jobs import ASKED_FOR, NotWanted
from agentd.daemon.runs.telling import Lately, Telling
from agentd.errors import AgentdError, StoreError
from agentd.fleet.messages import ONE_PROMPT, Control
from agentd.memory import ledger, meta, outbox
from agentd.memory.ledger import Queued, Run, RunState
from agentd.memory.spend import Limits, Refusal
from agentd.memory.store import Store
from agentd.records import Alert
from agentd.telemetry.embedded import KEEP, WATCH, RunSpan, received
from agentd.telemetry.redact import without_secrets
from agentd.telemetry.tally import Tally
from agentd.telemetry.traces import context_from, traceparent

log = logging.getLogger("agentd.daemon")

_PATIENCE_S = 30.0
_CANCEL_S = 3.0
_AGAIN_S = 5.0
_MOST_ERROR_CHARS = 2000
_MOST_OF_WATCHES = 10_000
MOST_QUEUED = 2000
"""Runs that wait, of all kinds."""

Json = dict[str, Any]


class TooManyRuns(AgentdError):
    """The queue is full; ask again later."""


class NotOurs(AgentdError):
    """The run's row is not as whoever would end it believes: it has ended already, or begun meanwhile."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job, and the budgets that hold for it. alert: that it is about, as it is when the run begins."""

    job: Job
    limits: Limits
    alert: Alert | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. outcome: None when it never came to one; error: why. unbegun: only if it has not begun."""

    state: RunState
    outcome: Outcome | None = None
    error: str | None = None
    unbegun: bool = False


Prepare = Callable[[Run], Awaitable[Prepared]]
Conclude = Callable[[Run, Prepared | None, Ended], Awaitable[bool]]
"""
Ends the run's row together with what it tells. False: the store refused, and nothing happened. Raises NotOurs when the
row is not to be ended so; then nothing is told either.
"""


@dataclass(slots=True)
class _Active:
    run: Run
    task: asyncio.Task[None] | None = None
    call: Call | None = None
    cancelled: str | None = None
    unsent: list[Control] = field(default_factory=list)
    telling: Telling = field(default_factory=Telling)


class Runs:
    """
    prepare: makes the job of a run; raises AgentdError for what cannot be asked. conclude: ends it. ask: answers what
    tools ask. refused: told when a budget holds a call back. at_once: gives how many may run beside each other; from
    two on a quarter more is kept for what watches start. traced: takes spans that the host says are of a run.
    may_start: whether a run of a watch that waits may start now; `wake` when it may after all.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        host: AgentHost,
        prepare: Prepare,
        conclude: Conclude,
        ask: Ask,
        refused: Callable[[Job, Refusal], None],
        at_once: Callable[[], int],
        tracer: Tracer,
        traced: Callable[[list[RunSpan]], None],
        may_start: Callable[[Queued], bool] = lambda run: True,
    ) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._prepare = prepare
        self._conclude = conclude
        self._ask = ask
        self._refused = refused
        self._at_once = at_once
        self._tracer = tracer
        self._traced = traced
        self._may_start = may_start
        self._active: dict[str, _Active] = {}
        self._lately = Lately()
        self._woken = asyncio.Event()
        self._closing = False
        self._restored = False
        self.done = self.begun = 0
        self.ended = Tally()
        self.asked = Asked()
        self.told: Callable[[Run, RunState], None] = lambda run, state: None
        """Called when a run is in another state."""

    # Asking for runs.

    async def submit(self, run: Run) -> None:
        """Queue a run. Raises TooManyRuns, StoreError; apsw.ConstraintError when its id is known."""

        def change(connection: Any) -> bool:
            if ledger.waiting(connection) >= MOST_QUEUED:
                return False
            ledger.queue(connection, run)
            return True

        if not await self._store.state.write(change):
            raise TooManyRuns(f"{MOST_QUEUED} runs wait already; try again later")
        self.told(run, RunState.QUEUED)
        self.wake()

    def wake(self) -> None:
        """There may be a row to run."""
        self._woken.set()

    @property
    def active(self) -> list[Run]:
        return [each.run for each in self._active.values()]

    def control(self, id: str, control: Control) -> bool:
        """Say something to a run under way; False when it is not."""
        active = self._active.get(id)
        if active is None:
            return False
        ends = control.kind == "cancel" and control.target != ONE_PROMPT
        if ends:
            active.cancelled = control.text or "cancelled"
        if active.call is not None:
            active.call.control(control)
            if ends:
                # A host that does not even hear this is hung up on.
                asyncio.get_running_loop().call_later(_CANCEL_S, self._hang_up, active)
        elif ends:
            self._hang_up(active)
        else:
            active.unsent.append(control)
        return True

    async def cancel(self, id: str, why: str) -> bool:
        """End a run that waits or is under way; False when there is none such. Raises StoreError."""
        if self.control(id, Control("cancel", id, why)):
            return True
        row = await self._store.state.read(lambda c: ledger.get(c, id))
        if row is None or row.state is not RunState.QUEUED:
            return False
        try:
            if not await self._conclude(row, None, Ended(RunState.CANCELLED, error=why, unbegun=True)):
                raise StoreError(f"the store cannot keep now that {id} is cancelled; it still waits")
        except NotOurs:
            return self.control(id, Control("cancel", id, why))  # it began at this very moment
        return True

    async def follow(self, id: str, after: int = 0) -> AsyncIterator[Json]:
        """
        The events of a run under way, those of its begin too as far as they are kept, until it ends; and of one that
        ended lately.

        Each has its `seq`, counted from 1; after: those up to it are left out. Nothing of any other run.
        """
        active = self._active.get(id)
        telling = self._lately.get(id) if active is None else active.telling
        if telling is not None:
            async with aclosing(telling.follow(after)) as events:
                async for event in events:
                    yield event

    # Running.

    async def restore(self) -> None:
        """
        At start: nobody runs what the last process was running, and no message waits for its finding. Nothing starts
        before the store has taken that.
        """
        with contextlib.suppress(StoreError):
            await self._restore()
        self.wake()

    async def _restore(self) -> None:
        now = self._clock.now()

        def change(connection: apsw.Connection) -> int:
            ledger.pull_in(connection, now)
            for run in ledger.running(connection):
                if run.kind == "investigate" and run.fingerprint is not None:
                    outbox.complete(connection, run.fingerprint, None, lambda data: data, now)
            return ledger.interrupt_all_running(connection, now)

        found = await self._store.state.write(change)
        self._restored = True
        if found:
            log.warning("runs_interrupted", extra={"count": found})
        # Also when no run was under way: the last daemon may have written that its host had died, and died itself
        # before it had ended what that host started.
        await self._host.clear_up()

    async def run(self) -> None:
        """Start what is queued, as room allows, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._start_due()
            except StoreError as error:
                log.error("runs_not_started", extra={"error": str(error)})
                asyncio.get_running_loop().call_later(_AGAIN_S, self.wake)

    async def close(self) -> None:
        """Start nothing more; what is under way is interrupted. Twice is once."""
        self._closing = True
        tasks = [each.task for each in self._active.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_AGAIN_S)
        await self._host.close()

    async def _start_due(self) -> None:
        if self._closing:
            return
        if not self._restored:
            await self._restore()  # the store was full at the start: until now nothing could begin either
        now, at_once = self._clock.now(), self._at_once()
        # Not the whole line: a thousand tasks may wait, of which a place that is free takes one. Those that are about
        # to begin are in it still; of what watches start little waits, and some of it may have to wait longer.
        limits = dict.fromkeys(ledger.KINDS, _MOST_OF_WATCHES)
        limits |= dict.fromkeys(ASKED_FOR, at_once if len(self._active) < at_once else 0)

        def look(connection: apsw.Connection) -> list[Queued]:
            if meta.held(connection):
                return []  # after a restore nothing acts before a person says so
            return ledger.queued(connection, now, limits)

        chosen = [waiting.id for waiting in self._chosen(await self._store.state.read(look))]
        if not chosen:
            return
        for run in await self._store.state.read(lambda c: [ledger.get(c, id) for id in chosen]):
            if run is None or run.id in self._active or self._closing:
                continue
            active = self._active[run.id] = _Active(run)
            active.task = asyncio.create_task(self._live(active), name=f"run:{run.id}")

    def _chosen(self, line: Sequence[Queued]) -> list[Queued]:
        """Those that may start beside what is under way."""
        at_once, under_way = self._at_once(), self.active
        kept = max(1, at_once // 4) if at_once > 1 else 0
        watches = sum(_is_of_watch(run) for run in under_way)
        people = len(under_way) - watches
        busy = {run.watch for run in under_way if _is_of_watch(run)}
        found = []
        for run in line:
            if watches + people >= at_once and watches >= kept:
                break
            if run.id in self._active:
                continue
            if not _is_of_watch(run):
                if watches + people >= at_once:
                    continue
                people += 1
            elif run.watch in busy or not self._may_start(run):
                continue
            else:
                busy.add(run.watch)
                watches += 1
            found.append(run)
        return found

    async def _live(self, active: _Active) -> None:
        run, prepared, ended = active.run, None, Ended(RunState.FAILED, error="a defect in agentd")
        account: Account | None = None
        begun = False
        span = self._tracer.start_span(
            f"run {run.kind}",
            context=context_from(run.asked.get("traceparent")),
            attributes={WATCH: run.watch, "agentd.run": run.id, "agentd.trigger": run.trigger, KEEP: True},
        )
        run = active.run = replace(run, trace_id=format_trace_id(span.get_span_context().trace_id))
        try:
            if not await self._started(run):
                return
            begun = True
            self.begun += 1
            self.told(run, RunState.RUNNING)
            log.info("run_started", extra={"run": run.id, "watch": run.watch, "trigger": run.trigger})
            try:
                if ledger.was_cut(run):
                    raise AgentdError("what was asked is too long to be kept whole; it would allow more than was meant")
                prepared = await self._prepare(run)
                prepared = replace(prepared, job=prepared.job.model_copy(update={"traceparent": traceparent(span)}))
                account = Account(prepared.job, self._store.history, self._clock, self.asked)
                ended = await self._called(active, prepared, account)
            except NotWanted as error:
                ended = Ended(RunState.CANCELLED, error=str(error))
            except AgentdError as error:
                ended = Ended(RunState.FAILED, error=str(error))
            await self._finish(active, prepared, ended)
        except asyncio.CancelledError:
            if not begun and active.cancelled is None:
                return  # its row waits for the next start
            why = active.cancelled or "the daemon stopped while it ran"
            state = RunState.CANCELLED if active.cancelled else RunState.INTERRUPTED
            ended = Ended(state, error=why)
            await self._finish(active, prepared, ended, insist=bool(active.cancelled))
        except Exception as error:
            log.exception("run_crashed", extra={"run": run.id})
            await self._finish(active, prepared, Ended(RunState.FAILED, error=f"a defect in agentd: {error!r}"[:500]))
        finally:
            if ended.state not in (RunState.COMPLETED, RunState.CANCELLED):
                span.set_status(Status(StatusCode.ERROR, ended.error or ended.state.value))
            span.end()
            if account is not None:
                account.close(ended.outcome, ok=ended.state is RunState.COMPLETED and _has_analysis(ended.outcome))
            self._over(active)

    async def _started(self, run: Run) -> bool:
        """Write down that it runs; False when it was cancelled meanwhile. A store that is full is waited for."""
        while True:
            now = self._clock.now()
            try:
                return await self._store.state.write(partial(ledger.start, id=run.id, now=now))
            except StoreError as error:
                log.error("run_not_started", extra={"run": run.id, "error": str(error)})
            await asyncio.sleep(_AGAIN_S)

    async def _called(self, active: _Active, prepared: Prepared, account: Account) -> Ended:
        run, job = active.run, prepared.job

        def refused(refusal: Refusal) -> None:
            self._refused(job, refusal)

        def spans(said: object) -> None:
            if found := received(said, run.trace_id or ""):
                self._traced(without_secrets(found))

        desk = Desk(job, prepared.limits, state=self._store.state, clock=self._clock, refused=refused, ask=self._ask)
        try:
            wire = await self._host.connect()
        except HostDied as error:
            return Ended(RunState.INTERRUPTED, error=str(error))
        try:
            active.call = Call(
                wire,
                job,
                desk,
                record=account.take,
                event=active.telling.tell,
                spans=spans,
            )
            for control in active.unsent:
                active.call.control(control)
            async with asyncio.timeout(job.limits.time_s + _PATIENCE_S):
                outcome = await active.call.run()
        except TimeoutError:
            # It knows its time itself, and so does its reaper: whatever this is, it is not to be reasoned with.
            await self._host.kill()
            return Ended(RunState.FAILED, error="it did not end with its time, and was killed")
        except HostDied as error:
            return Ended(RunState.INTERRUPTED, error=str(error))
        finally:
            account.flush()  # before anybody is told that it has ended
            self._host.done()
        why = outcome.error or (active.cancelled if outcome.state == "cancelled" else None)
        why = None if why is None else why[:_MOST_ERROR_CHARS]
        log.info("run_ended", extra={"run": run.id, "watch": run.watch, "state": outcome.state, "error": why})
        return Ended(RunState(outcome.state), outcome, why)

    async def _finish(self, active: _Active, prepared: Prepared | None, ended: Ended, *, insist: bool = True) -> None:
        try:
            while not await self._conclude(active.run, prepared, ended):
                if not insist or self._closing:
                    return  # the next start finds it running, and interrupts it
                await asyncio.sleep(_AGAIN_S)
        except NotOurs:
            log.error("run_ended_twice", extra={"run": active.run.id, "state": ended.state.value})
        self.done += 1

    def _over(self, active: _Active) -> None:
        self._active.pop(active.run.id, None)
        self._lately.add(active.run.id, active.telling)
        self.wake()

    def _hang_up(self, active: _Active) -> None:
        if active.task is not None and active.run.id in self._active:
            active.task.cancel()


def _is_of_watch(run: Run | Queued) -> bool:
    return run.kind not in ASKED_FOR


def _has_analysis(outcome: Outcome | None) -> bool:
    return outcome is not None and (outcome.finding is None or outcome.finding.analysis is None)


def new_run_id() -> str:
    return f"run_{uuid.uuid4().hex[:20]}"
