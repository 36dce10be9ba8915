"""
Models that many runs of one process share: connections, rates and breakers hold over all of them.

In: jobs. Out: the models of each, lent for as long as it runs.
Promise: runs of equal settings share one set, each paying from its own purse; a set that nobody uses any more, as after
a change of the configuration, is closed when others take its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentd.agent.account import sha256
from agentd.agent.job import Job
from agentd.agent.purse import PurseOfTheRun
from agentd.clock import Clock

if TYPE_CHECKING:
    from agentd.llm.client import Models

MOST_IDLE = 2


@dataclass(slots=True)
class _Set:
    models: Models
    users: int = 0


class Lending:
    """The sets, least recently used first. Close it when no run is under way any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sets: dict[str, _Set] = {}

    @contextlib.asynccontextmanager
    async def models_of(self, job: Job) -> AsyncIterator[Models]:
        key = sha256({name: settings.model_dump(mode="json") for name, settings in job.models.items()})
        lent = self._sets.pop(key, None) or self._opened(job)
        self._sets[key] = lent
        lent.users += 1
        try:
            yield lent.models
        finally:
            lent.users -= 1
            await self._close_all_but(MOST_IDLE)

    async def close(self) -> None:
        await self._close_all_but(0)

    def _opened(self, job: Job) -> _Set:
        from agentd.llm.client import open_models

        return _Set(open_models(job.models, purse=PurseOfTheRun(), clock=self._clock))

    async def _close_all_but(self, most: int) -> None:
        idle = [key for key, each in self._sets.items() if not each.users]
        for key in idle[: max(0, len(idle) - most)]:
            await self._sets.pop(key).models.close()
