"""
The rule that counts different values: cardinality with `more_than`. With `fewer_than` it is one that lasts.
"""

from __future__ import annotations

import hashlib
from typing import Any

from agentd.logs.compiled import value_of
from agentd.logs.port import Hit
from agentd.logs.rules.base import RuleState
from agentd.logs.rules.counts import _KEPT_LINES, _Counted
from agentd.logs.rules.keys import Clean
from agentd.logs.rules.telling import Run, Words, message_of
from agentd.logs.rules.windows import Distinct
from agentd.logs.settings import Rule

_LONGEST_VALUE = 40
MOST_VALUES = 10_000
"""`more_than` and `fewer_than` of a cardinality: at most so many, for so many values are kept."""


def kept_value(value: str) -> str:
    """A value as it is told from others: itself, or a hash where that is shorter."""
    if len(value) <= _LONGEST_VALUE and value.isascii():
        return value
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class _DistinctWindow(_Counted):
    __slots__ = ("values",)

    def __init__(self, values: Distinct) -> None:
        super().__init__()
        self.values = values


class Cardinality(RuleState[_DistinctWindow]):
    """
    Each line at which its key has had more than `more_than` different values of `field` within `within`.

    Exact. A line without the field is none; one older than the window is late and does not count.
    """

    always = True

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self._most = int(rule.more_than or 0)

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        value = value_of(self.rule.field or "", hit.groups, hit.entry)
        if not value:
            self.counts.without_value += 1
            return
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        window = self.window(key, at)
        values = window.values
        if not values.add(kept_value(value), at, self.within):
            self.counts.late += 1
            return
        self._dirty.add(key)
        window.keep(at, hit.entry, self.clean, _KEPT_LINES)
        if len(values) <= self._most:
            return
        if self.fire(key, window, at):
            lines = window.after(values.newest - self.within)
            self.tell(key, at, 1, hit.entry, hit.groups, lines, {"values": len(values)})
        else:
            self.tell(key, at, 1, hit.entry, hit.groups)

    def words(self, run: Run, key: str) -> Words:
        reason = f"more than {self._most} values of {self.rule.field} within {self.window_text}"
        line = message_of(run.entry) if run.entry is not None else ""
        return Words(f"{reason}{self.since(key)}", reason, line)

    def make(self) -> _DistinctWindow:
        return _DistinctWindow(Distinct(self._most + 1))

    def state(self, window: _DistinctWindow) -> list[Any]:
        return [sorted(window.values.times.items()), window.stored()]

    def restore(self, state: list[Any]) -> _DistinctWindow:
        window = _DistinctWindow(Distinct(self._most + 1, state[0]))
        window.restored(state[1])
        return window

    def empty_at(self, window: _DistinctWindow) -> float:
        return window.values.newest + self.within
