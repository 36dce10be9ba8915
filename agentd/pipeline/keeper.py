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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

import apsw
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, Tracer, set_span_in_context

from agentd.alert.grouping import REMIND_CAP
from agentd.alert.lifecycle import Policy, Step, step_blind
from agentd.alert.muting import FLAPPING
from agentd.alert.routing import Routing, Wish
from agentd.clock import Clock
from agentd.deliver.payload import alert_data
from agentd.errors import StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import groups, ledger
from agentd.memory.database import Database
from agentd.memory.ledger import Run
from agentd.pipeline.telling import News, Seen, is_one_off, tell
from agentd.pipeline.watches import Check, Watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    EventType,
    Judgement,
    Severity,
    Transition,
    Verdict,
)
from agentd.telemetry.tally import WORK_S, Spreads, Tally
from agentd.telemetry.traces import KEEP, WATCH, traceparent

log = logging.getLogger("agentd.pipeline")

SELF = "agentd"
"""The watch name that agentd's alerts about itself carry."""

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


MOST_WAITING_RUNS = 20
"""So many runs of one watch wait at most: in a storm of alerts the first ones say what there is to say."""


class Room:
    """
    How many runs one commit may ask for: of each watch as many as may wait.

    left_out: how many it did not for want of room, by watch.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._refused: set[str] = set()

    def take(self, watch: str) -> bool:
        """Whether there is room for one more run of this watch."""
        if self._taken[watch] >= MOST_WAITING_RUNS:
            self.left_out[watch] += 1
            return False
        self._taken[watch] += 1
        return True

    def refuse(self, watch: str) -> bool:
        """The watch is not to run for some other reason; whether that is news, and worth a line."""
        if watch in self._refused:
            return False
        self._refused.add(watch)
        return True

    def say(self) -> None:
        """One line for each watch, however many there were."""
        for watch, count in self.left_out.items():
            why = f"{MOST_WAITING_RUNS} wait already"
            log.warning("runs_not_queued", extra={"watch": watch, "count": count, "why": why})


def queue_unless_crowded(c: apsw.Connection, run: Run) -> bool:
    """
    Queue a run, unless too many of its watch wait already; returns whether one waits now.

    One of the watch that waits to look into the same alert is asked anew instead: it will see what is then.
    """
    if run.fingerprint is not None:
        earlier = ledger.queued_about(c, run.fingerprint, run.watch, run.kind)
        if earlier is not None:
            ledger.ask_anew(c, earlier.id, run)
            return True
    if ledger.waiting(c, run.watch) >= MOST_WAITING_RUNS:
        return False
    ledger.queue(c, run)
    return True


def begins(transition: Transition) -> bool:
    """Whether an incident begins with this: not where somebody more is told of one that is on."""
    return transition.event is EventType.FIRING and transition.before is not AlertStatus.FIRING


Mutes = Callable[[Mapping[str, Alert], datetime, Collection[str] | None], Mapping[str, str]]
"""Why nobody is to hear of alerts, by fingerprint: of all alerts, at a moment, of these or of all that are muted."""


class Keeper:
    """
    Keeps the alerts.

    state: the state store. record: takes each check's result. told: called after a commit that put messages into the
    outbox (wakes the courier). changed: called for each transition after its commit. links: gives the links of
    an alert's payload. whole: the webhooks that are told of every member of a group, however many.
    starts: the runs that a transition starts, under this `traceparent`, as far as there is room; rows of its
    transaction. queued: called after a commit with such rows. turned: called when a watch's verdict is another one.
    For metrics it counts transitions, by the state they led to and severity; verdicts of checks, by kind; and took_s,
    how long these looked, by kind.
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
        links: Callable[[Alert], Mapping[str, str]] = lambda alert: {},
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
        self.starts: Callable[[Transition, datetime, str, Room], Sequence[Run]] = lambda *_: ()
        self.queued: Callable[[], None] = lambda: None
        self.turned: Callable[[Watch], None] = lambda watch: None
        self._held: dict[str, datetime] = {}
        self._muted: set[str] = set()
        self._acked: set[str] = set()
        self._flaps_unheard: set[str] = set()  # a restart forgets it: then some hear that is steady what never was not
        self._next_look: datetime | None = None
        self._adopted = False
        self.transitions, self.verdicts, self.took_s = Tally(), Tally(), Spreads(WORK_S)
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
                news.append(self.news(transition, wish, parent))
            await breath.take()
        runs: list[Run] = []
        room = Room()
        for transition in told:
            runs += self.starts(transition, now, parent, room)
            await breath.take()
        hold: dict[str, datetime] = {}
        seen = self._seen(last.values())
        if told:
            run.set_attribute(KEEP, True)

        def change(connection: apsw.Connection) -> datetime | None:
            for alert in last.values():
                if alert.fingerprint in gone:
                    alert_rows.delete(connection, alert.fingerprint)
                else:
                    alert_rows.save(connection, alert)
            for each in runs:
                if not queue_unless_crowded(connection, each):
                    room.left_out[each.watch] += 1
                elif each.kind == "investigate" and each.fingerprint is not None and wish.hold:
                    hold[each.fingerprint] = now + wish.hold
            soonest = tell(connection, news, replace(seen, held={**seen.held, **hold}), now)
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
        self._held = {each: until for each, until in self._held.items() if until > now} | hold
        room.say()
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
        if runs:
            self.queued()
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
        return Seen(muted, acked, whole=self.whole, held=self._held)

    def hold_no_longer(self, fingerprint: str) -> None:
        """What an agent finds out about this alert is there, or will not be: its first message waits for nothing."""
        self._held = {each: until for each, until in self._held.items() if each != fingerprint}

    def news(self, transition: Transition, wish: Wish, parent: str | None) -> News:
        """What people are told of a change. parent: `traceparent` of what made it."""
        alert = transition.alert
        return News(transition, self.routing.of(alert, wish), self._data(transition), parent, is_one_off(alert))

    def _data(self, transition: Transition) -> str:
        links = self._links(transition.alert)
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
        if transition.before is not transition.after:
            self.transitions.add((transition.after.value, alert.severity.value))
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

    def looked(self, watch: Watch, check: Check) -> None:
        """This is the newest check of the watch."""
        is_first, before = watch.last is None, watch.verdict
        watch.last = check
        if is_first or before is not watch.verdict:
            self.turned(watch)

    def sight_steps(self, watch: Watch, judgement: Judgement, since: datetime | None, now: datetime) -> list[Step]:
        """What being able to look, or not, does to the alert that tells of blindness. since: blind since then."""
        if since is None and watch.blind.fingerprint not in self.alerts:
            return []
        blind = self.alerts.get(watch.blind.fingerprint, watch.blind)
        why = judgement.summary if judgement.verdict is Verdict.BLIND else None
        return [step_blind(blind, why, since, watch.policy, now)]

    def _look_by(self, at: datetime | None) -> None:
        if at is not None and (self._next_look is None or at < self._next_look):
            self._next_look = at

    def messages_waiting(self) -> None:
        """Something was put into the outbox."""
        self._told()

    def wish_of(self, alert: Alert) -> Wish:
        """What the watch of the alert wishes."""
        watch = self.watches.get(alert.watch)
        return watch.wish if watch is not None else self.self_wish

    def alone(self, watch: str) -> asyncio.Lock:
        """The lock under which the alerts of a watch take their steps."""
        lock = self._locks.get(watch)
        if lock is None:
            lock = self._locks[watch] = asyncio.Lock()
        return lock

    async def _commit_alone(
        self, name: str, taken: Step, wish: Wish, *, also: Callable[[apsw.Connection], None] | None = None
    ) -> None:
        if not taken.changed:
            self._follow([taken])
            return
        run = self.tracer.start_span(name, attributes={WATCH: taken.alert.watch})
        try:
            await self.commit([taken], wish, run, also=also)
        finally:
            run.end()


def trace_id(context: SpanContext) -> str | None:
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _mark(marked: set[str], alert: Alert, why: str | None) -> None:
    if why is not None and alert.status is AlertStatus.FIRING:
        marked.add(alert.fingerprint)
    else:
        marked.discard(alert.fingerprint)


def _begins(taken: Step) -> bool:
    return taken.transition is not None and taken.transition.event is EventType.FIRING


def _flaps(taken: Step) -> bool:
    """Whether the alert begins to flap, or ends to."""
    return taken.transition is not None and taken.transition.event is EventType.FLAPPING


def _is_done_with(alert: Alert) -> bool:
    return bool(alert.by) and alert.status is AlertStatus.RESOLVED
