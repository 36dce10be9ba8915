"""
Whether two lines of one length say the same, and where they differ: pure decisions on tokens.

Promise: a difference in a plain word alone never makes two templates one, unless its place or dress says that it is a
value; many values at one place do (see `grove`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentd.logs.templates.masks import TELLING, WILD, Kind, covers, look

BUDGET = 0.4
"""Differences may cost so much for each word that is the same,"""
MOST = 1.5
"""and so much in all, for a long header makes no lines alike."""

_LINKS = frozenset(
    {"from", "by", "to", "on", "at", "in", "for", "of", "with", "via", "as", "and", "is", "was", "has", "had", "into"}
)
_PEOPLE = frozenset({"user", "username", "login", "account", "host", "hostname", "client"})
_NO_WORD = (Kind.VARIABLE, Kind.MARK)
_COST = {Kind.VARIABLE: 0.0, Kind.MIXED: 0.15, Kind.NAME: 0.3, Kind.WORD: 0.65}
WORTH = {Kind.VARIABLE: 0.0, Kind.MIXED: 1.0, Kind.NAME: 1.0, Kind.WORD: 1.0, Kind.LABEL: 1.0, Kind.MARK: 0.2}
"""What a token that is the same says."""


class Likeness(NamedTuple):
    """
    weight: how many words are the same. cost: of the differences that look like values.
    told: places of the differences that do not.
    """

    weight: float
    cost: float
    told: tuple[int, ...]

    @property
    def fits(self) -> bool:
        return self.cost <= min(BUDGET * self.weight, MOST)


def compare(pattern: Sequence[str], line: Sequence[str], weights: Sequence[float]) -> Likeness:
    """
    Compare a line with a pattern of the same number of tokens.

    weights: what each token of the line is worth when the pattern has it too.
    """
    weight = cost = 0.0
    told: list[int] = []
    for at, (ours, theirs) in enumerate(zip(pattern, line, strict=True)):
        if ours == theirs:
            weight += weights[at]
            continue
        seen, saw = look(ours), look(theirs)
        if seen.any == saw.any:
            weight += weights[at]
        elif WILD in ours and covers(ours, theirs):
            cost += 0.0 if saw.kind <= Kind.MIXED else 0.1
            if seen.key:
                weight += weights[at] / 2
        else:
            price = _price(pattern, line, at)
            if price is None:
                told.append(at)
            else:
                cost += price
                if seen.key and seen.key == saw.key:
                    weight += weights[at] / 2
    return Likeness(weight, cost, tuple(told))


def _price(pattern: Sequence[str], line: Sequence[str], at: int) -> float | None:
    ours, theirs = look(pattern[at]), look(line[at])
    if ours.key and ours.key == theirs.key:
        telling = ours.key.strip("\"'=:[({<.").lower() in TELLING
        return None if telling and ours.kind > Kind.MIXED and theirs.kind > Kind.MIXED else 0.2
    if ours.key and theirs.key and ours.key != theirs.key and (ours.key[-1] == "=" or '"' in ours.key):
        return None
    if ours.quoted and theirs.quoted:
        return 0.3
    low, high = min(ours.kind, theirs.kind), max(ours.kind, theirs.kind)
    if high is Kind.MARK:
        return 0.3 if pattern[at] == "-" or line[at] == "-" else None
    if high is Kind.LABEL and low > Kind.MIXED:
        return None
    if high is Kind.LABEL:
        return 0.5
    if high is Kind.WORD and low is not Kind.VARIABLE:
        if _is_named(pattern, line, at):
            return 0.3
        if low is Kind.WORD or _bare(pattern[at]).isupper() or _bare(line[at]).isupper():
            return None
    return _COST[low] + _COST[high]


def _is_named(pattern: Sequence[str], line: Sequence[str], at: int) -> bool:
    """Whether the words around say that a plain word is a value: `user X from`, `name = X`, `'X'`."""
    ours, theirs = pattern[at], line[at]
    if not at or any(_bare(one).isupper() or _bare(one).endswith(("ed", "ing")) for one in (ours, theirs)):
        return False
    before = line[at - 1].lower()
    if look(ours).bracketed and look(theirs).bracketed and before in _LINKS:
        return True
    if before.endswith("="):
        return True
    behind = line[at + 1].lower() if at + 1 < len(line) else ""
    if look(line[at - 1]).kind in _NO_WORD and behind and look(behind).kind in _NO_WORD:
        return True
    if before.endswith(":") and at > 2 and look(line[at - 1]).kind is Kind.WORD:
        return not behind or behind in _LINKS
    tied = behind in _LINKS or behind.startswith(("(", "[")) or (bool(behind) and look(behind).kind is Kind.VARIABLE)
    if before in _PEOPLE:
        return tied or behind == "not" or ours[-1] == theirs[-1] == ":" or (at > 1 and line[at - 2].lower() in _LINKS)
    return before in ("for", "from", "by") and tied


def _bare(token: str) -> str:
    return token.strip("\"'()[]{}<>.,;:!?|")
