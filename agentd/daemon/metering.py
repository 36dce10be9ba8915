"""
All numbers of the daemon, for whoever collects them: the `Metering` behind the HTTP routes.

In: the daemon's parts, what the API tells of its requests. Out: metrics as Prometheus reads them, and as JSON.
Promise: nothing is worked out and no library for it imported before somebody asks; the loop is never held for long,
whatever is slow is done on a thread. However many ask at once, the work is done once for all who wait.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from agentd.api.shared import Shared
from agentd.clock import iso
from agentd.errors import StoreError
from agentd.telemetry.tally import (
    FAST_S,
    MOST_SERIES,
    OTHER,
    WORK_S,
    Admitted,
    Labels,
    Seen,
    Spread,
    Spreads,
    Tally,
)

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon
    from agentd.daemon.gauging import Machine
    from agentd.telemetry.catalogue import Metric, Numbers
    from agentd.telemetry.metrics import Rendering

Json = dict[str, Any]
T = TypeVar("T")

_STORE_S = 5.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MOST_ROUTES = 200


class Metering:
    """Implements `agentd.api.metering_port.Metering` over the parts of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._watches, self._webhooks = Admitted(), Admitted(MOST_SERIES)
        self._machine: Machine | None = None
        self._requests, self._took_s = Tally(), Spreads(WORK_S, _MOST_ROUTES)
        self._in_flight = 0
        self._writes = {"state": Spread(FAST_S), "history": Spread(FAST_S)}
        daemon.store.state.took = self._writes["state"].add
        daemon.store.history.took = self._writes["history"].add
        self._text, self._json = Shared(self._make_text), Shared(self._make_json)
        self._rendering: Rendering | None = None

    # Of the API.

    def request_begun(self) -> None:
        self._in_flight += 1

    def request_done(self, route: str, method: str, status: int, duration_s: float) -> None:
        self._in_flight -= 1
        method = method if method in _METHODS else OTHER
        self._requests.add((method, route, str(status) if 100 <= status <= 599 else OTHER))
        self._took_s.add((method, route), duration_s)

    # For who asks.

    async def prometheus(self) -> tuple[bytes, str]:
        return await self._text.newest(), "text/plain; version=0.0.4; charset=utf-8"

    async def json(self) -> Json:
        return await self._json.newest()

    async def _make_text(self) -> bytes:
        numbers = await self._take()
        return await asyncio.to_thread(self._render, numbers)

    async def _make_json(self) -> Json:
        at, numbers = iso(self._daemon.clock.now()), await self._take()
        return {"at": at, "metrics": await asyncio.to_thread(_undisturbed, partial(shown, numbers))}

    async def _take(self) -> Numbers:
        # Both take memory that a daemon whose numbers nobody wants has not got to spare, and a moment the first time.
        await asyncio.to_thread(importlib.import_module, "agentd.daemon.gauging")
        from agentd.daemon import gauging
        from agentd.telemetry.catalogue import Numbers

        daemon, numbers = self._daemon, Numbers()
        gauging.at_once(daemon, numbers)
        gauging.of_webhooks(daemon, numbers, self._webhooks)
        numbers.put("agentd_api_requests_in_flight", self._in_flight)
        numbers.put_all("ai_agent_requests_total", self._requests)
        numbers.put_all("ai_agent_request_duration_seconds", self._took_s)
        for name, spread in self._writes.items():
            numbers.put("agentd_store_write_duration_seconds", spread.seen(), name)
        await gauging.of_watches(daemon, numbers, self._watches)
        now, kept = daemon.clock.now(), Numbers(part=True)
        try:
            async with asyncio.timeout(_STORE_S):
                await daemon.store.state.read(lambda c: gauging.of_store(c, kept, self._webhooks, now))
        except (StoreError, TimeoutError):  # the reader may still be at it: what it puts in then nobody sees
            numbers.put("agentd_store_readable", 0)
        else:
            numbers.put("agentd_store_readable", 1)
            numbers.update(kept)
        machine = self._machine = self._machine or gauging.Machine()
        await asyncio.to_thread(machine.read, daemon.store.path, numbers)
        return numbers

    def _render(self, numbers: Numbers) -> bytes:
        """On a thread, one at a time."""
        if self._rendering is None:
            from agentd.telemetry.metrics import Rendering

            since_s = self._daemon.started_at.timestamp()
            self._rendering = Rendering(instance=self._daemon.instance, since_s=since_s)
        return _undisturbed(partial(self._rendering.text, numbers))


def _undisturbed(work: Callable[[], T]) -> T:
    """
    Do what makes many objects and no cycles without the cycle collector.

    A collection of everything holds the interpreter, and with it the loop, for a tenth of a second and more.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return work()
    finally:
        if collects:
            gc.enable()


def shown(numbers: Numbers) -> Json:
    """By name: `type`, `help`, and `series`, each with its `labels` and `value`, or `count`, `sum` and `buckets`."""
    from agentd.telemetry.catalogue import CATALOGUE

    return {metric.name: _shown(metric, numbers.values[metric.name]) for metric in CATALOGUE}


def _shown(metric: Metric, series: dict[Labels, float | Seen]) -> Json:
    rows = [
        {"labels": dict(zip(metric.labels, labels, strict=True)), **_value(value)} for labels, value in series.items()
    ]
    return {"type": metric.kind, "help": metric.what, "series": rows}


def _value(value: float | Seen) -> Json:
    if not isinstance(value, Seen):
        return {"value": int(value) if isinstance(value, bool) else value}
    ends = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
    buckets = dict(zip(ends, accumulate(value.counts), strict=True))
    return {"count": value.count, "sum": value.total, "buckets": buckets}
