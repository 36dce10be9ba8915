"""
The honest watchdog: systemd hears that we are alive only while every part that must work does.

In: parts, each a coroutine function that answers when the part is alive. Out: WATCHDOG=1 at half of the interval.
Promise: a ping means that the loop runs and that each part answered since the ping before. A part that stays silent is
named in the log and in STATUS before systemd ends us. An idle part answers; a full disk is alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from agentd.clock import Clock
from agentd.daemon.notify import ServiceManager
from agentd.errors import StoreFull

log = logging.getLogger("agentd.daemon")


class Watchdog:
    """
    manager: whom to ping; it knows the interval.
    parts: by name, what to ask for a liveness token: it returns when the part has done a round since it was asked.
    It may raise StoreFull, which is an answer; anything else it raises is none.
    """

    def __init__(
        self, manager: ServiceManager, clock: Clock, parts: Mapping[str, Callable[[], Awaitable[None]]]
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._parts = dict(parts)

    async def run(self) -> None:
        """Watch until cancelled; returns at once when nobody watches us."""
        interval_s = self._manager.watchdog_s
        if interval_s is None:
            return
        loop = asyncio.get_running_loop()
        while True:
            next_round = loop.time() + interval_s / 2
            await self._round(patience_s=interval_s / 4)
            self._manager.ping()
            await asyncio.sleep(max(0.0, next_round - loop.time()))

    async def silent(self, patience_s: float) -> list[str]:
        """Ask every part now, whether systemd watches or not; the names of those that gave no answer in that time."""
        asks = {asyncio.create_task(self._ask(name, part, patience_s)): name for name, part in self._parts.items()}
        if not asks:
            return []
        try:
            _, silent = await asyncio.wait(asks, timeout=patience_s)
            return sorted(asks[task] for task in silent)
        finally:
            for task in asks:
                task.cancel()

    async def _round(self, patience_s: float) -> None:
        """Return when every part has answered, however long that takes; systemd sets the limit."""
        asked_at = self._clock.monotonic()
        asks = {asyncio.create_task(self._ask(name, part, patience_s)): name for name, part in self._parts.items()}
        if not asks:
            return
        try:
            _, silent = await asyncio.wait(asks, timeout=patience_s)
            if not silent:
                return
            names = sorted(asks[task] for task in silent)
            log.error("watchdog_silent", extra={"parts": ", ".join(names), "silent_s": round(patience_s, 1)})
            self._manager.alarm(f"watchdog: no answer from {', '.join(names)}")
            await asyncio.wait(silent)
            silent_s = round(self._clock.monotonic() - asked_at, 1)
            log.warning("watchdog_answered", extra={"parts": ", ".join(names), "silent_s": silent_s})
            self._manager.alarm(None)
        finally:
            for task in asks:
                task.cancel()

    async def _ask(self, name: str, part: Callable[[], Awaitable[None]], patience_s: float) -> None:
        while True:
            try:
                await part()
            except StoreFull:
                return
            except Exception:
                log.exception("watchdog_part_failed", extra={"part": name})
            else:
                return
            # It cannot answer now; being asked again soon, it may yet before systemd's limit.
            await asyncio.sleep(patience_s / 4)
