"""
What people read of the running daemon in lists: the reading half of the `Service` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values. Nothing here changes anything.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import apsw

from agentd import __version__
from agentd.api.agents_view import agents_view
from agentd.api.service import Json, NotFound
from agentd.api.trouble import Hindrances, find_trouble, read_hindrances
from agentd.api.views import alert_view, delivery_view, in_order_of_need, is_current, template_view
from agentd.clock import iso
from agentd.daemon import measured
from agentd.daemon.runs.jobs import default_model
from agentd.daemon.selfwatch import resident_bytes
from agentd.daemon.standing import Standing, current, verdicts
from agentd.memory import outbox, rollups, templates
from agentd.pipeline import Watch
from agentd.pipeline.watches import LogWatch
from agentd.records import AlertStatus, Verdict
from agentd.settings import show_duration

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

STRIP_BUCKETS = 90
_STRIP_SPAN = timedelta(minutes=STRIP_BUCKETS)
MAX_ON_PAGE = 200
_AT_ONCE = 200
_SORTED_AT_ONCE = 2000


class Lists:
    """The reading half of `Control`."""

    def __init__(self, daemon: Daemon, standing: Standing) -> None:
        self._daemon = daemon
        self._standing = standing

    def state(self) -> str:
        return "running" if self._daemon.ready.is_set() else "starting"

    async def status(self) -> Json:
        daemon = self._daemon
        now = daemon.clock.now()
        scheduler = daemon.scheduler.stats()
        hindrances, agents = await daemon.store.state.read(lambda c: (read_hindrances(c), self._agents(c)))
        disabled = {"disabled": off} if (off := len(self._standing.disabled())) else {}
        return {
            "state": self.state(),
            "version": __version__,
            "instance": daemon.instance,
            "pid": os.getpid(),
            "config": str(daemon.path.absolute()),
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
                **verdicts(daemon.pipeline.watches.values()),
            },
            "alerts": current(daemon.pipeline.alerts.values()),
            "outbox": {
                "waiting": sum(hindrances.waiting.values()),
                "dead": sum(hindrances.buried.values()),
                "held": daemon.held,
                "disabled_webhooks": sorted(hindrances.disabled),
                "failing_webhooks": {name: iso(since) for name, since in sorted(hindrances.failing.items())},
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
        config, now = self._daemon.plan.config, self._daemon.clock.now()
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
            views.append(self._standing.view(watch))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # checks go first
        return views + self._standing.disabled()

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
        shown = await self._most_needed()
        views = [self._standing.view(watch) for watch in shown]

        def pasts(connection: apsw.Connection) -> list[Json]:
            return [_past(connection, watch, now) for watch in shown]

        views = [view | past for view, past in zip(views, await daemon.store.history.read(pasts), strict=True)]
        disabled = self._standing.disabled()
        room = MAX_ON_PAGE - len(views)
        views += [view | {"strip": [], "spark": [], "uptime": {"24h": None}} for view in disabled[:room]]
        shown_alerts = in_order_of_need([alert for alert in daemon.pipeline.alerts.values() if is_current(alert)])
        return {
            "status": await self.status(),
            "watches": views,
            "more_watches": len(daemon.pipeline.watches) + len(disabled) - len(views),
            "alerts": [alert_view(alert) for alert in shown_alerts[:MAX_ON_PAGE]],
            "more_alerts": max(0, len(shown_alerts) - MAX_ON_PAGE),
        }

    async def _most_needed(self) -> list[Watch]:
        """The watches that a person should see first; checks get their turn between some hundred."""
        watches = list(self._daemon.pipeline.watches.values())
        shown: list[Watch] = []
        for begin in range(0, len(watches), _SORTED_AT_ONCE):
            shown = heapq.nsmallest(MAX_ON_PAGE, [*shown, *watches[begin : begin + _SORTED_AT_ONCE]], key=self._need)
            await asyncio.sleep(0)
        return shown

    def _need(self, watch: Watch) -> tuple[bool, bool, str]:
        """What a person should see first: firing, then not ok, then by name."""
        calm = watch.verdict in (None, Verdict.OK)
        return self._standing.alert(watch).status is not AlertStatus.FIRING, calm, watch.name

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json:
        rows, found = await self._daemon.store.state.read(
            lambda c: (outbox.rows(c, state=state, webhook=webhook, limit=limit), read_hindrances(c))
        )
        if webhook is not None and not rows:
            await self._standing.known_receiver(webhook)
        known = self._daemon.plan.webhooks
        return {"deliveries": [delivery_view(row, note=found.note(row.delivery.webhook, known)) for row in rows]}

    async def delivery(self, identity: str) -> Json:
        row, found = await self._daemon.store.state.read(lambda c: (outbox.get(c, identity), read_hindrances(c)))
        if row is None:
            raise NotFound(f"no delivery {identity!r}; `agentd outbox list` shows them")
        return delivery_view(row, whole=True, note=found.note(row.delivery.webhook, self._daemon.plan.webhooks))

    async def templates(self, watch: str, *, limit: int) -> Json:
        planned = self._standing.planned(watch)
        if not isinstance(planned, LogWatch):
            raise NotFound(f"{watch} follows no log, so it has no templates")
        rows = await self._daemon.store.history.read(lambda c: templates.of(c, watch, limit))
        return {"watch": watch, "templates": [template_view(row) for row in rows]}

    async def silences(self, *, everything: bool) -> list[Json]:
        return await self._daemon.people.silences(everything=everything)


def _past(c: apsw.Connection, watch: Watch, now: datetime) -> Json:
    """
    What the overview shows of a watch's past.

    strip: a bar a minute. spark: latencies in ms, [] of what has none. uptime: share of a day. Nothing of a log or a
    goal: there is a look only when there is something to tell.
    """
    if not measured.is_measured(watch.kind):
        return {"strip": [], "spark": [], "uptime": {"24h": None}}
    strip = rollups.strip(c, watch.name, now, buckets=STRIP_BUCKETS, span=_STRIP_SPAN)
    return {
        "strip": [measured.bar_word(bar) for bar in strip],
        "spark": rollups.spark(c, watch.name, now, span=_STRIP_SPAN),
        "uptime": {"24h": measured.uptime(c, watch.name, "24h", now)},
    }
