"""
Calls of agents' tools for the tests: a context that allows what is said, and answers that are what a model would see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from agentd.agent.job import Permissions
from agentd.agent.port import Tool, ToolContext, ToolFailure
from agentd.clock import Clock, SystemClock
from agentd.fleet.messages import ErrorKind


class Asked:
    """Stands for the daemon; keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, dict[str, Any]]] = []

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        self.queries.append((what, dict(args)))
        return {"rows": []}


def context(
    permissions: Permissions | None = None,
    *,
    timeout_s: float = 10.0,
    max_output: int = 256 * 1024,
    clock: Clock | None = None,
    ask: Asked | None = None,
) -> ToolContext:
    return ToolContext(
        "t1",
        permissions or Permissions(),
        clock or SystemClock(),
        ask or Asked(),
        timeout_s=timeout_s,
        max_output=max_output,
    )


async def call(tool: Tool, given: ToolContext, /, **input: Any) -> Any:
    """What the tool gives, once its input fitted its schema; it must be plain JSON."""
    jsonschema.validate(input, dict(tool.spec.input_schema), cls=jsonschema.Draft202012Validator)
    answer = await tool.call(input, given)
    json.dumps(answer, allow_nan=False)
    return answer


async def failing(tool: Tool, given: ToolContext, kind: ErrorKind, /, **input: Any) -> str:
    """The message of the failure of this kind."""
    with pytest.raises(ToolFailure) as caught:
        await call(tool, given, **input)
    assert caught.value.kind is kind, str(caught.value)
    return str(caught.value)
