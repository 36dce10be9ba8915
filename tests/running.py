"""A daemon in a thread of its own, for tests of what speaks to one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd.config.loader import load
from agentd.daemon.app import Daemon


@contextmanager
def running(path: Path) -> Iterator[Daemon]:
    """READY until the end, which has to be a clean one."""
    ready = threading.Event()
    found: list[tuple[Daemon, asyncio.AbstractEventLoop]] = []
    codes: list[int] = []

    async def live() -> None:
        daemon = Daemon(path, load(path), handle_signals=False)
        found.append((daemon, asyncio.get_running_loop()))
        telling = asyncio.create_task(daemon.ready.wait())
        telling.add_done_callback(lambda _: ready.set())
        codes.append(await daemon.run())

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert ready.wait(20), "the daemon is not READY"
        yield found[0][0]
    finally:
        daemon, loop = found[0]
        loop.call_soon_threadsafe(daemon.stop)
        thread.join(30)
    assert codes == [0]
