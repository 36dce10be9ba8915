"""
Whose key is this?

In: tokens as callers send them, the keys of the configuration. Out: the key, or nothing.
Promise: a token that was seen before costs microseconds, and so does one that somebody invented, whether or not there
is a key of that name: nobody can keep others waiting. A hash that was rotated in its file counts within a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from agentd.api.service import TooMany
from agentd.config.key_hash import check_hash, is_marked, make_key, name_of, verify
from agentd.config.service import ApiKey
from agentd.errors import ConfigError
from agentd.pacing import Bucket
from agentd.secret import SecretMissing
from agentd.settings import RateLimit

__all__ = ["KnownKeys", "check_hash", "is_marked", "make_key", "name_of", "verify"]

log = logging.getLogger("agentd.api")

# Only who has read the hash in the configuration can send wrong ones that are worth a check; it takes 40 ms.
WRONG_TOKENS = RateLimit(20, 10.0)
MOST_WAITING = 32
_LOOK_AGAIN_S = 1.0


@dataclass(slots=True)
class _Known:
    """
    hash: as its file or variable had it at `read_at` (seconds of the loop); None: it could not be read.
    good: keyed digest of the token that fits `good_hash`; there is one for each hash.
    """

    key: ApiKey
    hash: str | None = None
    read_at: float = -math.inf
    good: bytes = b""
    good_hash: str | None = None


class KnownKeys:
    """The keys of the configuration. Belongs to one loop."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._known = {key.name: _Known(key) for key in keys}
        self._salt = secrets.token_bytes(32)
        self._turn = asyncio.Semaphore(1)
        self._wrong = Bucket(WRONG_TOKENS)
        self._under_way: dict[bytes, asyncio.Task[tuple[ApiKey, str] | None]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """The keys from now on. A token whose hash stays the same is not checked anew."""
        before = self._known
        self._known = {}
        for key in keys:
            now = self._known[key.name] = _Known(key)
            if (was := before.get(key.name)) is not None:
                now.good, now.good_hash = was.good, was.good_hash

    async def find(self, token: str) -> ApiKey | None:
        """
        The key that the token is of; None for any other text.

        Raises TooMany when too many wrong ones came, or too many wait to be checked.
        """
        found = await self.find_with_hash(token)
        return None if found is None else found[0]

    async def hash_of(self, name: str) -> str | None:
        """The hash that the key has now; None: there is no such key, or its hash cannot be read."""
        if (known := self._known.get(name)) is None:
            return None
        await self._look(known)
        return known.hash

    async def find_with_hash(self, token: str) -> tuple[ApiKey, str] | None:
        """As `find`, with the hash that the token fits."""
        name = name_of(token)
        if name is None:
            return None
        digest = hashlib.blake2b(token.encode(), key=self._salt).digest()
        if (known := self._known.get(name)) is not None:
            await self._look(known)
            if known.hash is not None and _is_good(known, digest):
                return known.key, known.hash
        if not is_marked(token, known.hash if known is not None else None):
            return None
        task = self._under_way.get(digest)
        if task is None:
            self._let_in()
            if len(self._under_way) >= MOST_WAITING:
                raise TooMany("too many keys wait to be checked; again in 1 s", retry_after_s=1)
            task = self._under_way[digest] = asyncio.create_task(self._check(token, name, digest), name="api-key")
            task.add_done_callback(lambda done: self._forget(digest, done))
        # Others wait for the same check: who leaves does not end it.
        return await asyncio.shield(task)

    async def _check(self, token: str, name: str, digest: bytes) -> tuple[ApiKey, str] | None:
        async with self._turn:
            self._let_in()
            known = self._known.get(name)
            text = known.hash if known is not None else None
            if text is None or not await asyncio.to_thread(verify, token, text):
                if self._wrong.ready():
                    await self._wrong.take()
                return None
        # A reload meanwhile may have taken the key away.
        if (now := self._known.get(name)) is None:
            return None
        if now is not known:
            await self._look(now)
        if now.hash != text:
            return None
        now.good, now.good_hash = digest, text
        return now.key, text

    def _let_in(self) -> None:
        if not self._wrong.ready():
            wait_s = max(1, math.ceil(self._wrong.wait_s()))
            raise TooMany(f"too many wrong keys were tried; again in {wait_s} s", retry_after_s=wait_s)

    def _forget(self, digest: bytes, task: asyncio.Task[tuple[ApiKey, str] | None]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # who asked has heard it, if they are still there

    async def _look(self, known: _Known) -> None:
        """Read the hash, from its file where it stands in one: now and then, and not in the loop."""
        secret = known.key.hash
        if secret.literal:
            known.hash = secret.text
            return
        now = asyncio.get_running_loop().time()
        if now - known.read_at < _LOOK_AGAIN_S:
            return
        if known.hash is not None:
            known.read_at = now  # others go on with what is known; without anything each looks
        try:
            text = await asyncio.to_thread(secret.expand)
            check_hash(text)
        except (SecretMissing, ConfigError, ValueError) as error:
            log.warning("api_key_unusable", extra={"key": known.key.name, "error": str(error)})
            known.hash = None
        else:
            known.hash = text
        known.read_at = now


def _is_good(known: _Known, digest: bytes) -> bool:
    return hmac.compare_digest(known.good, digest) and known.good_hash == known.hash
