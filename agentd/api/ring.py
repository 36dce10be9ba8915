"""
One ring of what happened last, for all who listen.

In: events. Out: Server-Sent Events (WHATWG HTML, section 9.2), `id: LIFE-NUMBER`, each encoded once.
Promise: a listener costs its place in the ring and nothing more. It is woken ten times a second at most, with all that
came meanwhile in one piece, the same bytes for everybody. Who fell behind the ring, or comes back with the id of
another life, is told by `reset` to read everything anew.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from agentd.api.abridged import abridged_alert, abridged_watch_row
from agentd.api.encoding import encoded
from agentd.api.feed import Kind

log = logging.getLogger("agentd.api")

TICK_S = 0.1
KEEP_ALIVE_S = 15.0
MOST_EVENTS = 1000
MOST_BYTES = 2 * 2**20
MOST_EVENT_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
_MOST_PIECES = 16
_KEEP_ALIVE = b":\n\n"
_HELLO = b"retry: 3000\n\n"
_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})")
_NAMES = ("fingerprint", "watch", "name", "id", "state")
_ABRIDGED: Mapping[Kind, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "alert": abridged_alert,
    "watch": abridged_watch_row,
}


class _Event(NamedTuple):
    """number: counted from 1. whole: for known callers. open: for all others; the same bytes where nothing differs."""

    number: int
    whole: bytes
    open: bytes

    @property
    def size(self) -> int:
        return len(self.whole) + (0 if self.open is self.whole else len(self.open))


class Ring:
    """
    Implements `agentd.api.feed.Feed`.

    most, most_bytes: what is kept for those who come back. listeners: how many there are; heard: set while there are
    any. joined: how many there ever were.
    """

    def __init__(self, *, most: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self.life = secrets.token_hex(4)
        self.listeners = 0
        self.joined = 0
        self.heard = asyncio.Event()
        self._most = most
        self._most_bytes = most_bytes
        self._events: deque[_Event] = deque()
        self._bytes = 0
        self._newest = 0
        self._closed = False
        self._news = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._ticked_at = float("-inf")
        self._beat: asyncio.TimerHandle | None = None
        self._pieces: dict[tuple[int, bool], tuple[bytes, int]] = {}

    @property
    def last_id(self) -> str:
        """Of the newest event: who read everything just before may go on from here."""
        return f"{self.life}-{self._newest}"

    def __len__(self) -> int:
        return len(self._events)

    # Telling.

    def tell(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Something happened. Never waits, never raises."""
        try:
            self._append(kind, data)
        except Exception:
            log.exception("event_not_told", extra={"kind": kind})

    def _append(self, kind: Kind, data: Mapping[str, Any]) -> None:
        if self._closed:
            return
        number = self._newest + 1
        whole = self._event(number, kind, data)
        abridge = _ABRIDGED.get(kind)
        shown = data if abridge is None else abridge(data)
        event = _Event(number, whole, whole if shown is data else self._event(number, kind, shown))
        self._newest = number
        self._events.append(event)
        self._bytes += event.size
        while len(self._events) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._events.popleft().size
        if self.listeners and self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_at(max(loop.time(), self._ticked_at + TICK_S), self._wake)

    def _event(self, number: int, kind: str, data: Mapping[str, Any]) -> bytes:
        body = encoded(data)
        if len(body) > MOST_EVENT_BYTES:
            body = encoded({"left_out": True} | {key: data[key] for key in _NAMES if key in data})
        # JSON escapes line ends within texts, so one `data:` line holds it all.
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (self.life.encode(), number, kind.encode(), body)

    def close(self) -> None:
        """Nothing more happens: every listener comes to its end."""
        self._closed = True
        for timer in (self._tick, self._beat):
            if timer is not None:
                timer.cancel()
        self._tick = self._beat = None
        self._news.set()

    # Listening.

    async def listen(self, last_id: str | None, *, known: bool) -> AsyncIterator[bytes]:
        """See `Feed.listen`."""
        self.listeners += 1
        self.joined += 1
        self.heard.set()
        self._keep_alive()
        try:
            place, missed = self._begin(last_id)
            yield _HELLO
            while not self._closed:
                if missed or place < self._first - 1:
                    place, missed = self._newest, False
                    yield b"id: %s\nevent: reset\ndata: {}\n\n" % self.last_id.encode()
                elif place < self._newest:
                    piece, place = self._piece(place, known)
                    yield piece
                else:
                    news = self._news
                    await news.wait()
                    if not self._closed and place == self._newest:
                        yield _KEEP_ALIVE
        finally:
            self.listeners -= 1
            if not self.listeners:
                self.heard.clear()

    @property
    def _first(self) -> int:
        return self._events[0].number if self._events else self._newest + 1

    def _begin(self, last_id: str | None) -> tuple[int, bool]:
        """Where to go on, and whether something was missed."""
        if not last_id:
            return self._newest, False
        found = _ID.fullmatch(last_id)
        if found is None or found[1] != self.life or int(found[2]) > self._newest:
            return self._newest, True
        return int(found[2]), False

    def _piece(self, place: int, known: bool) -> tuple[bytes, int]:
        """Events behind a place, up to a size, and the place behind them. Who stands there too gets the same bytes."""
        key = (place, known)
        found = self._pieces.get(key)
        if found is None:
            parts: list[bytes] = []
            size = 0
            for event in islice(self._events, place + 1 - self._first, None):
                part = event.whole if known else event.open
                if parts and size + len(part) > _PIECE_BYTES:
                    break
                parts.append(part)
                size += len(part)
                place = event.number
            found = b"".join(parts), place
            if len(self._pieces) < _MOST_PIECES:
                if not self._pieces:  # by then all who were woken together have passed here
                    asyncio.get_running_loop().call_later(TICK_S, self._pieces.clear)
                self._pieces[key] = found
        return found

    def _wake(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._ticked_at = asyncio.get_running_loop().time()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _keep_alive(self) -> None:
        """One timer for all listeners."""
        if self._beat is None and not self._closed:
            self._beat = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._wake_all)

    def _wake_all(self) -> None:
        self._beat = None
        if self.listeners:
            self._wake()
            self._keep_alive()
