"""
The daemon's whole life, on one page: open, run, reload, drain, close.

In: the path of the configuration, and signals. Out: an exit code.
Promise: READY only when configuration and store are open and checks may run; a reload that fails leaves everything
as it was; at the end what was opened is closed in reverse order, and sends and checks under way get their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path

import apsw

from agentd import __version__
from agentd.api.app import make_app
from agentd.api.server import ApiServer, open_socket
from agentd.clock import Clock, SystemClock, iso
from agentd.config.loader import Loaded, load
from agentd.daemon.assemble import Plan, Planned, assemble, self_policy
from agentd.daemon.control import Control
from agentd.daemon.notify import ServiceManager, listen_fds, strip_environment
from agentd.daemon.selfwatch import SWEEP_S, SelfWatch
from agentd.daemon.watchdog import Watchdog
from agentd.deliver.courier import Courier
from agentd.errors import AgentdError, InvalidConfig, StoreError
from agentd.memory import audit, events, heartbeats, ledger, meta, pauses
from agentd.memory.heartbeats import HeartbeatRow
from agentd.memory.ledger import ProbeRow
from agentd.memory.recorder import Recorder
from agentd.memory.retention import Retention
from agentd.memory.store import Store
from agentd.pacing import KeyedBuckets
from agentd.pipeline import REMINDER_SWEEP_S, Pipeline
from agentd.records import AlertStatus, Transition
from agentd.schedule.ledger import LastRun, Ledger
from agentd.schedule.scheduler import Due, Scheduler
from agentd.secret import read_secrets_from
from agentd.telemetry.embedded import EmbeddedSpans
from agentd.telemetry.redact import register_secret
from agentd.telemetry.traces import open_traces
from agentd.watch.heartbeat import Beat, Beats
from agentd.watch.probe import ProbeTools

log = logging.getLogger("agentd.daemon")

TICK_S = 5.0
HOUSEKEEPING_S = 60.0
OVERDUE_S = 10.0
STATUS_S = 10.0
EXIT_OK = 0
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
        self.started_at = self.clock.now()
        self.note = ""
        self.paused: dict[str, pauses.Pause] = {}
        self.ready = asyncio.Event()
        self._loaded = loaded
        self._handle_signals = handle_signals
        self._stopping = asyncio.Event()
        self._exit_code = EXIT_OK
        self._waiting = 0
        self.held: str | None = None
        self._reloading = asyncio.Lock()

    async def run(self) -> int:
        """Live until SIGTERM, SIGINT or `stop`. Returns the exit code. Raises StoreError, ConfigError at the start."""
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            await self._live()
        log.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

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
        memory = self.config.memory
        keep = Retention(memory.max_size, memory.results, memory.rollups, memory.runs, memory.events)
        self.store = await Store.open(self.state_dir, clock=self.clock, keep=keep)
        stack.push_async_callback(self.store.close)
        self.recorder = Recorder(self.store.history, self.store.check_room)
        self.traces = open_traces(
            otlp_endpoint=self.config.telemetry.otlp_endpoint,
            sample=self.config.telemetry.sample,
            instance=self.instance,
            keep=EmbeddedSpans(self.recorder.trace),
        )
        stack.push_async_callback(self.traces.close, 2.0)
        self.beats = await self._restore_beats()
        rows = await self.store.state.read(ledger.load_probes)
        self.ledger = Ledger(self._save_ledger, {row.watch: LastRun(*astuple(row)) for row in rows.values()})
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
            changed=self._remember,
            links=self._links,
        )
        await self.pipeline.load()
        self.scheduler = Scheduler(self.clock)
        self.tools = ProbeTools(clock=self.clock, hosts=KeyedBuckets(self.config.daemon.host_rate), beats=self.beats)
        self.plan = Plan(self.config, {}, {})
        self.paused = await self.store.state.read(pauses.load)
        await self._swap(await asyncio.to_thread(assemble, self._loaded, self.tools, instance=self.instance))
        self.control = Control(self)
        self.servers = self._open_api()
        strip_environment()  # or the commands that we watch could speak to systemd in our name
        self.selfwatch = SelfWatch(
            self.clock,
            memory_limit=self.config.daemon.memory_limit,
            full=lambda: self.store.full,
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
                "courier": self.courier.answer,
            },
        )

    async def _save_ledger(self, rows: Sequence[LastRun]) -> None:
        probes = [ProbeRow(*astuple(row)) for row in rows]
        await self.store.state.write(lambda connection: ledger.save_probes(connection, probes))

    async def _restore_beats(self) -> Beats:
        beats = Beats(self.clock)
        rows = await self.store.state.read(heartbeats.load)
        beats.restore([Beat(*astuple(row)) for row in rows], await self.store.state.read(meta.alive_at))
        return beats

    def _open_api(self) -> list[ApiServer]:
        inherited = [passed for group in listen_fds().values() for passed in group]
        addresses = self.config.api.find_listen(self._loaded.environment, self.state_dir)
        sockets = inherited or [open_socket(str(address)) for address in addresses]
        local = [each for each in sockets if each.family == socket.AF_UNIX]
        tcp = [each for each in sockets if each.family != socket.AF_UNIX]
        hosts = {"localhost", "127.0.0.1", "::1", self.instance, socket.gethostname()}
        hosts |= {address.host for address in addresses if address.host}
        servers = []
        if local:
            servers.append(ApiServer(make_app(self.control, hosts=None), local))
        if tcp:
            servers.append(ApiServer(make_app(self.control, hosts=hosts), tcp))
        return servers

    def _links(self, fingerprint: str) -> dict[str, str]:
        base = self.page_url
        return {"page": f"{base}/"} if base else {}

    @property
    def page_url(self) -> str | None:
        """Where people find the page, or None when no TCP address is listened on."""
        tcp = [address for address in self.config.api.listen if address.path is None]
        return f"http://{tcp[0]}" if tcp else None

    # Living.

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        if self._handle_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        async with asyncio.TaskGroup() as group:
            self._group = group
            chores = [
                group.create_task(self._repeat(SWEEP_S, self.selfwatch.sweep), name="selfwatch"),
                group.create_task(self._repeat(REMINDER_SWEEP_S, self.pipeline.remind), name="reminders"),
                group.create_task(self._repeat(TICK_S, self._tick), name="tick"),
                group.create_task(self._repeat(HOUSEKEEPING_S, self._keep_house), name="housekeeping"),
                group.create_task(self.ledger.keep(), name="ledger"),
                group.create_task(self._repeat(STATUS_S, self._tell_status), name="status"),
                group.create_task(self.recorder.run(), name="recorder"),
                group.create_task(self.watchdog.run(), name="watchdog"),
            ]
            self.held = await self.store.state.read(meta.held)
            if self.held:
                log.warning("outbox_held", extra={"why": self.held, "cure": "agentd doctor resume"})
            else:
                group.create_task(self.courier.run(), name="courier")
            await self._stamp()
            for server in self.servers:
                await server.start()
            self.scheduler.start()
            for planned in self.plan.watches.values():
                if planned.at_start and planned.watch.name not in self.paused:
                    self.scheduler.run_now(planned.watch.name)
            self.manager.ready(self.status_text())
            self.ready.set()
            log.info(
                "started", extra={"version": __version__, "watches": len(self.plan.watches), "page": self.page_url}
            )
            await self._stopping.wait()
            await self._wind_down()
            for chore in chores:
                chore.cancel()

    async def _wind_down(self) -> None:
        """Stop taking work in, then let go of it from the front of the path to its end."""
        drain_s = self.config.daemon.drain_timeout.total_seconds()
        self.manager.stopping("stopping: letting checks and messages end")
        self.manager.extend(drain_s + 10)
        for server in self.servers:
            await server.stop()
        await self.scheduler.stop(drain_s / 2)
        await self.courier.drain(timedelta(seconds=drain_s / 2))
        for planned in self.plan.watches.values():
            await planned.watch.probe.close()
        with contextlib.suppress(StoreError):
            await self.ledger.flush()
            await self.save_beats()
            await self._stamp()
        self.recorder.flush()

    async def _repeat(self, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except StoreError as error:
                log.error("chore_failed", extra={"chore": work.__qualname__, "error": str(error)})

    async def _tick(self) -> None:
        await self.store.recover()
        await self._end_pauses()
        await self.save_beats()

    async def _keep_house(self) -> None:
        await self.store.housekeeping(self.clock.now())

    async def _store_answers(self) -> None:
        """Proof of life for the watchdog: the writer has taken a turn. A full disk is an answer."""
        with contextlib.suppress(StoreError):
            await self.store.state.write(lambda connection: None)

    async def _scheduler_answers(self) -> None:
        """The same of the scheduler: nothing that is due has been lying for long."""
        while self.scheduler.overdue_s() > OVERDUE_S:  # noqa: ASYNC110  # nobody is told when it is on time again
            await asyncio.sleep(1)

    def _remember(self, transition: Transition) -> None:
        """Keep the transition in the alert's history; losing it loses no message."""
        alert = transition.alert
        data = {
            "before": transition.before.value,
            "after": transition.after.value,
            "reason": transition.reason.value,
            "reason_text": transition.reason_text,
            "summary": alert.summary,
            "rule": alert.rule,
            "severity": alert.severity.value,
            "trace_id": alert.trace_id,
        }
        kind = transition.event.value if transition.event else f"alert.{transition.after.value}"
        self.store.history.post(
            lambda connection: events.append(
                connection, kind, transition.at, watch=alert.watch, fingerprint=alert.fingerprint, data=data
            )
        )

    async def _stamp(self) -> None:
        now = self.clock.now()
        await self.store.state.write(lambda connection: meta.stamp_alive(connection, now))

    async def _tell_status(self) -> None:
        self._waiting = sum((await self.courier.stats()).waiting.values())
        self.manager.status(self.status_text())

    def status_text(self) -> str:
        """One line for `systemctl status`."""
        firing = sum(alert.status is AlertStatus.FIRING for alert in self.pipeline.alerts.values())
        text = f"{len(self.plan.watches)} watches, {firing} firing, {self._waiting} messages waiting"
        return f"{text}; {self.note}" if self.note else text

    async def _check(self, due: Due) -> None:
        planned = self.plan.watches.get(due.name)
        if planned is None:
            return
        self.ledger.begun(due.name, due.at)
        check = await self.pipeline.check(planned.watch, due.trigger)
        self.ledger.done(due.name, check.at, check.judgement.verdict)

    # Reloading.

    def _on_hangup(self) -> None:
        self._group.create_task(self.reload(), name="reload")

    async def reload(self) -> str | None:
        """
        Read the configuration again and go over to it.

        Returns None, or why everything stays as it was.
        """
        async with self._reloading:
            self.manager.reloading()
            try:
                return await self._reload()
            finally:
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
        later = [key for key in _AT_START_ONLY if getattr(loaded.config, key) != getattr(self.plan.config, key)]
        self._loaded = loaded
        read_secrets_from(loaded.environment, register_secret)
        await self._swap(plan)
        self.note = f"restart to apply changes of {', '.join(later)}" if later else ""
        log.info("reloaded", extra={"watches": len(plan.watches), "restart_for": ", ".join(later)})
        return None

    def _refused(self, why: str) -> str:
        self.note = f"reload refused at {iso(self.clock.now())}, running on as before: {why}"
        log.error("reload_refused", extra={"why": why})
        return why

    async def _swap(self, plan: Plan) -> None:
        """Go over to a plan: what did not change keeps its watch, its probe and its place in the schedule."""
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
        self.plan = Plan(plan.config, watches, plan.webhooks)
        self.pipeline.self_policy = self_policy(plan.config)
        self.pipeline.self_notify = plan.config.alerting.notify
        await self.courier.replace(plan.webhooks)
        for name in self.paused.keys() & watches.keys():
            self.scheduler.pause(name)
        await self._forget(watches)
        await self.pipeline.retire()

    async def _forget(self, watches: Collection[str]) -> None:
        """Drop what the store keeps of watches that are gone; a full disk may keep it until the next reload."""
        beats = self.beats.forget_others(watches)
        gone = self.paused.keys() - set(watches)

        def change(connection: apsw.Connection) -> None:
            for name in beats:
                heartbeats.delete(connection, name)
            for name in gone:
                pauses.delete(connection, name)

        if beats or gone:
            with contextlib.suppress(StoreError):
                await self.store.state.write(change)
        for name in gone:
            del self.paused[name]

    # What outlives a restart: pauses and heartbeats.

    async def end_pause(self, watch: str, *, by: str) -> None:
        """Let a paused watch run again, and write down who did that."""
        now = self.clock.now()

        def change(connection: apsw.Connection) -> None:
            pauses.delete(connection, watch)
            audit.append(connection, by, "resume", watch, "", now)

        await self.store.state.write(change)
        self.paused.pop(watch, None)
        if watch in self.plan.watches:
            self.scheduler.resume(watch)

    async def _end_pauses(self) -> None:
        now = self.clock.now()
        for pause in list(self.paused.values()):
            if pause.until is not None and pause.until <= now:
                await self.end_pause(pause.watch, by="agentd")

    async def save_beats(self) -> None:
        """Store the heartbeats that came in; raises StoreError, and they stay to be stored."""
        rows = self.beats.take_changed()
        if not rows:
            return
        try:
            stored = [HeartbeatRow(*astuple(row)) for row in rows]
            await self.store.state.write(lambda connection: heartbeats.save(connection, stored))
        except StoreError:
            self.beats.keep_changed(rows)
            raise

    def _close_after(self, planned: Planned, running: asyncio.Task[None] | None) -> None:
        """Close a probe that is no longer needed, but not under a check that still uses it."""

        async def close() -> None:
            if running is not None:
                await asyncio.wait([running])
            await planned.watch.probe.close()

        self._group.create_task(close(), name=f"close:{planned.watch.name}")
