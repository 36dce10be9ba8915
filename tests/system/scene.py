"""
A shop on a usual day, for pages to be looked at: watches of many kinds with a month behind them, an outage that an
agent has just looked into, a log with its kinds of lines, a pause, a silence, a message that nobody takes.

    async with scene(folder) as shop:
        shop.url, shop.key, shop.daemon

In: a folder. Out: a real daemon with all that, its page on loopback and a key to it. The history was written into the
store before the daemon started, always the same; what happened last did happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
from agents import ended, until
from loopback import free_port
from modelserver import Asked, ModelServer, Reply, call, calls
from stage import Daemon, Stage

from agentd.memory import results, rollups, templates
from agentd.memory.store import Store
from agentd.memory.templates import TemplateRow
from agentd.records import CheckResult, Verdict

SECRET = "the-token-of-the-nightly-job"
MODEL_KEY = "sk-this-is-the-key-of-the-model"
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MONTH = timedelta(days=30)
_NO_POOL = "FATAL: remaining connection slots are reserved for superuser connections"
_PAGES = {"/": 84.0, "/cart": 131.0, "/login": 42.0, "/search": 212.0}


@dataclass(frozen=True, slots=True)
class Past:
    """
    What the checks of a watch came to. ms: latency on a usual night; None where none is measured.

    bad: from and to how long ago, and how it was: failing or blind.
    """

    ms: float | None
    bad: tuple[tuple[timedelta, timedelta, Verdict], ...] = ()


_FAILING, _BLIND = Verdict.FAILING, Verdict.BLIND
_PASTS = {
    "storefront": Past(
        84.0, ((17 * _DAY, 17 * _DAY - 2 * _HOUR, _FAILING), (9 * _HOUR, 9 * _HOUR - 11 * _MINUTE, _FAILING))
    ),
    "checkout": Past(131.0, ((6 * _DAY, 6 * _DAY - _HOUR, _FAILING), (4 * _MINUTE, 0 * _MINUTE, _FAILING))),
    "login": Past(42.0, ((50 * _MINUTE, 46 * _MINUTE, _FAILING),)),
    "search": Past(212.0, ((3 * _DAY, 3 * _DAY - 5 * _HOUR, _FAILING),)),
    "mail-relay": Past(6.0, ((71 * _MINUTE, 65 * _MINUTE, _BLIND),)),
    "warehouse-db": Past(3.0),
    "root-disk": Past(None),
    "app-log": Past(None),
    "nightly-backup": Past(None, ((12 * _DAY, 11 * _DAY, _FAILING),)),
    "stock-feed": Past(None, ((26 * _HOUR, 25 * _HOUR, _FAILING),)),
}


_KINDS = (
    ("INFO order * taken in * ms", 48_112, "INFO order 48109 taken in 41 ms"),
    ("INFO order * paid by card, * EUR", 39_870, "INFO order 48107 paid by card, 89.00 EUR"),
    ("INFO cart * restored for customer *", 11_031, "INFO cart 9f2c11aa restored for customer 4021"),
    ("INFO pool: * of 100 connections in use", 8_640, "INFO pool: 97 of 100 connections in use"),
    (
        "ERROR payment of order * declined by issuer, code *",
        512,
        "ERROR payment of order 48066 declined by issuer, code 51",
    ),
    ("WARN slow query: * ms in stock_levels", 233, "WARN slow query: 2213 ms in stock_levels"),
)


@dataclass(frozen=True, slots=True)
class Scene:
    stage: Stage
    daemon: Daemon
    url: str
    key: str
    run: str
    fingerprint: str

    @property
    def pages(self) -> dict[str, str]:
        """Every kind of page by a name for it: its path."""
        return {
            "overview": "/",
            "watch": "/watches/storefront",
            "failing": "/watches/checkout",
            "log": "/watches/app-log",
            "alerts": "/alerts?all=1",
            "alert": f"/alerts/{self.fingerprint}",
            "runs": "/runs",
            "run": f"/runs/{self.run}",
            "outbox": "/outbox",
            "memory": "/memory",
            "settings": "/settings",
            "status": "/status",
            "login": "/login",
            "missing": "/watches/nobody",
        }


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with Stage(folder) as stage, ModelServer() as server, _shop() as port, _mail() as smtp:
        chat = await stage.add_hook("chat")
        chat.otherwise = lambda request: 422 if b"app-log" in request.body else 200
        log = folder / "app.log"
        log.write_text(_log_lines(datetime.now(UTC)))
        (folder / "pool.yaml").write_text("# deployed with 2.14\nmax_connections: 100\nidle_timeout: 0\n")
        page = free_port()
        stage.environment |= {"BACKUP_TOKEN": SECRET, "MODEL_KEY": MODEL_KEY}
        stage.configure(
            _watches(port, smtp, log),
            daemon={"instance": "web-1", "log_level": "info"},
            api={"listen": [f"unix:{folder}/api.sock", f"127.0.0.1:{page}"]},
            alerting={"notify": ["hook", "chat"]},
            defaults={"every": "30s", "timeout": "5s", "fail_after": 2, "recover_after": 2},
            models={
                "default": {
                    "provider": "openai-compatible",
                    "base_url": server.url,
                    "model": "claude-sonnet-4-5",
                    "api_key": "${env:MODEL_KEY}",
                    "price": {"input": 3, "output": 15},
                }
            },
            agent={
                "files": {"allow": [str(folder)]},
                "http": {"allow": ["127.0.0.1"], "private_networks": True},
            },
            budgets={"daemon_per_day": {"usd": 5}},
        )
        await _past(stage.state_dir, datetime.now(UTC))
        _script(server, port, log)
        daemon = await stage.start()
        (fingerprint,) = await _happenings(stage, log)
        key = (await stage.cli("key", "new", "dana", "--scope", "operate")).out.strip()
        run = next(each["id"] for each in await ended(stage) if each["watch"] == "checkout")
        yield Scene(stage, daemon, f"http://127.0.0.1:{page}", key, run, fingerprint)


def _watches(port: int, smtp: int, log: Path) -> list[dict[str, Any]]:
    def http(name: str, path: str, team: str, **more: Any) -> dict[str, Any]:
        expect = ["status == 200", "latency_ms < 800"]
        found = {"name": name, "http": {"url": f"http://127.0.0.1:{port}{path}"}, "expect": expect}
        return {**found, "labels": {"team": team}, **more}

    return [
        http("storefront", "/", "web", public=True, severity="critical", description="What customers see first."),
        http(
            "checkout",
            "/cart",
            "payments",
            public=True,
            severity="critical",
            investigate="Find out why the checkout answers with errors.",
        ),
        http("login", "/login", "identity", public=True, severity="critical"),
        http("search", "/search", "web"),
        {
            "name": "mail-relay",
            "tcp": {"host": "127.0.0.1", "port": smtp, "read_until": "220"},
            "labels": {"team": "ops"},
        },
        {"name": "warehouse-db", "tcp": {"host": "127.0.0.1", "port": port}, "labels": {"team": "data"}},
        {"name": "root-disk", "host": {"disk": "/"}, "expect": ["disk.used_percent < 99.5"], "labels": {"team": "ops"}},
        {
            "name": "nightly-backup",
            "heartbeat": {"expect_every": "24h", "token": "${env:BACKUP_TOKEN}"},
            "labels": {"team": "ops"},
        },
        {"name": "stock-feed", "command": {"argv": ["/bin/echo", "4211 articles, newest 2 min old"]}},
        {
            "name": "app-log",
            "log": {"files": [str(log)], "format": "plain"},
            "labels": {"team": "payments"},
            "rules": [
                {
                    "name": "pool-exhausted",
                    "type": "frequency",
                    "match": "remaining connection slots",
                    "count": 5,
                    "within": "10m",
                    "severity": "warning",
                },
                {"name": "oom", "type": "any", "match": "Out of memory", "severity": "critical"},
            ],
        },
        {"name": "morning-review", "goal": "Was anything odd last night?", "cron": "0 7 * * *"},
    ]


async def _happenings(stage: Stage, log: Path) -> list[str]:
    """What happens today, until all of it has; returns the fingerprint of the alert on the checkout."""

    async def do(path: str, **body: Any) -> Any:
        answer = await stage.api("POST", f"/api/v1{path}", body)
        assert answer.is_success, answer.text
        return answer.json()

    await do("/heartbeat/nightly-backup", status="ok", message="42 GiB in 18 min")
    for name in ("storefront", "login", "search", "mail-relay", "warehouse-db", "stock-feed", "root-disk"):
        await do(f"/watches/{name}/check")
    await do("/watches/checkout/check")
    await do("/watches/checkout/check")
    with log.open("a") as file:
        file.write(_trouble_lines(datetime.now(UTC)))
    await stage.hook.message("alert.updated", watch="checkout")
    await stage.hook.message("alert.firing", watch="app-log")
    firing = [each["fingerprint"] for each in await stage.alerts() if each["watch"] == "app-log"]
    await do("/alerts/ack", alerts=firing, comment="raising the pool's limit")
    await do("/watches/search/pause", for_s=7200, reason="the index is being rebuilt")
    await do("/silences", matchers=["team=identity"], for_s=14400, reason="planned move of the directory")
    await do("/watches/morning-review/check")
    await ended(stage, count=2)
    await until(lambda: _dead(stage), "a message is refused")
    return [each["fingerprint"] for each in await stage.alerts() if each["watch"] == "checkout"]


async def _dead(stage: Stage) -> bool:
    return any(each["state"] == "dead" for each in await stage.outbox())


# The past.


async def _past(state_dir: Path, now: datetime) -> None:
    checks = [each for name, past in _PASTS.items() for each in _checks(name, past, now)]
    checks.sort(key=lambda each: each.at)

    def write(c: apsw.Connection) -> None:
        templates.save(c, [_template(n, *each, now) for n, each in enumerate(_KINDS)])
        results.insert(c, checks)
        while rollups.roll_up(c):
            pass

    state_dir.mkdir(parents=True)
    store = await Store.open(state_dir)
    try:
        await store.history.write(write)
    finally:
        await store.close()


def _checks(name: str, past: Past, now: datetime) -> list[CheckResult]:
    """Twice an hour for a month, each minute of the last day."""
    chance = random.Random(name)
    begin = now.replace(second=7, microsecond=0)
    ages = [_DAY + n * _HOUR / 2 for n in range(int((_MONTH - _DAY) / _HOUR * 2))] + [n * _MINUTE for n in range(1441)]
    found = []
    for age in ages:
        verdict = next((bad for since, until, bad in past.bad if until <= age < since), Verdict.OK)
        ms = None
        if past.ms is not None and verdict is not _BLIND:
            hour = ((begin - age) - begin.replace(hour=4, minute=0)) / _HOUR
            busy = 1 + 0.35 * (1 - math.cos(hour / 24 * math.tau))
            ms = past.ms * busy * chance.lognormvariate(0, 0.1) * (3.5 if chance.random() < 0.004 else 1)
            if verdict is _FAILING:
                ms *= 4
        summary = (
            "" if verdict is Verdict.OK else "no route to host" if verdict is _BLIND else "503 Service Unavailable"
        )
        found.append(CheckResult(name, begin - age, verdict, (ms or 2.0) / 1000, ms, summary))
    return found


def _template(number: int, pattern: str, count: int, sample: str, now: datetime) -> TemplateRow:
    last = now - number * _MINUTE
    return TemplateRow("app-log", f"t{number}", pattern, count, now - 9 * _DAY, last, ((last, sample),))


def _log_lines(now: datetime) -> str:
    chance = random.Random(7)
    lines = []
    for n in range(900):
        at = now - timedelta(seconds=(900 - n) * 3)
        order = chance.randrange(10_000, 99_999)
        lines.append(
            chance.choices(
                (
                    f"INFO order {order} taken in {chance.randrange(20, 90)} ms",
                    f"INFO order {order} paid by card, {chance.randrange(5, 400)}.00 EUR",
                    f"INFO cart {chance.randrange(2**32):08x} restored for customer {chance.randrange(1000, 9999)}",
                    f"WARN slow query: {chance.randrange(800, 4000)} ms in stock_levels",
                    f"INFO pool: {chance.randrange(20, 60)} of 100 connections in use",
                    f"ERROR payment of order {order} declined by issuer, code {chance.choice((51, 54, 61))}",
                ),
                (40, 30, 15, 4, 8, 3),
            )[0]
        )
        lines[-1] = f"{at:%Y-%m-%dT%H:%M:%SZ} {lines[-1]}"
    return "\n".join(lines) + "\n"


def _trouble_lines(now: datetime) -> str:
    return "".join(f"{now:%Y-%m-%dT%H:%M:%SZ} ERROR order {48110 + n}: {_NO_POOL}\n" for n in range(7))


# The present.


@contextlib.asynccontextmanager
async def _shop() -> AsyncIterator[int]:
    """A web service that takes as long as such services take; its checkout is broken."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            path = (await reader.readuntil(b"\r\n")).split(b" ")[1].decode()
            await reader.readuntil(b"\r\n\r\n") if path != "/" else None
            await asyncio.sleep(_PAGES.get(path, 20.0) / 1000)
            body = f"order service: {_NO_POOL}" if path == "/cart" else "welcome"
            status = "503 Service Unavailable" if path == "/cart" else "200 OK"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@contextlib.asynccontextmanager
