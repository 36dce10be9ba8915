"""
The daemon's whole life, on one page: open, run, reload, drain, close.

In: the path of the configuration, and signals. Out: an exit code.
Promise: READY only when configuration and store are open and checks may run; a reload that fails leaves everything
as it was, save for keys that were taken away; at the end what was opened is closed in reverse order, and sends and
checks under way get their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import apsw

from agentd import __version__
from agentd.alert.muting import Muting
from agentd.api.ring import Ring
from agentd.api.service import Conflict
from agentd.api.trouble import orphans
from agentd.clock import Clock, SystemClock, iso
from agentd.config.loader import Loaded, load
from agentd.config.models import Config
from agentd.config.people import flapping_from, muting_from, routing_from
from agentd.config.standing_keys import with_standing_keys
from agentd.daemon.assemble import Plan, Planned, PlannedGoal, PlannedLog, assemble, self_wish
from agentd.daemon.chores import Chores, attempt
from agentd.daemon.control import Control
from agentd.daemon.events import Events
from agentd.daemon.feeding import Feeding
from agentd.daemon.following import Following
from agentd.daemon.keeping import AGENTD, Keeping, remember
from agentd.daemon.measures import Measures
from agentd.daemon.metering import Metering
from agentd.daemon.notify import ServiceManager, strip_environment
from agentd.daemon.people import People, paused_texts
from agentd.daemon.pulse import ANSWER_S, Pulse
from agentd.daemon.runs.agents import Agents
from agentd.daemon.runs.dispatch import TooManyRuns
from agentd.daemon.runs.host import open_host
from agentd.daemon.runs.tasks import Tasks
from agentd.daemon.selfcheck import SelfCheck
from agentd.daemon.selfwatch import SWEEP_S, SelfWatch
from agentd.daemon.settings import LiveSettings, limits_laid_over, put_aside, register_keys
from agentd.daemon.surface import open_surface, page_url
from agentd.daemon.watchdog import Watchdog
from agentd.deliver.courier import Courier
from agentd.deliver.links import alert_links
from agentd.errors import AgentdError, InvalidConfig, StoreError, StoreFull
from agentd.memory import audit, groups, ledger, meta, outbox
from agentd.memory.ledger import ProbeRow
from agentd.memory.recorder import Recorder
from agentd.memory.retention import Retention
from agentd.memory.store import Store
from agentd.pacing import KeyedBuckets
from agentd.pipeline import Pipeline, Watch
from agentd.pipeline.tending import LOOK_EVERY_S, SWEEP_EVERY_S
from agentd.records import Alert, AlertStatus, Transition
from agentd.schedule.ledger import Ledger
from agentd.schedule.scheduler import Due, Scheduler
from agentd.secret import read_secrets_from
from agentd.telemetry.embedded import EmbeddedSpans
from agentd.telemetry.redact import register_secret
from agentd.telemetry.traces import open_traces
from agentd.watch.probe import ProbeTools

log = logging.getLogger("agentd.daemon")

TICK_S = 5.0
HOUSEKEEPING_S = 60.0
OVERDUE_S = 10.0
STATUS_S = 10.0
ASKED_FOR_S = 15.0
EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_RESTART = 75  # EX_TEMPFAIL of sysexits.h: a clean end that asks for a new start
_AT_START_ONLY = ("daemon", "api", "telemetry", "memory")


class Daemon:
    """
    One running agentd. Made from a loaded configuration, so that errors in it are told before anything is opened.

    path: where `reload` reads the configuration again.
    """

    def __init__(
        self,
        path: Path,
        loaded: Loaded,
        *,
        clock: Clock | None = None,
        manager: ServiceManager | None = None,
        handle_signals: bool = True,
    ) -> None:
        self.path = path
        self.config = loaded.config
        self.clock = clock or SystemClock()
        self.manager = manager or ServiceManager()
        self.instance = self.config.daemon.instance or socket.gethostname()
        self.state_dir = self.config.daemon.find_state_dir(loaded.environment)
        self.started_at = self.reloaded_at = self.clock.now()
        self.note = ""
        self.refused: str | None = None
        self.held: str | None = None
        self.ready = asyncio.Event()
        self.ring = Ring()
        self._loaded = loaded
        self._handle_signals = handle_signals
        self._stopping = asyncio.Event()
        self._exit_code = EXIT_OK
        self._waiting = 0
        self._set_back = timedelta(0)
        self._reload_asked = asyncio.Event()
        self._reloading = asyncio.Lock()
        self.settings = LiveSettings(self)

    async def run(self) -> int:
        """Live until SIGTERM, SIGINT or `stop`. Returns the exit code. Raises StoreError, CannotListen at the start."""
        if self._handle_signals:
            self._catch_signals()
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            try:
                await self._live()
            except ExceptionGroup as errors:
                log.critical("crashed", exc_info=errors)
                self._exit_code = EXIT_CRASHED
        log.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

    def _catch_signals(self) -> None:
        """From the very start: a signal that comes while we open must neither be lost nor cut us off."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)

    def stop(self) -> None:
        """Ask for a clean end."""
        self._stopping.set()

    def restart(self, why: str) -> None:
        """Ask for a clean end and a new start by the service manager."""
        self.note = why
        self._exit_code = EXIT_RESTART
        self._stopping.set()

    # Opening, in the order in which one thing needs another.

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        read_secrets_from(self._loaded.environment, register_secret)
        stack.callback(read_secrets_from, os.environ)
        register_keys(self.config)
        memory = self.config.memory
        keep = Retention(memory.max_size, memory.results, memory.rollups, memory.runs, memory.events)
        self.store = await Store.open(self.state_dir, clock=self.clock, keep=keep)
        stack.push_async_callback(self.store.close)
        self.note = await asyncio.to_thread(put_aside, self._loaded.overlay)
        self.recorder = Recorder(self.store.history, self.store.check_room)
        self.traces = open_traces(
            otlp_endpoint=self.config.telemetry.otlp_endpoint,
            sample=self.config.telemetry.sample,
            instance=self.instance,
            keep=EmbeddedSpans(self.recorder.trace),
        )
        stack.push_async_callback(self.traces.close, 2.0)
        self.held = await self.store.state.read(meta.held)
        self.keeping = Keeping(self.store.state, self.clock)
        await self.keeping.restore()
        self.ledger = Ledger(self._save_ledger, await self.store.state.read(ledger.load_probes))
        self.courier = Courier(
            self.store.state, {}, clock=self.clock, instance=self.instance, tracer=self.traces.tracer
        )
        self.pipeline = Pipeline(
            state=self.store.state,
            clock=self.clock,
            instance=self.instance,
            tracer=self.traces.tracer,
            record=self.recorder.record,
            told=self.courier.wake,
            changed=self._changed,
            links=self._links,
        )
        await self.pipeline.load()
        self.scheduler = Scheduler(self.clock, self._clock_jumped)
        self.pipeline.stood_still = self.scheduler.stood_still_since
        stack.push_async_callback(self.scheduler.stop, 0.0)
        hosts = KeyedBuckets(self.config.daemon.host_rate)
        self.tools = ProbeTools(clock=self.clock, hosts=hosts, beats=self.keeping.beats)
        self.selfcheck = self.pipeline.confirm = SelfCheck(self.clock)
        self.pipeline.ask = self._look_now
        self.pulse = Pulse(None, self._why_no_heartbeat)
        self.measures = Measures(self.clock, self.scheduler, self.store, self.courier, self.pipeline, lambda: self.held)
        self.people = People(self.pipeline, self.store.state, self.clock, Muting())
        await self.people.restore()
        self.pipeline.mutes = lambda alerts, now, only: self.people.muting.reasons(
            alerts, now, only, paused_texts(self.keeping.paused)
        )
        self.plan = Plan(self.config, {}, {}, {}, {})
        paused = self.keeping.paused
        self.host = open_host(self.state_dir, self._loaded.environment, lambda: self.plan.config)
        self.agents = Agents(
            config=self.config,
            store=self.store,
            clock=self.clock,
            keeper=self.pipeline,
            host=self.host,
            instance=self.instance,
            paused=paused,
            traced=self.recorder.trace,
            page=lambda: page_url(self),
        )
        stack.push_async_callback(self.agents.runs.close)
        self.feeding = Feeding(self, self.ring)
        self.events = Events(
            clock=self.clock,
            scheduler=self.scheduler,
            paused=paused,
            crashed=self._crashed,
            start_goal=self.agents.start_when_possible,
        )
        stack.push_async_callback(self.events.stop)
        self.following = Following(self.pipeline, self.store, self._crashed)
        stack.push_async_callback(self.following.close)
        await self._swap(await asyncio.to_thread(assemble, self._loaded, self.tools, instance=self.instance))
        self.selfwatch = SelfWatch(
            self.clock,
            memory_limit=self.config.daemon.memory_limit,
            measure=self.measures.take,
            report=self.pipeline.report_self,
            stamp=self._stamp,
            restart=self.restart,
        )
        self.watchdog = Watchdog(
            self.manager,
            self.clock,
            {
                "scheduler": self._scheduler_answers,
                "store": self._store_answers,
                "courier": self._courier_answers,
            },
        )
        self.control = Control(self)
        self.tasks = Tasks(self.agents, self.store, self.clock)
        self.metering = Metering(self)
        self.door, self.servers = open_surface(self, stack)
        if self._handle_signals:  # else it is another program's
            strip_environment()  # or the commands that we watch could speak to systemd in our name
        for server in self.servers:
            await server.start()
            stack.push_async_callback(server.stop)
        stack.callback(self.ring.close)  # or servers would wait for those who listen

    async def _save_ledger(self, rows: Sequence[ProbeRow]) -> None:
        await self.store.state.write(lambda connection: ledger.save_probes(connection, rows))

    def _links(self, alert: Alert) -> dict[str, str]:
        return alert_links(page_url(self), alert, of_watch=alert.watch in self.pipeline.watches)

    # Living.

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._chores = chores = Chores(group, self._crashed)
            chores.repeat("selfwatch", SWEEP_S, self.selfwatch.sweep)
            chores.repeat("groups", LOOK_EVERY_S, self.pipeline.look)
            chores.repeat("people", SWEEP_EVERY_S, self.pipeline.sweep)
            chores.repeat("tick", TICK_S, self._tick)
            chores.repeat("housekeeping", HOUSEKEEPING_S, self._keep_house)
            chores.repeat("status", STATUS_S, self._tell_status)
            chores.repeat("agents", HOUSEKEEPING_S, self.agents.keep_house)
            chores.keep("feed of the outbox", self.feeding.follow_outbox())
            chores.keep("feed of the status", self.feeding.follow_status())
            chores.keep("runs", self.agents.runs.run())
            chores.keep("ledger", self.ledger.keep())
            chores.keep("recorder", self.recorder.run())
            chores.keep("watchdog", self.watchdog.run())
            chores.keep("reload", self._reload_when_asked())
            if self.held:
                log.warning("outbox_held", extra={"why": self.held, "cure": "agentd doctor resume"})
            else:
                chores.keep("courier", self.courier.run())
            if not self._stopping.is_set():
                await self._begin()
                await self._stopping.wait()
            await self._wind_down()
            chores.cancel()

    async def _begin(self) -> None:
        with contextlib.suppress(StoreError):  # a full disk keeps nobody from starting
            await self._stamp()
        await self.agents.runs.restore()
        self.courier.wake()
        with contextlib.suppress(StoreError, TooManyRuns):
            await self.agents.make_up()
        self.scheduler.start()
        self.events.start()
        self._follow_logs()
        self.manager.ready(self.status_text())
        self.ready.set()
        self._chores.keep("heartbeat", self.pulse.run())
        facts = {"version": __version__, "watches": len(self.plan.names), "page": self.config.api.page_url}
        log.info("started", extra=facts)

    def _follow_logs(self) -> None:
        """Not while the outbox is held: after a restore, lines were acted on since that the store knows nothing of."""
        if self.held is not None:
            return
        for name, planned in self.plan.logs.items():
            if name not in self.keeping.paused:
                self.following.start(planned.watch)

    async def _wind_down(self) -> None:
        """Stop taking work in, then let go of it from the front of the path to its end."""
        drain_s = self.config.daemon.drain_timeout.total_seconds()
        self.manager.stopping("stopping: letting checks and messages end")
        self.manager.extend(drain_s + 10)
        async with self._reloading:  # one that goes over to its plan at this moment ends first
            self.ring.close()
            for server in self.servers:
                await attempt("close the API", server.stop())
            await attempt("stop the events", self.events.stop())
            await attempt("stop the scheduler", self.scheduler.stop(drain_s / 2))
            await attempt("let go of the logs", self.following.close())
            await attempt("interrupt the runs", self.agents.runs.close())
            await attempt("drain the outbox", self.courier.drain(timedelta(seconds=drain_s / 2)))
            for planned in self.plan.watches.values():
                await attempt(f"close {planned.watch.name}", planned.watch.probe.close())
            await attempt("save the ledger", self.ledger.flush())
            await attempt("save the heartbeats", self.keeping.save_beats())
            await attempt("save the stamp", self._stamp())

    async def _why_no_heartbeat(self) -> str | None:
        """Why nobody outside is to believe that all is well, or None."""
        if self.held:
            return "messages are held since a restore; `agentd doctor resume` lets them go"
        if silent := await self.watchdog.silent(ANSWER_S):
            return f"no answer from {', '.join(silent)}"
        return None if await self.measures.look_at_webhooks() else "no webhook works"

    async def _look_now(self, watch: Watch) -> None:
        """One look at a watch that may explain what another one saw."""
        if watch.name not in self.plan.watches or watch.name in self.keeping.paused:
            return
        with contextlib.suppress(RuntimeError):  # the scheduler is stopping
            await asyncio.wait([self.scheduler.run_now(watch.name)], timeout=ASKED_FOR_S)

    def _crashed(self, task: str) -> None:
        self.note = f"{task} crashed"
        self._exit_code = EXIT_CRASHED
        self._stopping.set()

    def _changed(self, transition: Transition) -> None:
        remember(self.store.history, transition)
        self.events.happened(transition)
        self.feeding.transition(transition)

    def _clock_jumped(self, by: timedelta) -> None:
        self._set_back += max(-by, timedelta(0))
        self.measures.jumped(by)

    async def _tick(self) -> None:
        await self.store.recover()
        if back := self._set_back:
            # Or what is to be tried again in five seconds would wait for as long as the clock was set back.
            now = self.clock.now()

            def set_back(connection: apsw.Connection) -> None:
                outbox.set_back(connection, back, now)
                groups.set_back(connection, back)
                ledger.pull_in(connection, now)

            await self.store.state.write(set_back)
            self._set_back -= back
            self.pipeline.look_soon()
            self.courier.wake()
            self.agents.runs.wake()
        for watch in self.keeping.over():
            await self.resume(watch, by=AGENTD)
        await self.keeping.save_beats()

    async def _keep_house(self) -> None:
        await self.pipeline.retire()  # what the store refused at the reload
        await self.store.housekeeping(self.clock.now())

    async def resume(self, watch: str, *, by: str) -> None:
        """Let a paused watch run again, and write down who did that. Raises StoreError."""
        await self.keeping.resume(watch, by=by)
        if watch in self.plan.due:
            self.scheduler.resume(watch)
        self.agents.runs.wake()
        self._follow_logs()
        self.feeding.paused_or_resumed(watch)

    async def release(self, *, by: str) -> bool:
        """Send again after a restore, and write down who said so. False when nothing was held. Raises StoreError."""
        now = self.clock.now()

        def change(connection: apsw.Connection) -> bool:
            was_held = meta.delete(connection, meta.HELD)
            audit.append(connection, by, "release", "outbox", "", now)
            return was_held

        was_held = await self.store.state.write(change)
        if self.held is not None and not self._stopping.is_set():
            self.held = None
            self._chores.keep("courier", self.courier.run())
            self._follow_logs()
            self.agents.runs.wake()
            log.info("outbox_released", extra={"by": by})
        return was_held

    async def _store_answers(self) -> None:
        """
        Proof of life for the watchdog: something could be written. A full disk is an answer, a broken store is none:
        without alerts we are no use, and a restart says what is wrong.
        """
        with contextlib.suppress(StoreFull):
            await self._stamp()

    async def _scheduler_answers(self) -> None:
        """The same of the scheduler: nothing that is due has been lying for long."""
        while self.scheduler.overdue_s() > OVERDUE_S:  # noqa: ASYNC110  # nobody is told when it is on time again
            await asyncio.sleep(1)

    async def _courier_answers(self) -> None:
        """The same of the courier, when it has to be at work."""
        if not self.held and not self._stopping.is_set():
            await self.courier.answer()

    async def _stamp(self) -> None:
        now = self.clock.now()
        await self.store.state.write(lambda connection: meta.stamp_alive(connection, now))

    async def _tell_status(self) -> None:
        self._waiting = sum((await self.courier.stats()).waiting.values())
        self.manager.status(self.status_text())

    def status_text(self) -> str:
        """One line for `systemctl status`."""
        firing = sum(alert.status is AlertStatus.FIRING for alert in self.pipeline.alerts.values())
        text = f"{len(self.plan.names)} watches, {firing} firing, {self._waiting} messages waiting"
        return f"{text}; {self.note}" if self.note else text

    async def _check(self, due: Due) -> None:
        planned = self.plan.watches.get(due.name)
        if planned is None:
            return
        self.ledger.begun(due.name, due.at)
        check = await self.pipeline.check(planned.watch, due.trigger)
        if due.name in self.plan.watches:
            self.ledger.done(due.name, check.at, check.judgement.verdict)

    async def _ask_agent(self, due: Due) -> None:
        """A goal is due: whatever it takes to reach it happens elsewhere."""
        if due.name in self.plan.goals:
            await self.agents.start_when_possible(due.name, due.trigger, due.at)

    # Reloading.

    async def _reload_when_asked(self) -> None:
        """However often SIGHUP comes while one reload is on, one more follows; so it does after the start."""
        await self.ready.wait()
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self.reload()

    async def reload(self) -> str | None:
        """
        Read the configuration again and go over to it.

        Returns None, or why everything stays as it was, save for keys of the API that were taken away.
        """
        if self._stopping.is_set():
            return "the daemon is stopping"
        async with self._reloading:
            if self._stopping.is_set() or not self.ready.is_set():
                return "the daemon is starting or stopping"
            self.manager.reloading()
            try:
                try:
                    why = await self._reload()
                except Exception as error:
                    log.exception("reload_crashed")
                    why = self._refused(f"a defect in agentd: {type(error).__name__}: {error}; the log says more")
                if why is not None:
                    await self._let_go_of_keys()
                return why
            finally:
                if not self._stopping.is_set():
                    self.manager.ready(self.status_text())

    async def _reload(self) -> str | None:
        try:
            loaded = await asyncio.to_thread(load, self.path)  # the process's environment, and .env as it is now
            plan = await asyncio.to_thread(assemble, loaded, self.tools, instance=self.instance)
        except InvalidConfig as error:
            problems = [problem for problem in error.problems if not problem.warning]
            for problem in problems[:50]:
                log.error("reload_problem", extra={"problem": str(problem)})
            return self._refused(f"{problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
        except (AgentdError, OSError) as error:
            return self._refused(str(error))
        if (wrong := loaded.overlay.wrong) is not None:
            return self._refused(f"{loaded.overlay.path}: {wrong}")
        if self._stopping.is_set():
            return "the daemon is stopping"
        later = [key for key in _AT_START_ONLY if _at_start(loaded.config, key) != _at_start(self.config, key)]
        self._loaded = loaded
        read_secrets_from(loaded.environment, register_secret)
        register_keys(loaded.config)
        await self._swap(plan)
        self.refused, self.reloaded_at = None, self.clock.now()
        self.note = f"restart to apply changes of {', '.join(later)}" if later else ""
        for lost in orphans((await self.courier.stats()).waiting, plan.webhooks):
            log.warning("webhook_gone", extra={"what": lost})
        self.feeding.reloaded(None)
        log.info("reloaded", extra={"watches": len(plan.names), "restart_for": ", ".join(later)})
        return None

    @property
    def loaded(self) -> Loaded:
        """What is in effect, save for what waits for a restart."""
        return self._loaded

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """No reload and no end meanwhile. Raises Conflict while the daemon starts or stops."""
        async with self._reloading:
            if self._stopping.is_set() or not self.ready.is_set():
                raise Conflict("the daemon is starting or stopping; try again when it runs")
            yield

    def go_over_to_limits(self, loaded: Loaded) -> None:
        """From now on its models and limits hold; what runs ends on those that it began with."""
        self._loaded = limits_laid_over(self._loaded, loaded)
        config = self._loaded.config
        register_keys(config)
        self.plan = replace(self.plan, config=config)
        self.agents.reload(config)
        self.door.go_over_to(config.api)

    async def _let_go_of_keys(self) -> None:
        """Whatever else is wrong: one that was taken away may be in wrong hands."""
        standing = await asyncio.to_thread(with_standing_keys, self._loaded, self.path)
        if standing is self._loaded:
            return
        before, now = ({key.name for key in each.config.api.keys} for each in (self._loaded, standing))
        self._loaded = standing
        self.plan = replace(self.plan, config=standing.config)
        self.door.go_over_to(standing.config.api)
        log.warning("keys_taken_away", extra={"gone": ", ".join(sorted(before - now))})

    def _refused(self, why: str) -> str:
        self.note = self.refused = f"reload refused at {iso(self.clock.now())}, running on as before: {why}"
        self.feeding.reloaded(why)
        log.error("reload_refused", extra={"why": why})
        return why

    async def _swap(self, plan: Plan) -> None:
        """Go over to a plan: what did not change keeps its watch, its probe and its place in the schedule."""
        logs = await self._let_go_of_logs(plan)
        before, watches = self.plan.watches, dict(plan.watches)
        for name in before.keys() - watches.keys():
            running = self.scheduler.remove(name)
            self._close_after(before[name], running)
            del self.pipeline.watches[name]
        for name, planned in watches.items():
            old = before.get(name)
            if old is not None and old.basis == planned.basis:
                watches[name] = old
                continue
            if old is not None:
                self._close_after(old, self.scheduler.running(name))
            self.pipeline.watches[name] = planned.watch
            self.scheduler.replace(name, planned.trigger, self._check)
        self.pipeline.watches |= {name: planned.watch for name, planned in logs.items()}
        goals = self._swap_goals(plan)
        self.plan = Plan(plan.config, watches, logs, goals, plan.webhooks)
        self.agents.reload(plan.config)
        if self.ready.is_set():
            self.door.go_over_to(plan.config.api)
        self.events.reload(self.plan)
        self.pipeline.self_wish = self_wish(plan.config)
        self.pipeline.routing = routing_from(plan.config)
        self.pipeline.flapping = flapping_from(plan.config)
        # Alertmanager keeps what it knows by alert: what a group's message cut would never be over there.
        self.pipeline.whole = frozenset(name for name, to in plan.webhooks.items() if to.format == "alertmanager")
        self.people.go_over_to(muting_from(plan.config))
        self.selfcheck.targets = plan.config.daemon.selfcheck
        self.pulse.replace(plan.config.daemon.heartbeat)
        await self.courier.replace(plan.webhooks)
        for name in self.keeping.paused.keys() & (watches.keys() | goals.keys()):
            self.scheduler.pause(name)
        for name in await self.keeping.forget_others(self.plan.names):
            self.ledger.forget(name)
        await self.following.forget_others(logs)
        if self.ready.is_set():
            self._follow_logs()
        await self.pipeline.retire()

    def _swap_goals(self, plan: Plan) -> dict[str, PlannedGoal]:
        """Returns the plan's goals, unchanged ones as they are. Runs under way go on."""
        goals, before = dict(plan.goals), self.plan.goals
        for name in before.keys() - goals.keys():
            self.scheduler.remove(name)
            del self.pipeline.watches[name]
        for name, planned in goals.items():
            if name in before and before[name].basis == planned.basis:
                goals[name] = before[name]
                continue
            self.pipeline.watches[name] = planned.watch
            self.scheduler.replace(name, planned.trigger, self._ask_agent)
        return goals

    async def _let_go_of_logs(self, plan: Plan) -> dict[str, PlannedLog]:
        """Stop following what the plan has otherwise or not at all; returns its logs, unchanged ones as they run."""
        logs, before = dict(plan.logs), self.plan.logs
        for name in before.keys() & logs.keys():
            if before[name].basis == logs[name].basis:
                logs[name] = before[name]
        gone = [name for name, planned in before.items() if logs.get(name) is not planned]
        await self.following.stop(*gone)
        for name in gone:
            del self.pipeline.watches[name]
        return logs

    def _close_after(self, planned: Planned, running: asyncio.Task[None] | None) -> None:
        """Close a probe that is no longer needed, but not under a check that still uses it."""

        async def close() -> None:
            if running is not None:
                await asyncio.wait([running])
            await planned.watch.probe.close()

        self._chores.finish(f"close:{planned.watch.name}", close())


def _at_start(config: Config, section: str) -> object:
    """What of a section is read at the start alone."""
    if section == "daemon":
        return config.daemon.model_copy(update={"heartbeat": None, "selfcheck": ()})
    if section == "api":
        return config.api.listen
    return getattr(config, section)
