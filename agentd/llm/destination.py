"""
Where a provider stands: one pool of connections, one door and one set of rates for all models that share its key.

In: a model's settings. Out: an HTTP client whose every request obeys the model's policy.
Promise: nothing is opened before the first request; the environment's proxy is used for hosts beyond this machine.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import httpx

from agentd.clock import Clock
from agentd.llm import providers
from agentd.llm.door import Door
from agentd.llm.policy import CALL, Call, Policy, Rates
from agentd.llm.port import ModelFailure
from agentd.llm.settings import ModelSettings
from agentd.llm.transport import PolicyTransport, policy_transport2
from agentd.net.keepalive import KeepAliveTransport
from agentd.net.tls import TlsSettings, context_for

CONNECT_S = 10.0
_KEPT = 16
_KEEP_S = 60.0  # between two questions of a run a tool works; five seconds, the default, are too short for that

CURRENT: ContextVar[Call | None] = ContextVar("agentd_model_call", default=None)
"""The call that is under way here: libraries between us and the client do not pass it on by themselves."""


class PolicyClient(httpx.AsyncClient):
    """A client whose every request obeys the policy; `over_httpx2` is the same for libraries built on the fork."""

    def __init__(self, policy: Policy, connections: Connections) -> None:
        super().__init__(
            transport=PolicyTransport(policy, connections),
            # How long an answer may take is the call's deadline, kept by the policy and whoever reads the stream.
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            event_hooks={"request": [_hand_over]},
        )
        self.policy = policy
        self._twin: Any = None
        self._connections2: Connections | None = None

    def over_httpx2(self) -> Any:
        """An `httpx2.AsyncClient`, made at first use and closed with this one."""
        if self._twin is None:
            import httpx2

            self._connections2 = Connections(httpx2)
            self._twin = httpx2.AsyncClient(
                transport=policy_transport2(self.policy, self._connections2),
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
                event_hooks={"request": [_hand_over]},
            )
        return self._twin

    async def send(self, request: httpx.Request, **settings: Any) -> httpx.Response:
        """
        As `httpx.AsyncClient.send`. A streamed request goes straight to the policy: what a client adds to it (cookies,
        redirects, passwords of a .netrc) takes as long as all that the policy does, and nobody here wants it.
        """
        if settings != {"stream": True, "follow_redirects": False}:
            return await super().send(request, **settings)
        await _hand_over(request)
        response = await self._transport.handle_async_request(request)
        response.request = request
        return response

    async def aclose(self) -> None:
        await super().aclose()
        if self._twin is not None and self._connections2 is not None:
            await self._twin.aclose()
            await self._connections2.aclose()


class Destination:
    """One provider and key. Models of equal rates share them; another rate is another limit of the provider's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._door = Door()
        self._rates: dict[str, Rates] = {}
        self._inner = Connections(httpx)
        self._clients: list[PolicyClient] = []

    def client(self, who: str, settings: ModelSettings) -> PolicyClient:
        rates = self._rates.setdefault(settings.rate.model_dump_json(), Rates(settings.rate, self._clock))

        def key() -> str | None:
            try:
                return providers.key(settings, who=who)
            except ModelFailure:  # whoever sends says so
                return None

        policy = Policy(who, clock=self._clock, retries=settings.retries, rates=rates, line=self._door, key=key)
        client = PolicyClient(policy, self._inner)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        await self._inner.aclose()


def identity(settings: ModelSettings) -> tuple[Any, ...]:
    """What models must have in common to share a destination."""
    key = None if settings.api_key is None else settings.api_key.text
    return settings.provider, settings.base_url, key, settings.region


async def _hand_over(request: Any) -> None:
    call = CURRENT.get()
    if call is not None:
        request.extensions.setdefault(CALL, call)


class Connections:
    """
    A pool of either library, http. Opened by the first request: to read the authorities takes longer than the loop
    may stand still.
    """

    def __init__(self, http: ModuleType) -> None:
        self._http = http
        self._pool: Any = None

    async def handle_async_request(self, request: Any) -> Any:
        return await (self._pool or await self._open(request.url)).handle_async_request(request)

    async def _open(self, url: Any) -> Any:
        proxy = proxy_for(url.scheme, url.host)
        if proxy is None and self._http is httpx:
            self._pool = KeepAliveTransport(keep=_KEPT, keep_s=_KEEP_S)
            return self._pool
        context = await context_for(TlsSettings()) if url.scheme == "https" else False
        if self._pool is None:
            # How many at once is bounded where models are asked: a queue in the pool takes O(n) a request.
            self._pool = self._http.AsyncHTTPTransport(
                verify=context,
                limits=self._http.Limits(
                    max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=_KEEP_S
                ),
                proxy=proxy,
                trust_env=False,
            )
        return self._pool

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this host, if any; never for this machine itself."""
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:
        pass
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(host):
        return None
    return proxies.get(scheme) or proxies.get("all")
