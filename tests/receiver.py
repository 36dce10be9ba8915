"""
A webhook receiver on loopback, for tests: records what arrives, answers as told, verifies signatures.

    async with Receiver() as receiver:
        receiver.answers(503, Answer(429, headers={"Retry-After": "60"}))   # then 200, or receiver.otherwise
        ...
        assert receiver.ids == ["msg_1"]
        receiver.verify(receiver.requests[0], "whsec_…", now=clock.now())

It is a plain socket server of its own, so that it can also misbehave: reset, hang, answer without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from unittest import mock

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Answer:
    """
    What the receiver does with one request.

    delay_s: before the status, in the loop's time. reset: cut the connection instead of answering.
    hang: never answer. endless: a body that never ends. raw: bytes sent instead of a proper answer.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    delay_s: float = 0.0
    reset: bool = False
    hang: bool = False
    endless: bool = False
    raw: bytes | None = None


@dataclass(frozen=True)
class Request:
    """What arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """
    requests: everything that arrived whole, in order, refused or not. taken: those that were answered 2xx.
    otherwise: the answer when none is scripted; or a function of the request.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.taken: list[Request] = []
        self.otherwise: Answer | int | Callable[[Request], Answer | int] = 200
        self.connections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._news = asyncio.Event()
        self._script: deque[Answer | int] = deque()
        self._tls = tls
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait_for(self, count: int, within_s: float = 30.0) -> None:
        """Until so many requests have arrived. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()

    def answers(self, *script: Answer | int) -> None:
        """The next requests get these, in turn."""
        self._script.extend(script)

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/hook"

    @property
    def ids(self) -> list[str]:
        """Of what was taken, in order."""
        return [request.id for request in self.taken]

    @staticmethod
    def verify(request: Request, secret: str, *, now: dt.datetime | None = None) -> Any:
        """The payload, after Standard Webhooks' own library accepted the signature; `now` for a clock of our own."""

        class Now(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Now:
                moment = now or dt.datetime.now(tz)
                return cls.fromtimestamp(moment.timestamp(), tz)

        with mock.patch("standardwebhooks.webhooks.datetime", Now):
            return Webhook(secret).verify(request.body, request.headers)

    async def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Down: connections are cut, new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Receiver:
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
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._serve(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # stop() cuts us off; the stream's own callback would report it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, path, headers, body, asyncio.get_running_loop().time())
        self.requests.append(request)
        self._news.set()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request, writer)
        finally:
            self._at_once -= 1

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        given = self._script.popleft() if self._script else self.otherwise
        if callable(given):
            given = given(request)
        answer = Answer(given) if isinstance(given, int) else given
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        if answer.hang:
            await asyncio.Event().wait()
        if answer.reset:
            return False
        if answer.raw is not None:
            writer.write(answer.raw)
            await writer.drain()
            return False
        length = {} if answer.endless else {"Content-Length": str(len(answer.body))}
        lines = [f"HTTP/1.1 {answer.status} Status", *(f"{k}: {v}" for k, v in (answer.headers | length).items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
        await writer.drain()
        if 200 <= answer.status < 300:
            self.taken.append(request)
        while answer.endless:
            writer.write(b"x" * 65536)
            await writer.drain()
        return True
