"""
From what agents found to what people are told: a finding joins the alert that asked for it, is a message of its own, or
feeds the alert of the goal's watch.

In: findings as plain JSON, with whatever else belongs into their transaction. Out: rows of the state store.
Promise: a finding changes no alert's identity, state or severity, save that of a goal that reports by state. It is told
once, together with the end of its run or not at all.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import apsw

from agentd.alert.lifecycle import Step, step
from agentd.errors import StoreError
from agentd.memory import ledger, outbox
from agentd.pipeline.keeper import trace_id
from agentd.pipeline.telling import News, Seen, tell
from agentd.pipeline.tending import Tending
from agentd.pipeline.watches import Check, Watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    Delivery,
    EventType,
    Evidence,
    Judgement,
    Observation,
    Place,
    Reason,
    Severity,
    Transition,
    Verdict,
)
from agentd.telemetry.traces import WATCH, context_from, traceparent

log = logging.getLogger("agentd.pipeline")

Also = Callable[[apsw.Connection], None]
Json = Mapping[str, Any]


@dataclass(slots=True)
class GoalWatch(Watch):
    """
    A watch that asks an agent.

    report: `each` finding that is not ok is a message; `state`: the run's status is the watch's.
    """

    goal: str
    report: Literal["each", "state"] = field(default="each", kw_only=True)


class Findings:
    """keeper: holds the alerts. Every method returns False when the store refused: then nothing happened."""

    def __init__(self, keeper: Tending) -> None:
        self._keeper = keeper

    async def attach(
        self,
        about: Alert,
        finding: Json,
        cost: Json,
        also: Also,
        *,
        parent: str | None = None,
    ) -> bool:
        """
        Write the finding to the alert and tell whoever was told of it; of an incident that is not the alert's any more
        only `also` is done. Of an alert that is gone, who was told of it is told this too.

        about: the alert that was looked into, as it was then. parent: `traceparent` of the run.
        """
        keeper = self._keeper
        async with keeper.alone(about.watch):
            alert = keeper.alerts.get(about.fingerprint, about)
            if alert.reason is None or alert.started_at != about.started_at:
                return await self.nothing(about, also)
            gone = about.fingerprint not in keeper.alerts
            found = replace(alert, finding=finding, cost=cost, status=AlertStatus.RESOLVED if gone else alert.status)
            text = f"an agent looked into it: {finding.get('summary', '')}"
            now = keeper.clock.now()
            muted_by = self._why_muted(replace(alert, status=AlertStatus.FIRING), now) if gone else alert.muted_by
            event = None if muted_by is not None or not alert.told else EventType.UPDATED
            news = Transition(found.status, found.status, Reason.FINDING, text, now, found, event)
            wish = replace(keeper.wish_of(alert), notify=alert.told)
            span = keeper.tracer.start_span("finding", context=context_from(parent), attributes={WATCH: alert.watch})
            try:
                if gone:
                    told = await self._told_late(keeper.news(news, wish, traceparent(span)), also)
                else:
                    told = await keeper.commit([Step(found, True, news)], wish, span, also=also)
            finally:
                span.end()
        if told:
            keeper.hold_no_longer(about.fingerprint)
        return told

    async def _told_late(self, news: News, also: Also) -> bool:
        """Of an alert whose row is gone: that of one value of many (`by`), over before anybody had time to look."""
        now = self._keeper.clock.now()

        def change(connection: apsw.Connection) -> None:
            also(connection)
            if news.transition.event is not None:
                tell(connection, [news], Seen(), now)

        return await self._only(change)

    async def nothing(self, about: Alert | None, also: Also) -> bool:
        """The run came to no finding: what waited for it goes without, unless another run is to look into it."""
        keeper, now, goes = self._keeper, self._keeper.clock.now(), True

        def change(connection: apsw.Connection) -> None:
            nonlocal goes
            also(connection)
            if about is not None:
                goes = ledger.queued_about(connection, about.fingerprint, about.watch, "investigate") is None
                if goes:
                    outbox.complete(connection, about.fingerprint, None, lambda data: data, now)

        done = await self._only(change)
        if done and goes and about is not None:
            keeper.hold_no_longer(about.fingerprint)
        return done

    async def tell(self, watch: GoalWatch, data: Json, *, traceparent: str | None, also: Also) -> bool:
        """
        Tell of a finding by itself, unless something mutes its watch. data: as `finding_data` makes it.

        Whom it reaches says the configuration: the watch's own severity routes it, whatever the model's is.
        """
        keeper, now = self._keeper, self._keeper.clock.now()
        alike = replace(watch.calm, severity=watch.policy.severity, status=AlertStatus.FIRING, started_at=now)
        reach = keeper.routing.of(alike, watch.wish)
        muted = self._why_muted(alike, now)
        if muted is not None:
            log.info("finding_muted", extra={"watch": watch.name, "why": muted})
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))

        def change(connection: apsw.Connection) -> None:
            also(connection)
            for webhook in reach.notify if muted is None else ():
                outbox.put(
                    connection,
                    Delivery(
                        id=f"msg_{uuid.uuid4().hex}",
                        webhook=webhook,
                        lane=f"finding:{watch.name}",
                        type=EventType.FINDING,
                        data=text,
                        created_at=now,
                        due_at=now,
                        traceparent=traceparent,
                    ),
                )

        return await self._only(change)

    async def judge(
        self,
        watch: GoalWatch,
        judgement: Judgement,
        *,
        took_s: float,
        also: Also,
        parent: str | None = None,
        finding: Json | None = None,
    ) -> bool:
        """
        The run's status as a look of the watch: its alert takes a step, as after any probe, or it is blind.

        Of a watch that reports each finding, only whether it could look at all: ok, or blind.
        """
        keeper = self._keeper
        run = keeper.tracer.start_span("goal", context=context_from(parent), attributes={WATCH: watch.name})
        try:
            async with keeper.alone(watch.name):
                if keeper.watches.get(watch.name) is not watch:
                    return await self._only(also)  # a reload took it away or replaced it meanwhile
                now = keeper.clock.now()
                before = keeper.alerts.get(watch.calm.fingerprint, watch.calm)
                after = keeper.addressed(step(before, judgement, watch.policy, now), watch.wish, run)
                if finding is not None and judgement.verdict is Verdict.FAILING:
                    alert = replace(after.alert, finding=finding)
                    news = None if after.transition is None else replace(after.transition, alert=alert)
                    after = Step(alert, True, news)
                steps = [after, *keeper.sight_steps(watch, judgement, after.alert.blind_since, now)]
                if not await keeper.commit(steps, watch.wish, run, also=also):
                    return False
                context = run.get_span_context()
                keeper.looked(watch, Check(now, Observation(duration_s=took_s), judgement, after))
                keeper.record(
                    CheckResult(
                        watch=watch.name,
                        at=now,
                        verdict=judgement.verdict,
                        duration_s=took_s,
                        summary=judgement.summary,
                        trace_id=trace_id(context) if judgement.verdict is not Verdict.OK else None,
                    )
                )
                return True
        finally:
            run.end()

    def _why_muted(self, alert: Alert, now: datetime) -> str | None:
        keeper = self._keeper
        if keeper.mutes is None:
            return None
        alerts = {**keeper.alerts, alert.fingerprint: alert}
        return keeper.mutes(alerts, now, [alert.fingerprint]).get(alert.fingerprint)

    async def _only(self, also: Also) -> bool:
        try:
            await self._keeper.state.write(also)
        except StoreError:
            return False
        self._keeper.messages_waiting()
        return True


def alert_of(data: Json, told: Sequence[str]) -> Alert:
    """
    An alert as its payload shows it: what a run keeps of one that may be gone before it begins.

    told: the webhooks that were sent it. What was cut stays cut, and what tells alerts of one rule apart is a label.
    """
    watch, started_at = str(data["watch"]), data["started_at"]
    places = [(Place(each.get("file", ""), each.get("offset"), each.get("cursor")), each) for each in data["evidence"]]
    return Alert(
        fingerprint=str(data["fingerprint"]),
        instance=str(data["instance"]),
        watch=watch,
        severity=Severity(data["severity"]),
        rule=data["rule"],
        labels=dict(data["labels"]),
        status=AlertStatus(data["state"]),
        started_at=None if started_at is None else datetime.fromisoformat(started_at),
        reason=Reason(data["reason"]),
        reason_text=str(data["reason_text"]),
        summary=str(data["summary"]).removeprefix(f"{watch}: "),
        values=dict(data["values"]),
        failed=tuple(data["failed"]),
        occurrences=int(data["occurrences"]),
        told=tuple(told),
        trace_id=data["trace_id"],
        evidence=tuple(Evidence(place, str(each["line"])) for place, each in places),
    )
