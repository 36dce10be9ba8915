"""
APScheduler's parts, fitted to a daemon that runs thousands of jobs a second on one loop.

In: jobs with our triggers, our clock.  Out: `fire(job, due)` on the loop, for each job that is due.
Promise: one call a job and turn, however late the turn; the next time is set before the job begins; a turn takes
at most a hundred jobs and lets others run between.

What is replaced, and why: the job store (stock keeps a sorted list), the turn (stock reads the system clock, lists
every missed time, makes events and log records for each run, and hands it to an executor that makes more) and waking
(stock goes through a pipe to its own loop). Jobs, triggers and life cycle are APScheduler's.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.base import STATE_RUNNING, BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from agentd.clock import Clock

MOST_PER_TURN = 100
LONGEST_SLEEP_S = 3600.0
# Waking a loop costs more than a run does; together with `Trigger.early` this wakes it 300 times for 1,000 runs.
SHORTEST_SLEEP_S = 0.002

log = logging.getLogger("agentd.schedule")
_quiet = logging.getLogger("agentd.schedule.apscheduler")
_quiet.setLevel(logging.WARNING)  # it tells of every job that is added or removed

_Slot = tuple[datetime, int, Any]


def _handed_to_fire() -> None:
    """Every job's function in APScheduler's eyes; never called."""


class HeapStore(BaseJobStore):  # type: ignore[misc]  # apscheduler ships no types
    """
    Jobs by their next run time, in a heap. A job that is moved leaves its old slot behind, to be skipped later.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[_Slot] = []
        self._jobs: dict[str, Any] = {}
        self._slots: dict[str, _Slot] = {}
        self._counter = 0

    def first(self) -> Any | None:
        """The job that is due next; None when there is none."""
        heap = self._heap
        while heap:
            slot = heap[0]
            job = slot[2]
            if self._slots.get(job.id) is slot:
                return job
            heapq.heappop(heap)
        return None

    def move_first(self, when: datetime) -> None:
        """Give the job that `first` returned its next time."""
        job = self._heap[0][2]
        job.next_run_time = when
        self._counter += 1
        slot = (when, self._counter, job)
        self._slots[job.id] = slot
        heapq.heapreplace(self._heap, slot)

    def lookup_job(self, job_id: str) -> Any | None:
        return self._jobs.get(job_id)

    def get_due_jobs(self, now: datetime) -> list[Any]:
        return [slot[2] for slot in sorted(self._slots.values()) if slot[0] <= now]

    def get_next_run_time(self) -> datetime | None:
        job = self.first()
        return None if job is None else job.next_run_time

    def get_all_jobs(self) -> list[Any]:
        return list(self._jobs.values())

    def add_job(self, job: Any) -> None:
        if job.id in self._jobs:
            raise ConflictingIdError(job.id)
        self._jobs[job.id] = job
        self._place(job)

    def update_job(self, job: Any) -> None:
        if job.id not in self._jobs:
            raise JobLookupError(job.id)
        self._jobs[job.id] = job
        self._place(job)

    def remove_job(self, job_id: str) -> None:
        if self._jobs.pop(job_id, None) is None:
            raise JobLookupError(job_id)
        self._slots.pop(job_id, None)
        self._sweep()

    def remove_all_jobs(self) -> None:
        self._heap.clear()
        self._jobs.clear()
        self._slots.clear()

    def shutdown(self) -> None:
        self.remove_all_jobs()

    def _place(self, job: Any) -> None:
        if job.next_run_time is None:
            self._slots.pop(job.id, None)
        else:
            self._counter += 1
            slot = (job.next_run_time, self._counter, job)
            self._slots[job.id] = slot
            heapq.heappush(self._heap, slot)
        self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._slots) + 64:
            self._heap = list(self._slots.values())
            heapq.heapify(self._heap)


class Machine(AsyncIOScheduler):  # type: ignore[misc]  # apscheduler ships no types
    """
    AsyncIOScheduler that takes its time from `clock`.

    before_turn: called before each look at the clock (the clock guard). fire: called with a due job and its due time;
    must not raise and must not wait. All methods belong to the loop's own thread.
    """

    def __init__(self, clock: Clock, before_turn: Callable[[], None], fire: Callable[[Any, datetime], None]) -> None:
        self._clock = clock
        self._before_turn = before_turn
        self._fire = fire
        self._handle: asyncio.Handle | None = None
        self._soon = False
        self._turning = False
        self.store = HeapStore()
        super().__init__(
            logger=_quiet,
            timezone=UTC,
            jobstores={"default": self.store},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def put(self, name: str, trigger: BaseTrigger, when: datetime) -> None:
        """Add a job that is due at `when`."""
        self.add_job(
            _handed_to_fire,
            trigger,
            id=name,
            name=name,
            next_run_time=when,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )

    def halt(self) -> None:
        """No more turns; forgets all jobs. Unlike `shutdown`, done when it returns."""
        self._stop_timer()
        BaseScheduler.shutdown(self, wait=False)

    def wakeup(self) -> None:
        """Take a turn as soon as the loop is free; several calls make one."""
        if self._turning or self._soon or self.state != STATE_RUNNING:
            return
        self._stop_timer()
        self._soon = True
        self._handle = self._eventloop.call_soon(self._turn)

    def _turn(self) -> None:
        self._handle, self._soon = None, False
        if self.state != STATE_RUNNING:
            return
        self._turning = True
        try:
            self._start_timer(self._process_jobs())
        finally:
            self._turning = False

    def _start_timer(self, wait_seconds: float | None) -> None:
        self._stop_timer()
        if wait_seconds is None:
            return
        if wait_seconds <= 0:
            self._soon = True
            self._handle = self._eventloop.call_soon(self._turn)
        else:
            self._handle = self._eventloop.call_later(min(wait_seconds, LONGEST_SLEEP_S), self._turn)

    def _stop_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._soon = None, False

    def _process_jobs(self) -> float | None:
        self._before_turn()
        now = self._clock.now()
        store, fire = self.store, self._fire
        for _ in range(MOST_PER_TURN):
            job = store.first()
            if job is None:
                return None
            due: datetime = job.next_run_time
            if due - job.trigger.early > now:
                return max(SHORTEST_SLEEP_S, math.ceil((due - self._clock.now()).total_seconds() * 1000) / 1000)
            try:
                following = job.trigger.get_next_fire_time(due, now)
            except Exception:
                log.exception("trigger_failed", extra={"job": job.id})
                following = None
            if following is None:
                store.remove_job(job.id)
            else:
                store.move_first(following)
            fire(job, due)
        return 0.0
