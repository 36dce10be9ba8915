"""
Answers that many ask for at once: worked out once for all who wait.

In: who asks. Out: the same result for each of them.
Promise: nobody is given what was begun before they asked, so no answer is older than its question; between answers
nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Work whose result is shared by all who wait for it. make: does it once."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._one_at_a_time = asyncio.Lock()
        self._begun = 0
        self._waiting = 0
        self._made: tuple[T] | None = None

    async def newest(self) -> T:
        """A result of work that began after this was called. Raises what `make` raises."""
        mine = self._begun + 1
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                made = self._made
                if made is None or self._begun < mine:
                    self._begun += 1
                    self._made = None
                    made = self._made = (await self._make(),)
                return made[0]
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._made = None  # of two thousand watches it is a megabyte
