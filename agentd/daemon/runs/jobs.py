"""
From a queued run and the configuration to a `Job`: what is asked, what may be done, what may be spent.

In: a row of the ledger, the configuration as it is now, what is known of the alert. Out: a job for the agent host.
Promise: pure, save for a look at the templates of prompts. Permissions come from the configuration; what a watch or a
request asks for can only narrow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentd.agent.job import Exhibit, Job, Limits, McpServer, Permissions, RunbookStep
from agentd.clock import iso
from agentd.config.agents import Budget, Investigation, Step
from agentd.config.models import Config
from agentd.config.watches import Watch
from agentd.errors import AgentdError, ConfigError
from agentd.memory.ledger import Run, RunKind
from agentd.memory.spend import Limit, to_nano
from agentd.memory.spend import Limits as SpendLimits
from agentd.records import Severity

ASKED_FOR: tuple[RunKind, ...] = ("task", "session")
"""Kinds of runs that people ask for; all others are of a watch."""
_NO_TIME_LIMIT_S = 3600.0
_SESSION_S = 3600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a watch wants of an agent, whether it is its goal or its `investigate`."""

    model: str | None = None
    tools: tuple[str, ...] | None = None
    budget: Budget | None = None
    scenario: str | None = None
    runbook: tuple[Step, ...] = ()


class NotWanted(AgentdError):
    """The configuration does not ask for this run any more."""


def wanted_of(watch: Watch | None, run: Run) -> Wanted:
    """
    Of what people ask for: nothing but what the configuration says for all.

    Raises NotWanted when the run's watch is gone meanwhile, or does not ask agents any more: how far it narrowed the
    run is not known then.
    """
    if run.kind in ASKED_FOR:
        return Wanted()
    if watch is None or not watch.enabled:
        raise NotWanted(f"the watch {run.watch!r} was removed from the configuration, or is not enabled")
    source: Watch | Investigation | None = watch.investigate if run.kind == "investigate" else watch
    if source is None or source.goal is None:
        raise NotWanted(f"the watch {run.watch!r} has no `{run.kind}` any more")
    return Wanted(source.model, source.tools, source.budget, source.scenario, source.runbook)


def permissions_of(config: Config) -> Permissions:
    """All that the configuration lets agents do."""
    agent = config.agent
    return Permissions(
        tools=agent.tools,
        read=agent.files.allow,
        write=agent.files.write,
        commands=agent.commands.allow,
        forbid=agent.commands.forbid,
        http=agent.http.allow,
        private_networks=agent.http.private_networks,
        working_directory=str(agent.working_directory),
        log_files={watch.name: tuple(watch.log.files) for watch in config.logs if watch.log and watch.log.files},
    )


def default_model(config: Config) -> str | None:
    """The model that is asked where nothing else is said: `agent.model`, the one called default, or the only one."""
    if config.agent.model is not None:
        return config.agent.model
    if "default" in config.models:
        return "default"
    return next(iter(config.models)) if len(config.models) == 1 else None


