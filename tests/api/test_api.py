"""The HTTP surface as a client meets it: a real server on a unix socket and on TCP, before a service that is a fake."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentd.api.beat import same_token
from agentd.api.door import Door
from agentd.api.endpoint import MAX_BODY_BYTES
from agentd.api.parts import Parts
from agentd.api.server import ApiServer, CannotListen, make_servers, open_socket
from agentd.api.service import Conflict, Forbidden, Json, NoSecret, NotFound
from agentd.api.silence import SilenceAsked
from agentd.config.service import ApiSettings
from agentd.errors import ConfigError, StoreFull

SELF = getpass.getuser()
HOSTILE = "<script>alert('x')</script>\"&\x1b[2J\u202e"


@dataclass
class Fake:
    """A service that notes what it is asked; `fails` is raised instead of the next answer."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    logins: list[tuple[str, bool]] = field(default_factory=list)
    fails: Exception | None = None
    rows: int = 1
    text: str = "all quiet"
    troubled: bool = False
    beaten: asyncio.Event = field(default_factory=asyncio.Event)

    def _answer(self, *what: Any) -> Json:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails
        return {"did": what[0]}

    def state(self) -> str:
        return "running"

    async def status(self) -> Json:
        self._answer("status")
        return {
            "state": "running",
            "instance": self.text,
            "version": "1",
            "uptime": "1h",
            "trouble": [f"trouble with {self.text}"] if self.troubled else [],
            "watches": {"total": self.rows},
            "outbox": {"waiting": 2, "dead": 1},
        }

    def _watch(self, number: int) -> Json:
        return {
            "name": f"{self.text}{number}",
            "kind": self.text,
            "verdict": "failing",
            "summary": self.text,
            "latency_ms": 1.5,
            "paused": False,
            "strip": ["ok", "failing", "blind", None],
        }

    async def watches(self) -> list[Json]:
        self._answer("watches")
        return [self._watch(number) for number in range(self.rows)]

    async def alerts(self, *, everything: bool) -> list[Json]:
        self._answer("alerts", everything)
        return [
            {
                "state": "firing",
                "severity": "critical",
                "watch": self.text,
                "summary": self.text,
                "started_at": "2026-01-05T12:00:00.000Z",
                "pending_since": None,
            }
        ]

    async def overview(self) -> Json:
        return {
            "status": await self.status(),
            "watches": await self.watches(),
            "alerts": await self.alerts(everything=False),
            "more_watches": 7,
            "more_alerts": 0,
        }

    async def check_now(self, watch: str, *, by: str) -> Json:
        return self._answer("check", watch)

    async def pause(self, watch: str, *, by: str, for_s: float | None, reason: str) -> Json:
        return self._answer("pause", watch, by, for_s, reason)

    async def templates(self, watch: str, *, limit: int) -> Json:
        return self._answer("templates", watch, limit)

    async def ack(self, alerts: Sequence[str], *, by: str, comment: str, undo: bool) -> Json:
        return self._answer("ack", tuple(alerts), by, comment, undo)

    async def silences(self, *, everything: bool) -> list[Json]:
        return [self._answer("silences", everything)]

    async def silence(self, asked: SilenceAsked, *, by: str) -> Json:
        return self._answer("silence", asked, by)

    async def end_silence(self, identity: str, *, by: str) -> Json:
        return self._answer("end silence", identity, by)

    async def resume(self, watch: str, *, by: str) -> Json:
        return self._answer("resume", watch, by)

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json:
        return self._answer("outbox", state, webhook, limit)

    async def delivery(self, identity: str) -> Json:
        return self._answer("delivery", identity)

    async def retry(self, identity: str | None, *, webhook: str | None, by: str) -> Json:
        return self._answer("retry", identity, webhook, by)

    async def drop(self, identity: str, *, by: str) -> Json:
        return self._answer("drop", identity, by)

    async def test_webhook(self, webhook: str, *, by: str) -> Json:
        return self._answer("test", webhook, by)

    async def enable_webhook(self, webhook: str, *, by: str) -> Json:
        return self._answer("enable", webhook, by)

    async def beat(self, watch: str, *, token: str | None, ok: bool, message: str, trusted: bool) -> Json:
        self.beaten.set()
        return self._answer("beat", watch, token, ok, message, trusted)

    async def hook(
        self, name: str, *, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], trusted: bool
    ) -> Json:
        said = await body()
        self._answer("hook", name, headers.get("authorization"), said[:100], trusted)
        return {"accepted": said != b"again", "started": ["shop"]}

    async def signed_in(self, name: str, *, good: bool, source: str) -> None:
        self.logins.append((name, good))

    async def reload(self, *, by: str, why: str = "") -> Json:
        return self._answer("reload", by)

    async def release(self, *, by: str) -> Json:
        return self._answer("release", by)


