"""
What had to be told of lines that were written, worked out without asking the product, and compared with what was told.

In: the requests that a receiver saw, and the truth of the logs. Out: complaints, none when all is well.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from log_writer import line_of
from receiver import Receiver
from rotating import Log

FIRING, RESOLVED = "alert.firing", "alert.resolved"


@dataclass
class Heard:
    """
    What a receiver has taken so far, each message once.

    by_line: of the rule `marked`, the messages of each line's alert, in order. counted: by log, the lines that the
    alerts of the rule `counted` had counted when they were over; open: so many of these alerts are not.
    """

    receiver: Receiver
    by_line: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    open: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _taken: int = 0
    _arrived: int = 0
    _seen: set[str] = field(default_factory=set)

    def listen(self) -> Heard:
        """Take in what came since the last time."""
        arrived = self.receiver.requests[self._arrived :]
        self._arrived += len(arrived)
        for request in arrived:
            if self.bodies.setdefault(request.id, request.body) != request.body:
                self.wrong.append(f"{request.id} was sent again with another body")
        taken = self.receiver.taken[self._taken :]
        self._taken += len(taken)
        for request in taken:
            if request.id not in self._seen:
                self._seen.add(request.id)
                self._hear(json.loads(request.body))
        return self

    def _hear(self, message: dict[str, Any]) -> None:
        kind, data = message["type"], message["data"]
        rule = data["rule"]
        self.kinds[rule, kind] += 1
        if rule == "marked":
            self.by_line[data["labels"]["id"]].append(message)
        elif rule == "counted":
            self.open += 1 if kind == FIRING else -1
            self.counted[data["labels"]["log"]] += data["occurrences"] if kind == RESOLVED else 0

    @property
    def resolved(self) -> int:
        return self.kinds["marked", RESOLVED]


def complaints(heard: Heard, logs: Mapping[str, Log]) -> Iterator[str]:
    """Of each line: told of once, over once, and the evidence true. What a log lost may be missing, nothing else."""
    heard.listen()
    yield from heard.wrong
    untaken = heard.bodies.keys() - heard._seen
    for identity in untaken:
        yield f"{identity} was tried, but never taken"
    due = {f"{log.name}-{number}": (log, number) for log in logs.values() for number in log.marked()}
    for identity in heard.by_line.keys() - due.keys():
        yield f"{identity} was never written"
    for identity, (log, number) in due.items():
        messages = heard.by_line.get(identity, [])
        kinds = [message["type"] for message in messages]
        if kinds != [FIRING, RESOLVED] and not (log.is_lost(number) and not kinds):
            yield f"{identity}: told {[kind.removeprefix('alert.') for kind in kinds]}; {_where(log, number)}"
        for message in messages:
            yield from _evidence(message["data"], log, number)
    for log in logs.values():
        written = len(log.counted())
        lost = sum(map(log.is_lost, log.counted()))
        counted = heard.counted[log.name]
        if not written - lost <= counted <= written:
            yield f"{log.name}: counted {counted} lines, but {written} were written and {lost} of them lost"
    if heard.open:
        yield f"{heard.open} alerts of the count are not over"


def _evidence(data: Mapping[str, Any], log: Log, number: int) -> Iterator[str]:
    names, offset = log.place(number)
    if data["occurrences"] != 1:
        yield f"{log.name}-{number}: counted {data['occurrences']} times"
    if len(data["evidence"]) != 1:
        yield f"{log.name}-{number}: evidence of {len(data['evidence'])} lines"
        return
    evidence = data["evidence"][0]
    if evidence["file"] not in names:
        yield f"{log.name}-{number}: said to be in {evidence['file']}, but was in {names[:3]}"
    if evidence["offset"] != offset:
        yield f"{log.name}-{number}: said to be at {evidence['offset']} of {evidence['file']}, but was at {offset}"
    if evidence["line"] != line_of(log.name, number).decode().rstrip("\n"):
        yield f"{log.name}-{number}: said to be {evidence['line']!r}"


def _where(log: Log, number: int) -> str:
    names, offset = log.place(number)
    return f"written to {names[0]}, now {names[-1]}, at {offset}"
