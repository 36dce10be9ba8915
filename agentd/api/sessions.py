"""
Sessions of the page: somebody showed a key once, and the browser keeps a cookie.

In: keys. Out: `Caller`s. Promise: a session ends when its key is gone or rotated, after a day without use, after a
week, and with the daemon; it is known by the digest of its cookie alone. Who signs in again and again ends no sessions
but those of the same key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

from agentd.api.caller import Caller
from agentd.api.keys import KnownKeys
from agentd.config.service import ApiKey

COOKIE = "agentd_session"
IDLE_S = 24 * 3600.0
LIFE_S = 7 * IDLE_S
MOST = 1000
MOST_OF_KEY = 50
_VALUE = re.compile(rb"[A-Za-z0-9_-]{43}")
_MOST_SHOWN = 8


@dataclass(slots=True)
class _Session:
    key: ApiKey
    hash: str
    csrf: str
    opened_s: float
    used_s: float


class Sessions:
    """
    admit: called with each key that somebody signs in with; raises TooMany. secure: whether browsers come by https.
    """

    def __init__(
        self,
        keys: KnownKeys,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        admit: Callable[[ApiKey], Awaitable[None]] | None = None,
    ) -> None:
        self._keys = keys
        self._admit = admit
        self.secure = False
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, _Session] = OrderedDict()

    async def open(self, key: str) -> tuple[str, Caller] | None:
        """The cookie's value and whom it stands for; None for a key that is none of ours. Raises TooMany."""
        found = await self._keys.find_with_hash(key)
        if found is None:
            return None
        key_of, hash_of = found
        if self._admit is not None:
            await self._admit(key_of)
        own = [digest for digest, session in self._known.items() if session.key.name == key_of.name]
        for digest in own[: max(0, len(own) - MOST_OF_KEY + 1)]:
            del self._known[digest]
        now_s = self._monotonic()
        cookie = secrets.token_urlsafe(32)
        session = _Session(key_of, hash_of, secrets.token_urlsafe(16), now_s, now_s)
        self._known[_digest(cookie)] = session
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return cookie, _caller(session)

    async def caller(self, cookie: str, *, again: bool = False) -> Caller | None:
        """again: nobody uses it now; it is looked whether it is still good."""
        digest = _digest(cookie)
        session = self._known.get(digest)
        if session is None:
            return None
        now_s = self._monotonic()
        if now_s - session.used_s > IDLE_S or now_s - session.opened_s > LIFE_S:
            del self._known[digest]
            return None
        # No reload tells of a key that is rotated in its file.
        known_hash = await self._keys.hash_of(session.key.name)
        if known_hash != session.hash or digest not in self._known:
            if known_hash is not None:  # else its file cannot be read: it may be back in a moment
                self._known.pop(digest, None)
            return None
        if not again:
            session.used_s = now_s
            self._known.move_to_end(digest)
        return _caller(session)

    def close(self, cookie: str) -> None:
        self._known.pop(_digest(cookie), None)

    def keep_only(self, keys: Collection[ApiKey]) -> None:
        """End those of keys that are gone or were changed."""
        for digest, session in list(self._known.items()):
            if session.key not in keys:
                del self._known[digest]


def cookies_in(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """
    What may be cookies of ours among the headers of a request, a few at most.

    Cookies know no ports: other programs of the same host are heard here too, whatever they write, and another daemon
    has one of the same name. Read in one pass, and not by `http.cookies`: that gives up on what it cannot parse, and
    takes quoted text apart in quadratic time.
    """
    own = COOKIE.encode()
    found = []
    for header, value in headers:
        if header == b"cookie":
            for part in value.split(b";"):
                name, _, text = part.strip(b" \t").partition(b"=")
                if name == own and _VALUE.fullmatch(text):
                    found.append(text.decode())
    return found[:_MOST_SHOWN]


def _caller(session: _Session) -> Caller:
    return Caller(session.key.name, session.key.scope, "session", csrf=session.csrf)


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
