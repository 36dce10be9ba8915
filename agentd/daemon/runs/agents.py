"""
Agents in the daemon: which run is started by what, what it is given, and where its finding goes.

In: transitions, schedules, events, requests, the configuration. Out: rows of the ledger, findings told.
Promise: the alert never waits for an agent, save for as long as `investigate.wait` says. What a transition starts is a
row of its transaction. A budget that holds calls back is one alert, which ends with the day.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import apsw

from agentd.agent.job import Job, Outcome
from agentd.clock import Clock, from_optional_us, iso, optional_us
from agentd.config.models import Config
from agentd.config.watches import Watch as WatchConfig
from agentd.cron import parse_cron
from agentd.daemon.runs.budgets import BudgetAlerts
from agentd.daemon.runs.dispatch import Ended, NotOurs, Prepared, Runs, TooManyRuns, new_run_id
from agentd.daemon.runs.host import AgentHost
from agentd.daemon.runs.jobs import make_job, spend_limits
from agentd.deliver.links import finding_links
from agentd.deliver.payload import alert_data, finding_data
from agentd.errors import StoreError
from agentd.memory import events, ledger, spend
from agentd.memory.ledger import Priority, Run, RunOutcome, RunState
from agentd.memory.spend import to_nano
from agentd.memory.store import Store
from agentd.pipeline.findings import Also, Findings, GoalWatch, alert_of
from agentd.pipeline.keeper import SELF, Room, begins, queue_unless_crowded
from agentd.pipeline.tending import Tending
from agentd.records import Alert, Judgement, Severity, Transition, Verdict
from agentd.schedule.bus import DEEPEST, Event
from agentd.schedule.missed import missed_runs
from agentd.telemetry.embedded import RunSpan

if TYPE_CHECKING:
    from agentd.daemon.runs.answers import Answers

log = logging.getLogger("agentd.daemon")

_PRIORITY = {Severity.INFO: Priority.LOW, Severity.WARNING: Priority.NORMAL, Severity.CRITICAL: Priority.HIGH}

# Of the run whose finding is being told: what its alert starts was led to by these watches.
_led: ContextVar[tuple[str, ...]] = ContextVar("agentd_run_chain", default=())


class Agents:
    """
    config: to be changed by `reload`. paused: watches that are not to run now. traced: keeps spans of runs. page: the
    web address under which people reach the page.
    """

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        clock: Clock,
        keeper: Tending,
        host: AgentHost,
        instance: str,
        paused: Mapping[str, Any],
        traced: Callable[[list[RunSpan]], None] = lambda spans: None,
        page: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.config = config
        self._page = page
        self._store = store
        self._clock = clock
        self._keeper = keeper
        self._instance = instance
        self._paused = paused
        self._findings = Findings(keeper)
        self._budgets = BudgetAlerts(keeper, clock, lambda: self.config.budgets)
        self._put_off: dict[str, tuple[str, datetime, Event | None]] = {}
        self._made_up = True
        self.runs = Runs(
            store=store,
            clock=clock,
            host=host,
            prepare=self._prepare,
            conclude=self._conclude,
            ask=self._ask,
            refused=lambda job, refusal: self._budgets.refused(job.watch, refusal),
            at_once=lambda: self.config.api.max_concurrent_tasks,
            tracer=keeper.tracer,
            traced=traced,
            may_start=lambda run: self._may_run(run.watch),
        )
        self._investigate: dict[str, WatchConfig] = {}
        self._waiting_for: dict[str, list[WatchConfig]] = {}
        keeper.starts = self._started_by
        keeper.queued = self.runs.wake

    def reload(self, config: Config) -> None:
        """From now on these watches ask agents, and these limits hold."""
        self.config = config
        self._investigate = {watch.name: watch for watch in config.watches if watch.investigate is not None}
        self._waiting_for = {}
        for goal in config.goals:
            for event in goal.on:
                if event.startswith(("alert:", "log:")):
                    self._waiting_for.setdefault(event, []).append(goal)

    @cached_property
    def _answers(self) -> Answers:
        from agentd.daemon.runs.answers import Answers  # with recall: needed when there is a run

        return Answers(self._keeper, self._store, self._clock, lambda: self.config)

    async def _ask(self, job: Job, what: str, args: Mapping[str, Any]) -> Any:
        return await self._answers.ask(job, what, args)

    # What starts a run.

    def _started_by(self, transition: Transition, now: datetime, traceparent: str, room: Room) -> Sequence[Run]:
        """The runs that belong into the transaction of a transition."""
        alert = transition.alert
        if alert.watch == SELF or alert.muted_by is not None or not begins(transition):
            return ()
        chain = tuple(dict.fromkeys((*_led.get(), alert.watch)))
        found = []
        watch = self._investigate.get(alert.watch)
        if watch is not None and self._may_run(watch.name) and room.take(watch.name):
            assert watch.investigate is not None
            run = self._run(watch, "investigate", watch.investigate.goal, f"alert:{alert.watch}", now)
            about = {
                "incident": optional_us(alert.started_at),
                "severity": alert.severity.value,
                "told": list(alert.told),
                "payload": {"alert": alert_data(transition)},
                "traceparent": traceparent,
            }
            found.append(_about(run, alert.fingerprint, alert.severity, about, chain))
        names = [f"alert:{alert.watch}"]
        if alert.rule is not None:
            names.append(f"log:{alert.watch}/{alert.rule}")
        for name in names:
            for goal in self._waiting_for.get(name, ()):
                if goal.name in chain or len(chain) >= DEEPEST or not self._may_run(goal.name):
                    if room.refuse(goal.name):
                        log.info("event_refused", extra={"watch": goal.name, "event": name, "chain": " → ".join(chain)})
                elif room.take(goal.name):
                    run = self._run(goal, "goal", goal.goal or "", name, now)
                    asked = {"event": name, "payload": {"alert": alert_data(transition)}, "traceparent": traceparent}
                    found.append(_about(run, alert.fingerprint, alert.severity, asked, chain))
        return found

    def _may_run(self, watch: str) -> bool:
        return watch not in self._paused

    def _run(self, watch: WatchConfig, kind: ledger.RunKind, goal: str, trigger: str, now: datetime) -> Run:
        return Run(new_run_id(), watch.name, trigger, now, kind=kind, goal=goal)

    async def start_goal(self, name: str, trigger: str, due_at: datetime, event: Event | None = None) -> str | None:
        """Queue a run of this watch's goal; one that waits already is enough. Returns its id. Raises StoreError."""
        watch = next((each for each in self.config.goals if each.name == name), None)
        if watch is None:
            return None
        run = self._run(watch, "goal", watch.goal or "", trigger, due_at)
        if event is not None:
            asked = {"event": event.name, "payload": event.data, "count": event.count}
            run = _about(run, None, Severity.WARNING, asked, event.chain)

        def change(connection: apsw.Connection) -> bool:
            waits = ledger.waiting(connection, name) > 0
            return not waits and queue_unless_crowded(connection, run)

        if not await self._store.state.write(change):
            return None
        self.runs.told(run, RunState.QUEUED)
        self.runs.wake()
        return run.id

    async def start_when_possible(self, name: str, trigger: str, due_at: datetime, event: Event | None = None) -> None:
        """
        The same for what is due by itself: what the store refuses is kept in mind, the newest of each goal, and tried
        again by `keep_house`.
        """
        try:
            await self.start_goal(name, trigger, due_at, event)
        except StoreError as error:
            log.error("goal_not_started", extra={"watch": name, "trigger": trigger, "error": str(error)})
            self._put_off[name] = trigger, due_at, event
        else:
            self._put_off.pop(name, None)

    async def _start_put_off(self) -> None:
        for name, put_off in list(self._put_off.items()):
            if self._may_run(name):
                await self.start_when_possible(name, *put_off)
        if not self._made_up:
            with contextlib.suppress(StoreError, TooManyRuns):
                await self.make_up()

    async def make_up(self) -> None:
        """
        At start: queue the runs of cron goals that were due while nobody was there; until that is done, `keep_house`
        does it. Raises StoreError, TooManyRuns.
        """
        self._made_up = False
        now = self._clock.now()
        for watch in self.config.goals:
            if watch.cron is None or watch.name in self._paused:
                continue
            schedule = parse_cron(watch.cron, watch.timezone or "UTC")
            name = watch.name
            last = await self._store.state.read(partial(ledger.last_due, watch=name))
            for due_at in missed_runs(schedule, last, now, watch.missed or "once"):
                run = self._run(watch, "goal", watch.goal or "", "missed", due_at)
                await self.runs.submit(run)
                log.info("run_made_up", extra={"watch": name, "due_at": iso(due_at)})
        self._made_up = True

    # What it is given.

    async def _prepare(self, run: Run) -> Prepared:
        alert = self._alert_of(run)
        job = make_job(
            run,
            self.config,
            now=self._clock.now(),
            instance=self._instance,
            exhibits=await self._answers.exhibits(run, alert),
        )
        job = await self._answers.advised(job)
        return Prepared(job, spend_limits(job, self.config), alert)

    def _alert_of(self, run: Run) -> Alert | None:
        """The alert that a run is about: as it is now, or as it began to fire, where its row is gone since."""
        alert = self._keeper.alerts.get(run.fingerprint or "")
        if alert is not None or run.fingerprint is None:
            return alert
        asked = run.asked
        try:
            kept = alert_of(asked["payload"]["alert"], asked.get("told", ()))
        except (KeyError, TypeError, ValueError, AttributeError):  # it was too long to be kept whole
            return None
        return replace(kept, started_at=from_optional_us(asked.get("incident")) or kept.started_at)

    # Where its finding goes.

    async def _conclude(self, run: Run, prepared: Prepared | None, ended: Ended) -> bool:
        now, outcome = self._clock.now(), ended.outcome

        def end(connection: apsw.Connection) -> None:
            ours = ledger.end(
                connection,
                run.id,
                now,
                ended.state,
                error=ended.error,
                trace_id=run.trace_id,
                outcome=_spent_by(connection, run.id) if outcome is None else row_of(outcome),
                unbegun=ended.unbegun,
            )
            if not ours:
                raise NotOurs(f"run {run.id} has ended already, or begun meanwhile")

        parent = prepared.job.traceparent if prepared is not None else None
        token = _led.set(run.chain)
        try:
            if run.kind == "investigate":
                about = self._alert_of(run) if prepared is None else prepared.alert
                done = await self._investigated(run, about, outcome, end, parent)
            elif run.kind == "goal":
                done = await self._reached(run, prepared, ended, end, parent)
            else:
                done = await self._findings.nothing(None, end)
        finally:
            _led.reset(token)
        if done:
            self.runs.ended.add((run.kind, ended.state.value))
            self.runs.told(run, ended.state)
            self._remember(run, ended, now)
        return done

    async def _investigated(
        self, run: Run, about: Alert | None, outcome: Outcome | None, end: Also, parent: str | None
    ) -> bool:
        if about is None or outcome is None or outcome.finding is None:
            return await self._findings.nothing(about, end)
        finding = outcome.finding.model_dump(mode="json")
        return await self._findings.attach(about, finding, cost_of(run, outcome), end, parent=parent)

    async def _reached(self, run: Run, prepared: Prepared | None, ended: Ended, end: Also, parent: str | None) -> bool:
        watch, outcome = self._keeper.watches.get(run.watch), ended.outcome
        if not isinstance(watch, GoalWatch) or ended.state is RunState.CANCELLED:
            return await self._findings.nothing(None, end)
        took_s = outcome.duration_s if outcome is not None else 0.0
        finding = outcome.finding if outcome is not None else None
        if outcome is None or finding is None:
            why = f"the run {ended.state.value}: {ended.error or 'it came to no finding'}"
            blind = Judgement(Verdict.BLIND, why)
            return await self._findings.judge(watch, blind, took_s=took_s, also=end, parent=parent)
        said = finding.model_dump(mode="json")
        had_a_model = prepared is not None and prepared.job.model is not None
        if finding.analysis is not None and (watch.report == "state" or had_a_model):
            # Nobody looked: the budget is spent, the provider down. That is told when it lasts, not at every run.
            blind = Judgement(Verdict.BLIND, f"analysis {finding.analysis}")
            return await self._findings.judge(watch, blind, took_s=took_s, also=end, parent=parent)
        if watch.report == "state":
            # What a model could not make up its mind about, or did not say, is no trouble of the target's.
            verdict = {"ok": Verdict.OK, "problem": Verdict.FAILING}.get(finding.status, Verdict.BLIND)
            judgement = Judgement(verdict, "" if verdict is Verdict.OK else finding.summary)
            return await self._findings.judge(watch, judgement, took_s=took_s, also=end, parent=parent, finding=said)
        fine = Judgement(Verdict.OK)
        if finding.status == "ok":
            return await self._findings.judge(watch, fine, took_s=took_s, also=end, parent=parent)
        data = finding_data(
            watch=run.watch,
            instance=self._instance,
            run=run.id,
            goal=run.goal,
            labels=watch.policy.labels,
            finding=said,
            cost=cost_of(run, outcome),
            trace_id=run.trace_id,
            links=finding_links(self._page(), watch=run.watch, run=run.id),
        )
        told = await self._findings.tell(watch, data, traceparent=parent, also=end)
        if told:
            await self._findings.judge(watch, fine, took_s=took_s, also=lambda connection: None, parent=parent)
        return told

    def _remember(self, run: Run, ended: Ended, now: datetime) -> None:
        finding = ended.outcome.finding if ended.outcome is not None else None
        data = {
            "run": run.id,
            "goal": run.goal[:500],
            "error": ended.error,
            "finding": finding.summary if finding is not None else None,
        }
        kind, watch, about = f"run.{ended.state.value}", run.watch, run.fingerprint
        self._store.history.post(lambda c: events.append(c, kind, now, watch=watch, fingerprint=about, data=data))

    async def keep_house(self) -> None:
        """
        Called now and then: what the store refused is tried again, a day's budgets end with it, and new notes are
        measured for recall by meaning.
        """
        await self._start_put_off()
        await self._budgets.look()
        if self.config.embeddings is not None and (meaning := self._answers.meaning()) is not None:
            await meaning.catch_up()


