"""
What starts watches besides their schedule: events of the daemon, its alerts, its hooks, files and units.

In: transitions after their commit, calls of hooks, the plan, the looks at files and units. Out: checks of the watches
that name the event in `on:`, run by the scheduler beside nothing of their own.
Promise: a transition is never held up or harmed by what waits for it.

Goals subscribe in the same way, save for what alerts start: that is a row of the alert's own transaction.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from agentd.api.hook import Hooks
from agentd.api.rates import Rates
from agentd.api.service import Conflict, Json
from agentd.clock import Clock, iso
from agentd.daemon.assemble import Plan
from agentd.deliver.payload import alert_data
from agentd.records import AlertStatus, Transition
from agentd.schedule import files, units
from agentd.schedule.bus import Bus, Event
from agentd.schedule.files import Files
from agentd.schedule.scheduler import Scheduler
from agentd.schedule.units import Units
from agentd.settings import RateLimit
from agentd.watch.threads import DaemonThreads

log = logging.getLogger("agentd.daemon")

_UNITS_TIMEOUT_S = 10.0


class Events:
    """
    paused: watches that are not to run now. crashed: told the name of a task that ended by a defect. start_goal: queues
    a run of a goal's watch: its name, why, when it was due, the event.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        scheduler: Scheduler,
        paused: Container[str],
        crashed: Callable[[str], None],
        start_goal: Callable[[str, str, datetime, Event], Awaitable[object]] | None = None,
    ) -> None:
        self._start_goal = start_goal
        self.bus = Bus(lambda who: who not in paused)
        self._clock = clock
        self._scheduler = scheduler
        self._paused = paused
        self._crashed = crashed
        self._rates = Rates()
        self._hooks = Hooks(clock, self._rates)
        self._checks: set[str] = set()
        self._goals: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hidden: dict[str, str] = {}
        self._started = False

    def reload(self, plan: Plan) -> None:
        """From now on these watches wait for what they name, and these hooks are open."""
        wanted = {watch.name: watch.on for watch in plan.config.probes if watch.on and watch.name in plan.watches}
        # What an alert starts is a row of its transaction (`Agents`), so that a crash does not forget it.
        goals = {
            watch.name: [event for event in watch.on if not event.startswith(("alert:", "log:"))]
            for watch in plan.config.goals
            if self._start_goal is not None
        }
        for name in (self._checks - wanted.keys()) | (self._goals - goals.keys()):
            self.bus.unsubscribe(name)
        for name, others in goals.items():
            self.bus.subscribe(name, others, partial(self._ask, name))
        self._goals = set(goals)
        for name, events in wanted.items():
            running = partial(self._scheduler.running, name)
            self.bus.subscribe(name, events, partial(self._check, name), busy=running)
        self._checks = set(wanted)
        hooks = plan.config.api.hooks
        self._hooks.replace(hooks)
        self._rates.forget_others(
            [*(f"hook {name}" for name in hooks), *(f"heartbeat {name}" for name in plan.watches)]
        )
        self._watch()

    def start(self) -> None:
        """The daemon is up, and so is its scheduler."""
        self._started = True
        self._watch()
        self.bus.publish("startup", self._clock.now(), lambda: "null")

    async def stop(self) -> None:
        """Start nothing more; checks under way are the scheduler's. Twice is once."""
        self._started = False
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.bus.stop()

    def trouble(self) -> list[str]:
        """What cannot be watched for now, and why; one line each."""
        return [f"{name}: {why}" for name, why in sorted(self._hidden.items())]

    def stats(self) -> Json:
        return asdict(self.bus.stats)

    def happened(self, transition: Transition) -> None:
        """An alert changed, and that is committed."""
        try:
            self._tell(transition)
        except Exception:
            log.exception("event_failed", extra={"watch": transition.alert.watch})

    def _tell(self, transition: Transition) -> None:
        alert, after = transition.alert, transition.after
        if not self._started or after is transition.before or after not in (AlertStatus.FIRING, AlertStatus.RESOLVED):
            return
        names = [f"alert:{alert.watch}"]
        if alert.rule is not None and after is AlertStatus.FIRING:
            names.append(f"log:{alert.watch}/{alert.rule}")
        for name in names:
            self.bus.publish(name, transition.at, lambda: json.dumps({"alert": alert_data(transition)}), of=alert.watch)

    async def hook(
        self, name: str, *, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], trusted: bool
    ) -> Json:
        """See `Service.hook`."""
        if not self._started:
            raise Conflict("the daemon is starting or stopping; try again when it runs")
        call = await self._hooks.admit(name, headers, body, trusted=trusted)
        if not call.fresh:
            return {"accepted": False, "started": [], "why": f"message {call.id} was taken already"}
        started = self.bus.publish(f"hook:{name}", self._clock.now(), lambda: call.payload)
        log.info("hook_called", extra={"hook": name, "id": call.id, "started": ", ".join(started)})
        return {"accepted": True, "started": started}

    async def admit_beat(self, watch: str, rate: RateLimit) -> None:
        """One heartbeat more. Raises TooMany."""
        await self._rates.take(f"heartbeat {watch}", rate)

    async def _check(self, name: str, event: Event) -> None:
        if not self._started or name not in self._checks or name in self._paused:
            return
        await asyncio.wait([self._scheduler.run_now(name, trigger=f"on {event.name}")])

    async def _ask(self, name: str, event: Event) -> None:
        if self._started and name in self._goals and name not in self._paused and self._start_goal is not None:
            await self._start_goal(name, event.name, event.at, event)

    # Files and units, looked at only while somebody waits for them.

    def _watch(self) -> None:
        for kind, loop in (("file:", self._watch_files), ("unit:", self._watch_units)):
            task = self._tasks.get(kind)
            if self._started and self._wanted(kind) and (task is None or task.done()):
                self._tasks[kind] = self._keep(f"events:{kind}", loop())

    def _wanted(self, kind: str) -> list[str]:
        return [name.removeprefix(kind) for name in self.bus.names if name.startswith(kind)]

    async def _watch_files(self) -> None:
        # A thread of its own: a file on a dead disk is waited for as long as it takes, and keeps nobody from ending.
        thread, seen = DaemonThreads(1, "file-events"), Files()
        while paths := self._wanted("file:"):
            found = asyncio.get_running_loop().run_in_executor(thread, seen.look, paths)
            changes, hidden = await found
            for change in changes:
                said = {
                    "path": change.path,
                    "change": change.what,
                    "size": change.size,
                    "modified_at": iso(change.modified_at) if change.modified_at else None,
                }
                self._publish(f"file:{change.path}", said)
            self._note("file:", {f"file:{path}": f"cannot be looked at: {why}" for path, why in hidden.items()})
            await asyncio.sleep(files.LOOK_EVERY_S)
        self._note("file:", {})

    async def _watch_units(self) -> None:
        seen = Units()
        while names := self._wanted("unit:"):
            seen.want(names)
            failed, why = await seen.look(_UNITS_TIMEOUT_S)
            for name, unit in failed:
                self._publish(f"unit:{name}", {"unit": unit, "state": "failed"})
            self._note("unit:", {"unit:": why} if why else {})
            await asyncio.sleep(units.LOOK_EVERY_S)
        self._note("unit:", {})

    def _publish(self, name: str, said: Json) -> None:
        self.bus.publish(name, self._clock.now(), lambda: json.dumps(said))

    def _note(self, kind: str, hidden: Mapping[str, str]) -> None:
        before = {name: why for name, why in self._hidden.items() if name.startswith(kind)}
        for name in hidden.keys() - before.keys():
            log.warning("event_source_hidden", extra={"what": name, "why": hidden[name]})
        for name in before.keys() - hidden.keys():
            del self._hidden[name]
            log.info("event_source_seen_again", extra={"what": name})
        self._hidden.update(hidden)

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("task_crashed", extra={"task": task.get_name()}, exc_info=error)
            self._crashed(task.get_name())
