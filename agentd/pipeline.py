"""
The main path. Read this first.

    schedule ─▶ check ─▶ probe ─▶ Observation ─▶ conditions ─▶ Judgement
        ─▶ lifecycle (pure) ─▶ Transition ─▶ one transaction: alert and its outbox rows ─▶ courier wakes

In: due checks from the scheduler. Out: rows in the state store, one result a check in the recorder, one trace a run.
Promise: an alert's state and the messages that tell of it are committed together or not at all, and memory follows
the store: while the store refuses a change, the old state stands and the next check tries the same step again.
A check that changes nothing writes nothing. Nothing here waits for a webhook.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import apsw
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, Tracer, set_span_in_context

from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import BLIND_RULE, Policy, Step, end, step, step_blind, step_reminder
from agentd.clock import Clock
from agentd.condition import Condition, judge
from agentd.deliver.payload import alert_data
from agentd.errors import StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import outbox
from agentd.memory.database import Database
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    Delivery,
    EventType,
    Judgement,
    Observation,
    Reason,
    Severity,
    Transition,
    Verdict,
)
from agentd.telemetry.traces import KEEP, WATCH, traceparent
from agentd.watch.probe import Probe

log = logging.getLogger("agentd.pipeline")

SELF = "agentd"
"""The watch name that agentd's alerts about itself carry."""

REMINDER_SWEEP_S = 10.0


@dataclass(slots=True)
class Watch:
    """
    A watch ready to run: what the config said, opened.

    calm: its alert as it is before anything ever happened; blind: the same for the alert "cannot look".
    notify: names of webhooks. last: the newest check, kept for status and page.
    """

    name: str
    kind: str
    calm: Alert
    blind: Alert
    probe: Probe
    conditions: tuple[Condition, ...]
    policy: Policy
    notify: tuple[str, ...]
    timeout_s: float
    last: Check | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Check:
    """One finished check: what was seen and what was made of it."""

    at: datetime
    observation: Observation
    judgement: Judgement
    step: Step