@dataclass
class Doors:
    """The two ways in, and the service behind them."""

    service: Fake
    local: httpx.AsyncClient
    tcp: httpx.AsyncClient
    port: int
    path: Path


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    service = Fake()
    path = tmp_path / "api.sock"
    sockets = [open_socket(f"unix:{path}"), open_socket("127.0.0.1:0")]
    port = sockets[1].getsockname()[1]
    door = Door(ApiSettings(), names={"localhost", "127.0.0.1", "Web-1"}, own_uid=os.geteuid())
    servers = make_servers(Parts(service), sockets, door)
    for server in servers:
        await server.start()
    local = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://agentd")
    tcp = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")
    try:
        async with local, tcp:
            yield Doors(service, local, tcp, port, path)
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


ROUTES = [
    ("GET", "/api/v1/status", None, ("status",)),
    ("GET", "/api/v1/watches", None, ("watches",)),
    ("GET", "/api/v1/alerts", None, ("alerts", False)),
    ("GET", "/api/v1/alerts?all=1", None, ("alerts", True)),
    ("GET", "/api/v1/watches/shop/templates?limit=5", None, ("templates", "shop", 5)),
    ("POST", "/api/v1/alerts/ack", {"alerts": ["shop"]}, ("ack", ("shop",), SELF, "", False)),
    (
        "POST",
        "/api/v1/alerts/ack",
        {"alerts": ["a", "b"], "comment": "on it", "undo": True, "by": "eve"},
        ("ack", ("a", "b"), "eve", "on it", True),
    ),
    ("GET", "/api/v1/silences", None, ("silences", False)),
    ("GET", "/api/v1/silences?all=1", None, ("silences", True)),
    (
        "POST",
        "/api/v1/silences",
        {"matchers": ["watch=shop"], "for_s": 60, "by": "eve"},
        ("silence", SilenceAsked(("watch=shop",), timedelta(minutes=1)), "eve"),
    ),
    (
        "POST",
        "/api/v1/silences",
        {"for_s": 0.5, "reason": "x", "all": True, "starts_at": "2026-03-01T12:00:00+02:00"},
        (
            "silence",
            SilenceAsked((), timedelta(seconds=0.5), "x", datetime(2026, 3, 1, 10, tzinfo=UTC), True),
            SELF,
        ),
    ),
    ("DELETE", "/api/v1/silences/4f2a", {"by": "eve"}, ("end silence", "4f2a", "eve")),
    ("GET", "/api/v1/outbox", None, ("outbox", None, None, 100)),
    ("GET", "/api/v1/outbox?state=dead&webhook=ops&limit=1000", None, ("outbox", "dead", "ops", 1000)),
    ("GET", "/api/v1/outbox/msg_1", None, ("delivery", "msg_1")),
    ("POST", "/api/v1/watches/shop/check", None, ("check", "shop")),
    (
        "POST",
        "/api/v1/watches/shop/pause",
        {"by": "eve", "for_s": 60, "reason": "x"},
        ("pause", "shop", "eve", 60, "x"),
    ),
    ("POST", "/api/v1/watches/shop/pause", None, ("pause", "shop", SELF, None, "")),
    ("POST", "/api/v1/watches/shop/resume", {"by": "eve"}, ("resume", "shop", "eve")),
    ("POST", "/api/v1/outbox/retry", {"webhook": "ops"}, ("retry", None, "ops", SELF)),
    ("POST", "/api/v1/outbox/msg_1/retry", None, ("retry", "msg_1", None, SELF)),
    ("DELETE", "/api/v1/outbox/msg_1", None, ("drop", "msg_1", SELF)),
    ("POST", "/api/v1/webhooks/ops/test", None, ("test", "ops", SELF)),
    ("POST", "/api/v1/webhooks/ops/enable", None, ("enable", "ops", SELF)),
    ("POST", "/api/v1/reload", {"by": "eve"}, ("reload", "eve")),
    ("POST", "/api/v1/doctor/resume", {"by": "eve"}, ("release", "eve")),
    ("POST", "/api/v1/heartbeat/job?status=failed", None, ("beat", "job", None, False, "", True)),
]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("alerts/ack", {}),
        ("alerts/ack", {"alerts": []}),
        ("alerts/ack", {"alerts": "shop"}),
        ("alerts/ack", {"alerts": ["shop", 5]}),
        ("alerts/ack", {"alerts": ["shop", ""]}),
        ("alerts/ack", {"alerts": ["shop"] * 1001}),
        ("silences", {}),
        ("silences", {"for_s": 0}),
        ("silences", {"for_s": True}),
        ("silences", {"for_s": "60"}),
        ("silences", {"for_s": 1e300}),
        ("silences", {"for_s": 60, "matchers": "watch=shop"}),
        ("silences", {"for_s": 60, "matchers": [None]}),
        ("silences", {"for_s": 60, "starts_at": 5}),
        ("silences", {"for_s": 60, "starts_at": "noon"}),
        ("silences", {"for_s": 60, "starts_at": "2026-03-01T12:00:00"}),
        ("silences", {"for_s": 60, "starts_at": "0001-01-01T00:00:00+14:00"}),
    ],
)
async def test_what_is_no_silence_and_no_acknowledgement_is_refused(doors: Doors, path: str, body: Json) -> None:
    """With what to write instead, and the service is not asked."""
    answer = await doors.local.post(f"/api/v1/{path}", json=body)

    assert answer.status_code == 422
    assert ": " in answer.json()["detail"]
    assert doors.service.asked == []


