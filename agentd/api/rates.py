"""
How often each door to the outside may be used: one token bucket a name.

In: names with their rates. Out: let in, or TooMany with the time to wait. Nobody waits here.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from agentd.api.service import TooMany
from agentd.pacing import Bucket
from agentd.settings import RateLimit


class Rates:
    def __init__(self) -> None:
        self._buckets: dict[str, tuple[RateLimit, Bucket]] = {}

    async def take(self, name: str, rate: RateLimit) -> None:
        """One call of `name`. Raises TooMany. A rate that was changed begins with a full bucket."""
        known = self._buckets.get(name)
        if known is None or known[0] != rate:
            known = self._buckets[name] = (rate, Bucket(rate))
        bucket = known[1]
        if bucket.ready() < 1:
            wait_s = max(1, math.ceil(bucket.wait_s()))
            raise TooMany(f"{name} is called more than {rate}; again in {wait_s} s", retry_after_s=wait_s)
        await bucket.take()

    def forget_others(self, names: Collection[str]) -> None:
        for name in self._buckets.keys() - set(names):
            del self._buckets[name]
