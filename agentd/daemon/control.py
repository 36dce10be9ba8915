"""
What people may ask of the running daemon: the `Service` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values. What changes something is written to the audit trail.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import apsw

from agentd import __version__
from agentd.api.agents_view import agents_view
from agentd.api.app import same_token
from agentd.api.service import Conflict, Forbidden, Json, NoSecret, NotFound
from agentd.api.silence import SilenceAsked
from agentd.api.trouble import Hindrances, find_trouble, orphans, read_hindrances
from agentd.api.views import (
    alert_view,
    delivery_view,
    in_order_of_need,
    is_current,
    moment,
    pause_view,
    template_view,
    unplanned_watch_view,
    worst,
)
from agentd.clock import iso
from agentd.daemon.runs.jobs import default_model
from agentd.daemon.selfwatch import resident_bytes
from agentd.errors import ConfigError
from agentd.memory import audit, outbox, rollups, templates
from agentd.pipeline import Check, Watch
from agentd.pipeline.findings import GoalWatch
from agentd.pipeline.watches import LogWatch
from agentd.records import Alert, AlertStatus, Verdict
from agentd.secret import SecretMissing
from agentd.settings import show_duration
from agentd.watch.heartbeat import HeartbeatSettings

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

log = logging.getLogger("agentd.daemon")

STRIP_BUCKETS = 90
_STRIP_SPAN = timedelta(minutes=STRIP_BUCKETS)
MAX_ON_PAGE = 200
_AT_ONCE = 200


class Control:
    """Implements `agentd.api.service.Service` over the parts of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._missing: dict[str, str] = {}

    # Reading.

    async def status(self) -> Json:
        daemon = self._daemon
        now = daemon.clock.now()
        verdicts: dict[str, int] = {}
        for watch in daemon.pipeline.watches.values():
            verdict = watch.last.judgement.verdict.value if watch.last else "waiting"
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        alerts: dict[str, int] = {}
        for alert in daemon.pipeline.alerts.values():
            if is_current(alert):
                alerts[alert.status.value] = alerts.get(alert.status.value, 0) + 1
        courier, scheduler = await daemon.courier.stats(), daemon.scheduler.stats()
        hindrances, agents = await daemon.store.state.read(lambda c: (read_hindrances(c), self._agents(c)))
        disabled = {"disabled": off} if (off := len(self._disabled())) else {}
        return {
            "state": "running" if daemon.ready.is_set() else "starting",
            "version": __version__,
            "instance": daemon.instance,
            "pid": os.getpid(),
            "config": str(daemon.path),
            "state_dir": str(daemon.state_dir),
            "started_at": iso(daemon.started_at),
            "uptime": show_duration(timedelta(seconds=int((now - daemon.started_at).total_seconds()))),
            "trouble": self._trouble(hindrances),
            "note": daemon.note,
            "page": daemon.config.api.page_url,
            "watches": {
                "total": len(daemon.plan.names),
                "paused": len(daemon.keeping.paused),
                **disabled,
                **verdicts,
            },
            "alerts": alerts,
            "outbox": {
                "waiting": sum(courier.waiting.values()),
                "dead": sum(courier.dead.values()),
                "held": daemon.held,
                "disabled_webhooks": sorted(hindrances.disabled),
            },
            "checks": {
                "done": daemon.pipeline.checks,
                "lag_p50_ms": round(scheduler.lag_p50_s * 1000, 3),
                "lag_p99_ms": round(scheduler.lag_p99_s * 1000, 3),
                "overlaps": scheduler.overlaps,
            },
            "events": daemon.events.stats(),
            **({"agents": agents} if agents is not None else {}),
            "store": {"full": daemon.store.full, "trouble": daemon.store.trouble},
            "memory_mib": round(resident_bytes() / 2**20, 1),
        }

    def _agents(self, connection: apsw.Connection) -> Json | None:
        config, now = self._daemon.config, self._daemon.clock.now()
        return agents_view(connection, config, now, model=default_model(config), host_pid=self._daemon.host.pid)

    def _trouble(self, hindrances: Hindrances) -> list[str]:
        daemon, lines = self._daemon, []
        if daemon.store.trouble:
            lines.append(daemon.store.trouble)
        if daemon.store.full:
            lines.append("the disk is full: history is not kept, alerts live on the ballast; make room")
        lines += find_trouble(hindrances, daemon.plan.webhooks)
        if daemon.pulse.trouble:
            lines.append(daemon.pulse.trouble)
        if daemon.refused:
            lines.append(daemon.refused.splitlines()[0])
        return lines + daemon.events.trouble()

    async def watches(self) -> list[Json]:
        views = []
        for number, watch in enumerate(list(self._daemon.pipeline.watches.values()), 1):
            views.append(self._watch_view(watch))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # checks go first
        return views + self._disabled()

    def _disabled(self) -> list[Json]:
        """Or one would look for a watch that stands in the file and is nowhere."""
        watches = self._daemon.plan.config.watches
        return [unplanned_watch_view(watch) for watch in watches if watch.shown_kind is not None and not watch.enabled]

    def _alert(self, watch: Watch) -> Alert:
        """The worse of the watch's two alerts: that it fails, and that nobody can look."""
        alerts = self._daemon.pipeline.alerts
        if isinstance(watch, LogWatch) and watch.last is not None and is_current(watch.last.step.alert):
            return watch.last.step.alert
        alert, blind = alerts.get(watch.calm.fingerprint, watch.calm), alerts.get(watch.blind.fingerprint)
        return alert if blind is None or not is_current(blind) else worst((alert, blind))

    def _watch_view(self, watch: Watch) -> Json:
        daemon, last = self._daemon, watch.last
        paused = daemon.keeping.paused.get(watch.name)
        return {
            "name": watch.name,
            "kind": watch.kind,
            "enabled": True,
            "verdict": last.judgement.verdict.value if last else None,
            "summary": last.judgement.summary if last else "",
            "alert": self._alert(watch).status.value,
            "severity": watch.policy.severity.value,
            "labels": dict(watch.policy.labels),
            "latency_ms": last.observation.values.get("latency_ms") if last else None,
            "log": dict(last.observation.values) if last and isinstance(watch, LogWatch) else None,
            "checked_at": moment(last.at) if last else None,
            "next_at": moment(daemon.scheduler.next_run(watch.name)) if watch.name in daemon.plan.due else None,
            "paused": paused is not None,
            "paused_until": moment(paused.until) if paused else None,
            "pause": pause_view(paused) if paused else None,
            "notify": list(daemon.pipeline.routing.of(watch.calm, watch.wish).notify),
        }

    async def alerts(self, *, everything: bool) -> list[Json]:
        alerts = [alert for alert in self._daemon.pipeline.alerts.values() if everything or is_current(alert)]
        views = []
        for number, alert in enumerate(in_order_of_need(alerts), 1):
            views.append(alert_view(alert))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return views

    async def overview(self) -> Json:
        daemon, now = self._daemon, self._daemon.clock.now()
        shown = heapq.nsmallest(MAX_ON_PAGE, daemon.pipeline.watches.values(), key=self._need)
        views = [self._watch_view(watch) for watch in shown]

        def strips(connection: apsw.Connection) -> list[list[rollups.Bar | None]]:
            return [
                rollups.strip(connection, watch.name, now, buckets=STRIP_BUCKETS, span=_STRIP_SPAN) for watch in shown
            ]

        for view, strip in zip(views, await daemon.store.history.read(strips), strict=True):
            view["strip"] = [_bar(bar) for bar in strip]
        disabled = self._disabled()
        room = MAX_ON_PAGE - len(views)
        views += [view | {"strip": []} for view in disabled[:room]]
        current = in_order_of_need([alert for alert in daemon.pipeline.alerts.values() if is_current(alert)])
        return {
            "status": await self.status(),
            "watches": views,
            "more_watches": len(daemon.pipeline.watches) + len(disabled) - len(views),
            "alerts": [alert_view(alert) for alert in current[:MAX_ON_PAGE]],
            "more_alerts": max(0, len(current) - MAX_ON_PAGE),
        }

    def _need(self, watch: Watch) -> tuple[bool, bool, str]:
        """What a person should see first: firing, then not ok, then by name."""
        calm = watch.last is None or watch.last.judgement.verdict is Verdict.OK
        return self._alert(watch).status is not AlertStatus.FIRING, calm, watch.name

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json:
        rows, found = await self._daemon.store.state.read(
            lambda c: (outbox.rows(c, state=state, webhook=webhook, limit=limit), read_hindrances(c))
        )
        if webhook is not None and not rows:
            await self._known_receiver(webhook)
        known = self._daemon.plan.webhooks
        return {"deliveries": [delivery_view(row, note=found.note(row.delivery.webhook, known)) for row in rows]}

    async def delivery(self, identity: str) -> Json:
        row, found = await self._daemon.store.state.read(lambda c: (outbox.get(c, identity), read_hindrances(c)))
        if row is None:
            raise NotFound(f"no delivery {identity!r}; `agentd outbox list` shows them")
        return delivery_view(row, whole=True, note=found.note(row.delivery.webhook, self._daemon.plan.webhooks))

    async def templates(self, watch: str, *, limit: int) -> Json:
        planned = self._planned(watch)
        if not isinstance(planned, LogWatch):
            raise NotFound(f"{watch} follows no log, so it has no templates")
        rows = await self._daemon.store.history.read(lambda c: templates.of(c, watch, limit))
        return {"watch": watch, "templates": [template_view(row) for row in rows]}

    async def silences(self, *, everything: bool) -> list[Json]:
        return await self._daemon.people.silences(everything=everything)

    # Acting.

    async def ack(self, alerts: Sequence[str], *, by: str, comment: str, undo: bool) -> Json:
        return await self._daemon.people.ack(alerts, by=by, comment=comment, undo=undo)

    async def silence(self, asked: SilenceAsked, *, by: str) -> Json:
        return await self._daemon.people.silence(asked, by=by)

    async def end_silence(self, identity: str, *, by: str) -> Json:
        return await self._daemon.people.end_silence(identity, by=by)

    async def check_now(self, watch: str) -> Json:
        planned = self._planned(watch)
        if isinstance(planned, LogWatch):
            raise Conflict(f"{watch} follows a log: every line is looked at when it comes")
        if isinstance(planned, GoalWatch):
            run = await self._daemon.agents.start_goal(watch, "manual", self._daemon.clock.now())
            return {"watch": self._watch_view(planned), "check": None, "run": run}
        await asyncio.wait([self._run_now(watch)])
        last = planned.last
        return {"watch": self._watch_view(planned), "check": check_view(last) if last else None}

    async def pause(self, watch: str, *, by: str, for_s: float | None, reason: str) -> Json:
        self._planned(watch)
        daemon = self._daemon
        lasting = None if for_s is None else timedelta(seconds=for_s)
        before = await daemon.keeping.pause(watch, by=by, lasting=lasting, reason=reason)
        planned = self._planned(watch)  # unless a reload has taken it away meanwhile
        if isinstance(planned, LogWatch):
            await daemon.following.stop(watch)
        else:
            daemon.scheduler.pause(watch)
        return self._watch_view(planned) | {"replaced": pause_view(before) if before else None}

    async def resume(self, watch: str, *, by: str) -> Json:
        self._planned(watch)
        if watch not in self._daemon.keeping.paused:
            raise Conflict(f"{watch} is not paused")
        await self._daemon.resume(watch, by=by)
        return self._watch_view(self._planned(watch))

    async def retry(self, identity: str | None, *, webhook: str | None, by: str) -> Json:
        now, state = self._daemon.clock.now(), self._daemon.store.state
        if webhook is not None:
            await self._known_receiver(webhook)
        await state.write(lambda connection: audit.append(connection, by, "retry", identity or webhook or "*", "", now))
        if identity is None:
            done = await self._retry_dead(webhook)
        else:
            outcome = await state.write(lambda connection: outbox.retry(connection, identity, now))
            if outcome == "missing":
                raise NotFound(f"no delivery {identity!r} that waits or is dead; `agentd outbox list` shows them")
            if outcome == "superseded":
                raise Conflict(f"{identity} is overtaken: the receiver has had something newer about this alert")
            if outcome == "claimed":
                raise Conflict(f"{identity} is being sent at this moment")
            done = {"retried": 1}
        self._daemon.courier.wake()
        return done

    async def _retry_dead(self, webhook: str | None) -> Json:
        """All of them, some hundred a transaction, so that alerts get their turn between."""
        now, retried = self._daemon.clock.now(), 0
        while True:
            step = await self._daemon.store.state.write(lambda c: outbox.retry_dead(c, now, webhook))
            retried += step.retried
            if not step.left or not step.retried:
                return {"retried": retried, "superseded": step.superseded}

    async def drop(self, identity: str, *, by: str) -> Json:
        now = self._daemon.clock.now()

        def change(connection: apsw.Connection) -> str:
            audit.append(connection, by, "drop", identity, "", now)
            return outbox.drop(connection, identity)

        outcome = await self._daemon.store.state.write(change)
        if outcome == "claimed":
            raise Conflict(f"{identity} is being sent at this moment")
        if outcome == "missing":
            raise NotFound(f"no delivery {identity!r} that could be dropped; `agentd outbox list` shows them")
        self._daemon.courier.wake()
        return {"dropped": 1}

    async def test_webhook(self, webhook: str, *, by: str) -> Json:
        self._known_webhook(webhook)
        outcome = await self._daemon.courier.send_test(webhook)
        return {
            "webhook": webhook,
            "ok": outcome.ok,
            "status": outcome.status,
            "error": outcome.error,
            "latency_ms": round(outcome.latency_s * 1000, 1),
            "answer": outcome.answer,
        }

    async def enable_webhook(self, webhook: str, *, by: str) -> Json:
        self._known_webhook(webhook)
        now = self._daemon.clock.now()
        was_disabled = await self._daemon.courier.enable(webhook)
        await self._daemon.store.state.write(
            lambda connection: audit.append(connection, by, "enable", webhook, "", now)
        )
        return {"webhook": webhook, "enabled": True, "was_disabled": was_disabled}

    async def beat(self, watch: str, *, token: str | None, ok: bool, message: str, trusted: bool) -> Json:
        daemon = self._daemon
        planned = daemon.plan.watches.get(watch)
        settings = planned.source if planned else None
        if planned is None or not isinstance(settings, HeartbeatSettings):
            raise NotFound(f"no heartbeat watch {watch!r}")
        if not trusted:
            if settings.token is None:
                raise Forbidden(
                    f"{watch} has no token: report over the unix socket, or give it one in the configuration"
                )
            try:
                expected = settings.token.expand()
            except SecretMissing as error:
                # Once, not per call: anybody may call.
                if self._missing.get(watch) != str(error):
                    self._missing[watch] = str(error)
                    log.warning("heartbeat_token_missing", extra={"watch": watch, "error": str(error)})
                raise NoSecret(f"the token of {watch} cannot be read now; the daemon's log says why") from error
            self._missing.pop(watch, None)
            if not same_token(token, expected):
                raise Forbidden("the token is not the one that this heartbeat expects")
        await daemon.events.admit_beat(watch, settings.rate)
        now = daemon.clock.now()
        daemon.keeping.beats.beat(watch, now, ok, message)
        await daemon.keeping.save_beats()
        if watch in daemon.plan.watches and watch not in daemon.keeping.paused:
            self._run_now(watch)
        return {"watch": watch, "received_at": iso(now)}

    async def hook(
        self, name: str, *, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], trusted: bool
    ) -> Json:
        return await self._daemon.events.hook(name, headers=headers, body=body, trusted=trusted)

    async def reload(self, *, by: str) -> Json:
        now = self._daemon.clock.now()
        await self._daemon.store.state.write(lambda connection: audit.append(connection, by, "reload", "", "", now))
        why = await self._daemon.reload()
        if why is not None:
            raise ConfigError(f"the new configuration is refused, the old one runs on: {why}")
        found = await self._daemon.store.state.read(read_hindrances)
        lost = orphans(found.waiting, self._daemon.plan.webhooks)
        return {"reloaded": True, "note": "; ".join([*filter(None, [self._daemon.note]), *lost])}

    async def release(self, *, by: str) -> Json:
        if not self._daemon.ready.is_set():
            raise Conflict("the daemon is starting; try again when it runs")
        return {"was_held": await self._daemon.release(by=by)}

    def _run_now(self, watch: str) -> asyncio.Task[None]:
        try:
            return self._daemon.scheduler.run_now(watch)
        except RuntimeError as error:
            raise Conflict("the daemon is starting or stopping; try again when it runs") from error

    def _planned(self, name: str) -> Watch:
        watch = self._daemon.pipeline.watches.get(name)
        if watch is None:
            raise NotFound(f"no watch {name!r}; `agentd watches` shows them")
        return watch

    async def _known_receiver(self, name: str) -> None:
        """One that the configuration names, or that messages are still kept for."""
        if not await self._daemon.store.state.read(lambda c: outbox.rows(c, webhook=name, limit=1)):
            self._known_webhook(name)

    def _known_webhook(self, name: str) -> None:
        if name not in self._daemon.plan.webhooks:
            known = ", ".join(sorted(self._daemon.plan.webhooks)) or "none"
            raise NotFound(f"no webhook {name!r}; known: {known}")


def _bar(bar: rollups.Bar | None) -> str | None:
    if bar is None:
        return None
    return "failing" if bar.failing else "blind" if bar.blind else "ok"


def check_view(check: Check) -> Json:
    """One check, for people: what was seen and what was made of it."""
    return {
        "at": iso(check.at),
        "verdict": check.judgement.verdict.value,
        "summary": check.judgement.summary,
        "duration_ms": round(check.observation.duration_s * 1000, 3),
        "alert": check.step.alert.status.value,
    }
