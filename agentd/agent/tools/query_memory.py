"""
The tool `query_memory`: notes and past incidents, searched by words.

The stores are the daemon's alone; this asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentd.agent.port import ToolContext
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec


class QueryMemory:
    name = "query_memory"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Search what earlier runs found out and people noted: past incidents, their causes and cures.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["query"],
            "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": 500, "description": "A few words"},
                "watch": {"type": "string", "minLength": 1, "maxLength": 63, "description": "Only of this watch"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "Default 10"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        args: dict[str, Any] = {"query": input["query"], "limit": input.get("limit", 10)}
        if "watch" in input:
            args["watch"] = input["watch"]
        return await context.ask.query("memory", args)
