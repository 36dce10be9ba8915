"""
A daemon for the page: ports that answer with views as the daemon gives them, and the page before them.

In: what a view should say. Out: an HTTP client of the page, and what the ports were asked.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, cast

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentd.api.caller import Caller
from agentd.api.routing import routes_of
from agentd.api.service import NotFound, Service, TooMany
from agentd.api.settings_port import SettingsService
from agentd.api.tasks import TaskService
from agentd.api.web.pages import Pages
from agentd.errors import AgentdError

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FINGERPRINT = "0a7c444ea98ddf621b91dc93a9153328"
CSRF = "token-of-the-session"
COOKIE_VALUE = "cookie-value".ljust(43, "x")
KEY = "agentd_ops.secret"
NEAR = Caller("nobody", None, "nobody", near=True)
READER = Caller("dash", "read", "session", csrf=CSRF)
OPERATOR = Caller("ops", "operate", "session", csrf=CSRF)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'\u202etxt.exe\u200b\x1b[2J\ud800{{ 7*7 }}"


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FINDING: Json = {
    "status": "problem",
    "severity": "critical",
    "summary": "the pool is exhausted",
    "claims": [{"text": "no connections are left", "evidence": ["e2"], "quotes": ["FATAL: quoted words"]}],
    "next_steps": ["roll back"],
    "confidence": 0.8,
    "unverified": True,
    "sources": {"e2": "search_log"},
}


def watch_view(name: str = "shop", **changed: Any) -> Json:
    view: Json = {
        "name": name,
        "kind": "http",
        "enabled": True,
        "verdict": "failing",
        "summary": "503 Service Unavailable",
        "alert": "firing",
        "severity": "critical",
        "labels": {"team": "web"},
        "latency_ms": 12.3,
        "log": None,
        "checked_at": at(seconds=7),
        "next_at": at(seconds=-23),
        "paused": False,
        "paused_until": None,
        "pause": None,
        "notify": ["ops"],
        "strip": [None, "ok", "failing", "blind"],
    }
    return view | changed


def alert_view(**changed: Any) -> Json:
    view: Json = {
        "fingerprint": FINGERPRINT,
        "watch": "shop",
        "rule": "errors",
        "by": {"host": "web-2"},
        "state": "firing",
        "severity": "critical",
        "instance": "web-1",
        "summary": "it is down",
        "reason": "failing",
        "reason_text": "3 in a row",
        "labels": {"runbook": "https://wiki.example/shop"},
        "values": {"status": 503},
        "failed": ["[STATUS] == 200"],
        "pending_since": at(minutes=15),
        "started_at": at(minutes=14),
        "ended_at": None,
        "blind_since": None,
        "occurrences": 42,
        "acked_by": None,
        "muted_by": None,
        "flapping": True,
        "told": ["ops"],
        "finding": FINDING,
        "cost": {"usd": 0.01},
        "trace_id": "4bf92f35",
    }
    return view | changed


def run_view(**changed: Any) -> Json:
    view: Json = {
        "id": "run_1",
        "watch": "shop",
        "kind": "investigate",
        "trigger": "alert:shop",
        "state": "completed",
        "goal": "find out why",
        "fingerprint": FINGERPRINT,
        "due_at": at(minutes=10),
        "started_at": at(minutes=10),
        "ended_at": at(minutes=9),
        "status": "problem",
        "summary": "the pool is exhausted",
        "error": None,
        "steps": 2,
        "model_calls": 2,
        "tokens": 1234,
        "usd": 0.0123,
        "models": ["sonnet"],
    }
    return view | changed


def delivery_view(**changed: Any) -> Json:
    view: Json = {
        "id": "msg_1",
        "webhook": "ops",
        "lane": "l",
        "type": "alert.firing",
        "state": "dead",
        "note": None,
        "fingerprint": FINGERPRINT,
        "created_at": at(minutes=14),
        "due_at": at(minutes=2),
        "attempts": 8,
        "last_error": "HTTP 500",
        "last_status": 500,
        "ended_at": None,
        "superseded": False,
    }
    return view | changed


SILENCE: Json = {
    "id": "9f2c11aa",
    "state": "active",
    "matchers": ["watch=shop"],
    "starts_at": at(hours=1),
    "ends_at": at(hours=-3),
    "author": "carol",
    "reason": "router swap",
    "ended_by": None,
}
EVENT: Json = {
    "id": "7",
    "at": at(minutes=14),
    "kind": "alert.firing",
    "watch": "shop",
    "fingerprint": FINGERPRINT,
    "rule": "errors",
    "severity": "critical",
    "before": "pending",
    "after": "firing",
    "reason": "failing",
    "reason_text": "3 in a row",
    "summary": "it is down",
    "trace_id": None,
    "run": None,
}
RECORD: list[Json] = [
    {
        "seq": 1,
        "at_s": 1.0,
        "kind": "model",
        "data": {
            "purpose": "step",
            "model": "default",
            "answer": {"content": "let me look", "tool_calls": [{"name": "read_file", "arguments": "{}"}]},
        },
    },
    {"seq": 2, "at_s": 1.0, "kind": "task", "data": {"task": "s1.1", "tool": "read_file", "input": {"path": "/x"}}},
    {"seq": 3, "at_s": 2.0, "kind": "result", "data": {"task": "s1.1", "tool": "read_file", "output": "words of it"}},
    {"seq": 4, "at_s": 2.1, "kind": "decision", "data": {"decision": "replan", "reason": "one failed"}},
]


def lane(id: str, start_s: float, end_s: float, **changed: Any) -> Json:
    found: Json = {
        "id": id,
        "label": "read_file /x",
        "kind": "tool",
        "start_s": start_s,
        "end_s": end_s,
        "ok": True,
        "detail": "words of it",
        "tokens": None,
        "usd": None,
        "depends_on": ["m1"],
        "attempts": 1,
    }
    return found | changed


@dataclass
class Views:
    """What the ports say; a test changes it before it asks."""

    status: Json = field(
        default_factory=lambda: {
            "state": "running",
            "version": "1",
            "instance": "web-1",
            "uptime": "3h",
            "config": "/etc/agentd/agentd.yaml",
            "trouble": ["webhook ops took nothing"],
            "watches": {"total": 2, "ok": 1, "failing": 1},
            "alerts": {"firing": 1},
            "outbox": {"waiting": 2, "dead": 1, "held": False, "disabled_webhooks": ["pager"]}
            | {"failing_webhooks": {"ops": at(minutes=12)}},
            "checks": {"lag_p99_ms": 1.5},
            "agents": {
                "running": 1,
                "queued": 0,
                "model": "default",
                "today": {"usd": 0.4, "usd_limit": 5, "tokens": 9},
            },
        }
    )
    watches: list[Json] = field(
        default_factory=lambda: [watch_view(), watch_view("mail", verdict="ok", labels={"team": "post"}, alert="ok")]
    )
    alerts: list[Json] = field(default_factory=lambda: [alert_view()])
    silences: list[Json] = field(default_factory=lambda: [copy.deepcopy(SILENCE)])
    deliveries: list[Json] = field(default_factory=lambda: [delivery_view()])
    runs: list[Json] = field(
        default_factory=lambda: [run_view(), run_view(id="run_2", watch="task", goal="a question")]
    )
    more: Json = field(
        default_factory=lambda: {
            "description": "the front door",
            "public": True,
            "settings": {"http": {"url": "https://shop.example"}, "every": "30s"},
            "check": {
                "at": at(seconds=7),
                "verdict": "failing",
                "summary": "503",
                "duration_ms": 214.3,
                "alert": "firing",
                "values": {"status": 503},
                "conditions": [{"text": "[STATUS] == 200", "ok": False}, {"text": "[BODY] == 1", "ok": None}],
            },
            "blind_since": None,
            "uptime": {"24h": 0.97, "7d": 0.9999, "30d": None},
            "alerts": [alert_view()],
            "more_alerts": 0,
            "silences": [copy.deepcopy(SILENCE)],
            "rules": [{"name": "errors", "severity": "warning", "resolve_after_s": 600.0, "firing": 1}],
            "runs": [run_view()],
            "findings": [{"run": "run_1", "at": at(minutes=9), "finding": FINDING}],
        }
    )
    series: Json = field(
        default_factory=lambda: {
            "watch": "shop",
            "kind": "http",
            "span": "24h",
            "from": at(hours=24),
            "to": at(),
            "step_s": 900,
            "source": "rollups",
            "value": {"name": "latency", "unit": "ms"},
            "points": [
                {"at": at(hours=2), "count": 9, "ok": 9, "failing": 0, "blind": 0, "min": 1, "mean": 2, "max": 3},
                {"at": at(hours=1.75), "count": 9, "ok": 8, "failing": 1, "blind": 0, "min": 2, "mean": 3, "max": 9},
            ],
            "bars": ["ok"] * 88 + ["failing", "paused"],
            "bars_from": at(hours=24),
            "bar_s": 960,
            "pauses": [{"from": at(hours=5), "to": None, "by": "alice", "reason": "deploy"}],
        }
    )
    events: list[Json] = field(default_factory=lambda: [copy.deepcopy(EVENT)])
    evidence: list[Json] = field(default_factory=lambda: [{"file": "/var/log/app.log", "line": "the line of the log"}])
    templates: list[Json] = field(
        default_factory=lambda: [
            {
                "id": 1,
                "template": "GET * 500",
                "count": 12,
                "rate_per_hour": 3.5,
                "first_at": at(days=1),
                "last_at": at(),
                "samples": ["GET /checkout 500"],
            }
        ]
    )
    run_page: Json = field(
        default_factory=lambda: {
            "run": run_view() | {"answer": "because", "finding": FINDING, "plan": {"approach": "look"}, "took_s": 2.2},
            "total_s": 2.2,
            "lanes": [
                lane("m1", 0.1, 1.0, kind="model", label="sonnet", tokens=99, usd=0.004, depends_on=[]),
                lane("s1.1", 1.0, 2.0, ok=False, attempts=2),
                lane("n1", 2.1, 2.1, kind="note", ok=None),
            ],
            "more_lanes": 0,
            "spans": [],
            "whole": True,
        }
    )
    record: list[Json] = field(default_factory=lambda: copy.deepcopy(RECORD))
    memory: Json = field(
        default_factory=lambda: {
            "query": None,
            "notes": [
                {
                    "id": 1,
                    "type": "final",
                    "at": at(hours=1),
                    "run": "run_1",
                    "watch": "shop",
                    "fingerprint": FINGERPRINT,
                    "tool": None,
                    "step": None,
                    "text": "what was noted",
                    "snippet": None,
                    "finding": FINDING,
                }
            ],
            "worked": [
                {
                    "kind": "task",
                    "worker": "io",
                    "shape": "single",
                    "model": "sonnet",
                    "runs": 3,
                    "successes": 2,
                    "latency_s": 4.2,
                    "tokens": 100,
                    "usd": None,
                    "last_at": at(hours=1),
                }
            ],
            "sizes": {"notes": {"final": 1}, "runs": {"completed": 3}, "state_bytes": 1, "history_bytes": 1},
        }
    )
    deeds: list[Json] = field(
        default_factory=lambda: [
            {"id": "1", "at": at(), "who": "key ops", "action": "ack", "target": "shop", "detail": "on it"}
        ]
    )
    config: Json = field(
        default_factory=lambda: {
            "config": {
                "api": {"listen": ["127.0.0.1:1"]},
                "models": {"default": {"api_key": "***"}},
                "webhooks": {"ops": {}},
            },
            "origins": {"api.listen": "/etc/agentd/agentd.yaml:3"},
            "live": ["models.*"],
        }
    )
    public: Json = field(
        default_factory=lambda: {
            "instance": "web-1",
            "at": at(),
            "state": "failing",
            "watches": [{"name": "shop", "state": "failing", "uptime_30d": 0.9912, "bars": ["ok"] * 89 + ["failing"]}],
            "more_watches": 0,
        }
    )


class Ports:
    """Service, Reading, TaskService and SettingsService in one. asked: what changes something, as it was asked."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self.asked: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.overviews = 0
        self.publics = 0
        self.logins: list[tuple[str, bool, str]] = []

    def _did(self, *what: Any) -> Json:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails
        return {"retried": 3, "ok": True}

    def state(self) -> str:
        return "running"

    async def status(self) -> Json:
        return self.views.status

    async def watches(self) -> list[Json]:
        return self.views.watches

    async def overview(self) -> Json:
        self.overviews += 1
        current = [each for each in self.views.alerts if each["state"] in ("firing", "pending")]
        return {
            "status": self.views.status,
            "watches": self.views.watches,
            "more_watches": 0,
            "alerts": current,
            "more_alerts": 0,
        }

    async def alerts(self, *, everything: bool) -> list[Json]:
        return self.views.alerts

    async def silences(self, *, everything: bool) -> list[Json]:
        return self.views.silences

    async def templates(self, watch: str, *, limit: int) -> Json:
        return {"watch": watch, "templates": self.views.templates}

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json:
        return {"deliveries": [each for each in self.views.deliveries if state in (None, each["state"])]}

    async def delivery(self, identity: str) -> Json:
        told = {key: self.views.alerts[0][key] for key in ("watch", "rule", "summary", "reason_text")}
        return self.views.deliveries[0] | {"data": told | {"finding": FINDING}}

    async def ack(self, alerts: Any, *, by: str, comment: str, undo: bool) -> Json:
        return self._did("ack", list(alerts), by, comment, undo)

    async def silence(self, asked: Any, *, by: str) -> Json:
        return self._did("silence", asked.matchers, asked.lasting, asked.reason, by)

    async def end_silence(self, identity: str, *, by: str) -> Json:
        return self._did("end_silence", identity, by)

    async def check_now(self, watch: str, *, by: str) -> Json:
        return self._did("check", watch, by)

    async def signed_in(self, name: str, *, good: bool, source: str) -> None:
        self.logins.append((name, good, source))

    async def pause(self, watch: str, *, by: str, for_s: float | None, reason: str) -> Json:
        return self._did("pause", watch, by, for_s, reason)

    async def resume(self, watch: str, *, by: str) -> Json:
        return self._did("resume", watch, by)

    async def retry(self, identity: str | None, *, webhook: str | None, by: str) -> Json:
        return self._did("retry", identity, webhook, by)

    async def drop(self, identity: str, *, by: str) -> Json:
        return self._did("drop", identity, by)

    async def test_webhook(self, webhook: str, *, by: str) -> Json:
        return self._did("test", webhook, by)

    async def enable_webhook(self, webhook: str, *, by: str) -> Json:
        return self._did("enable", webhook, by)

    # Reading.

    async def watch(self, name: str) -> Json:
        for each in self.views.watches:
            if each["name"] == name:
                return each | self.views.more
        raise NotFound(f"no watch {name!r}; `agentd watches` shows them")

    async def series(self, name: str, span: str) -> Json:
        return self.views.series | {"span": span}

    async def history(self, *, watch: str | None, fingerprint: str | None, before: str | None, limit: int) -> Json:
        return {"events": self.views.events, "next": "6"}

    async def alert(self, fingerprint: str) -> Json:
        return self.views.alerts[0] | {
            "last_at": None,
            "escalated": 0,
            "evidence": self.views.evidence,
            "history": self.views.events,
            "history_next": None,
            "deliveries": self.views.deliveries,
            "runs": self.views.runs,
            "silences": self.views.silences,
            "watch_view": None,
        }

    async def run_page(self, id: str) -> Json:
        return self.views.run_page

    async def memory(self, query: str | None, limit: int) -> Json:
        return self.views.memory

    async def audit(self, before: str | None, limit: int) -> Json:
        return {"deeds": self.views.deeds, "next": None}

    async def public(self) -> Json:
        self.publics += 1
        return self.views.public

    async def public_watch(self, name: str) -> Json:
        for each in self.views.public["watches"]:
            if each["name"] == name:
                return {**each, "uptime": {"24h": 1.0, "7d": None, "30d": 0.9912}}
        raise NotFound("no such watch")

    # Tasks and settings.

    async def runs(self, *, watch: str | None, state: str | None, limit: int, before: str | None = None) -> list[Json]:
        return self.views.runs

    async def run(self, id: str, after: int = -1) -> Json:
        return {"record": self.views.record, "whole": True, "next": None}

    async def cancel(self, id: str, *, by: str) -> Json:
        return self._did("cancel", id, by)

    async def config(self) -> Json:
        return self.views.config


