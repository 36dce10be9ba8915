"""
Whether two lines of one length say the same, and where they differ: pure decisions on tokens.

Promise: a difference in a plain word alone never makes two templates one, unless its place or dress says that it is a
value; many values at one place do (see `grove`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentd.logs.templates.masks import WILD, Kind, covers, look

BUDGET = 0.4
"""A difference may cost so much for each word that is the same."""

# A value that stands behind one of these says what happened, not to whom.
_TELLING = frozenset(
    {
        "msg",
        "message",
        "event",
        "error",
        "err",
        "reason",
        "text",
        "title",
        "type",
        "level",
        "lvl",
        "severity",
        "action",
        "op",
        "method",
        "state",
        "status",
    }
)
_LINKS = frozenset(
    {"from", "by", "to", "on", "at", "in", "for", "of", "with", "via", "as", "and", "is", "was", "has", "had", "into"}
)
_PEOPLE = frozenset({"user", "username", "login", "account", "host", "hostname"})
_COST = {Kind.VARIABLE: 0.0, Kind.MIXED: 0.15, Kind.NAME: 0.3, Kind.WORD: 0.5}


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
        return self.cost <= BUDGET * self.weight


def compare(pattern: Sequence[str], line: Sequence[str]) -> Likeness:
    """Compare a line with a pattern of the same number of tokens."""
    weight = cost = 0.0
    told: list[int] = []
    for at, (ours, theirs) in enumerate(zip(pattern, line, strict=True)):
        if ours == theirs:
            kind = look(ours).kind
            weight += 0.0 if kind is Kind.VARIABLE else 0.2 if kind is Kind.MARK else 1.0
        elif WILD in ours and covers(ours, theirs):
            kind = look(theirs).kind
            cost += 0.0 if kind <= Kind.MIXED else 0.1
            if ours != WILD and look(ours).key:
                weight += 0.5
        else:
            price = _price(pattern, line, at)
            if price is None:
                told.append(at)
            else:
                cost += price
                if look(ours).key and look(ours).key == look(theirs).key:
                    weight += 0.5
    return Likeness(weight, cost, tuple(told))


def _price(pattern: Sequence[str], line: Sequence[str], at: int) -> float | None:
    ours, theirs = look(pattern[at]), look(line[at])
    if ours.key and ours.key == theirs.key:
        telling = ours.key.strip("\"'=:[({<.").lower() in _TELLING
        return None if telling and ours.kind > Kind.MIXED and theirs.kind > Kind.MIXED else 0.2
    low, high = min(ours.kind, theirs.kind), max(ours.kind, theirs.kind)
    if high is Kind.MARK or (high is Kind.LABEL and low > Kind.MIXED):
        return None
    if high is Kind.LABEL:
        return 0.5
    if low is Kind.WORD:
        return 0.3 if _is_named(pattern, line, at) else None
    return _COST[low] + _COST[high] if low is not Kind.VARIABLE else 0.5 * _COST[high]


def _is_named(pattern: Sequence[str], line: Sequence[str], at: int) -> bool:
    """Whether the words around say that a plain word is a value: `user X from`, `name = X`, `'X'`."""
    ours, theirs = pattern[at], line[at]
    if look(ours).wrapped and look(theirs).wrapped:
        return True
    if _bare(ours).isupper() or _bare(theirs).isupper() or not at:
        return False
    before = line[at - 1].lower()
    if before.endswith("="):
        return True
    behind = line[at + 1].lower() if at + 1 < len(line) else ""
    tied = behind in _LINKS or behind.startswith(("(", "[")) or (bool(behind) and look(behind).kind is Kind.VARIABLE)
    if before in _PEOPLE:
        return tied or (at > 1 and line[at - 2].lower() in _LINKS) or not behind
    return before in ("for", "from", "by") and tied


def _bare(token: str) -> str:
    return token.strip("\"'()[]{}<>.,;:!?|")
