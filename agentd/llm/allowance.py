"""
What a provider allows in a time, taken from in amounts: requests one by one, tokens by the thousand.

In: an amount, and how long one may wait for it. Out: the wait itself, or NoRoom at once.
Promise: first come, first served; the wait is known before it begins. An amount larger than the bucket waits for a
full one and leaves a debt to the next; nothing that was sent is ever given back.
`pacing.Bucket` serves those who want one token each: aiolimiter lets small amounts overtake large ones for ever,
refuses what is larger than the bucket, and cannot tell the wait of somebody who stands in a queue.
"""

from __future__ import annotations

import asyncio

from agentd.clock import Clock
from agentd.errors import AgentdError
from agentd.settings import RateLimit


class NoRoom(AgentdError):
    """The amount will not be there in time. wait_s: how long it would take."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"no room for {wait_s:.0f} s")
        self.wait_s = wait_s


class Allowance:
    """A token bucket that holds `rate.count` at most and is refilled over `rate.per` seconds."""

    def __init__(self, rate: RateLimit, clock: Clock) -> None:
        self._clock = clock
        self._burst = max(1.0, rate.count)
        self._per_s = rate.count / rate.per
        self._taken = 0.0
        self._at = clock.monotonic()

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken, those who wait already served before."""
        self._refill()
        return max(0.0, (self._taken + min(amount, self._burst) - self._burst) / self._per_s)

    async def take(self, amount: float, *, within_s: float) -> None:
        """Take `amount`; within_s: how long to wait for it. Raises NoRoom, at once, when it takes longer."""
        wait_s = self.wait_s(amount)
        if wait_s > within_s:
            raise NoRoom(wait_s)
        self._taken += amount
        if wait_s > 0:
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                # Nothing was sent, so there is nothing to pay for.
                self._taken = max(0.0, self._taken - amount)
                raise

    def charge(self, amount: float) -> None:
        """Something took more than it had asked for: whoever comes next waits for that, too."""
        self._refill()
        self._taken += max(0.0, amount)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._taken = max(0.0, self._taken - (now - self._at) * self._per_s)
        self._at = now
