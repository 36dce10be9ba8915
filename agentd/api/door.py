"""
Who is let in: the names, keys, users and rates that the configuration gives, in force at this moment.

In: the `api` section. Out: `Caller`s for peers, keys and cookies.
Promise: a reload changes all of it at once; what it takes away is gone with the next request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from agentd.api.access import Doorkeeper, Peer
from agentd.api.caller import Caller
from agentd.api.keys import KnownKeys
from agentd.api.rates import Rates
from agentd.api.sessions import Sessions
from agentd.clock import iso
from agentd.config.service import ApiKey, ApiSettings, RateLimiting
from agentd.settings import RateLimit

Json = dict[str, Any]
_SESSIONS_FOLD = 5
_PAGES_AT_ONCE = 60


class Door:
    """
    names: of this machine. hosts: names under which somebody on loopback may read without a key. trusted: those of
    them that the configuration gives, which hold through a proxy too. known_as: all names of ours.

    origins: of pages that may call. public_origin: of the page, as its `public_url` has it, or None.

    Where a proxy shows the page to others (`public_url`), the names of this machine prove nothing: nginx as it comes
    gives that of its upstream for everybody, and no sign of itself. Then only what is named on purpose counts.
    """

    def __init__(self, settings: ApiSettings, *, names: Collection[str], own_uid: int) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._own_uid = own_uid
        self._rates = Rates()
        self._used: dict[str, datetime] = {}
        self.keys = KnownKeys(settings.keys)
        self.sessions = Sessions(self.keys, admit=self._count)
        self._enter(settings)

    def go_over_to(self, settings: ApiSettings) -> None:
        self.keys.replace(settings.keys)
        self.sessions.keep_only(settings.keys)
        names = {key.name for key in settings.keys}
        self._rates.forget_others(names | {_sessions_of(name) for name in names})
        self._used = {name: at for name, at in self._used.items() if name in names}
        self._enter(settings)

    def _enter(self, settings: ApiSettings) -> None:
        self._settings = settings
        address = urlsplit(settings.public_url or "")
        public = address.hostname or ""
        self.public_origin = _origin_of(address) if public else None
        self.sessions.secure = address.scheme == "https"
        self.trusted = frozenset(name.lower() for name in settings.hosts)
        self.hosts = self.trusted | (self._names if not public or _is_here(public) else frozenset())
        self.known_as = self.trusted | self._names | ({public.lower()} if public else set())
        self.origins = settings.cors.allowed_origins
        self._default = settings.rate_limiting
        self._own_rates = {key.name: key.rate_limiting for key in settings.keys if key.rate_limiting is not None}
        self._doorkeeper = Doorkeeper(settings.socket_access, self._own_uid)

    async def by_peer(self, peer: Peer | None) -> Caller:
        return await self._doorkeeper.caller(peer)

    async def by_key(self, token: str, *, again: bool = False) -> Caller | None:
        """
        None for a key that is none of ours. again: who is here already; it counts as no call.

        Raises TooMany: the key's rate, or that of wrong keys.
        """
        key = await self.keys.find(token)
        if key is None:
            return None
        if not again:
            await self._count(key)
        return Caller(key.name, key.scope, "key")

    async def _count(self, key: ApiKey) -> None:
        self._used[key.name] = datetime.now(UTC)
        await self._rates.take(key.name, _rate(self._own_rates.get(key.name, self._default)))

    def listing(self) -> list[Json]:
        """The keys in force, without anything of them that is secret. last_used_at: since the daemon runs, or None."""
        return [
            {
                "name": key.name,
                "scope": key.scope,
                "last_used_at": iso(used) if (used := self._used.get(key.name)) else None,
            }
            for key in self._settings.keys
        ]

    async def by_cookie(self, cookie: str, *, again: bool = False) -> Caller | None:
        """
        again: who is here already; it counts as no call, and does not make the session last.

        Raises TooMany: the rate of the key's sessions, all together.
        """
        caller = await self.sessions.caller(cookie, again=again)
        if caller is not None and not again:
            self._used[caller.name] = datetime.now(UTC)
            rate = self._own_rates.get(caller.name, self._default)
            await self._rates.take(_sessions_of(caller.name), _rate_of_sessions(rate))
        return caller


def _origin_of(address: SplitResult) -> str:
    """As browsers write it (RFC 6454 section 6.2): without the port that goes without saying."""
    host = address.netloc.rpartition("@")[2].lower()
    return f"{address.scheme}://" + host.removesuffix({"http": ":80", "https": ":443"}.get(address.scheme, ""))


def _is_here(host: str) -> bool:
    """Whether the name leads to this machine, wherever it is looked up (RFC 6761 section 6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _sessions_of(name: str) -> str:
    return f"sessions of {name}"  # no key has a name with blanks


def _rate_of_sessions(rate: RateLimiting) -> RateLimit:
    """A page is many calls, and fetches itself anew: five times the key's rate, and some pages at once."""
    burst = max(_PAGES_AT_ONCE, _SESSIONS_FOLD * rate.burst_size)
    return RateLimit(burst, burst * 60 / (_SESSIONS_FOLD * rate.requests_per_minute))


def _rate(rate: RateLimiting) -> RateLimit:
    """As many at once as the burst, and in the long run as many a minute as the rate says."""
    return RateLimit(rate.burst_size, rate.burst_size * 60 / rate.requests_per_minute)
