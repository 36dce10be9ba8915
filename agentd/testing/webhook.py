"""
A webhook receiver on loopback, for tests of one's own configuration.

    async with RecordingWebhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") as hook:
        hook.answers(503, 503)                       # then 200
        ...                                          # an agentd whose webhook has the url hook.url
        await hook.wait_for(1)
        assert hook.messages[0].type == "alert.firing"

In: HTTP/1.1 on 127.0.0.1. Out: what came, in order, with its Standard Webhooks signature checked.
Promise: what is taken (answered 2xx) was signed by a secret it knows, where it was given one. Bounded in what it
keeps and reads, so that a run of days does not fill the memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from agentd.clock import Clock, SystemClock
from agentd.deliver.signing import signed_headers, signing_key

MAX_HEAD = 64 * 1024
MAX_BODY = 4 * 1024 * 1024
TOLERANCE_S = 300.0
"""How far a timestamp may be off: what Standard Webhooks' own libraries allow."""


@dataclass(frozen=True, slots=True)
class Received:
    """
    One request. headers: names in lower case. status: what it was answered.

    problem: what is wrong with its signature, empty when it is good or no secret was given to check it by.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    problem: str = ""

    @property
    def id(self) -> str:
        """The same for every attempt at one message; empty when the sender does not speak Standard Webhooks."""
        return self.headers.get("webhook-id", "")

    @property
    def json(self) -> Any:
        """Raises ValueError when the body is no JSON."""
        return json.loads(self.body)

    @property
    def type(self) -> str:
        """Such as `alert.firing`."""
        return str(self.json["type"])

    @property
    def data(self) -> Any:
        """What the message is about."""
        return self.json["data"]


class RecordingWebhook:
    """
    secrets: `whsec_…`, one or several while they rotate; a request that none of them signed is answered 401.
    clock: by which the age of a timestamp is judged. keep: so many attempts are kept, the oldest go.
    attempts: everything that came whole, in order, refused or not.
    """

    def __init__(
        self, *secrets: str, clock: Clock | None = None, otherwise: int = 200, port: int = 0, keep: int = 10_000
    ) -> None:
        for secret in secrets:
            signing_key(secret)
        self.attempts: deque[Received] = deque(maxlen=keep)
        self.otherwise = otherwise
        self._secrets = secrets
        self._clock = clock or SystemClock()
        self._port = port
        self._script: deque[int] = deque()
        self._count = 0
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    @property
    def messages(self) -> list[Received]:
        """What was taken, in order, each message once: the sender may repeat itself under the same id."""
        found: dict[str, Received] = {}
        for number, attempt in enumerate(self.attempts):
            if 200 <= attempt.status < 300:
                found.setdefault(attempt.id or f"#{number}", attempt)
        return list(found.values())

    def answers(self, *statuses: int) -> None:
        """The next requests get these, in turn; after them `otherwise`."""
        self._script.extend(statuses)

    async def wait_for(self, count: int, within_s: float = 30.0) -> None:
        """Until so many messages were taken. Raises TimeoutError, which says what did come."""
        try:
            async with asyncio.timeout(within_s):
                while len(self.messages) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = ", ".join(f"{each.status} {each.problem}".strip() for each in list(self.attempts)[-10:]) or "none"
            raise TimeoutError(
                f"{len(self.messages)} of {count} messages within {within_s:g} s; attempts: {seen}"
            ) from None

    async def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=MAX_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Down: connections are cut, new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> RecordingWebhook:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._serve(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # stop() cuts us off; the stream's own callback would report it
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is of no further use."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n")
        first, *lines = head.split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        words = first.split(" ")
        if len(words) != 3 or "transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
            await _reply(writer, 411 if len(words) == 3 else 400)
            return False
        if len(length) > 12 or int(length) > MAX_BODY:
            await _reply(writer, 413)
            return False
        body = await reader.readexactly(int(length))
        problem = self._problem(headers, body)
        status = self._script.popleft() if self._script else self.otherwise
        status = 401 if problem and status < 300 else status
        self.attempts.append(Received(words[1], headers, body, status, problem))
        self._news.set()
        await _reply(writer, status)
        return headers.get("connection", "").lower() != "close"

    def _problem(self, headers: dict[str, str], body: bytes) -> str:
        if not self._secrets:
            return ""
        return signature_problem(headers, body, self._secrets, self._clock.now())


def signature_problem(headers: dict[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> str:
    """What is wrong with a signature (Standard Webhooks 1.0.0, "Verifying signatures"); empty when nothing is."""
    id, stamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (id and stamp and given):
        return "unsigned: a webhook-id, webhook-timestamp or webhook-signature header is missing"
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 12):
        return "webhook-timestamp is not a number of seconds"
    at = datetime.fromtimestamp(int(stamp), UTC)
    if abs((now - at).total_seconds()) > TOLERANCE_S:
        return f"webhook-timestamp is more than {TOLERANCE_S:g} s away from now"
    right = signed_headers(id, at, body, secrets)["webhook-signature"].split(" ")
    if any(hmac.compare_digest(_bytes(each), _bytes(mine)) for each in given.split(" ") for mine in right):
        return ""
    return "no signature fits: another secret, or the body was changed"


def _bytes(signature: str) -> bytes:
    version, _, encoded = signature.partition(",")
    with contextlib.suppress(binascii.Error, ValueError):
        return version.encode() + b"," + base64.b64decode(encoded, validate=True)
    return b"?"


async def _reply(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(f"HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()
