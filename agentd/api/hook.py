"""
Inbound webhooks: who may call, and what was said.

In: the headers and the body of `POST /api/v1/hooks/NAME`. Out: a `Call`, or the reason why there is none.
Promise: a call is let in by a signature of Standard Webhooks (its time within five minutes of ours) or by the secret as
bearer token, compared in constant time, and by nothing else; a signed message acts once. Who is turned away by the
headers alone has no body read. Without the secret it cannot be told which hooks there are.

Which messages were taken is kept in memory: one that was taken in the last minutes before a restart could be replayed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
import hmac
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentd.api.alertmanager import read_alertmanager
from agentd.api.rates import Rates
from agentd.api.service import Conflict, Forbidden, NoCredentials, NoSecret, NotFound
from agentd.clock import Clock
from agentd.config.service import Hook
from agentd.deliver.signing import PREFIX, signing_key
from agentd.secret import SecretMissing

log = logging.getLogger("agentd.api")

MAX_BODY_BYTES = 256 * 1024
TOLERANCE = timedelta(minutes=5)
"""How far the time of a signed message may lie from ours, either way (Standard Webhooks, "Verifying timestamps")."""

MOST_KNOWN = 10_000
MOST_NESTED = 100
_READ_HERE_BYTES = 16 * 1024

# Without a full stop: signed are id, time and body joined by it, and the joints must not move.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Call:
    """id: of a signed message. fresh: False for one that was taken already. payload: JSON text of the event."""

    id: str | None
    fresh: bool
    payload: str = "null"


class Replays:
    """
    The signed messages that one hook has taken, as long as their time would be good.

    most: that many; beyond it those of the earliest time are forgotten, and whatever is not later counts as too old.
    """

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._stamps: dict[str, int] = {}
        self._by_stamp: list[tuple[int, str]] = []
        self._floor = -1

    def look(self, id: str, stamp: int, now: datetime) -> bool:
        """
        Whether the message is new. Raises Conflict for a replay, Forbidden for one that is too old to know.

        The same id with another time is the sender's own retry: not new, and no replay.
        """
        while self._by_stamp and self._by_stamp[0][0] < now.timestamp() - TOLERANCE.total_seconds():
            self._drop_earliest()
        known = self._stamps.get(id)
        if known == stamp:
            raise Conflict(f"message {id[:100]} was taken already")
        if known is None and stamp <= self._floor:
            raise Forbidden("webhook-timestamp is too old: later messages were taken in great number")
        return known is None

    def remember(self, id: str, stamp: int) -> None:
        """It was taken, now or before; it is known for as long as its newest time is good."""
        self._stamps[id] = stamp
        heapq.heappush(self._by_stamp, (stamp, id))
        while len(self._by_stamp) > self._most:
            self._floor = max(self._floor, self._drop_earliest())

    def _drop_earliest(self) -> int:
        stamp, id = heapq.heappop(self._by_stamp)
        if self._stamps.get(id) == stamp:
            del self._stamps[id]
        return stamp


class Hooks:
    """The doors by name. The settings may be exchanged while calls are under way."""

    def __init__(self, clock: Clock, rates: Rates) -> None:
        self._clock = clock
        self._rates = rates
        self._settings: Mapping[str, Hook] = {}
        self._replays: dict[str, Replays] = {}
        self._missing: dict[str, str] = {}
        # Of a hook that there is none of: nothing fits it, and trying takes as long.
        self._nobodys = f"{PREFIX}{base64.b64encode(secrets.token_bytes(32)).decode()}"

    def replace(self, settings: Mapping[str, Hook]) -> None:
        """These are the hooks from now on; what a hook of the same name has taken is still known."""
        self._settings = dict(settings)
        self._replays = {name: self._replays.get(name) or Replays() for name in settings}

    async def admit(
        self, name: str, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], *, trusted: bool
    ) -> Call:
        """
        Let a call in. trusted: it needs no credentials.

        Raises NotFound (who is trusted; to others it is a wrong secret), Forbidden, Conflict (a replay), TooMany,
        NoSecret (none can be read), and what `body` raises.
        Only what is taken counts against the rate: nobody without the secret can shut the door.
        """
        hook = self._settings.get(name)
        if hook is None and trusted:
            raise NotFound(f"no hook {name!r}; the configuration has it under api.hooks")
        signed = None if trusted else _signed(headers, self._clock.now())
        bearer = None if trusted or signed else _bearer(headers)
        if bearer is not None and not _is_one_of(bearer, self._secrets(name, hook)):
            raise Forbidden("there is no hook of this name, or the token is not its secret")
        if not trusted and bearer is None and signed is None:
            raise NoCredentials("call it with the headers of Standard Webhooks or with Authorization: Bearer SECRET")
        said = await body()
        if signed is None:
            assert hook is not None
            await self._rates.take(f"hook {name}", hook.rate)
            return Call(None, True, await _payload(name, None, said))
        if not signed.fits(said, self._secrets(name, hook)):
            raise Forbidden(
                "there is no hook of this name, or webhook-signature is not that of this body by any secret of it"
            )
        assert hook is not None
        # No other call comes between the look and the memory: where there is a token, taking it does not wait.
        replays = self._replays.setdefault(name, Replays())
        fresh = replays.look(signed.id, signed.stamp, self._clock.now())
        if fresh:
            await self._rates.take(f"hook {name}", hook.rate)
        replays.remember(signed.id, signed.stamp)
        return Call(signed.id, fresh, await _payload(name, signed.id, said) if fresh else "null")

    def _secrets(self, name: str, hook: Hook | None) -> list[str]:
        """Those that can be read now: while rotating, one that is not there must not shut out the other."""
        if hook is None:
            return [self._nobodys]
        values, missing = [], ""
        for secret in hook.secret:
            try:
                values.append(secret.expand())
            except SecretMissing as error:
                missing = str(error)
        if values:
            self._missing.pop(name, None)
            return values
        # Once, not per call: anybody may call.
        if self._missing.get(name) != missing:
            self._missing[name] = missing
            log.warning("hook_secret_missing", extra={"hook": name, "error": missing})
        raise NoSecret(f"the secret of hook {name} cannot be read now; the daemon's log says why")


@dataclass(frozen=True, slots=True)
class _Signed:
    id: str
    timestamp: str
    signatures: tuple[str, ...]

    @property
    def stamp(self) -> int:
        return int(self.timestamp)

    def fits(self, body: bytes, secrets: Iterable[str]) -> bool:
        """Whether any of the signatures is by any of the secrets; each is tried, whatever fitted before."""
        content = f"{self.id}.{self.timestamp}.".encode() + body
        found = False
        for secret in secrets:
            try:
                key = signing_key(secret)
            except ValueError:
                continue  # a plain token: it signs nothing
            ours = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
            for theirs in self.signatures:
                found |= hmac.compare_digest(ours, theirs.encode())
        return found


def _signed(headers: Mapping[str, str], now: datetime) -> _Signed | None:
    """What the headers claim, if they claim anything. Raises Forbidden for what cannot be right."""
    id, timestamp, signatures = (headers.get(f"webhook-{part}") for part in ("id", "timestamp", "signature"))
    if signatures is None:
        return None
    if id is None or not _ID.fullmatch(id):
        raise Forbidden("webhook-id is missing or no id: up to 256 visible characters without a full stop")
    if timestamp is None or not _TIMESTAMP.fullmatch(timestamp):
        raise Forbidden("webhook-timestamp is missing or no time: whole seconds since 1970")
    if abs(int(timestamp) - now.timestamp()) > TOLERANCE.total_seconds():
        raise Forbidden("webhook-timestamp is more than 5 minutes from our time")
    versioned = (each.partition(",") for each in signatures.split(" ")[:16])
    return _Signed(id, timestamp, tuple(signature for version, _, signature in versioned if version == "v1"))


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _is_one_of(token: str, secrets: Iterable[str]) -> bool:
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(token.encode(), secret.encode(errors="surrogateescape")) and bool(secret)
    return found


async def _payload(name: str, id: str | None, body: bytes) -> str:
    if len(body) <= _READ_HERE_BYTES:
        return payload_of(name, id, body)
    # A quarter of a megabyte of brackets takes a tenth of a second: not in our loop.
    return await asyncio.to_thread(payload_of, name, id, body)


def payload_of(name: str, id: str | None, body: bytes) -> str:
    """
    What the event says: hook, id, and body as JSON where it is JSON, else as text; of Alertmanager's webhook also
    `alertmanager` (see there).
    """
    said: dict[str, Any] = {"hook": name, "id": id, "body": _read(body)}
    if (alerts := read_alertmanager(said["body"])) is not None:
        said["alertmanager"] = alerts
    return json.dumps(said, separators=(",", ":"))


def _read(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text
    return value if _is_flat(value) else text


def _is_flat(value: Any) -> bool:
    """Whether it can be written and read again anywhere: what is nested deeper exhausts the stack sooner or later."""
    level = [value]
    for _ in range(MOST_NESTED):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not inner:
            return True
        level = [each for some in inner for each in some]
    return False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
