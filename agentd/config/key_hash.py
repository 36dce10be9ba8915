"""
Keys to the API: how one is made, and how the hash that the configuration keeps of it is checked.

In: names, tokens, hash texts; all of them may be anybody's. Out: a token with its hash, or yes and no.
Promise: the hash text cannot make a check cost more than a fifth of a second and 64 MiB, and a token is compared in
constant time. One check takes some 40 ms on purpose: call `verify` on a thread, and only for what `is_marked`.

A token is `agentd_NAME.SECRET`. The secret is in base64url, where no dot can be, so the last dot ends the name: 27
random bytes, then a mark of 42 bits, the MAC of all before it under the salt of the hash. Whoever has not seen the
configuration makes no mark, so an invented token costs its daemon microseconds and keeps no one waiting. The hash
covers the whole token: a secret fits no other name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

from agentd.errors import ConfigError
from agentd.settings import NAME_PATTERN

PREFIX = "agentd_"
MAX_TOKEN_CHARS = 128

_SECRET_BYTES = 27
_MARK_CHARS = 7
_SALT_BYTES = 16
_HASH_BYTES = 32
_LOG_N, _R, _P = 14, 8, 1
_MOST_WORK = 2**19  # n·r·p, four times ours
_MOST_MEMORY = 64 * 2**20

_TOKEN = re.compile(rf"{PREFIX}({NAME_PATTERN.strip('^$')})\.[A-Za-z0-9_-]{{43}}", re.ASCII)
# The string format of the Password Hashing Competition, with the names of parameters that passlib gave scrypt.
_HASH = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43,86})", re.ASCII
)
_CURE = "`agentd key new NAME` makes a key and its hash"


@dataclass(frozen=True, slots=True)
class _Hash:
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def mark_of(self, unmarked: str) -> str:
        mac = hashlib.blake2b(unmarked.encode(errors="surrogateescape"), key=self.salt, digest_size=6)
        return base64.urlsafe_b64encode(mac.digest()).decode()[:_MARK_CHARS]

    def has_marked(self, token: str) -> bool:
        own = self.mark_of(token[:-_MARK_CHARS])
        return hmac.compare_digest(own.encode(), token[-_MARK_CHARS:].encode(errors="surrogateescape"))

    def made_of(self, token: str) -> bytes:
        return hashlib.scrypt(
            token.encode(errors="surrogateescape"),
            salt=self.salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=_MOST_MEMORY + 2**20,
            dklen=len(self.digest),
        )


def make_key(name: str) -> tuple[str, str]:
    """A new token for `name`, and its hash for the configuration. Takes some 40 ms. Raises ConfigError."""
    empty = _Hash(2**_LOG_N, _R, _P, secrets.token_bytes(_SALT_BYTES), bytes(_HASH_BYTES))
    unmarked = f"{PREFIX}{name}.{secrets.token_urlsafe(_SECRET_BYTES)}"
    token = unmarked + empty.mark_of(unmarked)
    if name_of(token) != name:
        raise ConfigError(
            f"{name[:100]!r} is no name of a key; write letters, digits, `_`, `.` and `-`, at most 63, and begin with "
            "a letter or a digit"
        )
    return token, _text(empty.salt, empty.made_of(token))


def name_of(token: str) -> str | None:
    """Of which key the token claims to be; None: it is no token of ours."""
    match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_CHARS else None
    return match[1] if match is not None else None


def is_marked(token: str, hash_text: str | None) -> bool:
    """
    May it be the token of that hash? Takes microseconds, and as many for None, which no token fits. Yes is no proof.
    """
    try:
        known = _NONE if hash_text is None else _parse(hash_text)
    except ConfigError:
        return False
    return known.has_marked(token) and known is not _NONE


def verify(token: str, hash_text: str) -> bool:
    """Is it the token of that hash? A hash that cannot be read fits none. Takes some 40 ms."""
    try:
        known = _parse(hash_text)
    except ConfigError:
        return False
    return known.has_marked(token) and hmac.compare_digest(known.made_of(token), known.digest)


def check_hash(text: str) -> None:
    """Raises ConfigError when the text is no hash that `verify` can use. Instant."""
    _parse(text)


_NONE = _Hash(2**_LOG_N, _R, _P, secrets.token_bytes(_SALT_BYTES), bytes(_HASH_BYTES))


def _text(salt: bytes, digest: bytes) -> str:
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_b64(salt)}${_b64(digest)}"


@lru_cache(maxsize=256)
def _parse(text: str) -> _Hash:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ConfigError(f"is no hash of a key; {_CURE}")
    log_n, r, p = int(match[1]), int(match[2]), int(match[3])
    if not (10 <= log_n <= 20 and r >= 1 and p >= 1):
        raise ConfigError(f"has parameters that are no use: ln={log_n}, r={r}, p={p}; {_CURE}")
    n = 2**log_n
    if n * r * p > _MOST_WORK or 128 * r * (n + p + 2) > _MOST_MEMORY:
        raise ConfigError(f"would take too long to check: ln={log_n}, r={r}, p={p}; {_CURE}")
    try:
        return _Hash(n, r, p, _bytes(match[4]), _bytes(match[5]))
    except ValueError as error:
        raise ConfigError(f"is cut short or mistyped; {_CURE}") from error


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