class Pipeline:
    """
    Runs checks and keeps the alerts.

    state: the state store. record: takes each check's result. told: called after a commit that put messages into
    the outbox (wakes the courier). links: gives the links of an alert's payload by fingerprint.
    """

    def __init__(
        self,
        *,
        state: Database,
        clock: Clock,
        instance: str,
        tracer: Tracer,
        record: Callable[[CheckResult], None],
        told: Callable[[], None],
        changed: Callable[[Transition], None] = lambda transition: None,
        links: Callable[[str], Mapping[str, str]] = lambda fingerprint: {},
    ) -> None:
        self._state = state
        self._clock = clock
        self._tracer = tracer
        self._record = record
        self._told = told
        self._changed = changed
        self._links = links
        self.instance = instance
        self.watches: dict[str, Watch] = {}
        self.alerts: dict[str, Alert] = {}
        self.self_policy = Policy(needed=1, of=1, recover_after=1, severity=Severity.WARNING)
        self.self_notify: tuple[str, ...] = ()
        self._self_lock = asyncio.Lock()
        self.checks = 0

    async def load(self) -> None:
        """Take up the alerts where the last process left them."""
        alerts = await self._state.read(alert_rows.load_all)
        self.alerts = {alert.fingerprint: alert for alert in alerts}

    # The path of one check, from top to bottom.

    async def check(self, watch: Watch, trigger: str = "schedule") -> Check:
        """Look once, judge, decide, commit. Raises nothing that a target or the store can cause."""
        run = self._tracer.start_span("check", attributes={WATCH: watch.name, "agentd.trigger": trigger})
        try:
            observation = await self._look(watch, run)
            judgement = judge(observation, watch.conditions)
            async with watch.lock:
                done = await self._decide(watch, observation, judgement, run)
            watch.last = done
            self.checks += 1
            return done
        except BaseException as error:
            run.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            run.end()

    async def _look(self, watch: Watch, run: Span) -> Observation:
        span = self._tracer.start_span(f"probe {watch.kind}", context=set_span_in_context(run))
        observation = await look(watch, self._clock)
        if observation.notes:
            span.set_attributes(observation.notes)
        if observation.error or observation.blind:
            span.set_status(Status(StatusCode.ERROR, observation.error or observation.blind))
        span.end()
        return observation

    async def _decide(self, watch: Watch, observation: Observation, judgement: Judgement, run: Span) -> Check:
        now = self._clock.now()
        context = run.get_span_context()
        if self.watches.get(watch.name) is not watch:
            # A reload took the watch away or replaced it while we looked: this verdict belongs to nobody now.
            return Check(now, observation, judgement, Step(watch.calm))
        if judgement.verdict is not Verdict.OK:
            run.set_status(Status(StatusCode.ERROR, judgement.summary))
        before = self.alerts.get(watch.calm.fingerprint, watch.calm)
        after = step(before, judgement, watch.policy, now)
        steps = [after]
        if after.alert.blind_since is not None or watch.blind.fingerprint in self.alerts:
            blind = self.alerts.get(watch.blind.fingerprint, watch.blind)
            why = judgement.summary if judgement.verdict is Verdict.BLIND else None
            steps.append(step_blind(blind, why, after.alert.blind_since, watch.policy, now))
        if not await self._commit(steps, watch.notify, run):
            after = Step(before)
        self._record(
            CheckResult(
                watch=watch.name,
                at=now,
                verdict=judgement.verdict,
                duration_s=observation.duration_s,
                latency_ms=observation.values.get("latency_ms"),
                summary=judgement.summary,
                trace_id=_trace_id(context) if judgement.verdict is not Verdict.OK else None,
            )
        )
        return Check(now, observation, judgement, after)

    async def _commit(self, steps: Sequence[Step], notify: Sequence[str], run: Span) -> bool:
        """
        Make the steps durable, with the messages they cause, in one transaction; then let memory follow.

        Returns False when the store refused: nothing happened, in the store or in memory.
        """
        if not any(taken.changed for taken in steps):
            self._follow(steps)
            return True
        commit = asyncio.create_task(self._commit_changes(steps, notify, run))
        try:
            return await asyncio.shield(commit)
        except asyncio.CancelledError:
            # The store may have it already: memory must follow before anybody else looks at this alert.
            await commit
            raise

    async def _commit_changes(self, steps: Sequence[Step], notify: Sequence[str], run: Span) -> bool:
        trace_id = _trace_id(run.get_span_context())
        steps = [_addressed(taken, tuple(notify), trace_id) for taken in steps]
        told = [taken.transition for taken in steps if taken.transition is not None]
        changed = [taken.alert for taken in steps if taken.changed]
        deliveries = [delivery for transition in told for delivery in self._deliveries(transition, traceparent(run))]
        if told:
            run.set_attribute(KEEP, True)

        def change(connection: apsw.Connection) -> None:
            for alert in changed:
                alert_rows.save(connection, alert)
            for delivery in deliveries:
                outbox.put(connection, delivery)

        span = self._tracer.start_span("commit", context=set_span_in_context(run))
        try:
            await self._state.write(change)
        except StoreError as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
            log.error("commit_failed", extra={"watch": changed[0].watch, "error": str(error)})
            return False
        finally:
            span.end()
        self._follow(steps)
        for transition in told:
            self._announce(transition, run)
        if deliveries:
            self._told()
        return True

    def _follow(self, steps: Sequence[Step]) -> None:
        for taken in steps:
            if taken.changed or taken.alert.fingerprint in self.alerts:
                self.alerts[taken.alert.fingerprint] = taken.alert

    def _announce(self, transition: Transition, run: Span) -> None:
        alert = transition.alert
        with trace.use_span(run, end_on_exit=False):
            log.log(
                logging.WARNING if transition.after is AlertStatus.FIRING else logging.INFO,
                "alert_"
                + (transition.event.value.removeprefix("alert.") if transition.event else transition.after.value),
                extra={
                    "watch": alert.watch,
                    "rule": alert.rule,
                    "severity": alert.severity.value,
                    "reason": transition.reason.value,
                    "reason_text": transition.reason_text,
                    "summary": alert.summary,
                    "fingerprint": alert.fingerprint,
                },
            )
        self._changed(transition)

    def _deliveries(self, transition: Transition, parent: str | None) -> list[Delivery]:
        """The messages that tell of a transition: one for each webhook, all of one watch in one lane."""
        if transition.event is None:
            return []
        links = self._links(transition.alert.fingerprint)
        data = json.dumps(alert_data(transition, links=links), ensure_ascii=False, separators=(",", ":"))
        return [
            Delivery(
                id=f"msg_{uuid.uuid4().hex}",
                webhook=webhook,
                lane=transition.alert.watch,
                type=transition.event,
                data=data,
                created_at=transition.at,
                due_at=transition.at,
                fingerprint=transition.alert.fingerprint,
                traceparent=parent,
            )
            for webhook in transition.alert.told
        ]

    # What happens to alerts apart from checks.

    async def remind(self) -> None:
        """Send the reminders that are due. Called every REMINDER_SWEEP_S; looks only at firing alerts."""
        for alert in [alert for alert in self.alerts.values() if alert.status is AlertStatus.FIRING]:
            watch = self.watches.get(alert.watch)
            policy = watch.policy if watch else self.self_policy
            notify = watch.notify if watch else self.self_notify
            async with watch.lock if watch else self._self_lock:
                current = self.alerts.get(alert.fingerprint)
                if current is not None and (taken := step_reminder(current, policy, self._clock.now())).changed:
                    await self._commit_alone("remind", taken, notify)

    async def report_self(self, rule: str, failing: str | None, severity: Severity = Severity.WARNING) -> None:
        """Advance an alert about agentd itself. failing: what is wrong, or None when all is well."""
        async with self._self_lock:
            policy = replace(self.self_policy, severity=severity)
            before = self._own_alert(rule)
            verdict = Verdict.OK if failing is None else Verdict.FAILING
            taken = step(before, Judgement(verdict, failing or ""), policy, self._clock.now())
            await self._commit_alone("self", taken, self.self_notify)

    async def retire(self) -> None:
        """End the alerts of watches that the config no longer names; whoever was told of one hears that it ended."""
        now = self._clock.now()
        ended = []
        for alert in [alert for alert in self.alerts.values() if not self._watched(alert)]:
            taken = end(alert, Reason.WATCH_REMOVED, "the watch was removed from the configuration", now)
            if not taken.changed or await self._commit_alone("retire", taken, ()):
                ended.append(alert.fingerprint)
        if not ended:
            return
        try:
            await self._state.write(lambda connection: [alert_rows.delete(connection, each) for each in ended])
        except StoreError as error:
            log.error("commit_failed", extra={"watch": SELF, "error": str(error)})
            return
        for each in ended:
            del self.alerts[each]

    def _watched(self, alert: Alert) -> bool:
        return alert.instance == self.instance and (alert.watch in self.watches or alert.watch == SELF)

    async def _commit_alone(self, name: str, taken: Step, notify: Sequence[str]) -> bool:
        run = self._tracer.start_span(name, attributes={WATCH: taken.alert.watch})
        try:
            return await self._commit([taken], notify, run)
        finally:
            run.end()

    def _own_alert(self, rule: str) -> Alert:
        identity = fingerprint(self.instance, SELF, rule)
        return self.alerts.get(identity) or Alert(identity, self.instance, SELF, self.self_policy.severity, rule)


