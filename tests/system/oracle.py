"""
What had to arrive, worked out without asking the product, and compared with what did.

In: per watch, the incidents that the test caused and that nobody could have missed; the requests that a receiver saw;
the transitions that the daemon said it had committed. Out: complaints, none when all is well.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from receiver import Request

FIRING, RESOLVED = "alert.firing", "alert.resolved"


@dataclass
class Incident:
    """
    One watched thing, and what a daemon that dies at any moment must still have noticed of it.

    A check is certain once the next one of the same life arrives: no watch overlaps itself, and a check commits before
    it ends. So of each life all checks count but the last.
    fail_after, recover_after: as configured. told: what was certain so far, in order.
    """

    name: str
    fail_after: int
    recover_after: int
    down: bool = False
    certain: int = 0
    unsure: bool = False

    def __post_init__(self) -> None:
        self.told: list[str] = []

    def answered(self) -> None:
        """A check got its answer."""
        if self.unsure:
            self.certain += 1
        self.unsure = True

    def life_ended(self) -> None:
        self.unsure = False

    @property
    def noticed(self) -> bool:
        """Whether the present state has been seen often enough, for certain."""
        return self.certain >= (self.fail_after if self.down else self.recover_after)

    def turn(self) -> None:
        """The thing goes down, or up again; to be called only when the state before was noticed."""
        assert self.noticed
        self.down = not self.down
        self.told.append(FIRING if self.down else RESOLVED)
        self.certain, self.unsure = 0, False


def complaints(
    requests: Iterable[Request],
    taken: Iterable[Request],
    incidents: Mapping[str, Incident],
    committed: Iterable[tuple[str, str, str]],
) -> Iterator[str]:
    """
    requests: all that arrived, in order; taken: those that were answered 2xx.
    committed: (watch, type, trace id) of what the daemon said it had committed.
    """
    requests, taken = list(requests), list(taken)
    bodies: dict[str, bytes] = {}
    first_seen: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        if request.id not in bodies:
            bodies[request.id] = request.body
            first_seen[_data(request)["watch"]].append(request.id)
        elif bodies[request.id] != request.body:
            yield f"{request.id} was sent again with another body"
    kinds = {request.id: request.json["type"] for request in requests}
    got = {request.id for request in taken}
    for identity in bodies.keys() - got:
        yield f"{kinds[identity]} {identity} was tried, but never taken"
    for name, incident in incidents.items():
        arrived = [kinds[identity] for identity in first_seen[name]]
        if arrived != incident.told:
            yield f"{name}: arrived {_short(arrived)}, but there was {_short(incident.told)}"
        order = list(dict.fromkeys(request.id for request in taken if _data(request)["watch"] == name))
        if order != [identity for identity in first_seen[name] if identity in got]:
            yield f"{name}: taken in another order than first sent"
    told = {(_data(request)["watch"], kinds[request.id], _data(request)["trace_id"]) for request in taken}
    for transition in set(committed) - told:
        yield f"{transition} was committed, but never arrived"


def _data(request: Request) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(request.body)["data"]
    return data


def _short(kinds: list[str]) -> str:
    return "".join("F" if kind == FIRING else "R" if kind == RESOLVED else "?" for kind in kinds) or "nothing"
