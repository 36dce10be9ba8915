"""
What stands around a daemon under test: a receiver and a small service, and the news of what happens to them.

In: what the daemon sends and asks. Out: what arrived and when; `News.until` waits for it, with a deadline.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from receiver import Receiver, Request

T = TypeVar("T")

WITHIN_S = 60.0


class News:
    """Something happened; whoever waits looks whether it is what he waits for."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self.explain: Callable[[], str] = lambda: ""

    def tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, look: Callable[[], T], what: str, within_s: float = WITHIN_S) -> T:
        """The first true thing that `look` gives, looked for at once and at every piece of news."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := look()):
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
                return found
        except TimeoutError:
            pass
        pytest.fail(f"{what}: not within {within_s} s\n{self.explain()}")


class Hook(Receiver):
    """The webhook receiver, with news of what it gets. secret: what its messages are signed with."""

    def __init__(self, news: News, name: str) -> None:
        super().__init__()
        self.name = name
        self.news = news
        self.secret = "whsec_" + base64.b64encode(os.urandom(24)).decode()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        self.news.tell()
        try:
            return await super()._answer(request, writer)
        finally:
            self.news.tell()

    def messages(self, kind: str | None = None, *, watch: str | None = None) -> list[dict[str, Any]]:
        """What was taken, in order, verified by the library of Standard Webhooks."""
        bodies = [self.verify(request, self.secret) for request in self.taken]
        return [
            body
            for body in bodies
            if (kind is None or body["type"] == kind) and (watch is None or body["data"].get("watch") == watch)
        ]

    async def message(
        self, kind: str, *, watch: str | None = None, nth: int = 1, within_s: float = WITHIN_S
    ) -> dict[str, Any]:
        """The nth message of that kind, as soon as it has come."""
        what = f"{self.name} gets {kind} number {nth}" + (f" of {watch}" if watch else "")
        found = await self.news.until(lambda: self.messages(kind, watch=watch)[nth - 1 :], what, within_s)
        return found[0]


@dataclass(frozen=True)
class Hit:
    """One request to a target. at: monotonic seconds. answered: the status it got, None when cut off."""

    path: str
    at: float
    answered: int | None


class Target:
    """
    A small web service that is watched.

    status: what it answers; 0 cuts the connection. hits: what it answered, in order. arrived: requests that came in.
    allowed: so many of these are answered; further ones wait until it is raised.
    """

    def __init__(self, news: News) -> None:
        self.status = 200
        self.answer: Callable[[str], int] = lambda path: self.status
        self.hits: list[Hit] = []
        self.arrived = 0
        self._allowed = float("inf")
        self.most_at_once = 0
        self.port = 0
        self._at_once: Counter[str] = Counter()
        self._news = news
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def allowed(self) -> float:
        return self._allowed

    @allowed.setter
    def allowed(self, allowed: float) -> None:
        self._allowed = allowed
        self._news.tell()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def reaches(self, count: int, within_s: float = WITHIN_S) -> None:
        """Wait until so many requests were answered."""
        await self._news.until(lambda: len(self.hits) >= count, f"the target answers {count} requests", within_s)

    async def looked_at(self, times: int = 2) -> None:
        """Wait for so many requests more."""
        await self.reaches(len(self.hits) + times)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        path = ""
        try:
            with contextlib.suppress(OSError, EOFError):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self._at_once[path] += 1
                self.most_at_once = max(self.most_at_once, self._at_once[path])
                self.arrived += 1
                number = self.arrived
                self._news.tell()
                if number > self.allowed:
                    await self._news.until(lambda: number <= self.allowed, "the target goes on", within_s=120)
                await self._say(path, writer)
        except asyncio.CancelledError:
            pass  # the end of the stage
        finally:
            self._at_once[path] -= 1
            self._talks.discard(task)
            writer.transport.abort() if not writer.is_closing() else None

    async def _say(self, path: str, writer: asyncio.StreamWriter) -> None:
        # Chosen, counted and sent in one go: a change of mind falls between two requests, never into one.
        status = self.answer(path)
        self.hits.append(Hit(path, time.monotonic(), status or None))
        if status:
            writer.write(f"HTTP/1.1 {status} Status\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode())
            writer.close()
            await writer.wait_closed()
        else:
            writer.transport.abort()
        self._news.tell()
