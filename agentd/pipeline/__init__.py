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
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from agentd.alert.flapping import FlappingSettings, has_fired, step_flapping
from agentd.alert.lifecycle import Step, step
from agentd.clock import Clock
from agentd.condition import Condition, judge
from agentd.pipeline.keeper import SELF as SELF
from agentd.pipeline.keeper import trace_id
from agentd.pipeline.tending import Tending
from agentd.pipeline.watches import Check as Check
from agentd.pipeline.watches import ProbeWatch as ProbeWatch
from agentd.pipeline.watches import Watch as Watch
from agentd.pipeline.watches import open_watch as open_watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    EventType,
    Judgement,
    Observation,
    Reason,
    Transition,
    Verdict,
)
from agentd.telemetry.redact import without_secrets
from agentd.telemetry.traces import WATCH

log = logging.getLogger("agentd.pipeline")

_HUNG_AFTER_S = 5.0


class Pipeline(Tending):
    """
    Runs checks. What it keeps, and what it is made from, is the Keeper's.

    stood_still: to be set to what tells whether this process stood still after a moment (monotonic seconds).
    confirm: asked before a watch fires; to be set to what tells why the failure is ours and not the target's, or None.
    ask: to be set to what looks at another watch at once, and returns when that is done or takes too long.
    """

    stood_still: Callable[[float], bool] = staticmethod(lambda since: False)
    confirm: Callable[[ProbeWatch], Awaitable[str | None]] | None = None
    ask: Callable[[Watch], Awaitable[None]] | None = None
    checks = 0
    flapping = FlappingSettings()

    # The path of one check, from top to bottom.

    async def check(self, watch: ProbeWatch, trigger: str = "schedule") -> Check:
        """Look once, judge, decide, commit. Raises nothing that a target or the store can cause."""
        run = self.tracer.start_span("check", attributes={WATCH: watch.name, "agentd.trigger": trigger})
        try:
            started, began = self.clock.monotonic(), self.clock.now()
            observation = await self._look(watch, run)
            observation, judgement = judged(observation, watch.conditions)
            if judgement.verdict is Verdict.FAILING and self.stood_still(started):
                # Stopped or suspended in mid-look: a timeout then is ours, not the target's.
                judgement = Judgement(Verdict.BLIND, f"this process stood still while it looked: {judgement.summary}")
            async with self.alone(watch.name):
                judgement = await self._confirmed(watch, judgement, began)
                done = await self._decide(watch, observation, judgement, run)
            self.looked(watch, done)
            self.checks += 1
            self.verdicts.add((watch.kind, done.judgement.verdict.value))
            self.took_s.add((watch.kind,), observation.duration_s)
            return done
        except BaseException as error:
            run.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            run.end()

    async def _look(self, watch: ProbeWatch, run: Span) -> Observation:
        span = self.tracer.start_span(f"probe {watch.kind}", context=set_span_in_context(run))
        try:
            observation = await look(watch, self.clock)
            if observation.notes:
                span.set_attributes(observation.notes)
            if observation.error or observation.blind:
                span.set_status(Status(StatusCode.ERROR, observation.error or observation.blind))
        finally:
            span.end()
        return observation

    async def _confirmed(self, watch: ProbeWatch, judgement: Judgement, began: datetime) -> Judgement:
        """What is left of a judgement with which the watch would fire, after those were asked who may explain it."""
        if judgement.verdict is not Verdict.FAILING or (self.confirm is None and not watch.depends_on):
            return judgement
        before = self.alerts.get(watch.calm.fingerprint, watch.calm)
        came = step(before, judgement, watch.policy, self.clock.now()).transition
        if came is None or came.event is not EventType.FIRING:
            return judgement
        if self.confirm is not None and (why := await self.confirm(watch)) is not None:
            return Judgement(Verdict.BLIND, f"{why}: {judgement.summary}")
        for name in watch.depends_on:
            parent = self.watches.get(name)
            # Its own turn may come a minute later, and until then the child would be blamed.
            if self.ask is not None and parent is not None and (parent.last is None or parent.last.at < began):
                await self.ask(parent)
        return judgement

    async def _decide(self, watch: ProbeWatch, observation: Observation, judgement: Judgement, run: Span) -> Check:
        now = self.clock.now()
        context = run.get_span_context()
        if self.watches.get(watch.name) is not watch:
            # A reload took the watch away or replaced it while we looked: this verdict belongs to nobody now.
            return Check(now, observation, judgement, Step(watch.calm))
        if judgement.verdict is not Verdict.OK:
            run.set_status(Status(StatusCode.ERROR, judgement.summary))
            run.set_attribute("agentd.verdict", judgement.verdict.value)
        before = self.alerts.get(watch.calm.fingerprint, watch.calm)
        taken = self.addressed(step(before, judgement, watch.policy, now), watch.wish, run)
        after, *more = self._with_flapping(watch, before, taken, judgement, now)
        steps = [after, *more, *self.sight_steps(watch, judgement, after.alert.blind_since, now)]
        if not await self.commit(steps, watch.wish, run):
            after = Step(before)
        check = Check(now, observation, judgement, after)
        if check.is_early:
            return check  # nothing was seen: it counts for no uptime
        self.record(
            CheckResult(
                watch=watch.name,
                at=now,
                verdict=judgement.verdict,
                duration_s=observation.duration_s,
                latency_ms=observation.values.get("latency_ms"),
                summary=judgement.summary,
                trace_id=trace_id(context) if judgement.verdict is not Verdict.OK else None,
            )
        )
        return check

    def _with_flapping(
        self, watch: ProbeWatch, before: Alert, taken: Step, judgement: Judgement, now: datetime
    ) -> list[Step]:
        """The step, counted among the outcomes; and that the alert begins or ends to flap, if it does."""
        if judgement.verdict is Verdict.BLIND:
            return [taken]
        failing = judgement.verdict is Verdict.FAILING
        flap = step_flapping(before.outcomes, failing, before.flapping, self.flapping)
        if flap.flapping and not before.flapping:
            fired = taken.alert.status in (AlertStatus.FIRING, AlertStatus.RESOLVED)
            flap = flap._replace(flapping=fired or has_fired(flap.outcomes, watch.policy.needed, watch.policy.of))
        if flap.outcomes == taken.alert.outcomes and flap.flapping == taken.alert.flapping:
            return [taken]
        # Outcomes alone are not worth a write: after a restart a few of them are forgotten, and nothing worse.
        alert = replace(taken.alert, outcomes=flap.outcomes, flapping=flap.flapping)
        transition = None if taken.transition is None else replace(taken.transition, alert=alert)
        taken = Step(alert, taken.changed, transition)
        if flap.flapping == before.flapping:
            return [taken]
        reason = Reason.FLAPPING if flap.flapping else Reason.STEADY
        begins = f"{'flaps' if flap.flapping else 'is steady again'}: {flap.share:.0f}% of the last checks changed"
        news = Transition(alert.status, alert.status, reason, begins, now, alert, EventType.FLAPPING)
        return [taken, Step(alert, True, news)]


async def look(watch: ProbeWatch, clock: Clock) -> Observation:
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
