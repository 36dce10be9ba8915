"""
Tasks that people ask for, and the runs that there were: the `TaskService` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values. What somebody asks for is written to the audit trail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import apsw

from agentd.agent.job import Job
from agentd.agent.port import NotPermitted
from agentd.api.service import Conflict, NotFound, TooMany
from agentd.api.tasks import MOST_LINES, Message, TaskAsked, run_view, run_with_record, task_view
from agentd.clock import Clock
from agentd.config.models import Config
from agentd.daemon.runs.agents import Agents
from agentd.daemon.runs.dispatch import TooManyRuns, new_run_id
from agentd.daemon.runs.jobs import default_model, make_job, permissions_of
from agentd.errors import ConfigError
from agentd.fleet.messages import ONE_PROMPT, Control
from agentd.memory import audit, ledger, run_records
from agentd.memory.ledger import Priority, Run, RunState
from agentd.memory.store import Store

Json = dict[str, Any]

TASK = "task"
_KINDS = ("plan", "result")
_RETRY_AFTER_S = 10
_WAITING_S = 0.25


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
        if not ledger.is_kept(run.asked):
            raise ConfigError(f"context: all of it may take {ledger.MAX_ASKED} characters; ask for less")
        try:
            job = make_job(run, self._config, now=now, instance="")
            if job.scenario:
                await asyncio.to_thread(check_scenario, job)
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
        target = run.id
        if message.kind == "cancel":
            if run.kind != "session":
                return await self.cancel(id, by=by)
            target = ONE_PROMPT
        if not self._agents.runs.control(run.id, Control(message.kind, target, message.text)):
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

        # Views are made where they are read, on a thread: a hundred answers of a model are megabytes.
        def look(c: apsw.Connection) -> list[Json]:
            return [run_view(row) for row in ledger.runs(c, watch=watch, state=wanted, limit=limit)]

        return await self._store.state.read(look)

    async def run(self, id: str, after: int = -1) -> Json:
        run = await self._found(id)
        return await self._store.history.read(
            lambda c: run_with_record(run, run_records.read(c, run.id, after=after), after=after)
        )

    async def tools(self) -> list[Json]:
        return tools_of(self._config)

    async def models(self) -> list[Json]:
        return models_of(self._config)

    async def _view(self, run: Run) -> Json:
        return await self._store.history.read(
            lambda c: task_view(run, run_records.read(c, run.id, kinds=_KINDS, limit=MOST_LINES))
        )

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


def check_scenario(job: Job) -> None:
    """Raises ConfigError for a scenario that there is no template for. Not for the loop: it looks at files."""
    from agentd.agent.prompts import load_prompts

    if job.scenario:
        load_prompts(job.prompts).scenario(job)


def tools_of(config: Config) -> list[Json]:
    """Every tool there is, and whether agents may use it."""
    from agentd.agent.tools import BUILT_IN

    allowed = permissions_of(config).tools
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


def models_of(config: Config) -> list[Json]:
    """Every configured model, without what is secret."""
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
