"""
agentd inside of another program: the whole daemon, without signals and without the service manager.

    async with daemon_here(Path("agentd.yaml")) as daemon:
        view = await ask(daemon.tasks, "Why is /var/log so large?")     # agentd.api.client.ask

In: a configuration. Out: a running `Daemon`, whose `tasks` has the same interface as `agentd.api.client.HttpTasks`.
Promise: ready when the block begins, drained and closed when it has ended. The loop is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from agentd.config.loader import load
from agentd.daemon.app import Daemon
from agentd.daemon.notify import ServiceManager


@contextlib.asynccontextmanager
async def daemon_here(path: Path, *, environment: Mapping[str, str] | None = None) -> AsyncIterator[Daemon]:
    """
    environment: where the configuration's `${env:…}` are looked up; default the process's own.

    Raises InvalidConfig, StoreError (another daemon owns the state folder), CannotListen.
    """
    loaded = await asyncio.to_thread(load, path, environment=environment)
    daemon = Daemon(path, loaded, manager=ServiceManager({}), handle_signals=False)
    life = asyncio.create_task(daemon.run(), name="agentd")
    ready = asyncio.create_task(daemon.ready.wait())
    try:
        await asyncio.wait([life, ready], return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        yield daemon
    finally:
        ready.cancel()
        daemon.stop()
        await life
