"""
What the daemon knows, for the tools that ask and for the exhibits that a run begins with.

In: questions of a run, a queued run. Out: plain JSON, bounded; exhibits.
Promise: only reads. What is told of logs are kinds of lines with counts and samples, never the flood.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import apsw

from agentd.agent.job import Exhibit, Job
from agentd.agent.port import ToolFailure
from agentd.api.views import alert_view, is_current, template_view
from agentd.clock import Clock, iso
from agentd.config.agents import EmbeddingsSettings
from agentd.config.models import Config
from agentd.daemon.runs.embedding import embed
from agentd.daemon.runs.jobs import in_its_scenario
from agentd.errors import StoreError
from agentd.fleet.messages import ErrorKind
from agentd.memory import events, ledger, notes, results, rollups, templates, worked
from agentd.memory.ledger import Run
from agentd.memory.meaning import Meaning
from agentd.memory.notes import Note
from agentd.memory.recall import recall
from agentd.memory.store import Store
from agentd.records import Alert, CheckResult
from agentd.telemetry.redact import redact

log = logging.getLogger("agentd.daemon")

Json = dict[str, Any]
T = TypeVar("T")

_MOST = 500
_RECENT = 20
_LOGS_SHOWN = 10
_TEMPLATES_SHOWN = 200
_PAYLOAD_CHARS = 8192
_SAID = ("description", "every", "cron", "expect", "depends_on", "rules", "labels")
_QUERY_CHARS = 1000


class Known(Protocol):
    """Holds watches by name and alerts by fingerprint, as the pipeline does."""

    @property
    def watches(self) -> Mapping[str, Any]: ...

    @property
    def alerts(self) -> Mapping[str, Alert]: ...


class Answers:
    """config: the one that runs."""

    def __init__(self, keeper: Known, store: Store, clock: Clock, config: Callable[[], Config]) -> None:
        self._keeper = keeper
        self._store = store
        self._clock = clock
        self._config = config
        self._meaning: tuple[EmbeddingsSettings, Meaning] | None = None

    async def ask(self, job: Job, what: str, args: Mapping[str, Any]) -> Any:
        """Raises ToolFailure."""
        try:
            limit = max(1, min(int(args.get("limit", 50)), _MOST))
            since, until = _moment(args.get("since")), _moment(args.get("until"))
        except (TypeError, ValueError, OverflowError) as error:
            raise ToolFailure(f"cannot be asked so: {str(error)[:200]}", ErrorKind.INVALID_INPUT) from error
        watch = args.get("watch")
        if watch is not None and (not isinstance(watch, str) or watch not in self._keeper.watches):
            known = ", ".join(list(self._keeper.watches)[:50]) or "none"
            raise ToolFailure(f"there is no watch {str(watch)[:60]!r}; there are: {known}", ErrorKind.INVALID_INPUT)
        try:
            if what == "templates":
                return await self._templates(str(watch), limit)
            if what == "memory":
                return await self._memory(str(args.get("query", ""))[:_QUERY_CHARS], watch, limit)
            if what == "history":
                return await self._history(str(args.get("kind", "results")), watch, since, until, limit)
        except StoreError as error:
            raise ToolFailure(f"the store cannot be read now: {error}", again=True) from error
        raise ToolFailure(f"nobody here answers {what[:40]!r}", ErrorKind.TOOL_NOT_FOUND)

    async def _history(
        self, kind: str, watch: str | None, since: datetime | None, until: datetime | None, limit: int
    ) -> Any:
        if kind == "alerts":
            return await self._alerts(watch, since, until, limit)
        if kind == "runs":
            rows = await self._store.state.read(lambda c: ledger.runs(c, watch=watch, limit=limit))
            return [run_line(run) for run in rows if _within(run.due_at, since, until)]
        name = str(watch)
        now = self._clock.now()
        begin, end = since or now - timedelta(hours=24), until or now
        found = await self._store.history.read(lambda c: results.last(c, name, limit))
        bad = await self._store.history.read(lambda c: results.last_bad(c, name, limit))
        step = max(timedelta(minutes=1), (end - begin) / 60)
        points = await self._store.history.read(lambda c: rollups.series(c, name, begin, end, step))
        return {
            "newest": [_result(each) for each in found if _within(each.at, since, until)],
            "newest_bad": [_result(each) for each in bad if _within(each.at, since, until)],
            "over_time": [_point(each) for each in points],
        }

    async def _alerts(self, watch: str | None, since: datetime | None, until: datetime | None, limit: int) -> Any:
        alerts = (each for each in self._keeper.alerts.values() if watch is None or each.watch == watch)
        # Of ten thousand that fire, views of those alone that are shown.
        current = [_without_empty(alert_view(each)) for each in islice(filter(is_current, alerts), limit)]
        past = await self._store.history.read(lambda c: events.last(c, watch=watch, limit=limit))
        earlier = [
            {"at": iso(each.at), "kind": each.kind, "watch": each.watch, **_without_empty(each.data)}
            for each in past
            if each.kind.startswith("alert") and _within(each.at, since, until)
        ]
        return {"now": current, "earlier": earlier}

    async def _templates(self, watch: str, limit: int) -> Any:
        rows = await self._store.history.read(lambda c: templates.of(c, watch, limit))
        return [template_view(row) for row in rows]

    async def _memory(self, query: str, watch: str | None, limit: int) -> Any:
        if (meaning := self.meaning()) is not None:
            return [_noted(note, note.text[:1000]) for note in await meaning.search(query, watch=watch, limit=limit)]

        def look(c: Any) -> Sequence[notes.Found]:
            found = notes.search(c, query, watch=watch, limit=limit)
            return found or notes.search(c, query, watch=watch, any_word=True, limit=limit)

        found = await self._store.history.read(look)
        return [_noted(each.note, each.snippet) for each in found]

    def meaning(self) -> Meaning | None:
        """Recall by meaning, where the configuration names an endpoint."""
        settings = self._config().embeddings
        if settings is None:
            return None
        if self._meaning is None or self._meaning[0] != settings:
            self._meaning = settings, Meaning(self._store.history, partial(embed, settings), settings.model)
        return self._meaning[1]

    async def advised(self, job: Job) -> Job:
        """The job in its scenario, with what worked before in that."""
        job = await asyncio.to_thread(in_its_scenario, job)
        found = await self._past(lambda c: worked.advice(c, job.scenario or job.kind))
        return job.model_copy(update={"strategies": tuple(found)})

    async def _past(self, look: Callable[[apsw.Connection], Sequence[T]]) -> Sequence[T]:
        """What history says; nothing where it cannot be read: what was costs no run."""
        try:
            return await self._store.history.read(look)
        except StoreError as error:
            log.warning("history_not_read", extra={"error": str(error)})
            return ()

    async def exhibits(self, run: Run, alert: Alert | None) -> tuple[Exhibit, ...]:
        """
        What a run begins with: the alert that it is about and what is known of it, what started it, the logs of a
        review.
        """
        found: list[Exhibit] = []
        if alert is not None:
            found += await self._of_alert(alert)
        if (event := run.asked.get("event")) is not None:
            text = json.dumps(run.asked.get("payload"), ensure_ascii=False, indent=1)[:_PAYLOAD_CHARS]
            found.append(Exhibit(id="", title=f"Event that started this run: {event}", text=text))
        if run.kind == "goal":
            found += await self._of_logs()
        return tuple(each.model_copy(update={"id": f"e{number}"}) for number, each in enumerate(found, 1))

    async def _of_alert(self, alert: Alert) -> Sequence[Exhibit]:
        rows = await self._past(lambda c: templates.of(c, alert.watch, _TEMPLATES_SHOWN))
        recent = await self._past(lambda c: results.last(c, alert.watch, _RECENT))
        past = await self._past(lambda c: recall(c, alert.fingerprint, alert.watch, alert.summary, 5))
        others = [each for each in self._keeper.alerts.values() if is_current(each) and each is not alert]
        history = {
            "results": [_result(each) for each in recent],
            "incidents": [{"past": each.line()} for each in past],
            "other alerts now": [
                {"watch": each.watch, "state": each.status.value, "since": iso(each.started_at or self._clock.now())}
                | {"summary": each.summary}
                for each in others[:_RECENT]
            ],
        }
        from agentd.agent.digest import alert_exhibits  # here, not above: a daemon that asks no agent needs it not

        exhibits = alert_exhibits(alert, [template_view(row) for row in rows], history)
        return [*self._of_watch(alert.watch), *exhibits]

    def _of_watch(self, name: str) -> list[Exhibit]:
        """What the watch looks at, as the configuration says it: names of secrets, never secrets."""
        watch = next((each for each in self._config().watches if each.name == name), None)
        if watch is None:
            return []
        said = {key: value for key, value in watch.model_dump(mode="json", exclude_unset=True).items() if key in _SAID}
        kind = watch.shown_kind
        if kind is not None and (source := getattr(watch, kind)) is not None and not isinstance(source, str):
            said[kind] = source.model_dump(mode="json", exclude_unset=True)
        text = redact(json.dumps(said, ensure_ascii=False, indent=1, default=str))
        return [Exhibit(id="", title=f"Watch {name} as configured", text=text[:_PAYLOAD_CHARS])]

    async def _of_logs(self) -> list[Exhibit]:
        from agentd.agent.digest import log_digest

        found = []
        since = self._clock.now() - timedelta(hours=24)
        for watch in self._config().logs[:_LOGS_SHOWN]:
            name = watch.name
            rows = await self._past(partial(templates.of, watch=name, limit=_TEMPLATES_SHOWN))
            fresh = [row for row in rows if row.last_at >= since]
            if fresh:
                text = log_digest([template_view(row) for row in fresh], since=since, limit_bytes=4096)
                found.append(Exhibit(id="", title=f"Log of {name}: kinds of lines of the last 24 hours", text=text))
        return found


def run_line(run: Run) -> Json:
    """A run in a few words."""
    finding = run.outcome.finding or {}
    return {
        "run": run.id,
        "watch": run.watch,
        "state": run.state.value,
        "at": iso(run.due_at),
        "goal": run.goal[:200],
        "finding": finding.get("summary") or run.outcome.answer[:500],
    }


def _noted(note: Note, text: str) -> Json:
    said = {"at": iso(note.at), "type": note.type, "watch": note.watch, "run": note.run, "tool": note.tool}
    return said | {"text": text}


def _result(result: CheckResult) -> Json:
    said = {"at": iso(result.at), "verdict": result.verdict.value, "duration_ms": round(result.duration_s * 1000, 1)}
    if result.latency_ms is not None:
        said["latency_ms"] = round(result.latency_ms, 1)
    return said | ({"summary": result.summary} if result.summary else {})


def _point(point: rollups.Point) -> Json:
    return {"at": iso(point.at), "checks": point.count, "failing": point.failing, "blind": point.blind} | {
        "latency_ms": None if point.avg_ms is None else round(point.avg_ms, 1)
    }


def _without_empty(data: Mapping[str, Any]) -> Json:
    return {key: value for key, value in data.items() if value not in (None, "", [], {}, False)}


def _moment(text: Any) -> datetime | None:
    at = datetime.fromisoformat(text) if isinstance(text, str) else None
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)


def _within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at <= until)
