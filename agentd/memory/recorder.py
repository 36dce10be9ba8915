"""
From the checks to history: results wait in memory for up to a second and go to the store in one batch.

In: one `CheckResult` per check, one list of spans per trace.  Out: posts to the history store.
Promise: a check pays for a list append and nothing else; what waits is bounded, and what was dropped is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import apsw

from agentd.memory import results, rollups, spans
from agentd.memory.database import Database
from agentd.records import CheckResult

FLUSH_S = 1.0
ROLL_UP_S = 10.0
MAX_WAITING = 20_000
MAX_TRACES = 1000
_BATCH = 2000
_ROLL_UPS = 8

Trace = Sequence[Mapping[str, Any]]


class Recorder:
    """dropped: results and traces that found no room. before: called ahead of every flush (looks after disk room)."""

    def __init__(self, history: Database, before: Callable[[], None] = lambda: None) -> None:
        self.dropped = 0
        self._history = history
        self._before = before
        self._results: list[CheckResult] = []
        self._traces: list[Trace] = []

    def record(self, result: CheckResult) -> None:
        """Keep the result of one check."""
        if len(self._results) < MAX_WAITING:
            self._results.append(result)
        else:
            self.dropped += 1

    def trace(self, trace: Trace) -> None:
        """Keep the spans of one run, root last."""
        if len(self._traces) < MAX_TRACES:
            self._traces.append(trace)
        else:
            self.dropped += 1

    def flush(self) -> None:
        """Hand over what waits; returns at once. What the store cannot take now is counted there."""
        self._before()
        found, self._results = self._results, []
        for begin in range(0, len(found), _BATCH):
            self._history.post(partial(_insert, batch=found[begin : begin + _BATCH]))
        traces, self._traces = self._traces, []
        for begin in range(0, len(traces), 100):
            self._history.post(partial(_save, traces=traces[begin : begin + 100]))

    async def run(self) -> None:
        """Flush every second, roll up every ten, until cancelled; then flush once more."""
        seconds = 0.0
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                seconds += FLUSH_S
                self.flush()
                if seconds >= ROLL_UP_S:
                    seconds = 0.0
                    for _ in range(_ROLL_UPS):
                        self._history.post(rollups.roll_up)
        finally:
            self.flush()


def _insert(c: apsw.Connection, batch: list[CheckResult]) -> None:
    results.insert(c, batch)


def _save(c: apsw.Connection, traces: list[Trace]) -> None:
    for trace in traces:
        spans.save(c, trace)