async def look(watch: Watch, clock: Clock) -> Observation:
    """One look through the probe; a defect of the probe counts as blind, never as the target's failure."""
    started = clock.monotonic()
    try:
        observation = await watch.probe.look(watch.timeout_s)
    except Exception as error:
        log.exception("probe_crashed", extra={"watch": watch.name, "kind": watch.kind})
        observation = Observation(blind=f"the {watch.kind} probe crashed: {type(error).__name__}: {error}")
    observation.duration_s = clock.monotonic() - started
    return observation


def open_watch(
    name: str,
    kind: str,
    probe: Probe,
    conditions: Sequence[Condition],
    policy: Policy,
    *,
    instance: str,
    notify: Sequence[str],
    timeout_s: float,
) -> Watch:
    """Make a watch ready to run; whatever does not change from check to check is worked out here."""
    return Watch(
        name=name,
        kind=kind,
        probe=probe,
        calm=_calm(instance, name, None, policy),
        blind=_calm(instance, name, BLIND_RULE, policy),
        conditions=tuple(conditions),
        policy=policy,
        notify=tuple(notify),
        timeout_s=timeout_s,
    )


def _calm(instance: str, watch: str, rule: str | None, policy: Policy) -> Alert:
    return Alert(fingerprint(instance, watch, rule), instance, watch, policy.severity, rule, labels=policy.labels)


def _trace_id(context: SpanContext) -> str | None:
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _addressed(taken: Step, notify: tuple[str, ...], trace_id: str | None) -> Step:
    """Write into the alert who hears of it and which trace it belongs to, so that store and payload agree."""
    if taken.transition is None:
        return taken
    told = taken.alert.told
    if taken.transition.event is EventType.FIRING:
        told = notify
    elif taken.transition.event is EventType.REMINDER:
        told = tuple(dict.fromkeys((*told, *notify)))
    alert = replace(taken.alert, trace_id=trace_id, told=told)
    return replace(taken, alert=alert, transition=replace(taken.transition, alert=alert))
