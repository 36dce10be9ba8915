"""
What is kept of a run in history: its record line by line, the raw outputs of its tools, notes to be found again, and
what worked.

In: records as they come, the outcome. Out: posts to the history store, in batches.
Promise: never waits, never raises; a history that is full, slow or lost costs no run and no finding, and no memory: of
one run, so many bytes wait at most. Secrets are taken out before anything is kept.
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
from agentd.daemon.runs.asked import Asked
from agentd.memory import notes, outputs, run_records, worked
from agentd.memory.database import Database
from agentd.memory.spend import to_nano
from agentd.telemetry.redact import STARS, redact_all, without_secrets

_CLEANED = frozenset({"steps", "task", "result", "observation", "decision"})
"""Whoever makes these takes out already what looks like a secret, on a thread where it is much."""
_BATCH = 50
_BATCH_BYTES = 2**20
_MOST_UNWRITTEN_BYTES = 16 * 2**20
_MOST_NOTES = 200
_OF_MEMORY = "query_memory"
_MOST_NAMES = 100
_MOST_NAME_CHARS = 200


class Account:
    """One run's. `take` each record, `close` with the outcome. asked: counts the calls of models."""

    def __init__(self, job: Job, history: Database, clock: Clock, asked: Asked | None = None) -> None:
        self._job = job
        self._history = history
        self._clock = clock
        self._asked = asked
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._unwritten: dict[int, int] = {}
        self._flushes = 0
        self._notes = 0
        self._steps = 0
        self._shapes: list[str] = []
        self._workers: set[str] = set()

    def take(self, record: Record, size: int = 0) -> None:
        """size: bytes of it as JSON, where they are known. What is too much to wait for history is left out."""
        if record.kind == "steps":
            self._steps += 1
            if isinstance(shape := record.data.get("shape"), str) and len(self._shapes) < _MOST_NAMES:
                self._shapes.append(without_secrets(shape[:_MOST_NAME_CHARS]))
        elif (
            record.kind == "task"
            and isinstance(worker := record.data.get("kind"), str)
            and len(self._workers) < _MOST_NAMES
        ):
            self._workers.add(without_secrets(worker[:_MOST_NAME_CHARS]))
        elif record.kind == "model" and self._asked is not None:
            self._asked.take(record.data)
        if self._waiting_bytes + size + sum(list(self._unwritten.values())) > _MOST_UNWRITTEN_BYTES:
            return
        self._waiting.append(record)
        self._waiting_bytes += size
        full = len(self._waiting) >= _BATCH or self._waiting_bytes >= _BATCH_BYTES
        if full or record.kind in ("model", "plan", "outcome"):
            self.flush()

    def flush(self) -> None:
        """Hand over what waits; returns at once."""
        taken, self._waiting = self._waiting, []
        size, self._waiting_bytes = self._waiting_bytes, 0
        if not taken:
            return
        at, job, step = self._clock.now(), self._job, self._steps
        number = self._flushes = self._flushes + 1
        room = max(0, _MOST_NOTES - self._notes)
        self._notes += min(room, sum(line.kind == "result" for line in taken))

        def change(connection: apsw.Connection) -> None:
            self._unwritten.pop(number, None)
            # Here, on the writer's thread: of secrets that the host does not know, a megabyte takes a while.
            lines = [replace(line, data=_without_any(line)) for line in taken]
            run_records.save(connection, job.run, at, lines)
            for line in [line for line in lines if line.kind == "result"][:room]:
                _keep_result(connection, job, line.data, step, at)

        self._unwritten[number] = size
        if not self._history.post(change):
            self._unwritten.pop(number, None)

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

        if outcome.finding is not None and outcome.finding.analysis is not None:
            return  # nobody looked: there is nothing to remember, and nothing to learn from

        def change(connection: apsw.Connection) -> None:
            notes.add_final(
                connection,
                at=at,
                run=job.run,
                watch=job.watch,
                fingerprint=job.fingerprint,
                answer=redact_all(outcome.answer),
                finding=redact_all(finding),
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


def _without_any(line: Record) -> Mapping[str, Any]:
    """
    Without the daemon's secrets, and without what only looks like one: in the words of people and models too.

    The environment of commands goes whole: nothing says which of its values may be kept, and no replay runs one.
    """
    data = without_secrets(line.data)
    if line.kind in _CLEANED:
        return data
    data = redact_all(data)
    if line.kind == "job" and isinstance(permissions := data.get("permissions"), dict):
        environment = permissions.get("environment")
        names = environment if isinstance(environment, dict) else {}
        data = {**data, "permissions": {**permissions, "environment": dict.fromkeys(names, STARS)}}
    return data


def _keep_result(c: apsw.Connection, job: Job, data: Mapping[str, Any], step: int, at: datetime) -> None:
    output = data.get("output")
    if output is None:
        return
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    outputs.save(c, job.run, str(data.get("task", "")), at, text)
    tool = str(data.get("tool", ""))
    if tool == _OF_MEMORY:
        return  # or what is remembered would be remembered again and again
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
