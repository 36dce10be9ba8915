"""
Run each job when it is due, never beside itself.

In: names with a trigger and a coroutine function.  Out: one named task a run, tracked to its end.
Promise: a run that raises, hangs or comes late harms no other. A late job runs once, however often it was due. When
the wall clock jumps, all is reckoned anew before anything runs. `stop` leaves no task behind.

All methods belong to the loop's own thread. APScheduler does the timing (`machine.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentd.clock import Clock
from agentd.schedule.clockguard import ClockGuard
from agentd.schedule.machine import Machine
from agentd.schedule.triggers import Trigger
from agentd.telemetry.tally import LATE_S, Seen, Spread

log = logging.getLogger("agentd.schedule")

LAGS_KEPT = 4096
LAGS_SORTED_S = 1.0
LAST_WORDS_S = 5.0
LATE = timedelta(seconds=10)

_SECOND = timedelta(seconds=1)

Run = Callable[["Due"], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Due:
    """
    Why a run happens now.

    at: when it was due, UTC; for a late run the latest time it stands for. late_s: how long ago that is; for `manual`
    zero. trigger: `every`, `cron`, `once`, `startup`, `manual`, or what else `run_now` was told (`on alert:NAME`).
    """

    name: str
    at: datetime
    late_s: float
    trigger: str


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """
    runs: begun so far. crashed: of these, those that raised. overlaps: times skipped since the last run was still on.
    coalesced: runs that stood for more than one due time. late: begun more than LATE after they were first due.
    lag: from due to begun, over the last 4,096 runs, seconds; at most a second old.
    """

    jobs: int
    runs: int
    crashed: int
    overlaps: int
    coalesced: int
    late: int
    in_flight: int
    lag_p50_s: float
    lag_p99_s: float


@dataclass(slots=True, eq=False)
class _Entry:
    name: str
    trigger: Trigger
    run: Run
    task_name: str
    paused: bool = False
    last_due: datetime | None = None


class Scheduler:
    """
    on_jump: told how far the wall clock moved by itself, after all jobs were reckoned anew.
    guard_every_s: seconds between looks of the clock guard.
    """

    def __init__(
        self,
        clock: Clock,
        on_jump: Callable[[timedelta], None] | None = None,
        *,
        guard_every_s: float = 1.0,
    ) -> None:
        self._clock = clock
        self._on_jump = on_jump
        self._guard = ClockGuard(clock, self._jumped, self._stalled, every_s=guard_every_s)
        self._machine = Machine(clock, self._guard.look, self._fire)
        self._entries: dict[str, _Entry] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lags: deque[float] = deque(maxlen=LAGS_KEPT)
        self._percentiles = (0.0, 0.0)
        self._sorted_at_s: float | None = None
        self.lag_s = Spread(LATE_S)
        """How long after it was due each run began."""
        self._runs = self._crashed = self._overlaps = self._coalesced = self._late = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    def add(self, name: str, trigger: Trigger, run: Run) -> None:
        """
        Schedule a new job; before `start` too.

        run: called with a `Due` when it is due; must be a coroutine function. Raises ValueError for a name in use.
        """
        if name in self._entries:
            raise ValueError(f"a job named {name!r} is there already; use replace")
        entry = self._entries[name] = _Entry(name, trigger, run, f"run:{name}")
        self._schedule(entry)

    def replace(self, name: str, trigger: Trigger, run: Run) -> None:
        """
        Give a job another trigger and function, or add it.

        A run under way goes on; a pause stays. With an equal trigger the next time stays too.
        """
        entry = self._entries.get(name)
        if entry is None:
            self.add(name, trigger, run)
            return
        same = entry.trigger == trigger
        entry.trigger, entry.run = trigger, run
        if not same:
            self._unschedule(name)
            self._schedule(entry)

    def remove(self, name: str) -> asyncio.Task[None] | None:
        """Forget a job. Returns its run under way, which goes on unless the caller cancels it. KeyError: unknown."""
        del self._entries[name]
        self._unschedule(name)
        return self.running(name)

    def run_now(self, name: str, at: datetime | None = None, *, trigger: str = "manual") -> asyncio.Task[None]:
        """
        Run a job at once, paused or not, beside its schedule; while it runs, the run under way is returned.

        at: the due time that this run makes up for; default now. trigger: why, for `Due`. The task ends with None even
        when the run raised (that is logged); awaiting it raises CancelledError if `stop` cancelled it. KeyError:
        unknown.
        """
        entry = self._entries[name]
        if self._stopped or self._loop is None:
            raise RuntimeError("the scheduler does not run")
        return self.running(name) or self._begin(entry, Due(name, at or self._clock.now(), 0.0, trigger))

    def pause(self, name: str) -> None:
        """Not due until `resume`; a run under way goes on. KeyError: unknown."""
        entry = self._entries[name]
        entry.paused = True
        self._unschedule(name)

    def resume(self, name: str) -> None:
        """Due again from now on; what was missed stays missed. KeyError: unknown."""
        entry = self._entries[name]
        if entry.paused:
            entry.paused = False
            self._schedule(entry)

    def start(self) -> None:
        """Begin. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._machine.start(paused=True)
        for entry in self._entries.values():
            self._schedule(entry)
        self._guard.start()
        self._machine.resume()

    async def stop(self, drain_s: float) -> None:
        """
        End: nothing begins any more; runs under way get `drain_s` seconds, then they are cancelled and awaited.

        Returns at most five seconds after that; a run that will not end even then is logged and left. Final.
        """
        self._stopped = True
        self._guard.stop()
        if self._machine.running:
            self._machine.halt()
        if (left := self._under_way()) and drain_s > 0:
            await asyncio.wait(left, timeout=drain_s)
        if left := self._under_way():
            for task in left:
                task.cancel()
            _, stuck = await asyncio.wait(left, timeout=LAST_WORDS_S)
            for task in stuck:
                log.error("job_will_not_end", extra={"job": task.get_name()})

    def reanchor(self) -> None:
        """Reckon every next time anew from the clock as it stands; what is overdue is spread, see triggers."""
        if self._stopped:
            return
        now = self._clock.now()
        store = self._machine.store
        for entry in self._entries.values():
            job = store.lookup_job(entry.name)
            if job is None:
                # A clock that stood beyond the calendar's end had left no next time; see whether there is one now.
                if entry.trigger.repeats:
                    self._schedule(entry)
                continue
            when = entry.trigger.anchored(job.next_run_time, entry.last_due, now)
            if when is None:
                store.remove_job(entry.name)
            elif when != job.next_run_time:
                job.next_run_time = when
                store.update_job(job)
        self._machine.wakeup()

    def next_run(self, name: str) -> datetime | None:
        """When the job is due next; None when paused, over, or not started. KeyError: unknown."""
        entry = self._entries[name]
        job = self._machine.store.lookup_job(entry.name)
        return None if job is None else job.next_run_time

    def running(self, name: str) -> asyncio.Task[None] | None:
        """The run of this name that is under way, also of a job already removed."""
        task = self._tasks.get(name)
        return None if task is None or task.done() else task

    @property
    def in_flight(self) -> int:
        return len(self._under_way())

    def stood_still_since(self, moment_s: float) -> bool:
        """See `ClockGuard.stood_still_since`."""
        return self._guard.stood_still_since(moment_s)

    def overdue_s(self) -> float:
        """For how long the job that is due first has been waiting, seconds; 0 when all is on time. For the watchdog."""
        first = self._machine.store.get_next_run_time()
        return 0.0 if first is None else max(0.0, (self._clock.now() - first).total_seconds())

    def loop_lag_s(self) -> Seen:
        """How late the loop turned, looked at every second."""
        return self._guard.lag_s.seen()

    def stats(self) -> SchedulerStats:
        p50_s, p99_s = self._lag_percentiles()
        return SchedulerStats(
            jobs=len(self._entries),
            runs=self._runs,
            crashed=self._crashed,
            overlaps=self._overlaps,
            coalesced=self._coalesced,
            late=self._late,
            in_flight=self.in_flight,
            lag_p50_s=p50_s,
            lag_p99_s=p99_s,
        )

    def _lag_percentiles(self) -> tuple[float, float]:
        """p50 and p99, sorted anew at most once a second: it costs more than all other counts together."""
        now_s = self._clock.monotonic()
        if self._sorted_at_s is None or now_s - self._sorted_at_s >= LAGS_SORTED_S:
            lags = sorted(self._lags) or [0.0]
            self._percentiles = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
            self._sorted_at_s = now_s
        return self._percentiles

    def _under_way(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks.values() if not task.done()]

    def _schedule(self, entry: _Entry) -> None:
        if self._machine.running and not entry.paused:
            when = entry.trigger.get_next_fire_time(None, self._clock.now())
            if when is not None:
                self._machine.put(entry.name, entry.trigger, when)

    def _unschedule(self, name: str) -> None:
        store = self._machine.store
        if store.lookup_job(name) is not None:
            store.remove_job(name)

    def _fire(self, job: Any, due: datetime) -> None:
        entry = self._entries[job.id]
        now = self._clock.now()
        late = first_late = now - due
        if late > _SECOND:
            latest = entry.trigger.latest(due, now)
            if latest > due:
                self._coalesced += 1
                due, late = latest, now - latest
        if self.running(entry.name) is not None:
            self._overlaps += 1
            return
        entry.last_due = due
        late_s = max(0.0, late.total_seconds())
        self._lags.append(late_s)
        self.lag_s.add(late_s)
        self._late += first_late > LATE
        self._begin(entry, Due(entry.name, due, late_s, entry.trigger.kind))

    def _begin(self, entry: _Entry, due: Due) -> asyncio.Task[None]:
        assert self._loop is not None
        self._runs += 1
        task = self._loop.create_task(self._guarded(entry.name, entry.run, due), name=entry.task_name)
        self._tasks[entry.name] = task
        return task

    async def _guarded(self, name: str, run: Run, due: Due) -> None:
        try:
            await run(due)
        except Exception:
            self._crashed += 1
            log.exception("job_crashed", extra={"job": name})
        finally:
            # Here and not in a callback of the task: that would cost every run one more turn of the loop. A task that
            # is cancelled before it began never comes here; `running` sees that it is done.
            del self._tasks[name]

    def _jumped(self, by: timedelta) -> None:
        self.reanchor()
        if self._on_jump is not None:
            try:
                self._on_jump(by)
            except Exception:
                log.exception("on_jump_failed")

    def _stalled(self, _: timedelta) -> None:
        self.reanchor()
