"""
The pages that people read: the overview, a watch, alerts, runs, the outbox, memory, audit, settings.

In: callers that the gate knows, and what the ports say. Out: HTML; `Actions` and `Public` add forms and what is open
to everybody.
Promise: what agents read and said is shown to known callers alone; a page that fails says so as a page.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, get_args

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agentd.alert.lifecycle import BLIND_RULE
from agentd.api.abridged import (
    abridged_alert,
    abridged_alert_page,
    abridged_delivery,
    abridged_event,
    abridged_message,
    abridged_run,
    abridged_watch,
    abridged_watch_row,
)
from agentd.api.caller import Access
from agentd.api.endpoint import Call, Endpoint
from agentd.api.reading import Reading, Span
from agentd.api.service import NotFound, Service
from agentd.api.settings_port import SettingsService
from agentd.api.tasks import TaskService
from agentd.api.web import looks, plots, record, text, tiles, timeline
from agentd.api.web.actions import Actions
from agentd.api.web.forms import Sessions
from agentd.api.web.frame import Build, Frame
from agentd.api.web.public import Public
from agentd.errors import AgentdError
from agentd.memory.ledger import RunState
from agentd.memory.outbox import STATES as OUTBOX_STATES

Json = dict[str, Any]
SPANS: tuple[Span, ...] = get_args(Span)
MOST_WATCHES = 200
MOST_ALERTS = 200
MOST_DELIVERIES = 200
MOST_RUNS = 100
_MOST_EVENTS = 50
_MOST_ROWS = 200
_MOST_TEMPLATES = 100
_NOTES = 50
_DEEDS = 50
_LATENCY = "latency"


class Pages:
    """
    tasks, settings: None: there are no such pages. sessions: who signs in with a key; None: nobody can.
    """

    def __init__(
        self,
        service: Service,
        reading: Reading,
        tasks: TaskService | None = None,
        settings: SettingsService | None = None,
        *,
        version: str,
        sessions: Sessions | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._service = service
        self._reading = reading
        self._tasks = tasks
        self._settings = settings
        self._frame = Frame(
            service,
            version=version,
            now=now,
            sessions=sessions is not None,
            runs=tasks is not None,
            settings=settings is not None,
        )
        self._actions = Actions(service, tasks, self._frame, sessions)
        self._public = Public(reading, self._frame)

    def endpoints(self) -> list[Endpoint]:
        def page(path: str, access: Access, build: Build, *reads: str) -> Endpoint:
            handle = self._page(build, reads)
            return Endpoint("GET", path, handle, access, documented=False, any_query=True, media="text/html")

        found = [
            page("/", "read", self._overview, "q", "state", "label"),
            page("/watches/{name}", "read", self._watch, "span", "before"),
            page("/alerts", "read", self._alerts, "all"),
            page("/alerts/{fingerprint}", "read", self._alert),
            page("/outbox", "read", self._outbox, "state", "webhook"),
            page("/outbox/{id}", "read", self._delivery),
            page("/memory", "records", self._memory, "q"),
            page("/audit", "records", self._audit, "before"),
        ]
        if self._tasks is not None:
            found.append(page("/runs", "read", self._runs, "watch", "state", "before"))
            found.append(page("/runs/{id}", "records", self._run, "after"))
        if self._settings is not None:
            found.append(page("/settings", "read", self._settings_page, "q"))
        return [*found, *self._actions.endpoints(), *self._public.endpoints()]

    async def refuse(self, request: Request, error: HTTPException | AgentdError) -> Response:
        """What went wrong at a page's address, as a page: for errors that come before the page does."""
        return await self._frame.problem(request, error)

    def _page(self, build: Build, reads: Sequence[str]) -> Callable[[Call], Awaitable[Response]]:
        async def handle(call: Call) -> Response:
            return await self._frame.page(call, build, reads)

        return handle

    # The overview.

    async def _overview(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        wanted = {key: query.get(key, "")[:200].strip() for key in ("q", "state", "label")}
        overview = await self._service.overview()
        status = overview["status"]

        def row_of(view: Json) -> Json:
            return looks.watch_row(_for(call, abridged_watch_row, view))

        rows = [row_of(view) for view in overview["watches"]]
        more = int(overview.get("more_watches") or 0)
        filtered = any(wanted.values())
        if filtered and more:
            known = {row["name"] for row in rows}
            rows += [row_of(view) for view in await self._service.watches() if view["name"] not in known]
            more = 0
        name, state, label = wanted["q"], wanted["state"], wanted["label"]
        fits = [row for row in rows if looks.matches(row, name=name, state=state, label=label)]
        alerts = [looks.alert_row(_for(call, abridged_alert, view)) for view in overview["alerts"]]
        values = {
            "trouble": list(status.get("trouble") or ()),
            "headline": tiles.headline(status, alerts, overview.get("more_alerts") or 0),
            "tiles": tiles.status_tiles(status, runs=self._tasks is not None),
            "alerts": alerts,
            "more_alerts": int(overview.get("more_alerts") or 0),
            "watches": fits[:MOST_WATCHES],
            "more_watches": more + max(0, len(fits) - MOST_WATCHES),
            "uptime_span": next((row["uptime_span"] for row in rows if row["uptime"] is not None), ""),
            "filter": {**wanted, "active": filtered},
            "states": [(state, looks.WORDS[state]) for state in looks.FILTERS],
            "config": status.get("config"),
        }
        return "overview.html", "Overview", values

    async def _watch(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        name = call.path["name"]
        span: Span = next((each for each in SPANS if each == query.get("span")), "24h")
        view = _for(call, abridged_watch, await self._reading.watch(name))
        series = await self._reading.series(name, span)
        history = await self._reading.history(
            watch=name, fingerprint=None, before=query.get("before") or None, limit=_MOST_EVENTS
        )
        row, check, value = looks.watch_row(view), view.get("check"), series.get("value")
        is_log = row["log"] is not None or row["kind"] in ("log", "journal")
        templates: list[Json] = []
        # Templates are made of what stands in a log.
        if is_log and row["enabled"] and call.caller.may("records"):
            found = await self._service.templates(name, limit=_MOST_TEMPLATES)
            templates = [_template(each) for each in found["templates"]]
        has_series = not is_log and (bool(series.get("points")) or any(series.get("bars") or ()))
        next_before = history.get("next")
        uptime = view.get("uptime") or {}
        values = {
            "watch": row,
            "is_log": is_log,
            "description": view.get("description") or "",
            "uptime": [(each, uptime.get(each)) for each in ("24h", "7d", "30d")] if not is_log else [],
            "alerts": [looks.alert_row(each) for each in view.get("alerts") or ()][:MOST_ALERTS],
            "more_alerts": view.get("more_alerts") or 0,
            "silences": [looks.silence_row(each) for each in view.get("silences") or ()],
            "rules": [_rule(each) for each in view.get("rules") or ()][:100],
            "findings": [_found(each) for each in view.get("findings") or () if each.get("finding")],
            "has_series": has_series,
            "series": {
                "bars": list(series.get("bars") or ()),
                "step_s": series.get("step_s"),
                "name": value.get("name") if isinstance(value, Mapping) else value or _LATENCY,
            },
            "pauses": [_pause(each) for each in series.get("pauses") or ()][-20:],
            "plot": plots.latency_plot(series),
            "spans": SPANS,
            "span": span,
            "most_rows": _MOST_ROWS,
            "check": looks.check_look(check, row["kind"]) if isinstance(check, Mapping) else None,
            "settings": list(looks.leaves(view.get("settings") or {}))[:200],
            "templates": templates,
            "runs": [looks.run_row(each) for each in view.get("runs") or ()],
            "events": [looks.event_row(_for(call, abridged_event, each)) for each in history.get("events") or ()],
            "older": text.with_query(text.to("watches", name), span=query.get("span"), before=next_before) + "#history"
            if next_before
            else None,
            "public": bool(view.get("public")),
        }
        return "watch.html", name, values

    # Alerts.

    async def _alerts(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        everything = query.get("all") in ("1", "true")
        found = await self._service.alerts(everything=everything)
        silences = await self._service.silences(everything=everything)
        values = {
            "everything": everything,
            "alerts": [looks.alert_row(_for(call, abridged_alert, each)) for each in found[:MOST_ALERTS]],
            "more": max(0, len(found) - MOST_ALERTS),
            "silences": [looks.silence_row(each) for each in silences[:_MOST_ROWS]],
        }
        return "alerts.html", "Alerts", values

    async def _alert(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        view = _for(call, abridged_alert_page, await self._reading.alert(call.path["fingerprint"]))
        alert = looks.alert_row(view)
        values = {
            "alert": alert,
            "matchers": looks.matchers_for(alert),
            "evidence": looks.evidence_groups(view.get("evidence") or ()),
            "links": looks.links(view.get("links")),
            "deliveries": [looks.delivery_row(each) for each in view.get("deliveries") or ()],
            "runs": [looks.run_row(each) for each in view.get("runs") or ()],
            "silences": [looks.silence_row(each) for each in view.get("silences") or ()],
            "events": [looks.event_row(each) for each in view.get("history") or ()],
            "cost": looks.cost_parts(alert["cost"] or {}),
            "of_log": alert["rule"] not in (None, BLIND_RULE),
        }
        name = f"{alert['watch']} / {alert['rule']}" if alert["rule"] else alert["watch"]
        return "alert.html", name, values

    # Runs.

    async def _runs(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        assert self._tasks is not None
        watch, state = query.get("watch", "")[:100].strip(), query.get("state", "")
        state = state if state in tuple(RunState) else ""
        found = await self._tasks.runs(
            watch=watch or None, state=state or None, limit=MOST_RUNS, before=query.get("before") or None
        )
        runs = [looks.run_row(_for(call, abridged_run, each)) for each in found]
        last = runs[-1]["id"] if len(runs) == MOST_RUNS else None
        older = text.with_query("/runs", watch=watch, state=state, before=last) if last else None
        status = await self._frame.status()
        values = {
            "runs": runs,
            "older": older,
            "filter": {"watch": watch, "state": state, "active": bool(watch or state)},
            "states": [each.value for each in RunState],
            "agents": tiles.agent_tiles(status.get("agents")),
        }
        return "runs.html", "Runs", values

    async def _run(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        assert self._tasks is not None
        id = call.path["id"]
        after = int(query["after"]) if query.get("after", "").isdecimal() and len(query["after"]) < 9 else -1
        page = await self._reading.run_page(id)
        try:
            kept = await self._tasks.run(id, after)
        except NotFound:
            kept = {}
        names = record.model_names(kept.get("record") or ()) if after < 0 else {}
        run, line = page["run"], timeline.timeline(page, names)
        lines = record.entries(kept.get("record") or (), from_begin=after < 0)
        finding, answer = run.get("finding"), str(run.get("answer") or "")
        summary = finding.get("summary") if isinstance(finding, Mapping) else None
        row = looks.run_row(run)
        row["took_s"] = run.get("took_s") if run.get("took_s") is not None else row["took_s"]
        plan = run.get("plan")
        values = {
            "run": row,
            "goal": str(run.get("goal") or ""),
            "finding": looks.finding_look(finding) if isinstance(finding, Mapping) else None,
            # Of a finding the answer often says the same again.
            "answer": answer if answer.strip() and answer.strip() != (summary or "").strip() else "",
            "line": line,
            "record": lines,
            "anchors": {entry.id for entry in lines if entry.id},
            "plan": looks.values(plan, 10) if isinstance(plan, Mapping) else [],
            "whole": bool(kept.get("whole", True)),
            "next": kept.get("next"),
            "trace_id": run.get("trace_id"),
        }
        return "run.html", f"Run {id}", values

    # The outbox.

    async def _outbox(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        state, webhook = query.get("state", ""), query.get("webhook", "")[:200].strip()
        state = state if state in OUTBOX_STATES else ""
        try:
            found = await self._service.outbox(state=state or None, webhook=webhook or None, limit=MOST_DELIVERIES)
        except NotFound:
            found = {"deliveries": []}
        rows = [looks.delivery_row(_for(call, abridged_delivery, each)) for each in found["deliveries"]]
        status = await self._frame.status()
        outbox = status.get("outbox") or {}
        disabled = {str(each) for each in outbox.get("disabled_webhooks") or ()}
        failing = {str(name): since for name, since in (outbox.get("failing_webhooks") or {}).items()}
        names = disabled | {str(row["webhook"]) for row in rows} | await self._webhooks()
        values = {
            "rows": rows,
            "limit": MOST_DELIVERIES,
            "outbox": {key: outbox.get(key) or 0 for key in ("waiting", "dead", "held")},
            "webhooks": [
                {"name": name, "disabled": name in disabled, "failing": failing.get(name)} for name in sorted(names)
            ][:100],
            "filter": {"state": state, "webhook": webhook, "active": bool(state or webhook)},
            "states": OUTBOX_STATES,
        }
        return "outbox.html", "Outbox", values

    async def _webhooks(self) -> set[str]:
        if self._settings is None:
            return set()
        config = (await self._settings.config()).get("config") or {}
        found = config.get("webhooks") or {}
        if isinstance(found, Mapping):
            return {str(name) for name in found}
        return {str(each["name"]) for each in found if isinstance(each, Mapping) and "name" in each}

    async def _delivery(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        view = _for(call, abridged_message, await self._service.delivery(call.path["id"]))
        data = view.get("data")
        shown = "" if data is None else json.dumps(data, ensure_ascii=False, indent=2, default=str)
        return "delivery.html", "Message", {"row": looks.delivery_row(view), "data": shown}

    # Memory and settings.

    async def _memory(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        words = query.get("q", "")[:300].strip()
        found = await self._reading.memory(words or None, _NOTES)
        values = {
            "notes": [_note(each) for each in found.get("notes") or ()],
            "worked": list(found.get("worked") or ())[:_NOTES],
            "tiles": tiles.memory_tiles(found.get("sizes") or {}),
            "filter": {"q": words, "active": bool(words)},
        }
        return "memory.html", "Memory", values

    async def _audit(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        found = await self._reading.audit(query.get("before") or None, _DEEDS)
        next_before = found.get("next")
        values = {
            "audit": [looks.deed_row(each) for each in found.get("deeds") or ()],
            "older": text.with_query("/audit", before=next_before) if next_before else None,
        }
        return "audit.html", "Audit", values

    async def _settings_page(self, call: Call, query: Mapping[str, str]) -> tuple[str, str, Json]:
        assert self._settings is not None
        wanted = query.get("q", "")[:100].strip()
        found = await self._settings.config()
        config = found.get("config") or {}
        origins, live = (
            looks.spelled_origins(found.get("origins") or {}, config),
            [str(each) for each in found.get("live") or ()],
        )
        sections: dict[str, list[Json]] = {}
        count = 0
        for key, value in looks.leaves(config):
            origin = looks.origin_of(key, origins)
            if wanted and wanted.lower() not in f"{key} {value} {origin}".lower():
                continue
            count += 1
            is_live = any(fnmatchcase(key, each) for each in live)
            sections.setdefault(key.partition(".")[0], []).append(
                {"key": key, "value": value, "origin": origin, "live": is_live}
            )
        shown = [
            {"name": name, "rows": rows[:1000], "open": bool(wanted) or any(row["origin"] for row in rows)}
            for name, rows in sections.items()
        ]
        return "settings.html", "Settings", {"sections": shown, "count": count, "q": wanted}


def _for(call: Call, abridged: Callable[[Any], Any], view: Any) -> Any:
    """The view as the caller may see it."""
    return view if call.caller.may("records") else abridged(view)


def _note(note: Json) -> Json:
    shown = note.get("snippet") or note.get("text") or ""
    return {**{key: note.get(key) for key in ("at", "type", "run", "watch", "fingerprint", "tool")}, "text": str(shown)}


def _found(found: Json) -> Json:
    return {"run": found.get("run"), "at": found.get("at"), "finding": looks.finding_look(found["finding"])}


def _rule(rule: Json) -> Json:
    return {key: rule.get(key) for key in ("name", "severity", "firing", "resolve_after_s")}


def _pause(pause: Json) -> Json:
    return {key: pause.get(key) for key in ("from", "to", "by", "reason")}


def _template(row: Json) -> Json:
    return {
        "id": row.get("id"),
        "template": text.one_line(row.get("template") or "", 600),
        "count": row.get("count"),
        "rate": row.get("rate_per_hour"),
        "first_at": row.get("first_at"),
        "last_at": row.get("last_at"),
        "samples": [text.one_line(each, 1000) for each in (row.get("samples") or ())[:5]],
    }
