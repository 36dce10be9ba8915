"""
What is kept of a run in history: its record line by line, the raw outputs of its tools, notes to be found again, and
what worked.

In: records as they come, the outcome. Out: posts to the history store, in batches.
Promise: never waits, never raises; a history that is full or lost costs no run and no finding. Secrets are taken out
before anything is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import apsw

from agentd.agent.job import Job, Outcome
from agentd.agent.port import Record
from agentd.clock import Clock
from agentd.memory import notes, outputs, run_records, worked
from agentd.memory.database import Database
from agentd.memory.spend import to_nano
from agentd.telemetry.redact import without_secrets

_BATCH = 50
_MOST_NOTES = 200


class Account:
    """One run's. `take` each record, `close` with the outcome."""

    def __init__(self, job: Job, history: Database, clock: Clock) -> None:
        self._job = job
        self._history = history
        self._clock = clock
        self._waiting: list[Record] = []
        self._notes = 0
        self._steps = 0
        self._shapes: list[str] = []
        self._workers: set[str] = set()

    def take(self, record: Record) -> None:
        record = replace(record, data=without_secrets(record.data))  # of secrets that the host does not know
        self._waiting.append(record)
        if record.kind == "steps":
            self._steps += 1
            if isinstance(shape := record.data.get("shape"), str):
                self._shapes.append(shape)
        elif record.kind == "task" and isinstance(worker := record.data.get("kind"), str):
            self._workers.add(worker)
        if len(self._waiting) >= _BATCH or record.kind in ("model", "plan", "outcome"):
            self.flush()

    def flush(self) -> None:
        """Hand over what waits; returns at once."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        at, job = self._clock.now(), self._job
        results = [line for line in lines if line.kind == "result"][: max(0, _MOST_NOTES - self._notes)]
        self._notes += len(results)
        step = self._steps

        def change(connection: apsw.Connection) -> None:
            run_records.save(connection, job.run, at, lines)
            for line in results:
                _keep_result(connection, job, line.data, step, at)

        self._history.post(change)

    def close(self, outcome: Outcome | None, *, ok: bool) -> None:
        """The run is over. ok: it came to what it was for."""
        self.flush()
        job, at = self._job, self._clock.now()
        if outcome is None:
            return
        shape = max(self._shapes, key=len) if self._shapes else "none"
        worker = "+".join(sorted(self._workers)) or "none"
        finding = None if outcome.finding is None else outcome.finding.model_dump(mode="json")
        tokens = outcome.input_tokens + outcome.output_tokens

        def change(connection: apsw.Connection) -> None:
            notes.add_final(
                connection,
                at=at,
                run=job.run,
                watch=job.watch,
                fingerprint=job.fingerprint,
                answer=outcome.answer,
                finding=finding,
            )
            worked.learn(
                connection,
                kind=job.scenario or job.kind,
                worker=worker,
                shape=shape,
                model=outcome.models[0] if outcome.models else "none",
                success=ok,
                latency_s=outcome.duration_s,
                tokens=tokens,
                usd_nano=to_nano(outcome.usd),
                now=at,
            )

        self._history.post(change)


def _keep_result(c: apsw.Connection, job: Job, data: Mapping[str, Any], step: int, at: datetime) -> None:
    output = data.get("output")
    if output is None:
        return
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    outputs.save(c, job.run, str(data.get("task", "")), at, text)
    tool = str(data.get("tool", ""))
    notes.add_tool_result(
        c,
        at=at,
        run=job.run,
        watch=job.watch,
        fingerprint=job.fingerprint,
        step=step,
        tool=tool,
        output=output,
    )
