"""
One run, put together from its job: tools, pools, executor, prompts, models, agent.

In: a `Job`, and what it has from outside. Out: an `Outcome`; records and events on the way.
Promise: the agent host, `agentd task` without a daemon and the Python API all run this; whatever was opened for a run
is closed behind it, and a tool server that does not start costs its tools and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from typing import Protocol

from agentd.agent.account import Account
from agentd.agent.cleaning import cleaned_job, threads
from agentd.agent.events import Listener, Listeners
from agentd.agent.evidence import one_line
from agentd.agent.executor import Executor
from agentd.agent.inbox import Inbox, InboxFull
from agentd.agent.job import Job, Outcome
from agentd.agent.port import Services, Tool, ToolContext
from agentd.agent.prompts import load_prompts
from agentd.agent.purse import RunPurse
from agentd.agent.registry import BadTool, Registry
from agentd.agent.session import Agent
from agentd.agent.spans import Spans
from agentd.agent.supervisor import Supervisor
from agentd.agent.tools import BUILT_IN, plugins
from agentd.agent.worker import Pools
from agentd.clock import Clock, SystemClock
from agentd.errors import AgentdError, ConfigError
from agentd.fleet.messages import ONE_PROMPT, Control, Task, WorkerClass
from agentd.llm.port import Model, ModelFailure

log = logging.getLogger("agentd.agent")

LONGEST_OPENING_S = 30.0


class ModelsLike(Protocol):
    """Models by their names in the config."""

    def get(self, name: str) -> Model:
        """Raises ModelFailure, or KeyError for one that there is not."""
        ...


@contextlib.asynccontextmanager
async def open_agent(
    job: Job,
    services: Services,
    *,
    models: ModelsLike | None = None,
    registry: Registry | None = None,
    clock: Clock | None = None,
    listeners: Listeners | None = None,
    inbox: Inbox | None = None,
) -> AsyncIterator[Agent]:
    """
    An agent for this job, open for prompts until the block ends.

    models: None: those of the job are opened, and closed with it. Others must ask `PurseOfTheRun`, or a purse of their
    own, for money. registry: None: built-in tools and those of the job's MCP servers; what may be called of them say
    the job's permissions.
    """
    clock = clock or SystemClock()
    listeners = listeners or Listeners()
    inbox = inbox or Inbox()
    job = (
        await asyncio.get_running_loop().run_in_executor(threads(), cleaned_job, job)
        if job.exhibits
        else cleaned_job(job)
    )
    account = Account(services, clock)
    purse = RunPurse(services, usd=job.limits.usd, tokens=job.limits.tokens, settled=account.settled)
    async with contextlib.AsyncExitStack() as stack:
        missing: list[str] = []

        def lacks(type: str, what: str, why: str) -> None:
            log.warning(type, extra={"run": job.run, "what": what, "error": why})
            account.record("event", type=type, reason=f"{what}: {why}", told=what)
            missing.append(what)

        if registry is None:
            registry = await _registry(job, stack, lacks, inbox, clock)
        model, why = await _model(job, models, purse, clock, stack)
        executor = Executor(
            Pools(registry, _contexts(job, services, clock)),
            retries=job.limits.retries,
            retry_delay_s=job.limits.retry_delay_s,
            max_parallel=job.limits.max_parallel,
            tool_timeout_s=job.limits.tool_timeout_s,
        )
        supervisor = Supervisor(
            job,
            model=model,
            why_no_model=why,
            executor=executor,
            specs=registry.specs(job.permissions.tools),
            kind_of=_kinds(registry),
            prompts=load_prompts(job.prompts),
            account=account,
            listeners=listeners,
            spans=Spans(job),
            inbox=inbox,
            missing=missing,
        )
        agent = Agent(
            job,
            supervisor,
            account=account,
            listeners=listeners,
            inbox=inbox,
            purse=purse,
            stop_task=executor.cancel,
        )
        try:
            yield agent
        finally:
            await agent.end()


class Running:
    """
    One run and its control; `run` once. Controls said before it began count too.

    agent: None before it began.
    """

    def __init__(
        self,
        job: Job,
        services: Services,
        *,
        models: ModelsLike | None = None,
        registry: Registry | None = None,
        clock: Clock | None = None,
        listeners: Listeners | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self.job = job
        self._services = services
        self._models = models
        self._registry = registry
        self._clock = clock
        self._listeners = listeners or Listeners()
        self._inbox = inbox or Inbox()
        self.agent: Agent | None = None
        self._over = False
        self._spoken = asyncio.Event()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends the subscription."""
        return self._listeners.subscribe(listener)

    def control(self, control: Control) -> None:
        """Hand on what somebody says; what a full inbox does not take is logged and lost."""
        agent = self.agent
        try:
            if control.kind == "steer":
                agent.steer(control.text) if agent else self._inbox.follow_up(control.text)
            elif control.kind == "follow_up":
                agent.follow_up(control.text) if agent else self._inbox.follow_up(control.text)
            elif control.kind == "end":
                self._over = True
            elif agent is not None and control.target in agent.state.calls:
                agent.cancel_call(control.target)
            elif agent is not None and control.target == ONE_PROMPT and self.job.kind == "session":
                agent.cancel(control.text)
            else:
                self._cancel(control.text)
        except InboxFull as full:
            log.warning("message_lost", extra={"run": self.job.run, "error": str(full)})
        self._spoken.set()

    def _cancel(self, reason: str) -> None:
        self._over = True
        if self.agent is not None:
            self.agent.cancel(reason)
        else:
            self._inbox.stop("cancel", reason)

    async def run(self) -> Outcome:
        """To its end; of a session, until somebody ends it or its time is over. What happens within raises nothing."""
        async with open_agent(
            self.job,
            self._services,
            models=self._models,
            registry=self._registry,
            clock=self._clock,
            listeners=self._listeners,
            inbox=self._inbox,
        ) as agent:
            self.agent = agent
            outcome = await agent.prompt()
            if self.job.kind == "session":
                outcome = await self._session(agent, outcome)
            return outcome

    async def _session(self, agent: Agent, outcome: Outcome) -> Outcome:
        """Stay open for what is said next."""
        while not self._over and agent.time_left_s > 0:
            self._spoken.clear()
            if self._inbox.following:
                outcome = await agent.prompt(self._inbox.following.popleft())
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._spoken.wait(), agent.time_left_s)
        return outcome


