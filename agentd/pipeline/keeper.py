"""
The alerts as they are: one place that commits every change of them, with the messages it causes.

In: steps of the life cycle, from checks, logs and sweeps. Out: rows of the state store, the courier woken.
Promise: an alert's state and the messages that tell of it are committed together or not at all, and memory follows
the store: while the store refuses a change, the old state stands. The steps of one watch are taken one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

import apsw
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, Tracer, set_span_in_context

from agentd.alert.escalation import next_escalation, notified_after, step_escalation
from agentd.alert.grouping import REMIND_CAP
from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import Policy, Step, end, step, step_blind
from agentd.alert.muting import FLAPPING
from agentd.alert.routing import NOBODY, Reach, Routing, Wish
from agentd.clock import Clock
from agentd.deliver.payload import alert_data
from agentd.errors import StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import groups, lanes
from agentd.memory.database import Database
from agentd.pipeline.telling import News, Seen, adopt, is_one_off, lane_of, look_at_group, tell
from agentd.pipeline.watches import LogWatch, Watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
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

LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 5.0
_RETIRED_AT_ONCE = 200
_LOOKED_AT_ONCE = 200
_LONGEST_WAIT = timedelta(minutes=5)
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


Mutes = Callable[[Mapping[str, Alert], datetime, Collection[str] | None], Mapping[str, str]]
"""Why nobody is to hear of alerts, by fingerprint: of all alerts, at a moment, of these or of all that are muted."""


class Keeper:
    """
    Keeps the alerts.

    state: the state store. record: takes each check's result. told: called after a commit that put messages into the
    outbox (wakes the courier). changed: called for each transition after its commit. links: gives the links of an
    alert's payload by fingerprint. whole: the webhooks that are told of every member of a group, however many.
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
        self.self_wish = Wish()
        self.routing = Routing()
        self.mutes: Mutes | None = None
        self.whole: frozenset[str] = frozenset()
        self._muted: set[str] = set()
        self._acked: set[str] = set()
        self._flaps_unheard: set[str] = set()  # a restart forgets it: then some hear that is steady what never was not
        self._next_look: datetime | None = None
        self._adopted = False
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
        for alert in alerts:
            _mark(self._muted, alert, alert.muted_by)
            _mark(self._acked, alert, alert.acked_by)
        now = self.clock.now()
        with contextlib.suppress(StoreError):  # a full disk keeps nobody from starting
            await self.state.write(lambda c: groups.pull_in(c, now, wait=_LONGEST_WAIT, reminder=REMIND_CAP))
        self._next_look = await self.state.read(groups.next_look)

    async def adopt(self) -> None:
        """
        Take over what an agentd without groups told: who heard of what fires hears of its end and is reminded, and no
        message overtakes one that waits since. Once, when watches and routing are known and nothing is sent yet.

        Not in the schema's step: groups follow the configuration. What the store refuses stays for the next call.
        """
        if self._adopted:
            return
        now = self.clock.now()
        alerts = dict(self.alerts)
        firing = [alert for alert in alerts.values() if alert.status is AlertStatus.FIRING and alert.told]

        def change(connection: apsw.Connection) -> bool:
            still = (alert for alert in firing if _fires_in(connection, alert))
            found = adopt(connection, ((alert, self._reach_of(alert)) for alert in still), self._data_now, now)
            for each, webhook, lane in lanes.outside_groups(connection):
                alert = alerts.get(each)
                if alert is not None and lane == alert.watch:
                    lanes.change_lane(connection, each, webhook, lane, lane_of(alert, self._reach_of(alert)))
            return found

        try:
            found = await self.state.write(change)
        except StoreError as error:
            log.error("commit_failed", extra={"watch": None, "error": str(error)})
            return
        self._adopted = True
        if found:
            self._look_by(now)

    async def commit(
        self,
        steps: Sequence[Step],
        wish: Wish,
        run: Span,
        *,
        forget: bool = False,
        also: Callable[[apsw.Connection], None] | None = None,
    ) -> bool:
        """
        Make the steps durable, with the messages they cause, in one transaction; then let memory follow.

        Several steps of one alert stand in their order. wish: whom their watch wants to be told. forget: these are the
        last steps of their alerts, whose rows go; so do those of resolved alerts of one value of many (`by`), or an
        attacker could fill the store with them. also: what else belongs into the transaction. Returns False when the
        store refused: nothing happened, in the store or in memory.
        """
        if also is None and not forget and not any(taken.changed for taken in steps):
            self._follow(steps)
            return True
        commit = asyncio.create_task(self._commit_changes(steps, wish, run, forget, also))
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
        wish: Wish,
        run: Span,
        forget: bool,
        also: Callable[[apsw.Connection], None] | None,
    ) -> bool:
        now = self.clock.now()
        addressed, breath = [], Breath()
        for taken in steps:
            addressed.append(self.addressed(taken, wish, run))
            await breath.take()
        steps, unheard = self._with_mutes(addressed, now)
        told = [taken.transition for taken in steps if taken.transition is not None]
        last = {taken.alert.fingerprint: taken.alert for taken in steps if taken.changed or forget}
        gone = {alert.fingerprint for alert in last.values() if forget or _is_done_with(alert)}
        parent = traceparent(run)
        news: list[News] = []
        for transition in told:
            if transition.event is not None and transition not in unheard:
                news.append(self._news(transition, wish, parent))
            await breath.take()
        seen = self._seen(last.values())
        if told:
            run.set_attribute(KEEP, True)

        def change(connection: apsw.Connection) -> datetime | None:
            for alert in last.values():
                if alert.fingerprint in gone:
                    alert_rows.delete(connection, alert.fingerprint)
                else:
                    alert_rows.save(connection, alert)
            soonest = tell(connection, news, seen, now)
            if also is not None:
                also(connection)
            return soonest

        span = self.tracer.start_span("commit", context=set_span_in_context(run))
        try:
            next_look = await self.state.write(change)
        except StoreError as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
            log.error("commit_failed", extra={"watch": steps[0].alert.watch if steps else None, "error": str(error)})
            return False
        finally:
            span.end()
        self._follow(steps)
        for each in gone:
            self.alerts.pop(each, None)
            self._muted.discard(each)
            self._acked.discard(each)
        for transition in told:
            if transition.event is EventType.FLAPPING and transition.alert.flapping and transition in unheard:
                self._flaps_unheard.add(transition.alert.fingerprint)
            elif transition.event is EventType.FLAPPING:
                self._flaps_unheard.discard(transition.alert.fingerprint)
        if news:
            self._look_by(next_look)
            self._told()
        breath = Breath()
        for transition in told:
            run.add_event(f"{transition.before.value} to {transition.after.value}", {"reason": transition.reason_text})
            self._announce(transition, run)
            await breath.take()
        return True

    def _with_mutes(self, steps: Sequence[Step], now: datetime) -> tuple[list[Step], list[Transition]]:
        """
        Write into each alert that begins to fire, or begins or ends to flap, why nobody is to hear of it, if so.

        Returns also the transitions that nobody hears of: that an alert flaps while something else mutes it, and that
        it is steady again when nobody heard that it was not.
        """
        firing = {taken.alert.fingerprint: taken.alert for taken in steps if _begins(taken)}
        flaps = [taken.alert for taken in steps if _flaps(taken)]
        if self.mutes is None or (not firing and not flaps):
            return list(steps), []
        reasons = self.mutes({**self.alerts, **firing}, now, firing.keys()) if firing else {}
        others = self._muted_besides(flaps, now)
        muted: list[Step] = []
        unheard: list[Transition] = []
        for taken in steps:
            alert, identity, came = taken.alert, taken.alert.fingerprint, taken.transition
            if came is not None and _begins(taken):
                alert = replace(alert, muted_by=reasons.get(identity))
            elif came is not None and _flaps(taken):
                # What fires is mute while it flaps; of what does not, only that it did must not stay.
                of_itself = FLAPPING if alert.flapping else None
                if alert.status is AlertStatus.FIRING or alert.muted_by == FLAPPING:
                    alert = replace(alert, muted_by=others.get(identity, of_itself))
            if came is not None and alert is not taken.alert:
                came = replace(came, alert=alert)
                taken = replace(taken, alert=alert, transition=came)
            nobody = others if alert.flapping else self._flaps_unheard
            if came is not None and _flaps(taken) and identity in nobody:
                unheard.append(came)
            muted.append(taken)
        return muted, unheard

    def _muted_besides(self, flapping: Iterable[Alert], now: datetime) -> Mapping[str, str]:
        """Why nobody is to hear of these, apart from that they flap, and whether they fire at this moment or not."""
        alike = {each.fingerprint: replace(each, status=AlertStatus.FIRING, flapping=False) for each in flapping}
        return self.mutes({**self.alerts, **alike}, now, alike.keys()) if alike and self.mutes is not None else {}

    def _seen(self, changed: Iterable[Alert]) -> Seen:
        muted, acked = set(self._muted), set(self._acked)
        for alert in changed:
            _mark(muted, alert, alert.muted_by)
            _mark(acked, alert, alert.acked_by)
        return Seen(muted, acked, whole=self.whole)

    def _news(self, transition: Transition, wish: Wish, parent: str | None) -> News:
        alert = transition.alert
        return News(transition, self.routing.of(alert, wish), self._data(transition), parent, is_one_off(alert))

    def _data(self, transition: Transition) -> str:
        links = self._links(transition.alert.fingerprint)
        return json.dumps(alert_data(transition, links=links), ensure_ascii=False, separators=(",", ":"))

    def addressed(self, taken: Step, wish: Wish, run: Span) -> Step:
        """
        Write into the alert who hears of it and which trace it belongs to, so that store and payload agree.

        Done by `commit`; whoever takes several steps of one alert does it after each, for the next goes on from it.
        """
        if taken.transition is None:
            return taken
        told = taken.alert.told
        if taken.transition.event is EventType.FIRING:
            again = told if taken.transition.before is AlertStatus.FIRING else ()
            told = tuple(dict.fromkeys((*again, *self.routing.of(taken.alert, wish).notify)))
        trace = trace_id(run.get_span_context())
        if told == taken.alert.told and trace == taken.alert.trace_id and taken.transition.alert is taken.alert:
            return taken
        alert = replace(taken.alert, trace_id=trace, told=told)
        return replace(taken, alert=alert, transition=replace(taken.transition, alert=alert))

    def _follow(self, steps: Sequence[Step]) -> None:
        for taken in steps:
            if taken.changed or taken.alert.fingerprint in self.alerts:
                self.alerts[taken.alert.fingerprint] = alert = taken.alert
                _mark(self._muted, alert, alert.muted_by)
                _mark(self._acked, alert, alert.acked_by)

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

    def sight_steps(self, watch: Watch, judgement: Judgement, since: datetime | None, now: datetime) -> list[Step]:
        """What being able to look, or not, does to the alert that tells of blindness. since: blind since then."""
        if since is None and watch.blind.fingerprint not in self.alerts:
            return []
        blind = self.alerts.get(watch.blind.fingerprint, watch.blind)
        why = judgement.summary if judgement.verdict is Verdict.BLIND else None
        return [step_blind(blind, why, since, watch.policy, now)]

    # What happens to alerts apart from checks.

    async def look(self) -> None:
        """Look at the groups whose time has come. Called every LOOK_EVERY_S; costs nothing while none is due."""
        now = self.clock.now()
        if self._next_look is None or self._next_look > now:
            return
        due = await self.state.read(lambda c: groups.due(c, now, _LOOKED_AT_ONCE))
        current = {each: alert for _, _, firing in due for each in firing if (alert := self.alerts.get(each))}
        strangers = [await self._not_for(webhook, firing) for webhook, _, firing in due]

        def fresh(fingerprint: str) -> str | None:
            return self._data_now(current[fingerprint]) if fingerprint in current else None

        seen = self._seen(())
        looks = [
            (webhook, key, replace(seen, acked={*seen.acked, *others}, fresh=fresh))
            for (webhook, key, _), others in zip(due, strangers, strict=True)
        ]

        def change(connection: apsw.Connection) -> datetime | None:
            for webhook, key, seen in looks:
                look_at_group(connection, webhook, key, seen, now)
            return groups.next_look(connection)

        self._next_look = await self.state.write(change)
        self._told()

    async def _not_for(self, webhook: str, firing: Iterable[str]) -> list[str]:
        """Whom the configuration no longer names for an alert hears of its end, but is not reminded: such alerts."""
        others, breath = [], Breath()
        for each in firing:
            alert = self.alerts.get(each)
            if alert is not None and webhook not in self._reach_of(alert).notify:
                others.append(each)
            await breath.take()
        return others

    def _reach_of(self, alert: Alert) -> Reach:
        reach = self.routing.of(alert, self._wish_of(alert))
        more = notified_after(reach.escalate, alert.escalated)
        return replace(reach, notify=tuple(dict.fromkeys((*reach.notify, *more)))) if more else reach

    def _data_now(self, alert: Alert) -> str:
        assert alert.reason is not None, "what fires has a reason"
        transition = Transition(alert.status, alert.status, alert.reason, alert.reason_text, self.clock.now(), alert)
        return self._data(transition)

    def look_soon(self) -> None:
        """The groups' times are others than memory knows: look at the next turn what is due, and when next."""
        self._look_by(self.clock.now())

    def _look_by(self, at: datetime | None) -> None:
        if at is not None and (self._next_look is None or at < self._next_look):
            self._next_look = at

    async def sweep(self) -> None:
        """What time and other alerts do to firing ones: mutes that begin and end, escalations. Every SWEEP_EVERY_S."""
        now = self.clock.now()
        await self._tell_of_flapping(now)
        reasons = self.mutes(self.alerts, now, None) if self.mutes is not None else {}
        breath = Breath()
        for alert in [alert for alert in self.alerts.values() if alert.status is AlertStatus.FIRING]:
            muted_by = reasons.get(alert.fingerprint)
            if alert.muted_by != muted_by or self._reaches_more(alert, now):
                await self._sweep_one(alert, muted_by, now)
            await breath.take()

    def _reaches_more(self, alert: Alert, now: datetime) -> bool:
        """Whether somebody is to hear of it who has not, or it is time that it counts as worse."""
        reach = self._reach_of(alert)
        if not set(reach.notify) <= set(alert.told):
            return True
        if not reach.escalate or alert.muted_by is not None or alert.acked_by is not None:
            return False
        due = next_escalation(alert, reach.escalate)
        return due is not None and due <= now

    async def _tell_of_flapping(self, now: datetime) -> None:
        """What began to flap while something else muted it, and still does now that this is over, is told now."""
        self._flaps_unheard &= self.alerts.keys()
        flapping = [alert for each in self._flaps_unheard if (alert := self.alerts.get(each)) is not None]
        others = self._muted_besides(flapping, now)
        for alert in flapping:
            if alert.fingerprint in others:
                continue
            async with self.alone(alert.watch):
                current = self.alerts.get(alert.fingerprint)
                if current is None or not current.flapping or self._why_gone(current) is not None:
                    self._flaps_unheard.discard(alert.fingerprint)
                    continue
                same, text = current.status, "flaps, as it did before while it was muted"
                news = Transition(same, same, Reason.FLAPPING, text, now, current, EventType.FLAPPING)
                await self._commit_alone("flapping", Step(current, True, news), self._wish_of(current))

    async def _sweep_one(self, alert: Alert, muted_by: str | None, now: datetime) -> None:
        async with self.alone(alert.watch):
            current = self.alerts.get(alert.fingerprint)
            if current is None or current.status is not AlertStatus.FIRING or self._why_gone(current) is not None:
                return
            wish = self._wish_of(current)
            if current.muted_by != muted_by:
                current = replace(current, muted_by=muted_by)
                await self._commit_alone("mute", Step(current, changed=True), wish)
            escalate = self.routing.of(current, wish).escalate
            newcomers = tuple(name for name in self._reach_of(current).notify if name not in current.told)
            if newcomers:
                assert current.reason is not None, "what fires has a reason"
                same = AlertStatus.FIRING
                news = Transition(same, same, current.reason, current.reason_text, now, current, EventType.FIRING)
                await self._commit_alone("reach", Step(current, True, news), replace(wish, notify=newcomers))
                current = self.alerts.get(alert.fingerprint, current)
            taken = step_escalation(current, escalate, now)
            if taken.transition is None:
                return
            before = set(notified_after(escalate, current.escalated))
            more = tuple(name for name in notified_after(escalate, taken.alert.escalated) if name not in before)
            told = tuple(dict.fromkeys((*current.told, *more)))
            alert = replace(taken.alert, told=told)
            taken = replace(taken, alert=alert, transition=replace(taken.transition, alert=alert))
            # What got worse is news for everybody; that it lasts, for those who are told because it does.
            hearers = told if alert.severity is not current.severity else more
            await self._commit_alone("escalate", taken, replace(wish, notify=hearers))

    def _wish_of(self, alert: Alert) -> Wish:
        watch = self.watches.get(alert.watch)
        return watch.wish if watch is not None else self.self_wish

    async def report_self(self, rule: str, failing: str | None, severity: Severity = Severity.WARNING) -> None:
        """Advance an alert about agentd itself. failing: what is wrong, or None when all is well."""
        async with self.alone(SELF):
            policy = replace(self.self_policy, severity=severity)
            before = self._own_alert(rule)
            verdict = Verdict.OK if failing is None else Verdict.FAILING
            taken = step(before, Judgement(verdict, failing or ""), policy, self.clock.now())
            await self._commit_alone("self", taken, self.self_wish)

    async def retire(self) -> None:
        """
        End the alerts that nothing in the config looks after any more; whoever was told of one hears that it ended.

        What the store refuses now stays for the next call; called after each start and reload, and now and then.
        """
        await self.adopt()  # or those whom an older agentd told would not hear of the end
        gone: dict[str, list[str]] = {}
        for alert in self.alerts.values():
            if self._why_gone(alert) is not None:
                gone.setdefault(alert.watch, []).append(alert.fingerprint)
        parts = [
            (watch, all_of_it[begin : begin + _RETIRED_AT_ONCE])
            for watch, all_of_it in gone.items()
            for begin in range(0, len(all_of_it), _RETIRED_AT_ONCE)
        ]
        for begin in range(0, len(parts), _RETIRED_AT_ONCE):
            await asyncio.gather(*(self._retire(*part) for part in parts[begin : begin + _RETIRED_AT_ONCE]))

    async def _retire(self, watch: str, fingerprints: Iterable[str]) -> None:
        async with self.alone(watch):
            now, steps = self.clock.now(), []
            for each in fingerprints:
                alert = self.alerts.get(each)
                if alert is not None and (why := self._why_gone(alert)) is not None:
                    steps.append(end(alert, Reason.WATCH_REMOVED, why, now))
            if steps:
                run = self.tracer.start_span("retire", attributes={WATCH: watch})
                try:
                    await self.commit(steps, NOBODY, run, forget=True)
                finally:
                    run.end()

    def _why_gone(self, alert: Alert) -> str | None:
        """Why nothing that the config names could ever end the alert, for people; None: something can."""
        if alert.instance == self.instance and alert.watch == SELF:
            return None
        watch = self.watches.get(alert.watch)
        if watch is None or alert.instance != self.instance:
            return "the watch was removed from the configuration"
        if alert.rule == watch.blind.rule:
            return None
        if not isinstance(watch, LogWatch):
            return None if alert.rule is None else "the rule was removed from the configuration"
        if alert.rule is None:
            # A log's own alert holds since when it cannot be looked at, and never fails: this one is a probe's.
            failed = alert.status in (AlertStatus.PENDING, AlertStatus.FIRING)
            return "the watch follows a log now" if failed else None
        return None if alert.rule in watch.rules else "the rule was removed from the configuration"

    def alone(self, watch: str) -> asyncio.Lock:
        """The lock under which the alerts of a watch take their steps."""
        lock = self._locks.get(watch)
        if lock is None:
            lock = self._locks[watch] = asyncio.Lock()
        return lock

    async def _commit_alone(self, name: str, taken: Step, wish: Wish) -> None:
        if not taken.changed:
            self._follow([taken])
            return
        run = self.tracer.start_span(name, attributes={WATCH: taken.alert.watch})
        try:
            await self.commit([taken], wish, run)
        finally:
            run.end()

    def _own_alert(self, rule: str) -> Alert:
        identity = fingerprint(self.instance, SELF, rule)
        return self.alerts.get(identity) or Alert(identity, self.instance, SELF, self.self_policy.severity, rule)


def trace_id(context: SpanContext) -> str | None:
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _mark(marked: set[str], alert: Alert, why: str | None) -> None:
    if why is not None and alert.status is AlertStatus.FIRING:
        marked.add(alert.fingerprint)
    else:
        marked.discard(alert.fingerprint)


def _begins(taken: Step) -> bool:
    return taken.transition is not None and taken.transition.event is EventType.FIRING


def _fires_in(c: apsw.Connection, alert: Alert) -> bool:
    stored = alert_rows.get(c, alert.fingerprint)
    return stored is not None and stored.status is AlertStatus.FIRING


def _flaps(taken: Step) -> bool:
    """Whether the alert begins to flap, or ends to."""
    return taken.transition is not None and taken.transition.event is EventType.FLAPPING


def _is_done_with(alert: Alert) -> bool:
    return bool(alert.by) and alert.status is AlertStatus.RESOLVED