@pytest.mark.parametrize(("method", "path", "body", "asked"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
async def test_a_path_asks_for_what_it_says(
    doors: Doors, method: str, path: str, body: Json | None, asked: tuple[Any, ...]
) -> None:
    """The command line and scripts rely on each of them."""
    answer = await doors.local.request(method, path, json=body)

    assert answer.status_code == 200
    assert doors.service.asked == [asked]


async def test_health_costs_no_status(doors: Doors) -> None:
    """Load balancers ask every second, and of a daemon with thousands of watches the status is work."""
    answer = await doors.tcp.get("/health")

    assert answer.json() == {"status": "ok"}
    assert doors.service.asked == []


@pytest.mark.parametrize("what", ["status", "watches"])
async def test_many_who_ask_at_once_share_the_work(doors: Doors, what: str) -> None:
    """Fifty pages that reload must not make checks late."""
    go = asyncio.Event()
    answer = getattr(doors.service, what)

    async def slow() -> Any:
        await go.wait()
        return await answer()

    setattr(doors.service, what, slow)
    asking = [asyncio.create_task(doors.local.get(f"/api/v1/{what}")) for _ in range(10)]
    await doors.local.get("/health")  # the server has taken its turn
    go.set()
    answers = await asyncio.gather(*asking)

    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert len(doors.service.asked) < 10


@pytest.mark.parametrize(("method", "path"), [(route[0], route[1]) for route in ROUTES if route[0] != "GET"])
async def test_over_tcp_nothing_is_changed_but_by_a_heartbeat(doors: Doors, method: str, path: str) -> None:
    """Whoever reaches the port, such as any program or page on this machine, must not be able to pause a watch."""
    answer = await doors.tcp.request(method, path)

    if path.startswith("/api/v1/heartbeat/"):
        assert doors.service.asked == [("beat", "job", None, False, "", False)], "it is not trusted"
    else:
        assert answer.status_code == 401
        assert "agentd key new" in answer.json()["detail"]
        assert doors.service.asked == []


@pytest.mark.parametrize("path", ["/api/v1/heartbeat/../reload", "/api/v1/heartbeat/%2e%2e/reload", "//api/v1/reload"])
async def test_no_way_round_the_gate(doors: Doors, path: str) -> None:
    """The gate looks at the beginning of the path; what follows must not lead elsewhere."""
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.read()).split(b" ")[1])
    writer.close()

    assert status in (401, 404)
    assert doors.service.asked == []