async def _mail() -> AsyncIterator[int]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.006)
        writer.write(b"220 mail.shop.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def _used(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _script(server: ModelServer, port: int, log: Path) -> None:
    server.answers(
        calls(
            call("http_get", url=f"http://127.0.0.1:{port}/cart"),
            call("http_get", url=f"http://127.0.0.1:{port}/login"),
            call("query_history", what="results", watch="checkout", limit=5),
            text="The checkout answers 503. I compare it with the login beside it, and with its own past.",
            usage=_used(2410, 164),
            delay_s=0.5,
        ),
        calls(
            call("search_log", watch="app-log", words="connection slots", limit=3),
            call("read_file", path=str(log.parent / "pool.yaml")),
            text="The login is well, so it is not the machine. The body names the database; the log says since when.",
            usage=_used(4235, 118),
            delay_s=0.6,
        ),
        _finding,
    )
    server.otherwise = Reply(
        calls=[call("finish", status="ok", severity="info", summary="Nothing odd but a short 503 of the storefront.")],
        usage=_used(1830, 90),
        delay_s=0.3,
    )


def _finding(asked: Asked) -> Reply:
    """Cites what it was given by the ids that stand before it: what was asked at once comes in any order."""

    def source(word: str) -> str:
        said = [str(each["content"]) for each in asked.messages if each["role"] == "tool" and word in each["content"]]
        found = re.search(r"evidence (e\d+)", said[0])
        assert found is not None
        return found[1]

    return calls(
        call(
            "finish",
            status="problem",
            severity="critical",
            summary="The checkout cannot reach the warehouse database: all connection slots are taken. Login and "
            "storefront do not use that pool and are well.",
            claims=[
                {
                    "text": "The database refuses new connections.",
                    "evidence": [source("order service"), source("scanned_bytes")],
                    "quotes": [_NO_POOL],
                },
                {
                    "text": "Idle sessions are never ended, so that a hundred of them fill the pool.",
                    "evidence": [source("max_connections")],
                    "quotes": ["max_connections: 100", "idle_timeout: 0"],
                },
                {"text": "The login beside it answers.", "evidence": [source("welcome")], "quotes": ["welcome"]},
            ],
            next_steps=[
                "End idle sessions in pg_stat_activity, the oldest first.",
                "Raise the pool's limit, or put a pooler before the database.",
                "Give idle_timeout a value: pool.yaml came with 2.14.",
            ],
            confidence=0.86,
        ),
        usage=_used(6120, 342),
        delay_s=0.7,
    )
