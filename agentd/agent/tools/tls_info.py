"""
The tool `tls_info`: the certificate that an allowed host shows, and the protocol it speaks.

The address that was checked is the one connected to, as with `http_get`. A certificate that is not accepted is an
answer here, not a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agentd.agent.permissions import check_host
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.looking import looked
from agentd.agent.tools.reaching import addresses_of
from agentd.agent.tools.saying import line, refusing
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec
from agentd.net.address import NetFailure

_MAX_NAMES = 50
_SHOWN = ("verified", "protocol", "cipher", "cert_not_after", "cert_days_left")


class TlsInfo:
    name = "tls_info"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Look at the TLS certificate and protocol of an allowed host.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["host"],
            "properties": {
                "host": {"type": "string", "minLength": 1, "maxLength": 253},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "Default 443"},
                "starttls": {"type": "string", "enum": ["none", "smtp", "imap", "pop3", "postgres"]},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        from agentd.watch.tls import TlsProbe, TlsProbeSettings

        port = input.get("port", 443)
        with refusing():
            host = check_host(context.permissions, input["host"])
            try:
                async with asyncio.timeout(context.timeout_s * 0.4):
                    addresses = await addresses_of(context.permissions, host)
            except TimeoutError:
                raise ToolFailure(f"{host} could not be resolved in time", ErrorKind.TIMEOUT, again=True) from None
            except NetFailure as failure:
                raise ToolFailure(str(failure), again=True) from failure
        settings = TlsProbeSettings(
            host=addresses[0],
            port=port,
            server_name=host,
            verify=False,
            starttls=input.get("starttls", "none"),
            ca_file=None,
        )
        values = await looked(lambda tools: TlsProbe(settings, "", tools), context, share=0.55)
        answer: dict[str, Any] = {"host": host, "port": port, "address": addresses[0]}
        answer |= {key: values[key] for key in _SHOWN if key in values}
        if values.get("verify_error"):
            answer["verify_error"] = line(values["verify_error"], 500)
        for key in ("cert_subject", "cert_issuer"):
            answer[key] = line(str(values.get(key, "")), 500)
        names = values.get("cert_sans", [])
        answer["cert_names"] = [line(name, 253) for name in names[:_MAX_NAMES]]
        if len(names) > _MAX_NAMES:
            answer |= {"truncated": True, "cert_names_count": len(names)}
        if "cert_days_left" in answer:
            answer["cert_days_left"] = round(answer["cert_days_left"], 1)
        return answer
