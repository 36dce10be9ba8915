"""
The alerts as they are: one place that commits every change of them, with the messages it causes.

In: steps of the life cycle, from checks, logs and sweeps. Out: rows of the state store, the courier woken.
Promise: an alert's state and the messages that tell of it are committed together or not at all, and memory follows
the store: while the store refuses a change, the old state stands. The steps of one watch are taken one at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from weakref import WeakValueDictionary

import apsw
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, Tracer, set_span_in_context

from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import Policy, Step, end, step, step_blind, step_reminder
from agentd.clock import Clock
from agentd.deliver.payload import alert_data
from agentd.errors import StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import outbox
from agentd.memory.database import Database
from agentd.pipeline.watches import Watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    Delivery,
    EventType,
    Judgement,
    Reason,
    Severity,
    Transition,
    Verdict,
)
from agentd.telemetry.traces import KEEP, WATCH, traceparent

log = logging.getLogger("agentd.pipeline")

SELF = "agentd"
"""The watch name that agentd's alerts about itself carry."""

_RETIRED_AT_ONCE = 200
BREATH = 50
_BREATH_S = 0.01


class Breath:
    """Gives the loop a turn after so many pieces of a long work, or so much time: one piece may take milliseconds."""

    def __init__(self) -> None:
        self._pieces = 0
        self._until_s = time.monotonic() + _BREATH_S

    async def take(self) -> None:
        """After each piece."""
        self._pieces += 1
        if self._pieces >= BREATH or time.monotonic() >= self._until_s:
            await asyncio.sleep(0)
            self._pieces = 0
            self._until_s = time.monotonic() + _BREATH_S


