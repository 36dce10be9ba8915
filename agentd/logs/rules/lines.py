"""
Rules to which a single line is news: any, blocklist, allowlist, change, new_value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from agentd.logs.compiled import value_of
from agentd.logs.port import Hit
from agentd.logs.rules.base import RuleState
from agentd.logs.rules.keys import Clean, Keys, W, Window, without_value
from agentd.logs.rules.telling import Run, Words, message_of
from agentd.logs.settings import Rule


class _LineRule(RuleState[W]):
    def words(self, run: Run, key: str) -> Words:
        line = message_of(run.entry) if run.entry is not None else ""
        return Words(self.rule.name, self.reason(run), line)

    def reason(self, run: Run) -> str:
        return "one line" if run.count == 1 else f"{run.count} lines"

    def value(self, hit: Hit) -> str | None:
        """The value of the rule's field; an entry without one is counted and is no hit."""
        found = value_of(self.rule.field or "", hit.groups, hit.entry)
        if not found:
            self.counts.without_value += 1
            return None
        return found


class EveryLine(_LineRule[Window]):
    """Every line that matches."""

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        self.note_fired(key, at)
        self.tell(key, at, 1, hit.entry, hit.groups)

    def make(self) -> Window:
        return Window()


class Blocklist(_LineRule[Window]):
    """Every line whose `field` is one of `values`. A line without the field is none."""

    unwanted = True

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self._values_listed = frozenset(rule.values)

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        value = self.value(hit)
        if value is None or (value in self._values_listed) is not self.unwanted:
            return
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        self.note_fired(key, at)
        self.tell(key, at, 1, hit.entry, hit.groups)

    def reason(self, run: Run) -> str:
        listed = "among" if self.unwanted else "not among"
        return f"{super().reason(run)} whose {self.rule.field} is {listed} the {len(self.rule.values)} listed"

    def make(self) -> Window:
        return Window()


class Allowlist(Blocklist):
    """Every line whose `field` is none of `values`. A line without the field is none."""

    unwanted = False


class _Last(Window):
    __slots__ = ("value",)

    def __init__(self, value: str = "") -> None:
        super().__init__()
        self.value = value


class Change(_LineRule[_Last]):
    """
    Every line whose `field` differs from that of the line before it, of the same key.

    In the order in which lines are read. The first of a key is no change.
    """

    always = True

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self.rest = math.inf

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        found = self.value(hit)
        if found is None:
            return
        value = self.naming.cleaned(found)
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        window = self.window(key, at)
        before, window.value = window.value, value
        if before == value:
            return
        self.changed(key)
        if before:
            self.fire(key, window, at)
            self.tell(key, at, 1, hit.entry, hit.groups, facts={"was": before})

    def words(self, run: Run, key: str) -> Words:
        assert run.entry is not None
        value = value_of(self.rule.field or "", run.groups, run.entry)
        line = message_of(run.entry)
        was = run.facts["was"]
        name = self.rule.field
        reason = f"{name} changed" if run.count == 1 else f"{name} changed {run.count} times"
        return Words(f"{name} changed from {was} to {value}{self.since(key)}", reason, line)

    def make(self) -> _Last:
        return _Last()

    def state(self, window: _Last) -> list[Any]:
        return [window.value]

    def restore(self, state: list[Any]) -> _Last:
        return _Last(str(state[0]))


class NewValue(_LineRule[Window]):
    """
    Every line whose `field` has a value that its key never had.

    A key's first value is what later ones are new beside, and no news; nor is what comes within `learn` (default:
    none) of the time the rule first ran. At most `max_keys` values are known, of all keys together; the one seen
    least recently is forgotten, and is new when it comes again.
    """

    begins = True

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self.known: Keys[Window] = Keys(rule.max_keys)
        self._by_key: Counter[str] = Counter()
        self._fresh: set[str] = set()
        self._lost: set[str] = set()
        self._stored: list[tuple[str, Window]] = []
        self._stored_numbers = [1, 0, 0]
        self._learn = rule.learn.total_seconds() if rule.learn else 0.0

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        value = self.value(hit)
        if value is None:
            return
        key = self.naming.key(hit.groups, hit.entry, self._by_key)
        name = self.naming.with_value(key, value)
        window = self.known.windows.get(name)
        if window is not None:
            if self.known.touch(name, window):
                self._fresh.add(name)
            return
        first = key not in self._by_key
        self._learnt(name, key)
        if first or at < (self.began or at) + self._learn:
            return
        self.note_fired(key, at)
        self.tell(key, at, 1, hit.entry, hit.groups)

    def _learnt(self, name: str, key: str) -> None:
        window = Window()
        if name in self._lost:
            self._lost.discard(name)
            window.kept = True
        self.known.add(name, window)
        self._fresh.add(name)
        self._by_key[key] += 1
        self._crowd()

    def _crowd(self) -> None:
        for gone, old in self.known.crowded():
            self.counts.evicted += 1
            self._fresh.discard(gone)
            if old.kept:
                self._lost.add(gone)
            owner = without_value(gone)
            self._by_key[owner] -= 1
            if not self._by_key[owner]:
                del self._by_key[owner]

    def words(self, run: Run, key: str) -> Words:
        assert run.entry is not None
        value = value_of(self.rule.field or "", run.groups, run.entry)
        more = f" and {run.count - 1} more" if run.count > 1 else ""
        reason = f"a value of {self.rule.field} never seen before"
        if run.count > 1:
            reason = f"{run.count} values of {self.rule.field} never seen before"
        return Words(f"new {self.rule.field} {value}{more}{self.since(key)}", reason, message_of(run.entry))

    def make(self) -> Window:
        return Window()

    def more_state(self) -> list[Any]:
        return self.known.state()

    def restore_more(self, state: list[Any]) -> None:
        self._stored_numbers = [int(number) for number in state]

    def more_rows(self) -> Iterator[tuple[str, list[Any] | None]]:
        for name in self._lost:
            yield name, None
        self._lost.clear()
        for name in self._fresh:
            window = self.known.windows[name]
            window.kept = True
            yield name, [window.seq]
        self._fresh.clear()

    def load_more(self, key: str, row: list[Any]) -> bool:
        owner = without_value(key)
        if owner == key:
            return False
        window = Window()
        window.seq, window.kept = int(row[0]), True
        self._stored.append((key, window))
        self._by_key[owner] += 1
        return True

    def loaded(self) -> None:
        self.known.restore(self._stored_numbers, self._stored)
        self._stored = []
        self._crowd()