def cost_of(run: Run, outcome: Outcome) -> dict[str, Any]:
    """What a run took, as payloads show it. usd: null when a price is not known."""
    return {
        "usd": None if outcome.usd is None else round(outcome.usd, 6),
        "tokens": outcome.input_tokens + outcome.output_tokens,
        "model_calls": outcome.model_calls,
        "models": list(outcome.models),
        "run": run.id,
    }


def _about(
    run: Run, fingerprint: str | None, severity: Severity, asked: Mapping[str, Any], chain: tuple[str, ...]
) -> Run:
    return replace(run, fingerprint=fingerprint, priority=_PRIORITY[severity], asked=asked, chain=chain)


def _spent_by(c: apsw.Connection, run: str) -> RunOutcome:
    """What a run took that came to no outcome: as far as it was set aside or settled."""
    spent = spend.of_run(c, run)
    return RunOutcome(
        model_calls=spent.calls,
        input_tokens=spent.tokens,
        usd_nano=None if spent.unknown_calls else spent.usd_nano,
    )


def row_of(outcome: Outcome) -> RunOutcome:
    """What the ledger keeps of an outcome."""
    return RunOutcome(
        answer=outcome.answer,
        finding=None if outcome.finding is None else outcome.finding.model_dump(mode="json"),
        plan=None if outcome.plan is None else outcome.plan.model_dump(mode="json"),
        steps=outcome.steps,
        tool_calls=outcome.tool_calls,
        model_calls=outcome.model_calls,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cached_tokens=outcome.cached_tokens,
        usd_nano=to_nano(outcome.usd),
        models=outcome.models,
        artifacts=outcome.artifacts,
    )
