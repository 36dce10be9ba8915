"""
What the HTTP surface asks of the daemon. The routes know this port alone; the daemon stands behind it.

Every method gives plain JSON values: what it returns is what the client reads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from agentd.api.silence import SilenceAsked
from agentd.errors import AgentdError

Json = dict[str, Any]


class NotFound(AgentdError):
    """No watch, webhook or delivery of that name."""


class Conflict(AgentdError):
    """What is asked does not fit the present state; the message says why."""


class Forbidden(AgentdError):
    """The caller may not do this."""


class NoCredentials(Forbidden):
    """The caller shows nothing by which it could be known."""


class NoSecret(AgentdError):
    """What would let the caller in cannot be read now. Anybody hears this: it says neither where it is nor why."""


class TooMany(AgentdError):
    """More calls than the rate allows. retry_after_s: whole seconds after which one more is taken."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Service(Protocol):
    def state(self) -> str:
        """`running`, or `starting`. Costs nothing: load balancers ask it all the time."""
        ...

    async def status(self) -> Json: ...

    async def watches(self) -> list[Json]: ...

    async def alerts(self, *, everything: bool) -> list[Json]:
        """everything: also what is resolved; otherwise only pending and firing."""
        ...

    async def ack(self, alerts: Sequence[str], *, by: str, comment: str, undo: bool) -> Json:
        """
        Somebody is on these firing alerts, or with `undo` is not any more.

        alerts: names of watches, WATCH/RULE, or the first digits of fingerprints. Raises NotFound, Conflict.
        """
        ...

    async def silences(self, *, everything: bool) -> list[Json]:
        """everything: also those that are over."""
        ...

    async def silence(self, asked: SilenceAsked, *, by: str) -> Json:
        """Mute alerts for a time. Raises ConfigError for what cannot be meant, Conflict when there are too many."""
        ...

    async def end_silence(self, identity: str, *, by: str) -> Json:
        """End it before its time. identity: its id, or as much of it as is needed."""
        ...

    async def templates(self, watch: str, *, limit: int) -> Json:
        """The kinds of lines in the log that the watch follows, the most frequent first."""
        ...

    async def check_now(self, watch: str, *, by: str) -> Json:
        """Run one check of the watch now and wait for it."""
        ...

    async def pause(self, watch: str, *, by: str, for_s: float | None, reason: str) -> Json:
        """for_s: seconds until it resumes by itself; None: until somebody resumes it."""
        ...

    async def resume(self, watch: str, *, by: str) -> Json: ...

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json: ...

    async def delivery(self, identity: str) -> Json: ...

    async def retry(self, identity: str | None, *, webhook: str | None, by: str) -> Json:
        """Send one delivery again, or with None every dead one (of a webhook)."""
        ...

    async def drop(self, identity: str, *, by: str) -> Json: ...

    async def test_webhook(self, webhook: str, *, by: str) -> Json: ...

    async def enable_webhook(self, webhook: str, *, by: str) -> Json: ...

    async def beat(self, watch: str, *, token: str | None, ok: bool, message: str, trusted: bool) -> Json:
        """
        A job says that it lives.

        trusted: it came by the unix socket and needs no token. Raises NotFound to who is trusted; to others Forbidden,
        of a heartbeat that is not there as of a token that does not fit.
        """
        ...

    async def hook(
        self, name: str, *, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], trusted: bool
    ) -> Json:
        """
        Something happened elsewhere: start what waits for it. `accepted` is false for one that was taken before.

        body: reads it; not called for a caller who is turned away at the door. trusted: as above.
        Raises NotFound, Forbidden, Conflict (replayed), TooMany.
        """
        ...

    async def reload(self, *, by: str, why: str = "") -> Json:
        """why: for the audit trail."""
        ...

    async def signed_in(self, name: str, *, good: bool, source: str) -> None:
        """
        Somebody showed the page a key, for the audit trail. Never raises.

        name: of the key, or which one it claimed to be. good: whether it was one. source: whence it came.
        """
        ...

    async def release(self, *, by: str) -> Json:
        """Send again what a restore holds back."""
        ...

    async def overview(self) -> Json:
        """What the page shows: status, the watches and alerts that need a look first, and how many more there are."""
        ...