async def run_job(
    job: Job,
    services: Services,
    *,
    models: ModelsLike | None = None,
    registry: Registry | None = None,
    clock: Clock | None = None,
    listeners: Listeners | None = None,
    control: Inbox | None = None,
) -> Outcome:
    """Run this job to its end. control: where others may say something meanwhile; see `Running` for all of it."""
    running = Running(job, services, models=models, registry=registry, clock=clock, listeners=listeners, inbox=control)
    return await running.run()


class _Lacks(Protocol):
    """What becomes of a tool that is not there. what: in words of ours alone. why: in whoever's."""

    def __call__(self, type: str, what: str, why: str) -> None: ...


async def _registry(job: Job, stack: contextlib.AsyncExitStack, lacks: _Lacks, inbox: Inbox, clock: Clock) -> Registry:
    if not job.mcp and not job.plugins:
        return _built_in()
    registry = Registry(BUILT_IN)
    tools = [*_of_third_parties(job, lacks), *await _of_servers(job, stack, lacks, inbox, clock)]
    for tool in tools:
        try:
            registry.register(tool)
        except BadTool as error:
            lacks("tool_refused", f"The tool {one_line(tool.name, 100)} is not available", str(error))
    return registry


def _of_third_parties(job: Job, lacks: _Lacks) -> Sequence[Tool]:
    """Each by itself: one that does not load costs its own tool and nothing else."""
    found: list[Tool] = []
    for name in dict.fromkeys(job.plugins):
        try:
            found += plugins([name], taken=[tool.name for tool in (*BUILT_IN, *found)])
        except ConfigError as error:
            lacks("plugin_unavailable", f"The tools of plugin {name} are not available", str(error))
    return found


async def _of_servers(
    job: Job, stack: contextlib.AsyncExitStack, lacks: _Lacks, inbox: Inbox, clock: Clock
) -> Sequence[Tool]:
    def tell(what: str, why: str) -> None:
        lacks("mcp_unavailable", what, why)

    if not job.mcp:
        return ()
    from agentd.agent.mcp import open_mcp

    tools: Sequence[Tool] = ()
    try:
        async with asyncio.timeout(min(LONGEST_OPENING_S, job.limits.time_s)) as limit:
            with inbox.halting(lambda: limit.reschedule(asyncio.get_running_loop().time())):
                if inbox.stopped is None:
                    tools = await stack.enter_async_context(open_mcp(job.mcp, clock=clock, tell=tell))
    except (AgentdError, OSError, TimeoutError) as error:
        tell(f"The tools of MCP servers ({', '.join(job.mcp)}) are not available", str(error) or "it took too long")
    return tools


@cache
def _built_in() -> Registry:
    """Compiled once for the process: nothing of a run is in it."""
    return Registry(BUILT_IN)


async def _model(
    job: Job, models: ModelsLike | None, purse: RunPurse, clock: Clock, stack: contextlib.AsyncExitStack
) -> tuple[Model | None, str]:
    """The model to ask first; or None, and why."""
    if job.model is None:
        return None, job.why_no_model
    try:
        if models is None:
            from agentd.llm.client import open_models

            opened = open_models(job.models, purse=purse, clock=clock)
            stack.push_async_callback(opened.close)
            models = opened
        return models.get(job.model), ""
    except (ModelFailure, AgentdError, ValueError) as error:
        return None, str(error)
    except KeyError:
        return None, f"no model is called {job.model!r}; there are {', '.join(job.models) or 'none'}"


def _contexts(job: Job, services: Services, clock: Clock) -> Callable[[Task], ToolContext]:
    def make(task: Task) -> ToolContext:
        return ToolContext(
            task.id, job.permissions, clock, services, timeout_s=task.timeout_s, max_output=job.limits.output_bytes
        )

    return make


def _kinds(registry: Registry) -> Callable[[str], WorkerClass]:
    def kind_of(name: str) -> WorkerClass:
        tool = registry.get(name)
        return "io" if tool is None else tool.kind

    return kind_of
