"""
An agent host that the test plays, in a daemon that lives in a `House`: what a run is given, and whatever it may say.

    def test_…(tell: Tell, played: PlayedHost) -> None:
        played.play = finds
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from agentd.agent.wire import Wire
from agentd.daemon.app import Daemon
from agentd.memory import ledger
from agentd.memory.ledger import Run

MODEL = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "model": "fake"}
PRICED: dict[str, Any] = {"models": {"default": {**MODEL, "price": {"input": 1, "output": 1}}}}
CENT: dict[str, Any] = {"budgets": {"daemon_per_day": {"usd": 0.01}}}
FINDING = {"status": "problem", "summary": "The disk is full."}

Play = Callable[["Wire", Mapping[str, Any]], Awaitable[None]]
"""The host's side of a run: its connection, and the job."""


class PlayedHost:
    """Stands where the agent host stands. jobs: of the runs so far."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.jobs: list[Mapping[str, Any]] = []
        self.killed = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> Wire:
        ours, theirs = socket.socketpair()
        wire = Wire(*await asyncio.open_connection(sock=theirs))
        task = asyncio.create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Wire(*await asyncio.open_connection(sock=ours))

    async def _serve(self, wire: Wire) -> None:
        first = await wire.read()
        assert first is not None
        self.jobs.append(first["job"])
        try:
            await self.play(wire, first["job"])
        finally:
            wire.close()

    def done(self) -> None: ...

    async def clear_up(self) -> None: ...

    async def kill(self) -> None:
        self.killed += 1
        await self.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()


async def say(wire: Wire, **outcome: Any) -> None:
    """The last word of a run."""
    wire.send("outcome", outcome={"state": "completed", "answer": "done", **outcome})
    await wire.drain()


async def finds(wire: Wire, job: Mapping[str, Any]) -> None:
    await say(wire, finding=FINDING)


async def pays_first(wire: Wire, job: Mapping[str, Any]) -> None:
    """Asks for two cents, and says in its finding what it was told."""
    quote = {"id": "1", "model": "default", "tokens": 100, "usd": 0.02}
    wire.send("ask", id=1, what="reserve", args=quote)
    answer = await wire.read()
    assert answer is not None
    refused = answer.get("message")
    await say(wire, finding={**FINDING, "analysis": f"unavailable ({refused})" if refused else None})


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    host = PlayedHost(finds)
    monkeypatch.setattr("agentd.daemon.app.open_host", lambda *_: host)
    return host


async def runs_of(daemon: Daemon) -> list[Run]:
    """Newest first."""
    return await daemon.store.state.read(lambda c: ledger.runs(c))


def goal(**more: Any) -> dict[str, Any]:
    return {"name": "review", "goal": "Look around.", "every": "1h", "report": "state", **more}