@pytest.mark.parametrize(
    ("host", "welcome"),
    [
        ("localhost", True),
        ("localhost:8787", True),
        ("WEB-1:8787", True),
        ("127.0.0.1", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:localhost", False),
        ("[::1]:8787", False),
        ("", False),
    ],
)
async def test_only_known_names_are_answered(doors: Doors, host: str, welcome: bool) -> None:
    """A page of somebody else could name us by a DNS record of its own, and read what we say."""
    answer = await doors.tcp.get("/api/v1/status", headers={"Host": host})

    assert answer.status_code == (200 if welcome else 421)
    assert bool(doors.service.asked) == welcome


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no watch 'x'"), 404),
        (Conflict("not paused"), 409),
        (Forbidden("no token"), 403),
        (ConfigError("refused"), 422),
        (StoreFull("no room"), 503),
        (NoSecret("not now"), 503),
    ],
)
async def test_an_error_is_told_as_problem_details(doors: Doors, error: Exception, status: int) -> None:
    """A client should tell people what is wrong, in our words (RFC 9457)."""
    doors.service.fails = error

    answer = await doors.local.post("/api/v1/watches/x/check")

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() | {"title": ""} == {
        "type": "about:blank",
        "title": "",
        "status": status,
        "detail": str(error),
    }


