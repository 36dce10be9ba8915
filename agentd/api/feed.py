"""
What happens, for those who look on: one ring of events for all listeners.

In: events from the daemon. Out: Server-Sent Events, each encoded once.
Promise: a listener costs no memory but its place in the ring; one that is too slow is told that it missed something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, Protocol

Kind = Literal["alert", "watch", "run", "outbox", "config", "status"]


class Feed(Protocol):
    def tell(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Something happened. Never waits, never raises."""
        ...

    def listen(self, last_id: str | None, *, known: bool) -> AsyncIterator[bytes]:
        """
        Encoded events behind `last_id`, as they come, with a comment each 15 s; ends when the daemon does. A `reset`
        comes first where `last_id` is of another life or fell out of the ring: read everything anew. known: whether
        the caller may hear what agents said.
        """
        ...