class Sessions:
    def __init__(self) -> None:
        self.closed: list[str] = []
        self.too_many = False
        self.secure = False

    async def open(self, key: str) -> tuple[str, Caller] | None:
        if self.too_many:
            raise TooMany("too many", retry_after_s=7)
        return (COOKIE_VALUE, OPERATOR) if key == KEY else None

    def close(self, cookie: str) -> None:
        self.closed.append(cookie)


class Stage:
    """The page for one caller. ports: what it stands on."""

    def __init__(self, caller: Caller = OPERATOR, views: Views | None = None, *, whole: bool = True) -> None:
        self.views = views or Views()
        self.ports = Ports(self.views)
        self.sessions = Sessions()
        self.caller = caller
        self.pages = Pages(
            cast(Service, self.ports),
            self.ports,
            cast(TaskService, self.ports) if whole else None,
            cast(SettingsService, self.ports) if whole else None,
            version="1.2.3",
            sessions=self.sessions,
            now=lambda: NOW,
        )
        inner = Starlette(
            routes=routes_of(self.pages.endpoints()),
            exception_handlers={HTTPException: self._refuse, AgentdError: self._refuse},
        )

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["agentd.caller"] = self.caller
            await inner(scope, receive, send)

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException | AgentdError)
        return await self.pages.refuse(request, error)

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path)

    async def see(self, path: str) -> Seen:
        """The page there, which must be good."""
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return Seen.of(answer.text)

    async def send(self, path: str, **fields: str) -> httpx.Response:
        return await self.client.post(path, data={"csrf": CSRF, **fields})


