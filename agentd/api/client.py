"""
The HTTP client of tasks and runs: the same interface as the service inside of the daemon's process has.

    async with HttpTasks("/run/agentd/api.sock") as tasks:           # or "http://127.0.0.1:8787"
        view = await ask(tasks, "Why is /var/log so large?")
        print(view["result"]["summary"])

In: the address of a daemon. Out: plain JSON values, as `agentd.api.tasks.TaskService` says.
Promise: raises what the service itself would raise; a stream of events that breaks off is taken up where it was left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentd.api.service import Conflict, Forbidden, NotFound, TooMany
from agentd.api.tasks import BatchAsked, Message, TaskAsked, TaskService
from agentd.errors import AgentdError, ConfigError, StoreError

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]

_TIMEOUT_S = 60.0
_AGAIN_S = 0.5
_MOST_BREAKS = 5
_ENDED = frozenset({"completed", "failed", "stopped", "cancelled"})


class Unreachable(AgentdError):
    """No daemon answers there."""


class HttpTasks:
    """
    Implements `TaskService` over HTTP.

    address: path of a unix socket, or `http://host:port`. key: an API key. by: whom the audit trail names.
    """

    def __init__(
        self, address: str, *, key: str | None = None, by: str = "client", timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._address = address
        self._by = by
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> HttpTasks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def submit(self, asked: TaskAsked, *, by: str = "") -> Json:
        body = asked.model_dump(mode="json", exclude_none=True)
        return await self._call("POST", "/api/v1/tasks", body | {"by": by or self._by})

    async def submit_batch(self, asked: BatchAsked, *, by: str = "") -> Json:
        body = asked.model_dump(mode="json", exclude_none=True)
        return await self._call("POST", "/api/v1/tasks/batch", body | {"by": by or self._by})

    async def task(self, id: str) -> Json:
        return await self._call("GET", f"/api/v1/tasks/{_step(id)}")

    async def cancel(self, id: str, *, by: str = "") -> Json:
        return await self._call("DELETE", f"/api/v1/tasks/{_step(id)}", {"by": by or self._by})

    async def say(self, id: str, message: Message, *, by: str = "") -> Json:
        body = message.model_dump(mode="json") | {"by": by or self._by}
        return await self._call("POST", f"/api/v1/tasks/{_step(id)}/messages", body)

    async def events(self, id: str, after: int = 0) -> AsyncIterator[Json]:
        breaks = 0
        while True:
            try:
                async for event in self._stream(id, after):
                    if event is None:
                        return
                    after, breaks = event["seq"], 0
                    yield event
            except Unreachable:
                breaks += 1
                if breaks > _MOST_BREAKS:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def tasks(self, *, status: str | None = None, limit: int = 100, before: str | None = None) -> Json:
        return await self._call("GET", "/api/v1/tasks", query=_query(status=status, limit=limit, before=before))

    async def runs(
        self, *, watch: str | None = None, state: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[Json]:
        query = _query(watch=watch, state=state, limit=limit, before=before)
        return list((await self._call("GET", "/api/v1/runs", query=query))["runs"])

    async def run(self, id: str, after: int = -1) -> Json:
        behind = "" if after < 0 else f"?after={after}"
        return await self._call("GET", f"/api/v1/runs/{_step(id)}{behind}")

    async def tools(self) -> list[Json]:
        return list((await self._call("GET", "/api/v1/tools"))["tools"])

    async def models(self) -> list[Json]:
        return list((await self._call("GET", "/api/v1/models"))["models"])

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            unix = "://" not in self._address
            transport = httpx.AsyncHTTPTransport(uds=self._address) if unix else None
            base = "http://agentd" if unix else self._address
            self._client = httpx.AsyncClient(
                transport=transport, base_url=base, headers=self._headers, timeout=self._timeout_s, trust_env=False
            )
        return self._client

    async def _call(
        self, method: str, path: str, body: Json | None = None, query: dict[str, str] | None = None
    ) -> Json:
        import httpx

        try:
            answer = await self._open().request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._address}: {type(error).__name__}: {error}") from error
        return _read(answer.status_code, answer.content, answer.headers.get("retry-after"))

    async def _stream(self, id: str, after: int) -> AsyncIterator[Json | None]:
        """Events, and None when the task has ended. Raises Unreachable when it breaks off."""
        import httpx

        path, headers = f"/api/v1/tasks/{_step(id)}/events", {"Last-Event-ID": str(after)}
        try:
            async with self._open().stream("GET", path, headers=headers, timeout=None) as answer:
                if answer.status_code != 200:
                    _read(answer.status_code, await answer.aread(), None)
                kind = ""
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield None if kind == "end" else json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._address}: {type(error).__name__}: {error}") from error


async def ask(tasks: TaskService, text: str, **asked: Any) -> Json:
    """Submit a task and wait for its end; returns its view. asked: further fields of `TaskAsked`."""
    view = await tasks.submit(TaskAsked(task=text, **asked), by="")
    id = view["task_id"]
    while view["status"] not in _ENDED:
        async for _ in tasks.events(id, 0):
            pass
        view = await tasks.task(id)
    return view


def _read(status: int, body: bytes, retry_after: str | None) -> Json:
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    if status < 400 and isinstance(found, dict):
        return found
    detail = str(found.get("detail")) if isinstance(found, dict) and found.get("detail") else f"HTTP {status}"
    if status == 404:
        raise NotFound(detail)
    if status == 403:
        raise Forbidden(detail)
    if status == 409:
        raise Conflict(detail)
    if status == 422:
        raise ConfigError(detail)
    if status == 429:
        raise TooMany(detail, retry_after_s=int(retry_after) if retry_after and retry_after.isdecimal() else 1)
    if status == 503:
        raise StoreError(detail)
    raise AgentdError(detail)


def _query(**asked: str | int | None) -> dict[str, str]:
    return {key: str(value) for key, value in asked.items() if value}


def _step(id: str) -> str:
    return quote(id, safe="").replace(".", "%2E")
