"""
Runs that are asked for together: all of them are queued, or none.

In: runs, of which some may be known. Out: the rows as they stand. A single one is a batch of one.
Promise: asking again is not asking twice, be it at the same moment; what waits for another run's end is let go by that
end, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import apsw

from agentd.errors import AgentdError
from agentd.memory import ledger
from agentd.memory.ledger import Run, RunState

_OPEN = (RunState.QUEUED, RunState.RUNNING)


class AskedOtherwise(AgentdError):
    """The id is known, of a run that asks for something else. place: of the run among those that were given."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class Taken:
    """runs: in the order in which they were given, as they stand. fresh: how many were queued just now."""

    runs: list[Run]
    fresh: int


def find(c: apsw.Connection, runs: Sequence[Run]) -> list[Run | None]:
    """Each as it is known. Raises AskedOtherwise."""
    return [_same(ledger.get(c, run.id), run, place) for place, run in enumerate(runs)]


def take(c: apsw.Connection, runs: Sequence[Run], now: datetime, *, most: int) -> Taken | None:
    """
    Queue those that are not known; each that comes `after` another waits for that one's end.

    most: so many may wait in all. None when they would be more: then nothing is queued. Raises AskedOtherwise.
    """
    known = find(c, runs)
    fresh = known.count(None)
    if fresh and ledger.waiting(c) + fresh > most:
        return None
    for run, before in zip(runs, known, strict=True):
        if before is not None:
            continue
        ledger.queue(c, run, held=run.after is not None)
        if run.after is None:
            continue
        ahead = ledger.get(c, run.after)
        if ahead is None or ahead.state not in _OPEN:
            ledger.let_go(c, run.after, now, RunState.FAILED if ahead is None else ahead.state)
    if fresh == 0:
        return Taken([run for run in known if run is not None], 0)
    return Taken([found for run in runs if (found := ledger.get(c, run.id)) is not None], fresh)


def _same(known: Run | None, run: Run, place: int) -> Run | None:
    if known is None:
        return None
    if not ledger.asks_the_same(known, run):
        raise AskedOtherwise(
            f"the id {run.id!r} is taken, by a task that asks for something else; use a new one", place
        )
    if known.batch == run.batch and (known.after, known.stops) != (run.after, run.stops):
        raise AskedOtherwise(f"{run.id!r} was asked for in this batch in another order, mode or on_failure", place)
    return known
