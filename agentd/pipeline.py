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
from dataclasses import dataclass, replace
from datetime import datetime
from weakref import WeakValueDictionary

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
from agentd.telemetry.redact import without_secrets
from agentd.telemetry.traces import KEEP, WATCH, traceparent
from agentd.watch.probe import Probe

log = logging.getLogger("agentd.pipeline")

SELF = "agentd"
"""The watch name that agentd's alerts about itself carry."""

REMINDER_SWEEP_S = 10.0
_HUNG_AFTER_S = 5.0
_RETIRED_AT_ONCE = 200


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
    stood_still: to be set to what tells whether this process stood still after a moment (monotonic seconds).
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
        self.stood_still: Callable[[float], bool] = lambda since: False
        self.instance = instance
        self.watches: dict[str, Watch] = {}
        self.alerts: dict[str, Alert] = {}
        self.self_policy = Policy(needed=1, of=1, recover_after=1, severity=Severity.WARNING)
        self.self_notify: tuple[str, ...] = ()
        # One for each name of a watch, as long as anybody uses it: a reload may replace or remove the watch while a
        # check of the old one is in the middle of its commit.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
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
            started = self._clock.monotonic()
            observation = await self._look(watch, run)
            observation, judgement = judged(observation, watch.conditions)
            if judgement.verdict is Verdict.FAILING and self.stood_still(started):
                # Stopped or suspended in mid-look: a timeout then is ours, not the target's.
                judgement = Judgement(Verdict.BLIND, f"this process stood still while it looked: {judgement.summary}")
            async with self._alone(watch.name):
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
        try:
            observation = await look(watch, self._clock)
            if observation.notes:
                span.set_attributes(observation.notes)
            if observation.error or observation.blind:
                span.set_status(Status(StatusCode.ERROR, observation.error or observation.blind))
        finally:
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
            run.set_attribute("agentd.verdict", judgement.verdict.value)
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

    async def _commit(self, steps: Sequence[Step], notify: Sequence[str], run: Span, *, forget: bool = False) -> bool:
        """
        Make the steps durable, with the messages they cause, in one transaction; then let memory follow.

        forget: these are the last steps of their alerts, whose rows go. Returns False when the store refused:
        nothing happened, in the store or in memory.
        """
        if not forget and not any(taken.changed for taken in steps):
            self._follow(steps)
            return True
        commit = asyncio.create_task(self._commit_changes(steps, notify, run, forget))
        cancelled = False
        while not commit.done():
            try:
                await asyncio.wait([commit])
            except asyncio.CancelledError:
                # The store may have it already: memory must follow before anybody else looks at this alert, however
                # often we are told to end.
                cancelled = True
        committed = commit.result()
        if cancelled:
            raise asyncio.CancelledError
        return committed

    async def _commit_changes(self, steps: Sequence[Step], notify: Sequence[str], run: Span, forget: bool) -> bool:
        trace_id = _trace_id(run.get_span_context())
        steps = [_addressed(taken, tuple(notify), trace_id) for taken in steps]
        told = [taken.transition for taken in steps if taken.transition is not None]
        changed = [taken.alert for taken in steps if taken.changed]
        parent = traceparent(run)
        deliveries = [each for transition in told for each in self._deliveries(transition, notify, parent)]
        if told:
            run.set_attribute(KEEP, True)

        def change(connection: apsw.Connection) -> None:
            for alert in changed:
                alert_rows.save(connection, alert)
            for delivery in deliveries:
                outbox.put(connection, delivery)
            if forget:
                for taken in steps:
                    alert_rows.delete(connection, taken.alert.fingerprint)

        span = self._tracer.start_span("commit", context=set_span_in_context(run))
        try:
            await self._state.write(change)
        except StoreError as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
            log.error("commit_failed", extra={"watch": steps[0].alert.watch, "error": str(error)})
            return False
        finally:
            span.end()
        if forget:
            for taken in steps:
                self.alerts.pop(taken.alert.fingerprint, None)
        else:
            self._follow(steps)
        for transition in told:
            run.add_event(f"{transition.before.value} to {transition.after.value}", {"reason": transition.reason_text})
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

    def _deliveries(self, transition: Transition, notify: Sequence[str], parent: str | None) -> list[Delivery]:
        """The messages that tell of a transition: one for each webhook, all of one watch in one lane."""
        if transition.event is None:
            return []
        # Whom the configuration no longer names hears the end of what it was told of, but is not reminded.
        hearers = notify if transition.event is EventType.REMINDER else transition.alert.told
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
            for webhook in hearers
        ]

    # What happens to alerts apart from checks.

    async def remind(self) -> None:
        """Send the reminders that are due. Called every REMINDER_SWEEP_S; looks only at firing alerts."""
        for alert in [alert for alert in self.alerts.values() if alert.status is AlertStatus.FIRING]:
            async with self._alone(alert.watch):
                current = self.alerts.get(alert.fingerprint)
                if current is None or not self._watched(current):
                    continue
                watch = self.watches.get(alert.watch)
                policy = watch.policy if watch else self.self_policy
                notify = watch.notify if watch else self.self_notify
                taken = step_reminder(current, policy, self._clock.now())
                if taken.changed:
                    await self._commit_alone("remind", taken, notify)

    async def report_self(self, rule: str, failing: str | None, severity: Severity = Severity.WARNING) -> None:
        """Advance an alert about agentd itself. failing: what is wrong, or None when all is well."""
        async with self._alone(SELF):
            policy = replace(self.self_policy, severity=severity)
            before = self._own_alert(rule)
            verdict = Verdict.OK if failing is None else Verdict.FAILING
            taken = step(before, Judgement(verdict, failing or ""), policy, self._clock.now())
            await self._commit_alone("self", taken, self.self_notify)

    async def retire(self) -> None:
        """
        End the alerts of watches that the config no longer names; whoever was told of one hears that it ended.

        What the store refuses now stays for the next call; called after each reload and now and then.
        """
        gone = [alert for alert in self.alerts.values() if not self._watched(alert)]
        for begin in range(0, len(gone), _RETIRED_AT_ONCE):
            await asyncio.gather(*(self._retire(alert) for alert in gone[begin : begin + _RETIRED_AT_ONCE]))

    async def _retire(self, alert: Alert) -> None:
        async with self._alone(alert.watch):
            current = self.alerts.get(alert.fingerprint)
            if current is None or self._watched(current):
                return
            why = "the watch was removed from the configuration"
            taken = end(current, Reason.WATCH_REMOVED, why, self._clock.now())
            await self._commit_alone("retire", taken, (), forget=True)

    def _watched(self, alert: Alert) -> bool:
        return alert.instance == self.instance and (alert.watch in self.watches or alert.watch == SELF)

    def _alone(self, watch: str) -> asyncio.Lock:
        """The lock under which the alerts of a watch take their steps."""
        lock = self._locks.get(watch)
        if lock is None:
            lock = self._locks[watch] = asyncio.Lock()
        return lock

    async def _commit_alone(self, name: str, taken: Step, notify: Sequence[str], *, forget: bool = False) -> None:
        if not taken.changed and not forget:
            self._follow([taken])
            return
        run = self._tracer.start_span(name, attributes={WATCH: taken.alert.watch})
        try:
            await self._commit([taken], notify, run, forget=forget)
        finally:
            run.end()

    def _own_alert(self, rule: str) -> Alert:
        identity = fingerprint(self.instance, SELF, rule)
        return self.alerts.get(identity) or Alert(identity, self.instance, SELF, self.self_policy.severity, rule)


