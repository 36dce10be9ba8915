"""
Tasks that people ask for, and the runs that there were: the `TaskService` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values. What somebody asks for is written to the audit trail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import apsw

from agentd.agent.permissions import NotPermitted
from agentd.api.service import Conflict, NotFound, TooMany
from agentd.api.tasks import Message, TaskAsked, run_view, task_view
from agentd.clock import Clock
from agentd.config.models import Config
from agentd.daemon.runs.agents import Agents
from agentd.daemon.runs.dispatch import TooManyRuns, new_run_id
from agentd.daemon.runs.jobs import default_model, make_job, permissions_of
from agentd.errors import ConfigError
from agentd.fleet.messages import Control
from agentd.memory import audit, ledger, run_records
from agentd.memory.ledger import Priority, Run, RunState
from agentd.memory.store import Store

Json = dict[str, Any]

TASK = "task"
_MOST_LINES = 5000
_RETRY_AFTER_S = 10
_WAITING_S = 0.25
_SHOWN_BYTES = 4096


class Tasks:
    """Implements `agentd.api.tasks.TaskService` over the daemon's agents."""

    def __init__(self, agents: Agents, store: Store, clock: Clock) -> None:
        self._agents = agents
        self._store = store
        self._clock = clock

    @property
    def _config(self) -> Config:
        return self._agents.config

    async def submit(self, asked: TaskAsked, *, by: str) -> Json:
        now = self._clock.now()
        run = Run(
            asked.task_id or new_run_id(),
            TASK,
            f"asked by {by}",
            now,
            kind="session" if asked.session else "task",
            goal=asked.task,
            priority=Priority[asked.priority.upper()],
            asked=asked.as_asked(),
        )
        if (known := await self._known(run.id)) is not None:
            return await self._view(known)
        try:
            make_job(run, self._config, now=now, instance="")
        except NotPermitted as error:
            raise ConfigError(str(error)) from error
        try:
            await self._agents.runs.submit(run)
        except TooManyRuns as error:
            raise TooMany(str(error), retry_after_s=_RETRY_AFTER_S) from error
        except apsw.ConstraintError:  # asked twice at the same moment
            return await self.task(run.id)
        await self._write_down(by, "task", run.id, asked.task[:200])
        return await self.task(run.id)

    async def task(self, id: str) -> Json:
        return await self._view(await self._found(id))

    async def cancel(self, id: str, *, by: str) -> Json:
        run = await self._found(id)
        if not await self._agents.runs.cancel(run.id, f"cancelled by {by}"):
            raise Conflict(f"{run.id} has ended already")
        await self._write_down(by, "cancel", run.id, "")
        return await self.task(run.id)

    async def say(self, id: str, message: Message, *, by: str) -> Json:
        run = await self._found(id)
        if not self._agents.runs.control(run.id, Control(message.kind, run.id, message.text)):
            raise Conflict(f"{run.id} is not under way: nobody hears this")
        await self._write_down(by, message.kind, run.id, message.text[:200])
        return await self._view(run)

    async def events(self, id: str, after: int) -> AsyncIterator[Json]:
        run = await self._found(id)
        while run.state is RunState.QUEUED:
            await asyncio.sleep(_WAITING_S)
            run = await self._found(id)
        async for event in self._agents.runs.follow(run.id, after):
            yield event

    async def runs(self, *, watch: str | None, state: str | None, limit: int) -> list[Json]:
        wanted = None if state is None else RunState(state)
        rows = await self._store.state.read(lambda c: ledger.runs(c, watch=watch, state=wanted, limit=limit))
        return [run_view(row) for row in rows]

    async def run(self, id: str) -> Json:
        run = await self._found(id)
        lines = await self._store.history.read(lambda c: run_records.of(c, run.id, limit=_MOST_LINES))
        record = [{"seq": line.seq, "at_s": line.at_s, "kind": line.kind, "data": line.data} for line in lines]
        return run_view(run) | {
            "answer": run.outcome.answer,
            "finding": run.outcome.finding,
            "plan": run.outcome.plan,
            "asked": dict(run.asked),
            "record": record,
            "whole": run_records.is_whole(lines),
        }

    async def tools(self) -> list[Json]:
        from agentd.agent.tools import BUILT_IN

        allowed = permissions_of(self._config).tools
        listed: list[Json] = [
            {"name": tool.name, "description": tool.spec.description, "input_schema": tool.spec.input_schema}
            | {"allowed": tool.name in allowed}
            for tool in BUILT_IN
        ]
        known = {tool.name for tool in BUILT_IN}
        # What an MCP server says of its tools is known where it runs: in the agent host.
        listed += [
            {"name": name, "description": "of an MCP server or a plugin", "input_schema": None, "allowed": True}
            for name in allowed
            if name not in known
        ]
        return listed

    async def models(self) -> list[Json]:
        config = self._config
        first = default_model(config)
        return [
            {
                "name": name,
                "provider": model.provider,
                "model": model.model,
                "base_url": model.base_url,
                "protocol": model.protocol,
                "context_tokens": model.window,
                "fallback": list(model.fallback),
                "default": name == first,
            }
            for name, model in config.models.items()
        ]

    async def _view(self, run: Run) -> Json:
        kinds = ("task", "result")
        lines = await self._store.history.read(lambda c: run_records.of(c, run.id, kinds=kinds, limit=_MOST_LINES))
        return task_view(run, [step for line in lines if (step := _step(line)) is not None])

    async def _known(self, id: str) -> Run | None:
        return await self._store.state.read(lambda c: ledger.get(c, id))

    async def _found(self, id: str) -> Run:
        run = await self._known(id)
        if run is None:
            raise NotFound(f"no task or run {id[:100]!r}; `agentd runs` shows them")
        return run

    async def _write_down(self, by: str, action: str, target: str, detail: str) -> None:
        now = self._clock.now()
        await self._store.state.write(lambda c: audit.append(c, by, action, target, detail, now))


def _step(line: Any) -> Json | None:
    """A finished call of a tool, for callers."""
    if line.kind != "result":
        return None
    data = line.data
    output = data.get("output")
    text = output if isinstance(output, str) else repr(output)
    return {
        "id": data.get("task"),
        "tool": data.get("tool"),
        "ok": data.get("error") is None,
        "error": data.get("error"),
        "message": data.get("message", ""),
        "duration_s": data.get("duration_s"),
        "output": text[:_SHOWN_BYTES],
    }
