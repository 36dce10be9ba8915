"""
The tool `query_history`: what the daemon knows of its watches: results, alerts, runs, kinds of log lines.

The stores are the daemon's alone; this asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentd.agent.port import ToolContext
from agentd.agent.tools.saying import MOMENT_SCHEMA, invalid, read_moment
from agentd.clock import iso
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec

_KINDS = ["results", "alerts", "runs", "templates"]


class QueryHistory:
    name = "query_history"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "What this daemon saw: `results` of a watch, `alerts`, `runs` of agents, or `templates`, the kinds of lines of "
        "a log with counts and samples.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["what"],
            "properties": {
                "what": {"type": "string", "enum": _KINDS},
                "watch": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 63,
                    "description": "Name of a watch; needed for results and templates",
                },
                "since": MOMENT_SCHEMA,
                "until": MOMENT_SCHEMA,
                "limit": {"type": "integer", "minimum": 1, "maximum": 500, "description": "Default 50, newest first"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        what = input["what"]
        if what in ("results", "templates") and "watch" not in input:
            raise invalid(f"{what} need the name of a `watch`")
        now = context.clock.now()
        args: dict[str, Any] = {"kind": what, "limit": input.get("limit", 50)}
        if "watch" in input:
            args["watch"] = input["watch"]
        for key in ("since", "until"):
            moment = read_moment(input.get(key), now, key)
            if moment is not None:
                args[key] = iso(moment)
        return await context.ask.query("templates" if what == "templates" else "history", args)