def make_job(
    run: Run,
    config: Config,
    *,
    now: datetime,
    instance: str,
    exhibits: Sequence[Exhibit] = (),
    traceparent: str | None = None,
) -> Job:
    """
    Raises NotPermitted when the run asks for more than is allowed, ConfigError when its model is gone, NotWanted as
    `wanted_of`.
    """
    own = run.kind not in ASKED_FOR
    watch = next((each for each in config.watches if own and each.name == run.watch), None)
    wanted, asked = wanted_of(watch, run), run.asked
    permissions = _permissions(config, wanted, asked)
    model = asked.get("model") or wanted.model or default_model(config)
    if model is not None and model not in config.models:
        raise ConfigError(f"there is no model {str(model)[:60]!r}; the configuration names {_listed(config.models)}")
    budget = budget_of(wanted, config)
    limits = Limits(
        max_steps=_least(config.agent.max_steps, asked.get("max_steps")),
        retries=config.agent.retries,
        retry_delay_s=config.agent.retry_delay.total_seconds(),
        max_parallel=config.agent.max_parallel,
        tool_timeout_s=config.agent.tool_timeout.total_seconds(),
        time_s=_time_s(run, budget, config),
        usd=budget.usd,
        tokens=budget.tokens,
    )
    return Job(
        run=run.id,
        goal=run.goal,
        watch=run.watch,
        kind=run.kind,
        fingerprint=run.fingerprint,
        severity=_severity(watch, asked),
        labels=dict(watch.labels) if watch is not None else {},
        instance=instance,
        now=iso(now),
        timezone=(watch.timezone if watch is not None else None) or "UTC",
        watches=tuple(each.name for each in config.watches if each.enabled),
        scenario=asked.get("scenario") or wanted.scenario,
        prompts=None if config.agent.prompts is None else str(config.agent.prompts),
        exhibits=tuple(exhibits),
        runbook=tuple(RunbookStep(tool=step.tool, input=step.input) for step in wanted.runbook),
        permissions=permissions,
        limits=limits,
        models=dict(config.models),
        model=model,
        why_no_model="no model is configured" if not config.models else "`agent.model` names none",
        mcp={
            name: McpServer(
                command=server.command,
                url=server.url,
                tools=server.tools,
                env={key: str(value) for key, value in server.env.items()},
                headers={key: str(value) for key, value in server.headers.items()},
            )
            for name, server in config.agent.mcp.items()
        },
        plugins=tuple(name for name in config.daemon.plugins if name in permissions.tools),
        priority=run.priority.word,
        metadata=dict(asked.get("metadata") or {}),
        traceparent=traceparent,
        content=config.telemetry.content,
        otlp_endpoint=config.telemetry.otlp_endpoint,
    )


def in_its_scenario(job: Job) -> Job:
    """
    The job with the scenario that its goal is meant for, where nobody said one: what worked before is kept and asked
    for by that word. Not for the loop: it looks at the templates' files.
    """
    if job.scenario:
        return job
    from agentd.agent.prompts import load_prompts

    return job.model_copy(update={"scenario": load_prompts(job.prompts).scenario(job)})


def budget_of(wanted: Wanted, config: Config) -> Budget:
    """Of one run: what the watch says, and where it is silent what holds for all runs."""
    own, all_runs = wanted.budget, config.budgets.run
    if own is None:
        return all_runs
    return Budget(
        usd=all_runs.usd if own.usd is None else own.usd,
        tokens=all_runs.tokens if own.tokens is None else own.tokens,
        time=all_runs.time if own.time is None else own.time,
    )


def spend_limits(job: Job, config: Config) -> SpendLimits:
    """The budgets that hold for a run's calls, as the store checks them."""
    watch, daemon = config.budgets.watch_per_day, config.budgets.daemon_per_day
    return SpendLimits(
        run=Limit(to_nano(job.limits.usd), job.limits.tokens),
        watch=Limit() if job.kind in ASKED_FOR else Limit(to_nano(watch.usd), watch.tokens),
        daemon=Limit(to_nano(daemon.usd), daemon.tokens),
    )


def _permissions(config: Config, wanted: Wanted, asked: Mapping[str, Any]) -> Permissions:
    # Here, not above, as with all that only a run needs: a daemon that starts none loads nothing of it.
    from agentd.agent.permissions import Asked, narrow

    allowed = permissions_of(config)
    if wanted.tools is not None:
        allowed = narrow(allowed, Asked(tools=wanted.tools))
    request = Asked(
        tools=asked.get("tools"),
        read=asked.get("allowed_paths"),
        working_directory=asked.get("working_directory"),
        environment=asked.get("environment"),
    )
    return narrow(allowed, request, settable=config.agent.environment)


def _severity(watch: Watch | None, asked: Mapping[str, Any]) -> Severity:
    """Of the alert that is looked into: a rule, or time, may have made it worse than its watch; else of the watch."""
    if (of_alert := asked.get("severity")) is not None:
        return Severity(of_alert)
    return watch.severity if watch is not None else Severity.WARNING


def _time_s(run: Run, budget: Budget, config: Config) -> float:
    time_s = budget.time.total_seconds() if budget.time is not None else _NO_TIME_LIMIT_S
    if run.kind == "session":
        time_s = _SESSION_S  # people think; what it may spend is bounded all the same
    if run.kind == "task":
        time_s = min(time_s, config.api.task_timeout.total_seconds())
    if (most := run.asked.get("max_execution_time")) is not None:
        time_s = min(time_s, float(most))
    return time_s


def _least(allowed: int, asked: Any) -> int:
    return allowed if asked is None else max(1, min(allowed, int(asked)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
