"""
What a run's agent does, told to whoever follows it: while it does it, and for a while after.

In: the events of a run, each with the bytes that it took on its way here. Out: to each who follows, those not seen yet.
Promise: who does not read misses some, holds up nobody, and takes no memory without end. A run that was over before
somebody came to follow it, or came back, is told of from what is kept of the runs that ended last.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

_MOST_EVENTS = 2000
_MOST_EVENT_BYTES = 4 * 2**20
_MOST_LISTENERS = 100
_MOST_UNREAD = 5000
_MOST_UNREAD_BYTES = 4 * 2**20
_MOST_OVER = 100
_MOST_OVER_BYTES = 2**20

Json = dict[str, Any]


class Telling:
    """The events of one run."""

    def __init__(self) -> None:
        self.kept_bytes = 0
        self._events: deque[tuple[Json, int]] = deque()
        self._count = 0
        self._listeners: set[_Listener] = set()
        self._over = False

    def tell(self, event: Mapping[str, Any], size: int) -> None:
        self._count += 1
        told = {**event, "seq": self._count}
        self._events.append((told, size))
        self.kept_bytes += size
        self._keep(_MOST_EVENTS, _MOST_EVENT_BYTES)
        for listener in self._listeners:
            listener.tell(told, size)

    def end(self) -> None:
        """Nothing more comes; what stays is little."""
        self._over = True
        self._keep(_MOST_EVENTS, _MOST_OVER_BYTES)
        for listener in self._listeners:
            listener.end()

    async def follow(self, after: int) -> AsyncGenerator[Json, None]:
        """
        Those of its begin too as far as they are kept, until it ends.

        Each has its `seq`, counted from 1; after: those up to it are left out.
        """
        if len(self._listeners) >= _MOST_LISTENERS:
            return
        unread = _Listener()
        self._listeners.add(unread)
        try:
            for event, _ in list(self._events):
                if event["seq"] > after:
                    yield event
            if self._over:
                unread.end()
            while (found := await unread.next()) is not None:
                yield found
        finally:
            self._listeners.discard(unread)

    def _keep(self, most: int, most_bytes: int) -> None:
        while len(self._events) > most or self.kept_bytes > most_bytes:
            self.kept_bytes -= self._events.popleft()[1]


class Lately:
    """The runs that ended last: short ones are over before anybody could ask what they do."""

    def __init__(self) -> None:
        self._tellings: OrderedDict[str, Telling] = OrderedDict()
        self._bytes = 0

    def add(self, run: str, telling: Telling) -> None:
        """It has ended."""
        telling.end()
        if not telling.kept_bytes:
            return
        if (before := self._tellings.pop(run, None)) is not None:
            self._bytes -= before.kept_bytes
        self._tellings[run] = telling
        self._bytes += telling.kept_bytes
        while len(self._tellings) > _MOST_OVER or self._bytes > _MOST_OVER_BYTES:
            self._bytes -= self._tellings.popitem(last=False)[1].kept_bytes

    def get(self, run: str) -> Telling | None:
        return self._tellings.get(run)


class _Listener:
    """What somebody who follows has not read yet."""

    def __init__(self) -> None:
        self._unread: deque[tuple[Json, int]] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self._over = False

    def tell(self, event: Json, size: int) -> None:
        if len(self._unread) < _MOST_UNREAD and self._bytes + size <= _MOST_UNREAD_BYTES:
            self._unread.append((event, size))
            self._bytes += size
            self._came.set()

    def end(self) -> None:
        self._over = True
        self._came.set()

    async def next(self) -> Json | None:
        """None when nothing more will come."""
        while not self._unread:
            if self._over:
                return None
            self._came.clear()
            await self._came.wait()
        event, size = self._unread.popleft()
        self._bytes -= size
        return event
