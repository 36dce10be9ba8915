"""
Is it they who are down, or our own network? Asked before a watch of something in the network fires.

In: `daemon.selfcheck`, addresses that answer whenever our network works. Out: why a failure is ours, or None.
Promise: however many watches ask, the addresses are looked at once in five seconds at most, all at the same time and
for no longer than three; whoever asks meanwhile gets the same answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from agentd.clock import Clock
from agentd.config.values import Target
from agentd.net.address import NetFailure
from agentd.net.connection import Connection, Endpoint, Timings, connect
from agentd.pipeline import ProbeWatch
from agentd.watch import KINDS

log = logging.getLogger("agentd.selfcheck")

AGAIN_AFTER_S = 5.0
TIMEOUT_S = 3.0
_MOST_NAMED = 3


class SelfCheck:
    """targets: may be replaced at any time, as a reload does; none: nothing is ever our own fault."""

    def __init__(self, clock: Clock, targets: Sequence[Target] = ()) -> None:
        self._clock = clock
        self._targets = tuple(targets)
        self._lock = asyncio.Lock()
        self._looked_at_s = float("-inf")
        self._found: str | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._targets

    @targets.setter
    def targets(self, targets: Sequence[Target]) -> None:
        if self._targets != tuple(targets):
            self._targets = tuple(targets)
            self._looked_at_s = float("-inf")

    async def __call__(self, watch: ProbeWatch) -> str | None:
        """Why a failure of this watch is our own network's, or None when it may be believed."""
        kind = KINDS.get(watch.kind)
        if not self._targets or kind is None or not kind.network:
            return None
        async with self._lock:
            if self._clock.monotonic() - self._looked_at_s >= AGAIN_AFTER_S:
                await self._look()
            return self._found

    async def _look(self) -> None:
        targets, began_s = self._targets, self._clock.monotonic()
        reached = await asyncio.gather(*(_is_reached(target) for target in targets))
        found = None if any(reached) else f"our own network: {_named(targets)} cannot be reached either"
        if found is not None and self._found is None:
            log.warning("own_network_lost", extra={"targets": ", ".join(map(str, targets))})
        elif found is None and self._found is not None:
            log.info("own_network_works_again")
        self._found, self._looked_at_s = found, began_s


async def _is_reached(target: Target) -> bool:
    connection = Connection()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await connect(connection, Endpoint.of(target.host, target.port), Timings(), TIMEOUT_S)
    except (NetFailure, TimeoutError):
        return False
    except Exception:
        log.exception("selfcheck_crashed", extra={"target": str(target)})
        return True  # a defect of ours must silence nobody's failure
    finally:
        connection.abandon()
    return True


def _named(targets: Sequence[Target]) -> str:
    shown = ", ".join(map(str, targets[:_MOST_NAMED]))
    more = len(targets) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
