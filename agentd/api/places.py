"""
How many connections there may be, and which of them makes room when there are too many.

In: connections that come, wait, are answered, go. Out: a place for each, or none.
Promise: no address, no user takes all places; and whoever only waits, for a request or in the midst of sending one,
holds no place against somebody who comes: the one that has waited longest goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Of one server's connections.

    head_bytes: request line and headers together. head_s: from the first byte, or the begin of the connection, to the
    end of the head. body_s: for all of the body. idle_s: between requests. unread_s: how long a client may let what it
    is sent lie. connections: at once. share: of them, for one remote address (an IPv6 /64, all of loopback) or user.
    """

    head_bytes: int = 32 * 1024
    headers: int = 100
    url_bytes: int = 8 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 15.0
    unread_s: float = 30.0
    connections: int = 1000
    share: int = 400


class Holder(Protocol):
    """One connection. whom: whose share it is of."""

    @property
    def whom(self) -> Hashable: ...

    def make_room(self) -> bool:
        """Go, if nothing is lost by it. True: its place has been given back."""
        ...


class Places:
    """The connections of one server, counted. root and the daemon's own user are let in beyond the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.taken = 0
        self.lingering = 0
        self._by_whom: Counter[Hashable] = Counter()
        self._waiting: dict[Holder, None] = {}

    def take(self, whom: Hashable, *, always: bool = False) -> bool:
        """False when there is none for them."""
        if not always:
            if self._by_whom[whom] >= self.limits.share and not self._make_room(whom):
                return False
            if self.taken >= self.limits.connections and not self._make_room():
                return False
        self.taken += 1
        self._by_whom[whom] += 1
        return True

    def give_back(self, whom: Hashable) -> None:
        self.taken -= 1
        self._by_whom[whom] -= 1
        if not self._by_whom[whom]:
            del self._by_whom[whom]

    def waits(self, holder: Holder) -> None:
        """Nobody works for it from now on. Told again, it has waited as long as before."""
        self._waiting.setdefault(holder)

    def waits_no_more(self, holder: Holder) -> None:
        self._waiting.pop(holder, None)

    def _make_room(self, *whose: Hashable) -> bool:
        """Only one of those, if any are given."""
        # Who makes room leaves `_waiting`; `any` does not go on behind it.
        return any((not whose or holder.whom in whose) and holder.make_room() for holder in self._waiting)