async def test_a_defect_tells_no_inner_things(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """A traceback or a value in an answer may hold a secret; the log has it."""
    doors.service.fails = RuntimeError("the secret is s3cr3t")
    caplog.set_level(logging.CRITICAL, "uvicorn.error")

    answer = await doors.local.post("/api/v1/reload")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "s3cr3t" not in answer.text


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/watches/shop/pause", b"{", 400),
        ("/api/v1/watches/shop/pause", b"[" * 50_000, 400),
        ("/api/v1/watches/shop/pause", b"[]", 422),
        ("/api/v1/reload", b" ", 400),
        ("/api/v1/watches/shop/pause", b"9" * 5000, 400),
        ("/api/v1/watches/shop/pause", b"\xff\xfe", 400),
        ("/api/v1/watches/shop/pause", b'{"for_s": 0}', 422),
        ("/api/v1/watches/shop/pause", b'{"for_s": NaN}', 422),
        ("/api/v1/watches/shop/pause", b'{"for_s": true}', 422),
        ("/api/v1/watches/shop/pause", b'{"for_s": "1h"}', 422),
        ("/api/v1/watches/shop/pause", b'{"for_s": 1e300}', 422),
        ("/api/v1/outbox/retry", b'{"webhook": ["ops"]}', 422),
        ("/api/v1/reload", b" " * (MAX_BODY_BYTES + 1), 413),
        ("/api/v1/heartbeat/job", b"x" * (MAX_BODY_BYTES + 1), 413),
        ("/api/v1/heartbeat/job?status=maybe", b"", 422),
        ("/api/v1/nothing", b"", 404),
        ("/api/v1/status", b"", 405),
    ],
)
async def test_what_makes_no_sense_is_refused(doors: Doors, path: str, body: bytes, status: int) -> None:
    """And never reaches the service."""
    answer = await doors.local.post(path, content=body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert doors.service.asked == []


async def test_an_outbox_state_that_there_is_not_is_refused(doors: Doors) -> None:
    """An empty answer would say that all is well."""
    answer = await doors.local.get("/api/v1/outbox?state=ded")

    assert answer.status_code == 422
    assert "waiting, claimed, dead" in answer.json()["detail"]
    assert doors.service.asked == []


async def test_a_body_without_end_is_cut_off(doors: Doors) -> None:
    """Without a length it could fill our memory."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 65_536

    answer = await doors.local.post("/api/v1/heartbeat/job", content=endless())

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("headers", "query", "token"),
    [
        ({"Authorization": "Bearer s3cr3t"}, "", "s3cr3t"),
        ({"Authorization": "bearer  s3cr3t"}, "", "s3cr3t"),
        ({"Authorization": "Basic s3cr3t"}, "", None),
        ({}, "?token=s3cr3t", "s3cr3t"),
        ({"Authorization": "Bearer a"}, "?token=b", "a"),
        ({}, "", None),
    ],
)
async def test_a_heartbeat_brings_its_token(
    doors: Doors, headers: dict[str, str], query: str, token: str | None
) -> None:
    """curl in a crontab has to manage it."""
    await doors.tcp.post(f"/api/v1/heartbeat/job{query}", headers=headers, content="done in 3 s \xff".encode("latin-1"))

    assert doors.service.asked == [("beat", "job", token, True, "done in 3 s \ufffd", False)]


@pytest.mark.parametrize(
    ("given", "expected", "fits"),
    [
        ("s3cr3t", "s3cr3t", True),
        ("s3cr3", "s3cr3t", False),
        (None, "s3cr3t", False),
        ("schlüssel", "schlüssel", True),
        ("", "", False),
        (None, "", False),
    ],
)
def test_a_token_must_fit(given: str | None, expected: str, fits: bool) -> None:
    """An empty token file would otherwise let everybody in who brings none."""
    assert same_token(given, expected) is fits


async def test_a_connection_reset_at_once_is_no_local_one(doors: Doors) -> None:
    """Such a connection has no peer any more when we look; who takes that for a unix socket lets the world in."""
    sender = socket.create_connection(("127.0.0.1", doors.port))
    sender.sendall(b"POST /api/v1/heartbeat/job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()

    async with asyncio.timeout(10):
        answer = await doors.tcp.get("/health")  # the server has taken its turn

    assert answer.status_code == 200
    assert all(asked[-1] is False for asked in doors.service.asked if asked[0] == "beat")


async def test_a_sender_that_goes_away_is_no_news(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody could fill our log with tracebacks."""
    _, writer = await asyncio.open_unix_connection(doors.path)
    writer.write(b"POST /api/v1/heartbeat/job HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()

    await doors.local.get("/health")

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert ("beat",) not in [asked[:1] for asked in doors.service.asked]


@pytest.mark.parametrize("rows", [0, 200, 201, 1000])
async def test_a_long_list_comes_whole(doors: Doors, rows: int) -> None:
    """It is sent in parts, so that ten thousand watches hold up no check."""
    doors.service.rows = rows
    doors.service.text = '\u2028"é'

    answer = await doors.local.get("/api/v1/watches")

    assert answer.headers["content-type"] == "application/json"
    assert [watch["name"] for watch in answer.json()["watches"]] == [f'\u2028"é{number}' for number in range(rows)]


async def test_stop_waits_for_nobody_for_long(tmp_path: Path) -> None:
    """Somebody who keeps a connection open must not keep the daemon from ending."""
    path = tmp_path / "api.sock"
    (server,) = make_servers(Parts(Fake()), [open_socket(f"unix:{path}")], Door(ApiSettings(), names=(), own_uid=0))
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)

    async with asyncio.timeout(10):
        await server.stop()
        await server.stop()

    assert await reader.read() == b""
    writer.close()


def test_a_socket_left_by_the_dead_is_replaced(tmp_path: Path) -> None:
    """After kill -9 it lies there still, and the daemon must start again."""
    path = tmp_path / "sub" / "api.sock"
    with open_socket(f"unix:{path}"):
        pass
    assert path.exists()

    with open_socket(f"unix:{path}") as listener:
        assert listener.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o666  # who may what is told by credentials


def test_a_socket_that_is_served_is_left_alone(tmp_path: Path) -> None:
    """A second daemon must not take the commands away from the first, however busy that is."""
    path = tmp_path / "api.sock"
    waiting = []
    with open_socket(f"unix:{path}") as first:
        first.listen(0)
        for _ in range(2):  # its queue is full now: one more would have to wait
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            client.connect_ex(str(path))

        with pytest.raises(CannotListen, match="served by another process"):
            open_socket(f"unix:{path}")
        for client in waiting:
            client.close()
    assert path.exists()


@pytest.mark.parametrize("address", ["unix:{0}/file", "unix:{0}/file/api.sock", "unix:{0}/" + "x" * 200, "nowhere:1"])
def test_what_cannot_be_listened_on_says_so(tmp_path: Path, address: str) -> None:
    """The message names the key and the address."""
    (tmp_path / "file").touch()

    with pytest.raises(CannotListen, match=r"api\.listen: cannot listen on .*; (choose|free)"):
        open_socket(address.format(tmp_path) if address.startswith("unix") else "256.0.0.1:1")


async def test_a_server_that_cannot_start_says_so(tmp_path: Path) -> None:
    """Or `start` would wait for ever."""
    listener = open_socket(f"unix:{tmp_path / 'api.sock'}")
    listener.close()

    with pytest.raises((CannotListen, OSError)):
        await ApiServer(None, [listener]).start()  # type: ignore[arg-type]  # it never gets so far


def test_the_fake_is_json() -> None:
    """What the tests compare went through JSON; the fake must not hide a value that could not."""
    assert json.loads(json.dumps(asyncio.run(Fake().watches())))