async def look(watch: Watch, clock: Clock) -> Observation:
    """
    One look through the probe; a defect of the probe counts as blind, never as the target's failure.

    A probe keeps its own time; one that does not come back five seconds after that is a defect too.
    """
    started = clock.monotonic()
    try:
        async with asyncio.timeout(watch.timeout_s + _HUNG_AFTER_S) as limit:
            observation = await watch.probe.look(watch.timeout_s)
    except (Exception, asyncio.CancelledError) as error:
        if _is_told_to_end(error):
            raise
        log.exception("probe_crashed", extra={"watch": watch.name, "kind": watch.kind})
        what = "hangs" if limit.expired() else f"crashed: {type(error).__name__}: {error}"
        observation = Observation(blind=f"the {watch.kind} probe {what}")
    observation.duration_s = clock.monotonic() - started
    return observation


def judged(observation: Observation, conditions: Sequence[Condition]) -> tuple[Observation, Judgement]:
    """
    What an observation is worth, and the observation as it may be kept.

    One that is not ok is about to be stored, shown and sent to strangers, and its target may have echoed a secret of
    ours: conditions are asked about what was really seen, and only then is it put into words without the secret.
    """
    judgement = judge(observation, conditions)
    if judgement.verdict is Verdict.OK:
        return observation, judgement
    seen = (observation.values, observation.error, observation.blind)
    shown = without_secrets(seen)
    if shown is seen:
        return observation, judgement
    values, error, blind = shown
    kept = replace(observation, values=values, error=error, blind=blind)
    # Put into words anew: words are cut short, and half a secret in them would not be found.
    worded = judge(kept, conditions)
    if (worded.verdict, worded.failed) != (judgement.verdict, judgement.failed):
        summary = f"{judgement.failed[0]} does not hold (not shown: what it read holds a secret)"
        worded = replace(judgement, summary=summary, shown={})
    return kept, worded


def _is_told_to_end(error: BaseException) -> bool:
    """Whether we are cancelled from outside; a library below may leak a cancellation of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


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
