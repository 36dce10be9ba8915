"""The whole surface, by bytes: what no HTTP library would send, over TCP and the unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_api import Fake
from test_api_gate import KEYS, settings

from agentd.api.app import make_app
from agentd.api.door import Door
from agentd.api.parts import Parts
from agentd.api.protocol import Limits
from agentd.api.server import ApiServer, open_socket

SEED = int(os.environ.get("AGENTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
MANGLED = int(os.environ.get("AGENTD_TEST_EXAMPLES", "200"))
KEY = f"Authorization: Bearer {KEYS['admin'][0]}\r\n".encode()
HOST = b"Host: localhost\r\n"
END = b"\r\n"
LAST = b"Connection: close\r\n"
PAUSE = b'{"for_s": 60}'
# Time is real here: whoever sends half of something is not waited for. Nothing depends on how long it takes.
SHORT = Limits(head_s=0.5, body_s=0.5, idle_s=0.5, unread_s=2.0)
WITHIN_S = 20.0


@dataclass
class Site:
    server: ApiServer
    listener: socket.socket

    async def ask(self, *pieces: bytes, half: bool = False) -> bytes:
        """All that comes back until the server hangs up. half: nothing more is sent, and that is said."""
        if self.listener.family == socket.AF_UNIX:
            reader, writer = await asyncio.open_unix_connection(self.listener.getsockname())
        else:
            reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        got = b""
        try:
            async with asyncio.timeout(WITHIN_S):
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                    if half:
                        writer.write_eof()
                    while data := await reader.read(65536):
                        got += data
        finally:
            writer.close()
        return got

    @property
    def open(self) -> int:
        return len(self.server._server.server_state.connections)

    async def emptied(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.open:
                await asyncio.sleep(0.01)


@pytest.fixture(params=["tcp", "unix"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    local = request.param == "unix"
    door = Door(settings(), names={"localhost", "127.0.0.1"}, own_uid=os.geteuid())
    listener = open_socket(f"unix:{tmp_path}/s" if local else "127.0.0.1:0")
    server = ApiServer(make_app(Parts(Fake()), door, local=local), [listener], SHORT)
    await server.start()
    try:
        yield Site(server, listener)
    finally:
        await server.stop()


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def get(path: bytes, *headers: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + KEY + b"".join(headers) + LAST + END


def post(*headers: bytes, body: bytes = PAUSE) -> bytes:
    return b"POST /api/v1/watches/shop/pause HTTP/1.1\r\n" + HOST + KEY + b"".join(headers) + LAST + END + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


NINES = b'{"for_s": ' + b"9" * 5000 + b"}"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
PARTS = (END, b"\0", END + END, CHUNKED, b"Content-Length: 3\r\n", b"%ff")

ODD: dict[str, tuple[bytes, set[int]]] = {
    "well": (post(length(PAUSE)), {200}),
    "chunked": (post(CHUNKED, body=b"d\r\n" + PAUSE + b"\r\n0\r\n\r\n"), {200}),
    "no such method": (b"FOO / HTTP/1.1\r\n" + HOST + END, {400}),
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 405}),
    "HTTP/0.9": (b"GET /health\r\n", {400, 408}),
    "a version of its own": (b"GET /health HTTP/9.9\r\n" + HOST + LAST + END, {200, 400}),
    "a NUL in the head": (get(b"/health", b"X: a\0b\r\n"), {400}),
    "a NUL in the path": (get(b"/api/v1/watches/a\0b"), {400, 404}),
    "an encoded NUL": (get(b"/api/v1/watches/a%00b/templates"), {200}),
    "a path that is no UTF-8": (get(b"/api/v1/watches/%ff%fe/templates"), {200}),
    "raw bytes in the path": (get(b"/api/v1/watches/\xff\xfe/templates"), {200, 400, 404}),
    "a lone surrogate": (get(b"/api/v1/watches/%ed%a0%80/templates"), {200}),
    "a broken escape": (get(b"/api/v1/watches/%zz%/templates"), {200, 400, 404}),
    "a query that is no UTF-8": (get(b"/api/v1/outbox?webhook=%ff%00%ed%a0%80"), {200, 404, 422}),
    "a query of its own": (get(b"/api/v1/status?" + b"&" * 500), {200, 422}),
    "many parameters": (get(b"/api/v1/status?" + b"a=1&" * 1500), {422}),
    "a long address": (get(b"/" + b"a" * 10_000), {414, 431}),
    "an absolute address": (get(b"http://localhost/health"), {200}),
    "an absolute address of another": (get(b"http://evil.example/health"), {200}),
    "an authority": (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + LAST + END, {400, 404, 405}),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + LAST + END, {200, 400, 404, 405}),
    "dots": (get(b"/api/v1/../../etc/passwd"), {404}),
    "encoded dots": (get(b"/api/v1/%2e%2e/%2e%2e/etc/passwd"), {404}),
    "slashes": (get(b"//health"), {404}),
    "a huge header": (get(b"/health", b"X: " + b"a" * 100_000 + END), {431}),
    "many headers": (get(b"/health", b"X: a\r\n" * 1000), {431}),
    "a header without a name": (get(b"/health", b": a\r\n"), {400}),
    "a header with a blank": (get(b"/health", b"Content-Length : 5\r\n"), {400}),
    "a folded header": (get(b"/health", b"X: a\r\n b\r\n"), {200, 400}),
    "bare line feeds": (get(b"/health").replace(b"\r\n", b"\n"), {200, 400}),
    "two hosts": (get(b"/health", HOST), {200}),
    "no host": (get(b"/health").replace(HOST, b""), {200}),
    "two keys": (get(b"/api/v1/status", KEY), {200, 401}),
    "a key that is no ASCII": (get(b"/health", b"X-Csrf-Token: \xff\r\n", b"Cookie: \xff=\xfe; a\r\n"), {200}),
    "a type that is no ASCII": (post(length(PAUSE), b"Content-Type: \xff/\xfe; charset=\x80\r\n"), {415}),
    "a foreign charset": (post(length(PAUSE), b"Content-Type: application/json; charset=utf-16\r\n"), {200, 415, 400}),
    "both lengths": (post(length(PAUSE), CHUNKED, body=b"d\r\n" + PAUSE + b"\r\n0\r\n\r\n"), {400}),
    "lengths that differ": (post(length(PAUSE), b"Content-Length: 1\r\n"), {400}),
    "a length below nothing": (post(b"Content-Length: -1\r\n"), {400}),
    "a length beyond all": (post(b"Content-Length: 99999999999999999999999\r\n"), {400}),
    "a large length": (post(b"Content-Length: 999999999\r\n"), {408, 413}),
    "chunked twice": (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), {200, 400}),
    "a coding that there is not": (post(b"Transfer-Encoding: gzip, cake\r\n"), {400}),
    "a chunk of no size": (post(CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"), {400}),
    "a chunk beyond all": (post(CHUNKED, body=b"fffffffffffffffff\r\nabc"), {400}),
    "a chunk that is too short": (post(CHUNKED, body=b"ff\r\nabc\r\n0\r\n\r\n"), {400, 408}),
    "a chunk that never ends": (post(CHUNKED, body=b"d\r\n" + PAUSE), {400, 408}),
    "a body that is no UTF-8": (post(length(b'{"\xff": 1}'), body=b'{"\xff": 1}'), {400}),
    "half a body": (post(b"Content-Length: 100\r\n"), {400, 408}),
    "a larger body": (post(length(b" " * 100_000), body=b" " * 100_000), {413}),
    "deep brackets": (post(length(b"[" * 60_000), body=b"[" * 60_000), {400, 422}),
    "a large number": (post(length(NINES), body=NINES), {400, 422}),
    "a web socket": (
        get(b"/api/v1/events", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n"),
        {404, 400},
    ),
    "HTTP/2 by upgrade": (get(b"/health", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), {200}),
    "expects": (post(length(PAUSE), b"Expect: 100-continue\r\n"), {100, 200}),
    "expects what there is not": (post(length(PAUSE), b"Expect: a miracle\r\n"), {200, 417}),
    "trailers": (post(CHUNKED, body=b"d\r\n" + PAUSE + b"\r\n0\r\nX: y\r\n\r\n"), {200, 400}),
    "nothing": (b"", {408}),
    "empty lines": (END * 50, {400, 408}),
    "half a line": (b"GET /hea", {400, 408}),
    "half a head": (b"GET /health HTTP/1.1\r\nHost: local", {400, 408}),
}


@pytest.mark.parametrize("half", [False, True], ids=["open", "half closed"])
async def test_odd_requests_are_answered_or_hung_up_on(
    site: Site, half: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a 500, never a place that stays taken, never a line in the log that one could fill it with."""
    answers = await asyncio.gather(*(site.ask(bytes_sent, half=half) for bytes_sent, _ in ODD.values()))

    wrong = {
        name: (statuses(answer), answer[-120:])
        for (name, (_, good)), answer in zip(ODD.items(), answers, strict=True)
        if not set(statuses(answer)) <= good
    }
    assert not wrong, "\n".join(f"{name}: {got}" for name, got in wrong.items())
    # Who half closes is taken for gone, as a browser that leaves: what is ready is sent, nothing is waited for.
    silent = {name for name, answer in zip(ODD, answers, strict=True) if not answer}
    assert half or silent <= {"nothing", "empty lines"}
    await is_well(site, caplog)


