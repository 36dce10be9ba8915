"""
One task as the command line sees it, wherever it is done: at the daemon, or in this process.

In: what a person asks. Out: what the agent does, as it does it; the task's view.
Promise: the daemon does it when there is one. When there is none it is done here, and said so.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

from agentd.api.tasks import TaskAsked
from agentd.cli.client import NoDaemon, Refused
from agentd.cli.place import Place
from agentd.errors import ConfigError

Json = dict[str, Any]
Tell = Callable[[str], None]
UNDER_WAY = ("pending", "in_progress")
_REFUSED_CALL = 422


class Errand(Protocol):
    """id: of the task. where: for people."""

    @property
    def id(self) -> str: ...

    @property
    def where(self) -> str: ...

    def events(self) -> AsyncIterator[Json]:
        """As `agentd.agent.events.event_json` has them, each once; ends with the task. Raises Refused."""
        ...

    async def view(self) -> Json:
        """As `agentd.api.tasks.task_view` has it."""
        ...

    async def say(self, kind: Literal["steer", "follow_up", "cancel", "end"], text: str = "") -> None:
        """Raises Refused (409) when it is not under way."""
        ...

    async def cancel(self) -> None:
        """End it; one that has ended stays as it is."""
        ...

    def abandon(self) -> None:
        """This process is about to end at once: let go of what would outlive it."""
        ...


@contextlib.asynccontextmanager
async def begin(place: Place, asked: TaskAsked, *, standalone: bool, tell: Tell) -> AsyncIterator[Errand]:
    """
    Ask; what is still under way at the end of the block goes on at the daemon, and is cancelled here.

    standalone: here, whether there is a daemon or not. tell: told a line about where it is done. Raises ConfigError for
    what is not allowed, Refused, InvalidConfig, StoreError.
    """
    if not standalone:
        from agentd.cli.at_daemon import AtDaemon

        errand: AtDaemon | None = None
        try:
            errand = await AtDaemon.submit(place, asked)
        except NoDaemon:
            tell(f"no daemon answers on {place.socket}: this is done here")
        except Refused as refused:
            if refused.status == _REFUSED_CALL:
                raise ConfigError(str(refused)) from refused
            raise
        if errand is not None:
            yield errand
            return
    from agentd.cli.standalone import open_standalone

    async with open_standalone(place, asked, insist=standalone, tell=tell) as here:
        yield here


def tools_here(place: Place) -> list[Json]:
    """The tools of the configuration."""
    from agentd.daemon.runs.tasks import tools_of

    return tools_of(place.config) if place.config else []


def models_here(place: Place) -> list[Json]:
    """The models of the configuration."""
    from agentd.daemon.runs.tasks import models_of

    return models_of(place.config) if place.config else []


def written(text: str) -> str:
    """What was typed, as UTF-8 can hold it."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def is_terminal() -> bool:
    """Whether somebody sits before it, to read and to type."""
    return sys.stdin.isatty() and sys.stdout.isatty()
