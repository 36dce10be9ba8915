"""
A probe's look as a tool's answer: what the watches see, for a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.saying import line
from agentd.watch.probe import Probe, ProbeTools


async def looked(make: Callable[[ProbeTools], Probe], context: ToolContext, *, share: float = 0.9) -> Mapping[str, Any]:
    """The variables that one look gives. share: of the call's time. Raises ToolFailure."""
    from agentd.pacing import KeyedBuckets
    from agentd.settings import RateLimit
    from agentd.watch.heartbeat import Beats

    tools = ProbeTools(clock=context.clock, hosts=KeyedBuckets(RateLimit(100, 1)), beats=Beats(context.clock))
    probe = make(tools)
    try:
        observation = await probe.look(context.timeout_s * share)
    finally:
        await probe.close()
    said = observation.blind or observation.error
    if said:
        raise ToolFailure(line(said, 500), again=True)
    return observation.values
