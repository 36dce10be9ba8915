"""
The plan of a run: what the model says it understood and means to do, or what its first actions show of it.

In: what the first answer held. Out: an `AgentPlan`, bounded, whatever the model wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from agentd.agent.job import AgentPlan

_LONGEST = 2000
_MOST_REQUIREMENTS = 20
_MOST_STEPS = 1000
_MODERATE = 2
_COMPLEX = 5


def plan_from(said: Any) -> AgentPlan | None:
    """What the model wrote as its plan; None when it is none."""
    if isinstance(said, AgentPlan):
        return said
    if isinstance(said, str):
        said = {"approach": said}
    if not isinstance(said, Mapping) or not any(said.get(key) for key in ("understanding", "approach")):
        return None
    requirements = said.get("requirements") or ()
    if isinstance(requirements, str) or not isinstance(requirements, Iterable):
        requirements = [requirements]
    steps = said.get("estimated_steps")
    complexity = said.get("complexity")
    return AgentPlan(
        understanding=_text(said.get("understanding")),
        approach=_text(said.get("approach")),
        complexity=_complexity(complexity),
        estimated_steps=min(max(steps, 1), _MOST_STEPS) if isinstance(steps, int) else 1,
        requirements=tuple(_text(each) for each in list(requirements)[:_MOST_REQUIREMENTS]),
    )


def derived_plan(goal: str, tools: Iterable[str]) -> AgentPlan:
    """For models that act without a plan. tools: names of what the first answer calls."""
    called = list(tools)
    approach = f"call {', '.join(dict.fromkeys(called))}, then answer" if called else "answer at once"
    complexity = "simple" if len(called) < _MODERATE else "moderate" if len(called) < _COMPLEX else "complex"
    return AgentPlan(
        understanding=_text(goal),
        approach=_text(approach),
        complexity=_complexity(complexity),
        estimated_steps=2 if called else 1,
    )


def _complexity(said: Any) -> Literal["simple", "moderate", "complex"]:
    known = said in ("simple", "moderate", "complex")
    return cast("Literal['simple', 'moderate', 'complex']", said) if known else "simple"


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_LONGEST]
