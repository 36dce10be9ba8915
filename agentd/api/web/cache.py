"""
Pages that were made a moment ago, so that two hundred browsers do not cost two hundred renderings.

Promise: bounded in pages and bytes; one that is being made is waited for, not made twice; after `clear` nothing that
was begun before is given out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made")

FRESH_S = 1.0
MOST_PAGES = 64
MOST_BYTES = 4 * 2**20


@dataclass(slots=True)
class _Kept(Generic[Made]):
    page: Made
    size: int
    made_s: float


class PageCache(Generic[Made]):
    """size: of a page, in bytes. monotonic: seconds."""

    def __init__(self, size: Callable[[Made], int], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._monotonic = monotonic
        self._kept: OrderedDict[Hashable, _Kept[Made]] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Task[Made]] = {}
        self._bytes = 0
        self._age = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        return self._bytes

    def clear(self) -> None:
        """Something was changed: what is known is old."""
        self._kept.clear()
        self._under_way.clear()
        self._bytes = 0
        self._age += 1

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Made]]) -> Made:
        """The page, not older than FRESH_S. Raises what `make` raises, to all who wait for it."""
        self._let_go()
        if (kept := self._kept.get(key)) is not None:
            return kept.page
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._make(key, make, self._age))
            task.add_done_callback(_seen)
        # A browser that goes away does not take the page from the others.
        return await asyncio.shield(task)

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Made]], age: int) -> Made:
        try:
            began_s = self._monotonic()
            page = await make()
            if age == self._age:
                self._keep(key, _Kept(page, self._size(page), began_s))
            return page
        finally:
            if age == self._age:
                self._under_way.pop(key, None)

    def _keep(self, key: Hashable, kept: _Kept[Made]) -> None:
        if kept.size > MOST_BYTES // 4:
            return
        self._kept[key] = kept
        self._bytes += kept.size
        while len(self._kept) > MOST_PAGES or self._bytes > MOST_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def _let_go(self) -> None:
        old_s = self._monotonic() - FRESH_S
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.made_s > old_s:
                return
            del self._kept[key]
            self._bytes -= kept.size


def _seen(task: asyncio.Task[Made]) -> None:
    """Or an error that nobody waits for any more would be logged as lost."""
    if not task.cancelled():
        task.exception()
