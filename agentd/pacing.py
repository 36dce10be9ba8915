"""
How fast and how soon: back-off, what a receiver asked for, token buckets, circuit breaker.

In: attempts, header values, rates, moments. Out: seconds to wait, or a wait itself.
Promise: decisions are pure; only the buckets wait, and they bind to a loop no earlier than the first `take`.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

from aiolimiter import AsyncLimiter

from agentd.settings import RateLimit

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONGEST_HEADER = 100
_ROUNDING = 1e-9


class Uniform(Protocol):
    """What the jitter asks of a source of randomness; `random` itself and `random.Random` have it."""

    def uniform(self, a: float, b: float) -> float: ...


def full_jitter(attempt: int, *, base_s: float, cap_s: float, rng: Uniform | None = None) -> float:
    """
    Seconds to wait after the failed `attempt` (counted from 1): anywhere in 0 … min(cap_s, base_s · 2^(attempt-1)).

    The whole range is random, so that senders which failed together do not come back together.
    """
    doublings = min(max(attempt - 1, 0), 64)
    source: Uniform = random if rng is None else rng
    return source.uniform(0.0, min(cap_s, base_s * 2.0**doublings))


def retry_after_s(value: str | None, now: datetime, *, cap_s: float = 3600.0) -> float | None:
    """
    The wait that a Retry-After header asks for (RFC 9110 §10.2.3: seconds or an HTTP date), at most `cap_s`.

    None when there is no header, when it cannot be read, or when its date has passed.
    """
    if value is None or len(value) > _LONGEST_HEADER:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), cap_s)
    try:
        date = parsedate_to_datetime(text)
        # A date with zone -0000 comes back naive; HTTP dates are always UTC.
        wait_s = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(wait_s, cap_s) if wait_s >= 0 else None


class _Limiter(AsyncLimiter):
    """aiolimiter's leaky bucket, with its level readable and safe against rounding."""

    __slots__ = ()

    def _leak(self) -> None:
        super()._leak()
        # The waker fires when the level should have come down to a token's room exactly. Rounding can leave it a
        # hair above, and the waker then re-arms itself for this very moment: a spin, endless where time stands still.
        over = self._level - (self.max_rate - 1)
        if 0 < over < _ROUNDING:
            self._level = self.max_rate - 1

    def ready(self) -> int:
        self._leak()
        return int(self.max_rate - self._level + _ROUNDING)

    def wait_s(self) -> float:
        self._leak()
        return max(0.0, (self._level + 1 - self.max_rate) / self._rate_per_sec)


class Bucket:
    """
    A token bucket: a burst of `rate.count` tokens, refilled over `rate.per` seconds.

    A rate below one event holds one token and refills it in the time the rate says.
    """

    __slots__ = ("_limiter",)

    def __init__(self, rate: RateLimit) -> None:
        burst = max(1.0, rate.count)
        self._limiter = _Limiter(burst, rate.per * burst / rate.count)

    async def take(self) -> None:
        """Take one token, waiting for it as long as it needs; waiters are served in the order they came."""
        await self._limiter.acquire()

    def ready(self) -> int:
        """Whole tokens that can be taken without waiting. Needs a running loop."""
        return self._limiter.ready()

    def wait_s(self) -> float:
        """Seconds until a token is there, not counting those who wait already. Needs a running loop."""
        return self._limiter.wait_s()


class KeyedBuckets:
    """
    One bucket per key, all of one rate.

    max_keys: beyond it the least recently used bucket is forgotten, and its key starts with a full one again.
    """

    def __init__(self, rate: RateLimit, max_keys: int = 10_000) -> None:
        self.rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, key: str) -> None:
        """Take one token of `key`, waiting for it as long as it needs."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self.rate)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        await bucket._limiter.acquire()


class Breaker:
    """
    A circuit breaker: after `failures` in a row it lets nothing through, then one trial at a time.

    Open for `open_s` seconds, doubling with each failed trial up to `cap_s`. `now` is monotonic seconds everywhere.
    A trial that never reports back is given up after the current open time, and the next one may go.
    """

    def __init__(self, *, failures: int = 5, open_s: float = 5.0, cap_s: float = 300.0) -> None:
        self._limit = failures
        self._open_s = open_s
        self._cap_s = cap_s
        self.failures = 0
        self._openings = 0
        self._retry_at: float | None = None
        self._trial = False

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        if self._retry_at is None:
            return "closed"
        return "half-open" if now >= self._retry_at or self._trial else "open"

    def retry_at(self) -> float | None:
        """When the next trial may go; None while closed."""
        return self._retry_at

    def admit(self, now: float) -> bool:
        """May one go now? While half-open the first to ask takes the trial, and the others wait for its outcome."""
        if self._retry_at is None:
            return True
        if now < self._retry_at:
            return False
        self._trial = True
        self._retry_at = now + self._wait_s()
        return True

    def succeed(self) -> None:
        """One got through: closed again, everything forgotten."""
        self.failures = self._openings = 0
        self._retry_at = None
        self._trial = False

    def fail(self, now: float) -> None:
        """One failed; one too many in a row opens, and a failed trial opens for longer."""
        self.failures += 1
        if self._retry_at is None:
            if self.failures >= self._limit:
                self.trip(now)
        elif self._trial:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Open at once: the other side said that trying on is no use."""
        self._openings += 1
        self._trial = False
        self._retry_at = now + self._wait_s()

    def abandon(self, now: float) -> None:
        """What was admitted ended without an outcome (cancelled, never sent): the next may try at once."""
        if self._trial:
            self._trial = False
            self._retry_at = now

    def _wait_s(self) -> float:
        return min(self._cap_s, self._open_s * 2.0 ** min(max(self._openings - 1, 0), 64))
