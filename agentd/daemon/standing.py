"""
How the watches stand at this moment, as views: what every part of the service shows of a watch, and how one is found.

In: what the daemon knows by itself. Out: plain JSON values. Whatever has a name and is not there is NotFound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentd.api.service import Json, NotFound
from agentd.api.views import is_current, moment, pause_view, unplanned_watch_view, worst
from agentd.clock import iso
from agentd.memory import outbox
from agentd.pipeline import Check, Watch
from agentd.pipeline.watches import LogWatch
from agentd.records import Alert

if TYPE_CHECKING:
    from agentd.config.models import Config
    from agentd.daemon.app import Daemon


class Standing:
    """Views of the watches of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._disabled: list[Json] = []
        self._of: Config | None = None

    def disabled(self) -> list[Json]:
        """Or one would look for a watch that stands in the file and is nowhere."""
        config = self._daemon.plan.config
        if self._of is not config:  # of ten thousand watches it takes a while to look for them
            watches = [watch for watch in config.watches if not watch.enabled and watch.shown_kind is not None]
            self._disabled, self._of = [unplanned_watch_view(watch) for watch in watches], config
        return [dict(view) for view in self._disabled]

    def alert(self, watch: Watch) -> Alert:
        """The worse of the watch's two alerts: that it fails, and that nobody can look."""
        alerts = self._daemon.pipeline.alerts
        if isinstance(watch, LogWatch) and watch.last is not None and is_current(watch.last.step.alert):
            return watch.last.step.alert
        alert, blind = alerts.get(watch.calm.fingerprint, watch.calm), alerts.get(watch.blind.fingerprint)
        return alert if blind is None or not is_current(blind) else worst((alert, blind))

    def view(self, watch: Watch) -> Json:
        daemon, last = self._daemon, watch.last
        paused = daemon.keeping.paused.get(watch.name)
        plan = daemon.plan
        is_due = watch.name in plan.watches or watch.name in plan.goals
        return {
            "name": watch.name,
            "kind": watch.kind,
            "enabled": True,
            "verdict": watch.verdict.value if watch.verdict else None,
            "summary": watch.summary,
            "alert": self.alert(watch).status.value,
            "severity": watch.policy.severity.value,
            "labels": dict(watch.policy.labels),
            "latency_ms": _latency_ms(last),
            "log": dict(last.observation.values) if last and isinstance(watch, LogWatch) else None,
            "checked_at": moment(last.at) if last else None,
            "next_at": moment(daemon.scheduler.next_run(watch.name)) if is_due else None,
            "paused": paused is not None,
            "paused_until": moment(paused.until) if paused else None,
            "pause": pause_view(paused) if paused else None,
            "notify": list(daemon.pipeline.routing.of(watch.calm, watch.wish).notify),
        }

    def planned(self, name: str) -> Watch:
        watch = self._daemon.pipeline.watches.get(name)
        if watch is None:
            raise NotFound(f"no watch {name!r}; `agentd watches` shows them")
        return watch

    async def known_receiver(self, name: str) -> None:
        """One that the configuration names, or that messages are still kept for."""
        if not await self._daemon.store.state.read(lambda c: outbox.rows(c, webhook=name, limit=1)):
            self.known_webhook(name)

    def known_webhook(self, name: str) -> None:
        if name not in self._daemon.plan.webhooks:
            known = ", ".join(sorted(self._daemon.plan.webhooks)) or "none"
            raise NotFound(f"no webhook {name!r}; known: {known}")


def verdicts(watches: Iterable[Watch]) -> dict[str, int]:
    """How many watches have which verdict; `waiting` for those that none was made of yet."""
    return Counter(watch.verdict.value if watch.verdict else "waiting" for watch in watches)


def current(alerts: Iterable[Alert]) -> dict[str, int]:
    """How many alerts a person should see, by what they are."""
    return Counter(alert.status.value for alert in alerts if is_current(alert))


def check_view(check: Check) -> Json:
    """One check, for people: what was seen and what was made of it."""
    return {
        "at": iso(check.at),
        "verdict": check.judgement.verdict.value,
        "summary": check.judgement.summary,
        "duration_ms": round(check.observation.duration_s * 1000, 3),
        "alert": check.step.alert.status.value,
    }


def _latency_ms(last: Check | None) -> float | None:
    """Of an answer: how soon a connection was refused is no latency."""
    if last is None or last.observation.error is not None:
        return None
    found: float | None = last.observation.values.get("latency_ms")
    return found