async def test_mangled_requests_break_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody has thought of. Again with the same bytes: AGENTD_TEST_SEED."""
    print(f"AGENTD_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    seeds = [bytes_sent for bytes_sent, _ in ODD.values() if 0 < len(bytes_sent) < 2000]
    room = asyncio.Semaphore(50)

    async def ask(sent: bytes, cut: int, half: bool) -> None:
        async with room:
            answer = await site.ask(sent[:cut], sent[cut:], half=half)
        assert all(status < 500 for status in statuses(answer)), (sent, answer[:500])

    async with asyncio.TaskGroup() as group:
        for _ in range(MANGLED):
            sent = mangled(b"".join(dice.choices(seeds, k=dice.randint(1, 3))), dice)
            group.create_task(ask(sent, dice.randrange(len(sent) + 1), dice.random() < 0.5))

    await is_well(site, caplog)


async def test_requests_in_a_row_end_with_the_first_that_is_none(site: Site) -> None:
    """What stands behind a broken request is nobody's: it must not be taken for a request of its own."""
    first = get(b"/health").replace(LAST, b"")
    smuggled = post(b"Content-Length: 1\r\n", CHUNKED, body=b"0\r\n\r\n" + get(b"/api/v1/status"))

    assert statuses(await site.ask(first + first + get(b"/health"))) == [200, 200, 200]
    assert statuses(await site.ask(first + smuggled)) in ([], [200], [200, 400])


def mangled(sent: bytes, dice: random.Random) -> bytes:
    found = bytearray(sent)
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(len(found) + 1)
        match dice.randrange(4):
            case 0:
                found[place : place + 1] = dice.randbytes(1)
            case 1:
                del found[place : place + dice.randint(1, 30)]
            case 2:
                found[place:place] = dice.randbytes(dice.randint(1, 20))
            case _:
                found[place:place] = dice.choice(
                    (b"\r\n", b"\0", b"\r\n\r\n", CHUNKED, b"Content-Length: 3\r\n", b"%ff")
                )
    return bytes(found)


async def is_well(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert statuses(await site.ask(get(b"/health"))) == [200]
    await site.emptied()
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
