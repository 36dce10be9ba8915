"""
The log side of the main path.

    lines ─▶ rules (log thread) ─▶ Outcome ─▶ occurrence, quiet (pure) ─▶ Transition
        ─▶ one transaction: alerts, outbox rows, rule windows, positions ─▶ courier wakes

In: a watch whose source is a log. Out: rows in the state store; one result a minute in the recorder.
Promise: a line acts exactly once. Positions are stored with the state that came of the lines before them; what led to
nothing may be read twice after a crash, and leads to nothing again. While the store refuses, the source is not read on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import apsw
from opentelemetry.trace import INVALID_SPAN, Span

from agentd.alert.lifecycle import Step, step
from agentd.errors import StoreError
from agentd.memory import logs as log_rows
from agentd.memory import templates
from agentd.memory.database import Database
from agentd.memory.templates import TemplateRow
from agentd.pacing import full_jitter
from agentd.pipeline.firing import Firing
from agentd.pipeline.keeper import Breath, Keeper
from agentd.pipeline.outcome import steps_of
from agentd.pipeline.watches import Check, LogWatch
from agentd.records import (
    AlertStatus,
    CheckResult,
    Judgement,
    Observation,
    Verdict,
)
from agentd.telemetry.traces import WATCH

log = logging.getLogger("agentd.logs")

if TYPE_CHECKING:
    # Not at run time: a daemon that watches no log loads none of its libraries.
    from agentd.logs.work import Taken

T = TypeVar("T")

IDLE_S = 5.0
"""How long to wait for a ring of the source's bell; whatever it misses is seen by then."""
RECORD_EVERY_S = 60.0
STORE_POSITIONS_S = 5.0
_REOPEN_CAP_S = 60.0
_MOST_TEMPLATES = 10_000
_STORE_AGAIN_CAP_S = 10.0


