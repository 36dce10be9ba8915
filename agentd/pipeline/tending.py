"""
What happens to alerts without anybody looking at a target: their groups are looked at, mutes begin and end, escalations
come due, what the configuration no longer names ends, what an older agentd told is taken over.

In: the time, and the alerts as they are. Out: steps for the keeper to commit.
Promise: each sweep costs next to nothing while nothing changes, and gives the loop its turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

import apsw

from agentd.alert.escalation import next_escalation, notified_after, step_escalation
from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import Step, end, step
from agentd.alert.routing import NOBODY, Reach
from agentd.errors import StoreError
from agentd.memory import alerts as alert_rows
from agentd.memory import groups, lanes, ledger
from agentd.pipeline.keeper import SELF, Breath, Keeper, Room, queue_unless_crowded
from agentd.pipeline.telling import adopt, lane_of, look_at_group
from agentd.pipeline.watches import LogWatch
from agentd.records import (
    Alert,
    AlertStatus,
    EventType,
    Judgement,
    Reason,
    Severity,
    Transition,
    Verdict,
)
from agentd.telemetry.traces import WATCH

log = logging.getLogger("agentd.pipeline")

LOOK_EVERY_S = 1.0
SWEEP_EVERY_S = 5.0
_RETIRED_AT_ONCE = 200
_LOOKED_AT_ONCE = 200


class Tending(Keeper):
    """The keeper, with all that time and a new configuration do to alerts."""

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

    def _data_now(self, alert: Alert) -> str:
        assert alert.reason is not None, "what fires has a reason"
        transition = Transition(alert.status, alert.status, alert.reason, alert.reason_text, self.clock.now(), alert)
        return self._data(transition)

    def look_soon(self) -> None:
        """The groups' times are others than memory knows: look at the next turn what is due, and when next."""
        self._look_by(self.clock.now())

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

    def _reach_of(self, alert: Alert) -> Reach:
        reach = self.routing.of(alert, self.wish_of(alert))
        more = notified_after(reach.escalate, alert.escalated)
        return replace(reach, notify=tuple(dict.fromkeys((*reach.notify, *more)))) if more else reach

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
                await self._commit_alone("flapping", Step(current, True, news), self.wish_of(current))

    async def _sweep_one(self, alert: Alert, muted_by: str | None, now: datetime) -> None:
        async with self.alone(alert.watch):
            current = self.alerts.get(alert.fingerprint)
            if current is None or current.status is not AlertStatus.FIRING or self._why_gone(current) is not None:
                return
            wish = self.wish_of(current)
            if current.muted_by != muted_by:
                current = replace(current, muted_by=muted_by)
                late = self._late_starts(current, now) if muted_by is None else None
                await self._commit_alone("mute", Step(current, changed=True), wish, also=late)
                if late is not None:
                    self.queued()
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

    def _late_starts(self, alert: Alert, now: datetime) -> Callable[[apsw.Connection], None] | None:
        """What an incident starts that began while nobody was to hear of it, unless it was started before that."""
        assert alert.reason is not None, "what fires has a reason"
        began = Transition(
            AlertStatus.PENDING, AlertStatus.FIRING, alert.reason, alert.reason_text, now, alert, EventType.FIRING
        )
        runs = self.starts(began, now, "", Room())
        if not runs:
            return None

        def change(connection: apsw.Connection) -> None:
            for run in runs:
                if not ledger.looked_into(connection, alert.fingerprint, run.watch, since=alert.started_at or now):
                    queue_unless_crowded(connection, run)

        return change

    async def report_self(self, rule: str, failing: str | None, severity: Severity = Severity.WARNING) -> None:
        """Advance an alert about agentd itself. failing: what is wrong, or None when all is well."""
        async with self.alone(SELF):
            policy = replace(self.self_policy, severity=severity)
            before = self._own_alert(rule)
            verdict = Verdict.OK if failing is None else Verdict.FAILING
            taken = step(before, Judgement(verdict, failing or ""), policy, self.clock.now())
            await self._commit_alone("self", taken, self.self_wish)

    def _own_alert(self, rule: str) -> Alert:
        identity = fingerprint(self.instance, SELF, rule)
        return self.alerts.get(identity) or Alert(identity, self.instance, SELF, self.self_policy.severity, rule)

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


def _fires_in(c: apsw.Connection, alert: Alert) -> bool:
    stored = alert_rows.get(c, alert.fingerprint)
    return stored is not None and stored.status is AlertStatus.FIRING
