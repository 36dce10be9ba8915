"""
Tasks that people ask for, and the runs that there were: the `TaskService` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values. What somebody asks for is written to the audit trail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any

import apsw

from agentd.agent.job import Job
from agentd.agent.port import NotPermitted
from agentd.api.service import Conflict, NotFound, TooMany
from agentd.api.tasks import (
    MOST_LINES,
    STATES,
    STATUSES,
    BatchAsked,
    Message,
    TaskAsked,
    run_view,
    run_with_record,
    task_line,
    task_view,
)
from agentd.clock import Clock
from agentd.config.models import Config
from agentd.daemon.runs.agents import Agents
from agentd.daemon.runs.dispatch import MOST_QUEUED, new_run_id
from agentd.daemon.runs.jobs import default_model, make_job, permissions_of
from agentd.errors import AgentdError, ConfigError, StoreError
from agentd.fleet.messages import ONE_PROMPT, Control
from agentd.memory import audit, batches, ledger, run_records
from agentd.memory.batches import AskedOtherwise, Taken
from agentd.memory.ledger import Priority, Run, RunState
from agentd.memory.store import Store

Json = dict[str, Any]

TASK = "task"
_KINDS = ("plan", "result")
_RETRY_AFTER_S = 10
_WAITING_S = 0.25
_JUST_ENDED = timedelta(seconds=10)
_WRITTEN_S = 1.0
_PERMITTED_AT_ONCE = 10


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
        run = run_of(asked, by=by, now=self._clock.now())
        try:
            taken = await self._taken([run], [asked], by=by)
        except _InTask as error:
            raise error.of_one from error
        run, repeated = taken.runs[0], taken.fresh == 0
        return (await self._view(run) if repeated else task_view(run)) | {"repeated": repeated}

    async def submit_batch(self, asked: BatchAsked, *, by: str) -> Json:
        now = self._clock.now()
        runs = in_batch([run_of(each, by=by, now=now) for each in asked.tasks], asked)
        try:
            taken = await self._taken(runs, asked.tasks, by=by)
        except _InTask as error:
            raise error.of_batch from error
        return {
            "batch_id": runs[0].batch,
            "mode": asked.mode,
            "on_failure": asked.on_failure,
            "repeated": taken.fresh == 0,
            "tasks": [task_view(run) for run in taken.runs],
        }

    async def _taken(self, runs: Sequence[Run], asked: Sequence[TaskAsked], *, by: str) -> Taken:
        """Queue all of them, or none: one transaction, the audit trail with it. Raises _InTask, TooMany, StoreError."""
        now = self._clock.now()

        def take(c: apsw.Connection) -> Taken | None:
            taken = batches.take(c, runs, now, most=MOST_QUEUED)
            if taken is not None and taken.fresh:
                said = runs[0] if len(runs) == 1 else None
                target, detail = (said.id, said.goal[:200]) if said else (runs[0].batch or "", f"{len(runs)} tasks")
                audit.append(c, by, "task" if said else "batch", target, detail, now)
            return taken

        try:
            known: list[Run | None] = [None] * len(runs)
            if any(each.task_id is not None for each in asked):
                known = await self._store.state.read(lambda c: batches.find(c, runs))
            for place, run in enumerate(runs):
                if known[place] is None:
                    await self._permit(run, place)
            taken = await self._store.state.write(take)
        except AskedOtherwise as error:
            raise _InTask(Conflict, str(error), error.place) from error
        if taken is None:
            why = f"{MOST_QUEUED} tasks and runs may wait, and there is no room for {len(runs)} more; try again later"
            raise TooMany(why, retry_after_s=_RETRY_AFTER_S)
        if taken.fresh:
            for run in taken.runs:
                if run.state is RunState.QUEUED:
                    self._agents.runs.told(run, run.state)
            self._agents.runs.wake()
        return taken

    async def _permit(self, run: Run, place: int) -> None:
        """Raises _InTask for what the configuration does not allow."""
        if not ledger.is_kept(run.asked):
            text = f"context: all of it may take {ledger.MAX_ASKED} characters; ask for less"
            raise _InTask(ConfigError, text, place)
        try:
            job = make_job(run, self._config, now=run.due_at, instance="")
            if job.scenario:
                await asyncio.to_thread(check_scenario, job)
        except (NotPermitted, ConfigError) as error:
            raise _InTask(ConfigError, str(error), place) from error
        if place % _PERMITTED_AT_ONCE == _PERMITTED_AT_ONCE - 1:
            await asyncio.sleep(0)  # a large batch takes a while, and checks come first

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

    # Views of a list are made where they are read, on a thread: a hundred answers of a model are megabytes.

    async def tasks(self, *, status: str | None, limit: int, before: str | None = None) -> Json:
        if status is not None and status not in STATUSES:
            raise ConfigError(f"status: write one of {', '.join(STATUSES)}")
        states = [state for state, word in STATES.items() if word == status]

        def look(c: apsw.Connection) -> Json:
            rows = ledger.asked_for(c, states=states, limit=limit + 1, before=_place(c, before))
            more = len(rows) > limit
            return {"tasks": [task_line(row) for row in rows[:limit]], "next": rows[limit - 1].id if more else None}

        return await self._store.state.read(look)

    async def runs(self, *, watch: str | None, state: str | None, limit: int, before: str | None = None) -> list[Json]:
        wanted = None if state is None else RunState(state)

        def look(c: apsw.Connection) -> list[Json]:
            rows = ledger.runs(c, watch=watch, state=wanted, limit=limit, before=_place(c, before))
            return [run_view(row) for row in rows]

        return await self._store.state.read(look)

    async def run(self, id: str, after: int = -1) -> Json:
        run = await self._found(id)
        await self._written(run)
        return await self._store.history.read(
            lambda c: run_with_record(run, run_records.read(c, run.id, after=after), after=after)
        )

    async def tools(self) -> list[Json]:
        return tools_of(self._config)

    async def models(self) -> list[Json]:
        return models_of(self._config)

    async def _view(self, run: Run) -> Json:
        await self._written(run)
        return await self._store.history.read(
            lambda c: task_view(run, run_records.read(c, run.id, kinds=_KINDS, limit=MOST_LINES))
        )

    async def _written(self, run: Run) -> None:
        """What a run did stands in another store than its end, a moment later: who sees the one is to see the other."""
        history = self._store.history
        if run.ended_at is None or self._clock.now() - run.ended_at > _JUST_ENDED or not history.pending:
            return
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_WRITTEN_S):
                await history.write(lambda c: None)

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


class _InTask(AgentdError):
    """Raised of one of the tasks that were asked for: as `kind`, which says which one where there are several."""

    def __init__(self, kind: type[ConfigError | Conflict], message: str, place: int) -> None:
        super().__init__(message)
        self.of_one: AgentdError = kind(message)
        self.of_batch: AgentdError = kind(f"tasks.{place}: {message}")


def run_of(asked: TaskAsked, *, by: str, now: datetime) -> Run:
    """What is queued for a task."""
    return Run(
        asked.task_id or new_run_id(),
        TASK,
        f"asked by {by}",
        now,
        kind="session" if asked.session else "task",
        goal=asked.task,
        priority=Priority[asked.priority.upper()],
        asked=asked.as_asked(),
    )


def in_batch(runs: Sequence[Run], asked: BatchAsked) -> list[Run]:
    """The same as members of one batch: the same ids in the same order make the same one, whenever that is asked."""
    identity = f"batch_{sha256(json.dumps([run.id for run in runs]).encode()).hexdigest()[:20]}"
    found = [replace(run, batch=identity) for run in runs]
    if asked.mode == "sequential":
        stops = asked.on_failure == "stop"
        found[1:] = [replace(run, after=ahead.id, stops=stops) for ahead, run in pairwise(found)]
    return found


def _place(c: apsw.Connection, before: str | None) -> int | None:
    """Where a list goes on behind this run. Raises NotFound."""
    if before is None:
        return None
    if (place := ledger.number(c, before)) is None:
        raise NotFound(f"before: there is no run {before[:100]!r}, or none any more; begin with the newest")
    return place


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