class LogPath:
    """
    Follows the logs of watches and turns what they show into alerts.

    thread: where all blocking work on logs happens; one thread for all watches. history: where the counts of templates
    are kept.
    """

    def __init__(
        self,
        keeper: Keeper,
        thread: Executor,
        history: Database,
    ) -> None:
        self.keeper = keeper
        self.history = history
        self._thread = thread

    async def run(self, watch: LogWatch) -> None:
        """Follow until cancelled. A defect of ours is told, and the source opened anew from what is stored."""
        failures = 0
        while True:
            following = Following(self, watch)
            try:
                await following.go()
            except StoreError as error:
                what = f"the store cannot be read: {error}"
            except Exception as error:
                log.exception("log_crashed", extra={"watch": watch.name})
                what = f"following crashed: {type(error).__name__}: {error}"
            failures = failures + 1 if following.taken == 0 else 1
            await self._tell_blind(watch, what)
            await asyncio.sleep(1.0 + full_jitter(failures, base_s=1.0, cap_s=_REOPEN_CAP_S))

    async def _tell_blind(self, watch: LogWatch, what: str) -> None:
        async with self.keeper.alone(watch.name):
            judgement = Judgement(Verdict.BLIND, what)
            now = self.keeper.clock.now()
            steps = list(sight(self.keeper, watch, judgement, now))
            await self.keeper.commit(steps, watch.wish, INVALID_SPAN)
            self.keeper.looked(watch, Check(now, Observation(blind=what), judgement, Step(watch.calm)))

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on the log thread; a cancelled caller still waits for its end, for it holds the source."""
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await job
            raise


class Following:
    """One watch being followed, from opening its source to closing it."""

    def __init__(self, path: LogPath, watch: LogWatch) -> None:
        self._path = path
        self._keeper = path.keeper
        self._clock = path.keeper.clock
        self._watch = watch
        self._positions: dict[str, str | None] = {}
        self._known: set[str] = set()
        """Streams whose position the store has, or has refused once."""
        self._stored_at = self._clock.monotonic()
        self._recorded_at = self._clock.monotonic()
        self._firing = Firing(watch.rules)
        self._awake_since: datetime | None = None
        self.taken = 0

    async def go(self) -> None:
        """Raises StoreError when the store cannot be read, and whatever a defect of ours raises."""
        watch = self._watch
        memory = await self._begin()
        work = await self._path.on_thread(lambda: watch.open(memory))
        watch.work = work
        try:
            self._take_over()
            while True:
                taken = await self._path.on_thread(work.take)
                await self._settle(taken)
                self.taken += 1
                if not taken.batch.more:
                    await work.source.wait(self._patience_s())
        finally:
            watch.work = None
            await work.source.close()
            with contextlib.suppress(StoreError):
                await self._store_positions()

    async def _begin(self) -> log_rows.LogMemory:
        watch, now = self._watch, self._clock.now()
        state = self._keeper.state
        memory = await state.read(lambda c: log_rows.load(c, watch.name, watch.digests))
        with contextlib.suppress(StoreError):  # a full disk keeps nobody from looking
            await state.write(lambda c: log_rows.begin(c, watch.name, watch.digests, now))
        counts: tuple[TemplateRow, ...] = ()
        with contextlib.suppress(StoreError):  # history may be lost; then counting begins anew
            counts = tuple(await self._path.history.read(lambda c: templates.of(c, watch.name, _MOST_TEMPLATES)))
        self._known = set(memory.positions)
        return replace(memory, started=memory.started or now, counts=counts)

    def _take_over(self) -> None:
        """The alerts of this watch as the last process, or the configuration before this one, left them."""
        watch, keeper = self._watch, self._keeper
        ours = [
            each for each in keeper.alerts.values() if each.watch == watch.name and each.instance == keeper.instance
        ]
        self._firing = Firing(watch.rules, ours)

    # One batch.

    async def _settle(self, taken: Taken) -> None:
        """Commit what a batch came to. While the store refuses, this is where we stay."""
        # Said first: who is killed behind the commit does not come to it again.
        for note in taken.batch.notes:
            log.warning("log_note", extra={"watch": self._watch.name, "note": note})
        refused = 0
        while not await self._commit(taken):
            refused += 1
            await asyncio.sleep(0.5 + full_jitter(refused, base_s=1.0, cap_s=_STORE_AGAIN_CAP_S))
        if taken.rows or taken.gone:
            gone = [(self._watch.name, id) for id in taken.gone]
            self._path.history.post(lambda c: templates.save(c, taken.rows, gone))

    async def _commit(self, taken: Taken) -> bool:
        watch, keeper = self._watch, self._keeper
        judgement = Judgement(Verdict.OK if taken.batch.blind is None else Verdict.BLIND, taken.batch.blind or "")
        positions = self._positions | taken.batch.positions
        async with keeper.alone(watch.name):
            now = self._clock.now()
            with self._span(taken) as run:
                steps, breath = [*sight(keeper, watch, judgement, now)], Breath()
                for each in self._steps(taken, run, now):
                    steps.append(each)
                    await breath.take()
                acts = any(taken_step.changed for taken_step in steps) or taken.outcome.windows or taken.names
                if acts:

                    def also(c: apsw.Connection) -> None:
                        log_rows.save_positions(c, watch.name, positions)
                        log_rows.save_windows(c, watch.name, taken.outcome.windows, watch.digests)
                        log_rows.save_templates(c, watch.name, taken.names, taken.gone)

                    if not await keeper.commit(steps, watch.wish, run, also=also):
                        return False
                    positions = {}
                    self._stored_at = self._clock.monotonic()
                for each in steps:
                    self._firing.follow(each.alert)
        self._positions = positions
        self._awake_since = taken.awake_since
        # Of a stream that the store knows nothing of, a crash would lose what came since: it would be begun anew, at
        # its end.
        there = {stream for stream, position in taken.batch.positions.items() if position is not None}
        fresh = not there <= self._known
        self._known.difference_update(taken.batch.positions)
        self._known |= there
        if positions and (fresh or self._clock.monotonic() - self._stored_at >= STORE_POSITIONS_S):
            with contextlib.suppress(StoreError):  # nothing hangs on it yet
                await self._store_positions()
        self._show(taken, judgement, now)
        return True

    def _steps(self, taken: Taken, run: Span, now: datetime) -> Iterator[Step]:
        watch, keeper = self._watch, self._keeper
        return steps_of(
            watch,
            keeper.instance,
            taken.outcome.events,
            taken.until,
            alerts=keeper.alerts,
            firing=self._firing.due(taken.until),
            awake_since=taken.awake_since,
            address=lambda taken: keeper.addressed(taken, watch.wish, run),
        )

    @contextlib.contextmanager
    def _span(self, taken: Taken) -> Iterator[Span]:
        """A trace where there is something to tell; a healthy log makes none."""
        if not taken.outcome.events:
            yield INVALID_SPAN
            return
        run = self._keeper.tracer.start_span("log", attributes={WATCH: self._watch.name})
        try:
            yield run
        finally:
            run.end()

    async def _store_positions(self) -> None:
        positions, self._stored_at = self._positions, self._clock.monotonic()
        if positions:
            name = self._watch.name
            await self._keeper.state.write(lambda c: log_rows.save_positions(c, name, positions))
            if self._positions is positions:
                self._positions = {}

    def _patience_s(self) -> float:
        """How long nothing need be done if no line comes."""
        now = self._clock.now()
        due = [at for at in (self._firing.next_due(),) if at is not None]
        if due and self._awake_since is not None:
            # What was due by then is put off: there is no need to look ten times a second until it is not.
            due = [max(due[0], self._awake_since + min(each.resolve_after for each in self._watch.rules.values()))]
        work = self._watch.work
        if work is not None and (change := work.next_change()) is not None:
            due.append(change)
        if not due:
            return IDLE_S
        return min(IDLE_S, max(0.1, (min(due) - now) / timedelta(seconds=1)))

    def _show(self, taken: Taken, judgement: Judgement, now: datetime) -> None:
        watch = self._watch
        worst = self._firing.any() or watch.calm
        if worst.status is AlertStatus.FIRING and judgement.verdict is Verdict.OK:
            judgement = Judgement(Verdict.FAILING, worst.summary)
        values = watch.work.numbers(taken.batch) if watch.work is not None else {}
        self._keeper.looked(watch, Check(now, Observation(values, blind=taken.batch.blind), judgement, Step(worst)))
        if self._clock.monotonic() - self._recorded_at >= RECORD_EVERY_S:
            self._recorded_at = self._clock.monotonic()
            self._keeper.record(CheckResult(watch.name, now, judgement.verdict, 0.0, summary=judgement.summary))


def sight(keeper: Keeper, watch: LogWatch, judgement: Judgement, now: datetime) -> Iterator[Step]:
    """What being able to look, or not, does to the watch's own alert and to the one that tells of blindness."""
    before = keeper.alerts.get(watch.calm.fingerprint, watch.calm)
    if judgement.verdict is Verdict.OK and before == watch.calm:
        since = None
    else:
        after = step(before, judgement, watch.policy, now)
        since = after.alert.blind_since
        yield after
    yield from keeper.sight_steps(watch, judgement, since, now)
