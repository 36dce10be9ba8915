"""
What the API tells of its requests, and whom it asks for all the numbers there are.

In: requests begun and done. Out: metrics as text for Prometheus, and as JSON.
"""

from __future__ import annotations

from typing import Any, Protocol

Json = dict[str, Any]


class Metering(Protocol):
    def request_begun(self) -> None:
        """A request was let in. Costs nothing."""
        ...

    def request_done(self, route: str, method: str, status: int, duration_s: float) -> None:
        """
        It was answered, or its caller has gone; once for each `request_begun`.

        route: the path's template (`/api/v1/watches/{name}`), or what stands for all unknown paths; never the path
        itself. status: of HTTP. duration_s: until the end of the answer, seconds; of a stream, told at its end.
        """
        ...

    async def prometheus(self) -> tuple[bytes, str]:
        """The body of `GET /metrics`, and its content type. Never raises for what the store does."""
        ...

    async def json(self) -> Json:
        """The same for `GET /api/v1/metrics`: `at`, and `metrics` by name with `type`, `help` and `series`."""
        ...
