"""
A whole daemon in a folder, in one process, with a clock that is moved by hand; and a web service to watch.

    def test_…(tell: Tell) -> None:
        async def story(house: House) -> None:
            async with Receiver() as receiver, serving(shop.answer) as served:
                house.write(http(served), hook=receiver.url)
                async with house.living() as daemon:
                    await house.clock.advance(HOUR)

        tell(story)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import Served, plain
from receiver import Receiver, Request

from agentd.config.loader import load
from agentd.daemon import app
from agentd.daemon.app import Daemon
from agentd.daemon.notify import ServiceManager
from agentd.schedule.scheduler import Scheduler
from agentd.testing import FakeClock

HOUR = 3600.0


@dataclass
class House:
    """A folder with a configuration, and a clock; `living` starts a daemon in it."""

    folder: Path
    clock: FakeClock
    manager: ServiceManager | None = None

    @property
    def config(self) -> Path:
        return self.folder / "agentd.yaml"

    def write(self, *watches: dict[str, Any], hook: str = "http://127.0.0.1:9/", **more: Any) -> None:
        """A configuration of these watches, telling one webhook."""
        whole: dict[str, Any] = {
            # The process that it is in holds all that the tests before it have loaded.
            "daemon": {"state_dir": str(self.folder / "state"), "instance": "web-1", "memory_limit": "64GiB"},
            "webhooks": {"ops": {"url": hook}},
            "alerting": {"notify": ["ops"]},
            "defaults": {"fail_after": 2, "recover_after": 1, "every": "1m"},
            "watches": list(watches),
        }
        for key, value in more.items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        self.config.write_text(yaml.safe_dump(whole))

    @asynccontextmanager
    async def living(self) -> AsyncIterator[Daemon]:
        """A daemon from READY to its clean end."""
        daemon, run = await self.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            await self.ending(run)
        assert run.result() == 0

    async def start(self) -> tuple[Daemon, asyncio.Task[int]]:
        """A daemon that is READY, and its run."""
        daemon = self.make()
        run = asyncio.create_task(daemon.run())
        ready = asyncio.create_task(daemon.ready.wait())
        await asyncio.wait([run, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if run.done():
            run.result()
        await self.clock.settle()
        return daemon, run

    def make(self) -> Daemon:
        daemon = Daemon(self.config, load(self.config), clock=self.clock, manager=self.manager, handle_signals=False)
        self.clock.busy.append(lambda: hasattr(daemon, "store") and daemon.store.pending > 0)
        return daemon

    async def ending(self, run: asyncio.Task[int]) -> int:
        """The exit code of a daemon that is to end, however much time that takes."""
        while not run.done():
            await self.clock.advance(0.2)
        return run.result()


Tell = Callable[[Callable[[House], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Runs a story about a house on the fake clock's loop."""
    # Two looks a second, each with a pause for real I/O, would be most of what these tests do.
    for name, seconds in {
        "memory.recorder.FLUSH_S": 30.0,
        "daemon.app.TICK_S": 20.0,
        "daemon.app.STATUS_S": 60.0,
        "daemon.app.LOOK_EVERY_S": 15.0,
        "daemon.app.SWEEP_EVERY_S": 60.0,
    }.items():
        monkeypatch.setattr(f"agentd.{name}", seconds)

    def slow_guard(clock: FakeClock, on_jump: Any) -> Any:
        return original(clock, on_jump, guard_every_s=30.0)

    original = Scheduler
    monkeypatch.setattr(app, "Scheduler", slow_guard)

    def run(story: Callable[[House], Coroutine[Any, Any, None]]) -> None:
        house = House(tmp_path, FakeClock())
        house.clock.run(story(house))

    return run


class Shop:
    """A web service that is up or down."""

    def __init__(self) -> None:
        self.up = True
        self.looks = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.looks += 1
        writer.write(plain() if self.up else plain(b"no", status="503 No"))
        await writer.drain()


def http(served: Served, name: str = "shop", **more: Any) -> dict[str, Any]:
    return {"name": name, "http": {"url": served.url}, **more}


def told_of(request: Request) -> str:
    return f"{request.json['data']['watch']} {request.json['type']}"


def told(receiver: Receiver) -> list[str]:
    return [told_of(request) for request in receiver.taken]


BEAT = {"name": "job", "heartbeat": {"expect_every": "1h", "grace": "10m"}}