class Keeper:
    """
    Keeps the alerts.

    state: the state store. record: takes each check's result. told: called after a commit that put messages into the
    outbox (wakes the courier). changed: called for each transition after its commit. links: gives the links of an
    alert's payload by fingerprint.
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
        self.state = state
        self.clock = clock
        self.tracer = tracer
        self.instance = instance
        self.watches: dict[str, Watch] = {}
        self.alerts: dict[str, Alert] = {}
        self.self_policy = Policy(needed=1, of=1, recover_after=1, severity=Severity.WARNING)
        self.self_notify: tuple[str, ...] = ()
        self.record = record
        self._told = told
        self._changed = changed
        self._links = links
        # One for each name of a watch, as long as anybody uses it: a reload may replace or remove the watch while a
        # check of the old one is in the middle of its commit.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Take up the alerts where the last process left them."""
        alerts = await self.state.read(alert_rows.load_all)
        self.alerts = {alert.fingerprint: alert for alert in alerts}

    async def commit(
        self,
        steps: Sequence[Step],
        notify: Sequence[str],
        run: Span,
        *,
        forget: bool = False,
        also: Callable[[apsw.Connection], None] | None = None,
    ) -> bool:
        """
        Make the steps durable, with the messages they cause, in one transaction; then let memory follow.

        Several steps of one alert stand in their order. forget: these are the last steps of their alerts, whose rows
        go; so do those of resolved alerts of one value of many (`by`), or an attacker could fill the store with them.
        also: what else belongs into the transaction. Returns False when the store refused: nothing happened, in the
        store or in memory.
        """
        if also is None and not forget and not any(taken.changed for taken in steps):
            self._follow(steps)
            return True
        commit = asyncio.create_task(self._commit_changes(steps, notify, run, forget, also))
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

    async def _commit_changes(
        self,
        steps: Sequence[Step],
        notify: Sequence[str],
        run: Span,
        forget: bool,
        also: Callable[[apsw.Connection], None] | None,
    ) -> bool:
        steps = [addressed(taken, notify, run) for taken in steps]
        told = [taken.transition for taken in steps if taken.transition is not None]
        last = {taken.alert.fingerprint: taken.alert for taken in steps if taken.changed or forget}
        gone = {alert.fingerprint for alert in last.values() if forget or _is_done_with(alert)}
        parent = traceparent(run)
        deliveries: list[Delivery] = []
        breath = Breath()
        for transition in told:
            deliveries += self._deliveries(transition, notify, parent)
            await breath.take()
        if told:
            run.set_attribute(KEEP, True)

        def change(connection: apsw.Connection) -> None:
            for alert in last.values():
                if alert.fingerprint in gone:
                    alert_rows.delete(connection, alert.fingerprint)
                else:
                    alert_rows.save(connection, alert)
            for delivery in deliveries:
                outbox.put(connection, delivery)
            if also is not None:
                also(connection)

        span = self.tracer.start_span("commit", context=set_span_in_context(run))
        try:
            await self.state.write(change)
        except StoreError as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
            log.error("commit_failed", extra={"watch": steps[0].alert.watch if steps else None, "error": str(error)})
            return False
        finally:
            span.end()
        self._follow(steps)
        for each in gone:
            self.alerts.pop(each, None)
        if deliveries:
            self._told()
        breath = Breath()
        for transition in told:
            run.add_event(f"{transition.before.value} to {transition.after.value}", {"reason": transition.reason_text})
            self._announce(transition, run)
            await breath.take()
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

    def sight_steps(self, watch: Watch, judgement: Judgement, since: datetime | None, now: datetime) -> list[Step]:
        """What being able to look, or not, does to the alert that tells of blindness. since: blind since then."""
        if since is None and watch.blind.fingerprint not in self.alerts:
            return []
        blind = self.alerts.get(watch.blind.fingerprint, watch.blind)
        why = judgement.summary if judgement.verdict is Verdict.BLIND else None
        return [step_blind(blind, why, since, watch.policy, now)]

    # What happens to alerts apart from checks.

    async def remind(self) -> None:
        """Send the reminders that are due. Called every REMINDER_SWEEP_S; looks only at firing alerts."""
        for alert in [alert for alert in self.alerts.values() if alert.status is AlertStatus.FIRING]:
            async with self.alone(alert.watch):
                current = self.alerts.get(alert.fingerprint)
                if current is None or not self._watched(current):
                    continue
                watch = self.watches.get(alert.watch)
                policy = watch.policy if watch else self.self_policy
                notify = watch.notify if watch else self.self_notify
                taken = step_reminder(current, policy, self.clock.now())
                if taken.changed:
                    await self._commit_alone("remind", taken, notify)

    async def report_self(self, rule: str, failing: str | None, severity: Severity = Severity.WARNING) -> None:
        """Advance an alert about agentd itself. failing: what is wrong, or None when all is well."""
        async with self.alone(SELF):
            policy = replace(self.self_policy, severity=severity)
            before = self._own_alert(rule)
            verdict = Verdict.OK if failing is None else Verdict.FAILING
            taken = step(before, Judgement(verdict, failing or ""), policy, self.clock.now())
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
        async with self.alone(alert.watch):
            current = self.alerts.get(alert.fingerprint)
            if current is None or self._watched(current):
                return
            why = "the watch was removed from the configuration"
            taken = end(current, Reason.WATCH_REMOVED, why, self.clock.now())
            await self._commit_alone("retire", taken, (), forget=True)

    def _watched(self, alert: Alert) -> bool:
        return alert.instance == self.instance and (alert.watch in self.watches or alert.watch == SELF)

    def alone(self, watch: str) -> asyncio.Lock:
        """The lock under which the alerts of a watch take their steps."""
        lock = self._locks.get(watch)
        if lock is None:
            lock = self._locks[watch] = asyncio.Lock()
        return lock

    async def _commit_alone(self, name: str, taken: Step, notify: Sequence[str], *, forget: bool = False) -> None:
        if not taken.changed and not forget:
            self._follow([taken])
            return
        run = self.tracer.start_span(name, attributes={WATCH: taken.alert.watch})
        try:
            await self.commit([taken], notify, run, forget=forget)
        finally:
            run.end()

    def _own_alert(self, rule: str) -> Alert:
        identity = fingerprint(self.instance, SELF, rule)
        return self.alerts.get(identity) or Alert(identity, self.instance, SELF, self.self_policy.severity, rule)


def trace_id(context: SpanContext) -> str | None:
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def addressed(taken: Step, notify: Sequence[str], run: Span) -> Step:
    """
    Write into the alert who hears of it and which trace it belongs to, so that store and payload agree.

    Done by `commit`; whoever takes several steps of one alert does it after each, for the next goes on from it.
    """
    if taken.transition is None:
        return taken
    told = taken.alert.told
    if taken.transition.event is EventType.FIRING:
        told = tuple(notify)
    elif taken.transition.event is EventType.REMINDER:
        told = tuple(dict.fromkeys((*told, *notify)))
    trace = trace_id(run.get_span_context())
    if told == taken.alert.told and trace == taken.alert.trace_id and taken.transition.alert is taken.alert:
        return taken
    alert = replace(taken.alert, trace_id=trace, told=told)
    return replace(taken, alert=alert, transition=replace(taken.transition, alert=alert))


def _is_done_with(alert: Alert) -> bool:
    return bool(alert.by) and alert.status is AlertStatus.RESOLVED
