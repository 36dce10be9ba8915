"""
What an agent would be asked by a watch, and with what: for `agentd test`. Nobody is asked.

In: the configuration. Out: a view as plain JSON, and its lines for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from agentd.cli.tables import clean, counted
from agentd.clock import SystemClock
from agentd.config.models import Config
from agentd.config.watches import Watch
from agentd.settings import show_duration


def asked_view(watch: Watch, config: Config) -> dict[str, Any] | None:
    """
    What the watch's goal, or its `investigate`, asks; None when it asks nothing.

    Raises AgentdError when it asks for more than is allowed. Blocking: looks at the templates of prompts.
    """
    source = watch if watch.goal is not None else watch.investigate
    if source is None or source.goal is None:
        return None
    from agentd.daemon.runs.jobs import budget_of, in_its_scenario, make_job, wanted_of
    from agentd.memory.ledger import Run

    kind: Literal["goal", "investigate"] = "goal" if watch.goal is not None else "investigate"
    now = SystemClock().now()
    run = Run("test", watch.name, "test", now, kind=kind, goal=source.goal)
    job = in_its_scenario(make_job(run, config, now=now, instance=""))
    budget = budget_of(wanted_of(watch, run), config)
    return {
        "kind": kind,
        "goal": source.goal,
        "model": job.model,
        "scenario": job.scenario,
        "tools": list(job.permissions.tools),
        "max_steps": job.limits.max_steps,
        "budget": {
            "usd": budget.usd,
            "tokens": budget.tokens,
            "time": show_duration(budget.time) if budget.time is not None else None,
        },
        "runbook": [step.tool for step in job.runbook],
        "wait_s": watch.investigate.wait.total_seconds() if kind == "investigate" and watch.investigate else None,
    }


def asked_lines(view: Mapping[str, Any]) -> Iterator[str]:
    """Without a heading."""
    yield f"goal      {clean(view['goal'])}"
    yield f"model     {view['model'] or 'none: the evidence alone is gathered'}"
    yield f"scenario  {clean(view['scenario'])}"
    yield f"tools     {', '.join(map(clean, view['tools'])) or 'none'}"
    if view["runbook"]:
        yield f"runbook   {', '.join(map(clean, view['runbook']))}"
    budget = view["budget"]
    parts = [f"${budget['usd']:g}"] if budget["usd"] is not None else []
    parts += [f"{budget['tokens']:,} tokens"] if budget["tokens"] is not None else []
    parts += [budget["time"]] if budget["time"] is not None else []
    yield f"budget    {', '.join([*parts, counted(view['max_steps'], 'step')])}"
    if view["wait_s"]:
        yield f"waits     the message waits {view['wait_s']:g} s for it at most"
