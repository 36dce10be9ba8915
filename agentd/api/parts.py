"""
What the HTTP surface stands on, named without loading any of it: the daemon has the parts long before anybody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agentd.api.endpoint import Endpoint
from agentd.api.feed import Feed
from agentd.api.metering_port import Metering
from agentd.api.reading import Reading
from agentd.api.service import Service
from agentd.api.settings_port import SettingsService
from agentd.api.tasks import TaskService
from agentd.errors import AgentdError

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response


class PageSet(Protocol):
    def endpoints(self) -> Sequence[Endpoint]: ...

    async def refuse(self, request: Request, error: HTTPException | AgentdError) -> Response:
        """What went wrong at a page's address, as a page."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What the surface stands on. None: there are no endpoints for that part.

    reading: called with the first request of all, on a thread, for it takes memory. pages: makes those for browsers;
    called so with the first request for one of them.
    """

    service: Service
    tasks: TaskService | None = None
    reading: Callable[[], Reading] | None = None
    settings: SettingsService | None = None
    feed: Feed | None = None
    metering: Metering | None = None
    keys: Callable[[], list[dict[str, Any]]] | None = None
    more: Sequence[Endpoint] = ()
    pages: Callable[[], PageSet] | None = None
