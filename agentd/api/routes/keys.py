"""The keys in force, for those who look after them; they are made on the machine, by `agentd key`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from agentd.api import shapes
from agentd.api.answers import JsonAnswer
from agentd.api.endpoint import Call, Endpoint


class KeyRoutes:
    """listing: as `Door.listing`."""

    def __init__(self, listing: Callable[[], list[dict[str, Any]]]) -> None:
        self._listing = listing

    def endpoints(self) -> list[Endpoint]:
        about = "The keys in force, and when each was last used"
        return [Endpoint("GET", "/api/v1/keys", self.keys, "admin", about, "daemon", answer=shapes.Keys)]

    async def keys(self, call: Call) -> Response:
        return JsonAnswer({"keys": self._listing()})
