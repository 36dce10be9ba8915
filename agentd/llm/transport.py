"""
The policy as a transport: one for `httpx`, one for its fork `httpx2`, which some providers' libraries are built on.

Promise: nothing but the policy stands between client and connection; the one that is not used is not imported.
"""

from __future__ import annotations

from typing import Any

import httpx

from agentd.llm.policy import Policy


class PolicyTransport(httpx.AsyncBaseTransport):
    """inner: what connects; closed by whoever opened it, since models of one provider share it."""

    def __init__(self, policy: Policy, inner: httpx.AsyncBaseTransport) -> None:
        self._policy = policy
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self._policy.send(request, self._inner.handle_async_request, httpx)
        return response


def policy_transport2(policy: Policy, inner: Any) -> Any:
    """The same over `httpx2`: inner and the result are its AsyncBaseTransport."""
    import httpx2

    class PolicyTransport2(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response: httpx2.Response = await policy.send(request, inner.handle_async_request, httpx2)
            return response

    return PolicyTransport2()
