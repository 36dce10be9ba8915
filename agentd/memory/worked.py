"""
What worked: how runs of a kind went, by worker class, shape of graph and model.

In: the end of each run.  Out: rows for people, lines of advice for the next plan.
Promise: bounded: the thousand combinations seen last. Advice is made of counts and our own words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import clipped, value
from agentd.memory.spend import NANO

MAX_ROWS = 1000
_MAX_NAME = 120
_MOST_US = 10**12
_MOST = 10**15
_ENOUGH = 3

_COLUMNS = "kind, worker, shape, model, runs, successes, latency_us, tokens, usd_nano, unknown_costs, last_at"
_LEARN = f"""
    INSERT INTO worked ({_COLUMNS}) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, worker, shape, model) DO UPDATE SET runs = runs + 1, successes = successes + excluded.successes,
        latency_us = latency_us + excluded.latency_us, tokens = tokens + excluded.tokens,
        usd_nano = usd_nano + excluded.usd_nano, unknown_costs = unknown_costs + excluded.unknown_costs,
        last_at = excluded.last_at"""
_COUNT = "SELECT count(*) FROM worked"
_FORGET = """
    DELETE FROM worked WHERE (kind, worker, shape, model) IN
        (SELECT kind, worker, shape, model FROM worked ORDER BY last_at LIMIT ?)"""
_ROWS = f"SELECT {_COLUMNS} FROM worked WHERE (?1 IS NULL OR kind = ?1) ORDER BY runs DESC, kind, shape, model LIMIT ?2"


@dataclass(frozen=True, slots=True)
class Worked:
    """Sums over `runs` runs. unknown_costs: runs whose price is not known; they are not in usd_nano."""

    kind: str
    worker: str
    shape: str
    model: str
    runs: int
    successes: int
    latency_us: int
    tokens: int
    usd_nano: int
    unknown_costs: int
    last_at: datetime

    @property
    def latency_s(self) -> float:
        """Of one run."""
        return self.latency_us / 1e6 / self.runs

    @property
    def usd(self) -> float | None:
        """Of one run; None when no price is known."""
        known = self.runs - self.unknown_costs
        return self.usd_nano / NANO / known if known else None


def learn(
    c: apsw.Connection,
    *,
    kind: str,
    worker: str,
    shape: str,
    model: str,
    success: bool,
    latency_s: float,
    tokens: int,
    usd_nano: int | None,
    now: datetime,
) -> None:
    """
    Add one run.

    kind: of task, such as the scenario of its prompts. worker: class of workers. shape: of the graph, as it calls
    itself. latency_s: from begin to end.
    """
    sums = (
        int(success),
        min(max(round(latency_s * 1e6), 0), _MOST_US),
        min(max(tokens, 0), _MOST),
        min(max(usd_nano or 0, 0), _MOST),
        int(usd_nano is None),
    )
    c.execute(_LEARN, (*(_name(each) for each in (kind, worker, shape, model)), *sums, to_us(now)))
    surplus = int(value(c.execute(_COUNT))) - MAX_ROWS
    if surplus > 0:
        c.execute(_FORGET, (surplus,))


def rows(c: apsw.Connection, kind: str | None = None, limit: int = 100) -> list[Worked]:
    """The most frequent first."""
    return [_row(row) for row in c.execute(_ROWS, (kind, limit))]


def advice(c: apsw.Connection, kind: str, limit: int = 5) -> list[str]:
    """Lines for the planner about tasks of this kind; [] while too little is known."""
    known = rows(c, kind, MAX_ROWS)
    lines = [
        *_praise(known, "graph", lambda row: row.shape),
        *_praise(known, "worker class", lambda row: row.worker),
        *_warn(known),
        *_cheapest(known),
    ]
    return lines[:limit]


@dataclass(frozen=True, slots=True)
class _Sum:
    name: str
    runs: int
    successes: int
    latency_s: float
    usd: float | None

    @property
    def score(self) -> float:
        """The share of successes, drawn to the middle where little is known: 1 of 1 is less than 19 of 20."""
        return (self.successes + 1) / (self.runs + 2)

    def said(self) -> str:
        money = f", ${self.usd:.4f}" if self.usd is not None else ""
        return f"went well {self.successes} of {self.runs} times ({self.latency_s:.1f} s{money} each)"


def _summed(known: Iterable[Worked], name: Callable[[Worked], str]) -> list[_Sum]:
    by_name: dict[str, list[Worked]] = {}
    for row in known:
        by_name.setdefault(name(row), []).append(row)
    return [_sum(each, found) for each, found in by_name.items() if each]


def _sum(name: str, found: list[Worked]) -> _Sum:
    runs = sum(row.runs for row in found)
    priced = runs - sum(row.unknown_costs for row in found)
    return _Sum(
        name,
        runs,
        sum(row.successes for row in found),
        sum(row.latency_us for row in found) / 1e6 / runs,
        sum(row.usd_nano for row in found) / NANO / priced if priced else None,
    )


def _praise(known: list[Worked], what: str, name: Callable[[Worked], str]) -> list[str]:
    enough = [each for each in _summed(known, name) if each.runs >= _ENOUGH and each.successes * 2 > each.runs]
    if not enough:
        return []
    best = max(enough, key=lambda each: (each.score, -(each.usd or 0.0), -each.latency_s))
    return [f"{what} {best.name!r} {best.said()}"]


def _warn(known: list[Worked]) -> list[str]:
    bad = [each for each in _summed(known, lambda row: row.shape) if each.runs >= _ENOUGH and each.score < 0.4]
    return [f"avoid graph {each.name!r}: it {each.said()}" for each in sorted(bad, key=lambda each: each.score)[:2]]


def _cheapest(known: list[Worked]) -> list[str]:
    """Of the models that do as well as the best one, or nearly."""
    priced = [each for each in _summed(known, lambda row: row.model) if each.runs >= _ENOUGH and each.usd is not None]
    if len(priced) < 2:
        return []
    best = max(each.score for each in priced)
    good = [each for each in priced if each.score >= best - 0.1]
    cheapest = min(good, key=lambda each: each.usd or 0.0)
    return [f"model {cheapest.name!r} does it for the least: it {cheapest.said()}"]


def _row(row: tuple[Any, ...]) -> Worked:
    kind, worker, shape, model, runs, successes, latency_us, tokens, usd_nano, unknown, last_at = row
    return Worked(kind, worker, shape, model, runs, successes, latency_us, tokens, usd_nano, unknown, from_us(last_at))


def _name(name: str) -> str:
    """On one line: it is read by a model."""
    return clipped(" ".join(name.split()), _MAX_NAME)