PAGES = (
    "/",
    "/watches/shop",
    "/alerts",
    f"/alerts/{FINGERPRINT}",
    "/runs",
    "/runs/run_1",
    "/outbox",
    "/outbox/msg_1",
    "/memory",
    "/audit",
    "/settings",
    "/status",
    "/login",
)
OF_STATES = frozenset(
    {"state", "verdict", "alert", "kind", "type", "severity", "before", "after", "fingerprint", "id", "span", "strip"}
    | {
        "bars",
        "at",
        "from",
        "to",
        "name",
        "disabled_webhooks",
        "failing_webhooks",
        "live",
        "watch",
        "webhook",
        "href",
        "next",
    }
)


def poisoned(value: Any, text: str = HOSTILE, *, keep: frozenset[str] = OF_STATES) -> Any:
    """The same view with `text` for every text that somebody outside could have written, and in keys of free maps."""
    if isinstance(value, str):
        return text
    if isinstance(value, Mapping):
        return {
            key: each
            if key in keep or key.endswith(("_at", "_since", "_from"))
            else {text: text}
            if key in ("labels", "by", "values", "sources")
            else poisoned(each, text, keep=keep)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [poisoned(each, text, keep=keep) for each in value]
    return value


def poisoned_views(text: str = HOSTILE) -> Views:
    views = Views()
    for name, value in vars(views).items():
        setattr(views, name, poisoned(value, text))
    for name in ("watches", "alerts", "deliveries", "silences", "runs"):
        rows = getattr(views, name)
        assert isinstance(rows, list)
    return views


_VOID = frozenset({"meta", "link", "input", "img", "br", "hr"})


class Seen(HTMLParser):
    """
    A page as a browser's parser has it. text: what people read. forms: (action, fields by name). broken: tags that do
    not fit. dangers: what runs, or loads something from elsewhere.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.html = ""
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.dangers: list[str] = []
        self.broken: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []

    @classmethod
    def of(cls, html: str) -> Seen:
        seen = cls()
        seen.html = html
        seen.feed(html)
        seen.close()
        seen.broken += seen._open
        return seen

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if (id := found.get("id")) is not None:
            self.ids.append(id)
        self.dangers += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action"):
            if name in found and not found[name].startswith(("/", "#", "https://wiki.example/")):
                self.dangers.append(f"{tag} {name}={found[name]}")
        if tag in ("style", "iframe", "object", "base") or (tag == "script" and "src" not in found):
            self.dangers.append(tag)
        if tag == "a":
            self.links.append(found.get("href", ""))
        if tag == "form":
            self.forms.append((found.get("action", ""), {"method": found.get("method", "")}))
        if tag in ("input", "select") and self.forms and "form" in self._open:
            self.forms[-1][1][found.get("name", "")] = found.get("value", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.broken.append(f"/{tag} in {self._open[-3:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["script"]:
            self.text += data

    @property
    def posts(self) -> list[tuple[str, dict[str, str]]]:
        return [(action, fields) for action, fields in self.forms if fields["method"] == "post"]
