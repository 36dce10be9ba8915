"""
Does an alert's check change to and fro so often that each change is no news any more? Pure.

In: the last outcomes, the newest one, whether it counted as flapping. Out: the same after it, and the share of changes.

The score is Icinga 2's (lib/icinga/checkable-flapping.cpp, UpdateFlappingStatus): of the last `of` changes or
non-changes each counts 0.8, rising evenly to 1.2, the newest most. Flapping begins above `start` and goes on while the
share is above `end`, so that it does not itself flap.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_OLDEST_WEIGHT = 0.8
_WEIGHT_RANGE = 0.4


@dataclass(frozen=True, slots=True)
class FlappingSettings:
    """start, end: percent, end at most start. of: how many changes or non-changes are looked at, 3 or more."""

    start: float = 30.0
    end: float = 25.0
    of: int = 20


class Flap(NamedTuple):
    """outcomes: to be kept for the next time. share: of changes, weighted, in percent."""

    outcomes: str
    share: float
    flapping: bool


def step_flapping(outcomes: str, failing: bool, was_flapping: bool, settings: FlappingSettings) -> Flap:
    """
    Count one more check that could look; a blind one is no outcome.

    outcomes: `1` failing and `0` ok, newest last; empty before the first check, and as long as all were ok. A steady
    check gives its outcomes back unchanged, so there is nothing to store.
    """
    if not failing and not outcomes.strip("0"):
        return Flap("", 0.0, False)
    after = ((outcomes or "0") + ("1" if failing else "0"))[-settings.of - 1 :]
    # The oldest outcomes that are alike say no more than one of them.
    after = after[0] + after.lstrip(after[0]) if after.strip(after[0]) else after[0]
    if after == "0":
        after = ""
    share = share_of_changes(after, settings.of)
    return Flap(after, share, share > (settings.end if was_flapping else settings.start))


def has_fired(outcomes: str, needed: int, of: int) -> bool:
    """
    Whether `needed` of some `of` outcomes in a row were failing: what never got that far is noise that nobody hears of.

    The oldest outcomes, of which several alike stand for one, may hold a firing that is not found; the alert still
    fires then, or has just resolved.
    """
    return any(outcomes.count("1", begin, begin + of) >= needed for begin in range(len(outcomes)))


def share_of_changes(outcomes: str, of: int) -> float:
    """The weighted share of changes among the last `of`, in percent; what was not seen is no change."""
    changes = [one != other for one, other in pairwise(outcomes[-of - 1 :])]
    oldest = of - len(changes)
    step = _WEIGHT_RANGE / of
    return 100.0 * sum(_OLDEST_WEIGHT + step * (oldest + n) for n, changed in enumerate(changes) if changed) / of
