"""
The policy as a transport: one for `httpx`, one for its fork `httpx2`, which some providers' libraries are built on.

Promise: nothing but the policy stands between client and connection; the one that is not used is not imported.
"""

from __future__ import annotations

from typing import Any, Protocol

import httpx

from agentd.llm.policy import Policy


class Transmits(Protocol):
    """What connects and sends, of either library; closed by whoever opened it: models of one provider share it."""

    async def handle_async_request(self, request: Any) -> Any: ...


class PolicyTransport(httpx.AsyncBaseTransport):
    def __init__(self, policy: Policy, inner: Transmits) -> None:
        self._policy = policy
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self._policy.send(request, self._inner.handle_async_request, httpx)
        return response


def policy_transport2(policy: Policy, inner: Transmits) -> Any:
    """The same over `httpx2`, whose AsyncBaseTransport the result is."""
    import httpx2

    class PolicyTransport2(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response: httpx2.Response = await policy.send(request, inner.handle_async_request, httpx2)
            return response

    return PolicyTransport2()
