"""
The tool `dns_lookup`: what the system's resolvers say of a name.

Only names of allowed hosts: a name that is asked for reaches whoever serves its zone, so it could carry away what a
model has read. Addresses in answers are shown whatever they are; nobody connects to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentd.agent.permissions import check_host
from agentd.agent.port import ToolContext
from agentd.agent.tools.looking import looked
from agentd.agent.tools.saying import invalid, line, refusing
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec

_TYPES = ["A", "AAAA", "MX", "NS", "TXT", "CNAME", "SOA", "SRV", "PTR", "CAA"]
_MOST_CHARS = 500


class DnsLookup:
    name = "dns_lookup"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Look up a name of an allowed host in DNS.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 253},
                "type": {"type": "string", "enum": _TYPES, "description": "Default A"},
            },
        },
    )

    def __init__(self, server: str | None = None) -> None:
        """server: address of the resolver, with :port if not 53; None: the system's."""
        self._server = server

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        from agentd.watch.dns import DnsProbe, DnsSettings

        with refusing():
            name = check_host(context.permissions, input["name"])
        kind = input.get("type", "A")
        try:
            settings = DnsSettings(name=name, type=kind, server=self._server, tcp=False)
        except ValueError as error:
            raise invalid(f"{name} cannot be looked up as {kind}: it is an address, which has only PTR") from error
        values = await looked(lambda tools: DnsProbe(settings, "", tools), context)
        answers = values.get("answers", [])
        answer: dict[str, Any] = {
            "name": name,
            "type": kind,
            "rcode": values.get("rcode"),
            "answers": [line(str(each), _MOST_CHARS) for each in answers],
        }
        for key in ("ttl", "authoritative"):
            if key in values:
                answer[key] = values[key]
        return answer
