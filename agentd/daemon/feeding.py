"""
From what happens in the daemon to what those hear who look on.

In: transitions, checks with another verdict, runs, the outbox, reloads. Out: events in the ring.
Promise: a check that finds what the last one found pays nothing for it, and nobody waits for a listener. What changes
often is told some times a second at most, as it is then.

alert: the alert's view, at each of its transitions. watch: `name`, `kind`, `verdict`, `alert`, `summary`, `paused`,
when the verdict or an alert of it changed, or it was paused or resumed. run: `id`, `watch`, `kind`, `trigger`, `state`,
when its state changed. outbox: `waiting`, `dead`, when they changed. config: `state` (reloaded or refused). status:
`watches` by verdict, `alerts` by state, `waiting`, `dead`, when they changed, and for everybody who begins to listen.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from agentd.api.ring import Ring
from agentd.api.tasks import STATES
from agentd.api.views import alert_view
from agentd.daemon.standing import Standing, current, verdicts
from agentd.errors import StoreError
from agentd.memory.ledger import Run, RunState
from agentd.pipeline import Watch
from agentd.records import Transition

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

WATCHES_S = 0.1
OUTBOX_S = 1.0
STATUS_S = 5.0
_AT_ONCE = 200

Json = dict[str, Any]


class Feeding:
    """Connects the ring to the parts of a daemon, once they are made."""

    def __init__(self, daemon: Daemon, ring: Ring) -> None:
        self._daemon = daemon
        self._ring = ring
        self._standing = Standing(daemon)
        self._turned: dict[str, None] = {}
        self._moved = asyncio.Event()
        self._outbox: Json = {}
        self._status: Json = {}
        self._joined = 0
        daemon.pipeline.turned = self._watch
        daemon.courier.moved = self._outbox_moved
        daemon.agents.runs.told = self._run

    def transition(self, transition: Transition) -> None:
        self._ring.tell("alert", alert_view(transition.alert))
        if (watch := self._daemon.pipeline.watches.get(transition.alert.watch)) is not None:
            self._watch(watch)

    def paused_or_resumed(self, name: str) -> None:
        if (watch := self._daemon.pipeline.watches.get(name)) is not None:
            self._watch(watch)

    def reloaded(self, why_not: str | None) -> None:
        self._ring.tell("config", {"state": "reloaded" if why_not is None else "refused"})

    def _run(self, run: Run, state: RunState) -> None:
        facts = {"id": run.id, "watch": run.watch, "kind": run.kind, "trigger": run.trigger, "state": STATES[state]}
        self._ring.tell("run", facts)

    # A check often causes a transition and another verdict: both are one change of the watch.

    def _watch(self, watch: Watch) -> None:
        if not self._turned:
            asyncio.get_running_loop().call_later(WATCHES_S, self._tell_watches)
        self._turned[watch.name] = None

    def _tell_watches(self) -> None:
        for name in list(self._turned)[:_AT_ONCE]:
            del self._turned[name]
            watch = self._daemon.pipeline.watches.get(name)
            if watch is not None:  # else a reload took it away
                self._ring.tell("watch", self._watch_event(watch))
        if self._turned:
            asyncio.get_running_loop().call_soon(self._tell_watches)

    def _watch_event(self, watch: Watch) -> Json:
        return {
            "name": watch.name,
            "kind": watch.kind,
            "verdict": watch.verdict.value if watch.verdict else None,
            "alert": self._standing.alert(watch).status.value,
            "summary": watch.summary,
            "paused": watch.name in self._daemon.keeping.paused,
        }

    # What is counted, is counted only while somebody listens.

    def _outbox_moved(self) -> None:
        if self._ring.listeners:
            self._moved.set()

    async def follow_outbox(self) -> None:
        """Tell how full it is, once a second at most, until cancelled."""
        while True:
            await self._moved.wait()
            await asyncio.sleep(OUTBOX_S)
            self._moved.clear()
            with contextlib.suppress(StoreError):  # those who listen see by the status that it is in trouble
                found = await self._messages()
                if found != self._outbox:
                    self._outbox = found
                    self._ring.tell("outbox", found)

    async def follow_status(self) -> None:
        """Tell the counts while somebody listens, until cancelled."""
        while True:
            await self._ring.heard.wait()
            with contextlib.suppress(StoreError):
                found = self._counts() | await self._messages()
                if found != self._status or self._ring.joined != self._joined:
                    self._status, self._joined = found, self._ring.joined
                    self._ring.tell("status", found)
            await asyncio.sleep(STATUS_S)

    def _counts(self) -> Json:
        pipeline = self._daemon.pipeline
        return {"watches": verdicts(pipeline.watches.values()), "alerts": current(pipeline.alerts.values())}

    async def _messages(self) -> Json:
        stats = await self._daemon.courier.stats()
        return {"waiting": sum(stats.waiting.values()), "dead": sum(stats.dead.values())}
