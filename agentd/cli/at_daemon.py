"""
A task at the daemon: asked and watched over its unix socket.

In: what is asked. Out: its events by Server-Sent Events, its view.
Promise: an interrupted stream goes on where it broke off; each event comes once. A daemon that is gone for long is
said to be, and the task stays its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

import httpx

from agentd.api.tasks import TaskAsked
from agentd.cli.client import NoDaemon, Refused, call, quoted
from agentd.cli.errand import UNDER_WAY
from agentd.cli.place import Place

Json = dict[str, Any]

PATIENCE_S = 60.0
"""How long a daemon may be gone: it may be starting anew."""
_AGAIN_S = 0.5
_SILENCE_S = 60.0  # it says something every 15 seconds
_MOST_BYTES = 16 * 1024 * 1024


class AtDaemon:
    """Made by `submit`."""

    where = "at the daemon"

    def __init__(self, place: Place, id: str, *, patience_s: float = PATIENCE_S) -> None:
        self.id = id
        self._place = place
        self._path = f"/api/v1/tasks/{quoted(id)}"
        self._patience_s = patience_s
        self._seen = 0

    @classmethod
    async def submit(cls, place: Place, asked: TaskAsked) -> AtDaemon:
        """Raises NoDaemon, Refused."""
        body = asked.model_dump(mode="json", exclude_none=True)
        view = await asyncio.to_thread(call, place, "POST", "/api/v1/tasks", body)
        return cls(place, str(view["task_id"]))

    async def view(self) -> Json:
        view: Json = await asyncio.to_thread(call, self._place, "GET", self._path)
        return view

    async def say(self, kind: Literal["steer", "follow_up", "cancel", "end"], text: str = "") -> None:
        body = {"kind": kind, "text": text}
        await asyncio.to_thread(call, self._place, "POST", f"{self._path}/messages", body)

    async def cancel(self) -> None:
        try:
            await asyncio.to_thread(call, self._place, "DELETE", self._path)
        except Refused as refused:
            if refused.status != 409:
                raise

    def abandon(self) -> None:
        """Nothing of it is here."""

    async def events(self) -> AsyncIterator[Json]:
        """Raises Refused: the daemon does not come back, or does not know the task any more."""
        while True:
            before = self._seen
            try:
                async with aclosing(self._listen()) as heard:
                    async for event in heard:
                        yield event
            except httpx.TransportError:
                pass  # whether it is over says its view
            if (await self._awaited())["status"] not in UNDER_WAY:
                return
            if self._seen == before:
                await asyncio.sleep(_AGAIN_S)

    async def _awaited(self) -> Json:
        """The view, from a daemon that may just be starting anew."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            try:
                return await self.view()
            except (NoDaemon, Refused) as error:
                if isinstance(error, Refused) and error.status is not None and error.status < 500:
                    raise
                if loop.time() > until:
                    raise Refused(f"{error}; `agentd runs {self.id}` shows what came of it") from error
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> AsyncGenerator[Json, None]:
        """Raises httpx.TransportError, Refused."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._place.socket))
        headers = {"Last-Event-ID": str(self._seen)}
        async with (
            httpx.AsyncClient(transport=transport, timeout=_SILENCE_S) as client,
            client.stream("GET", f"http://agentd{self._path}/events", headers=headers) as answer,
        ):
            if answer.status_code != 200:
                return
            async with aclosing(read_events(answer.aiter_bytes())) as events:
                async for event in events:
                    if event["seq"] > self._seen:
                        self._seen = event["seq"]
                        yield event


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Json, None]:
    """
    The events of a stream, up to its `end`.

    Lines end with a newline and nothing else: what a model says may hold other things that split a text.
    """
    buffer, name, data = bytearray(), "", bytearray()
    async for chunk in chunks:
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line.startswith(b"event: "):
                name = line[7:].decode(errors="replace")
            elif line.startswith(b"data: "):
                data += line[6:]
            elif not line and data:
                if name == "end":
                    return
                event = _event(data)
                name, data = "", bytearray()
                if event is not None:
                    yield event
        if len(buffer) + len(data) > _MOST_BYTES:
            raise Refused("what answers there is no agentd: an event without end")


def _event(data: bytearray) -> Json | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("seq"), int) else None
