"""
What all types of rules share: keys, occurrences, what is stored, when windows are looked at again.

A type is a class: `hit` says what one entry does, `make`, `state` and `restore` are its windows, `words` is what
people read. Event times are seconds since 1970 in here.
Promise: what was restored from the rows goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Generic

from agentd.logs.compiled import value_of
from agentd.logs.port import Ended, Entry, Hit, Sighting
from agentd.logs.rules.keys import ALL, Clean, Keys, Naming, W
from agentd.logs.rules.telling import Draft, Line, Run, Words, moment
from agentd.logs.settings import Rule
from agentd.settings import show_duration

RESOLVE_AFTER = timedelta(minutes=5)
"""Quiet after which the alert of a rule is over, unless the rule says otherwise."""

encode = json.JSONEncoder(separators=(",", ":")).encode
"""How windows are stored."""

NO_LINES: tuple[Line, ...] = ()


@dataclass(slots=True)
class RuleCounts:
    """
    What one rule did since the engine was made; only `keys` goes down again.

    hits: entries that matched. occurrences: of these, or of silence, what its alert counts. keys: kept now.
    evicted: keys that went because there were more than `max_keys`. late: entries older than their window.
    without_value: entries without the field that the rule looks at.
    """

    hits: int = 0
    occurrences: int = 0
    keys: int = 0
    evicted: int = 0
    late: int = 0
    without_value: int = 0


class RuleState(Generic[W]):
    """One rule at work."""

    lasting: ClassVar[bool] = False
    """Whether the passing of time alone makes it occur."""
    begins: ClassVar[bool] = False
    """Whether it matters when the rule first ran."""
    always: ClassVar[bool] = False
    """Whether it has a window for each key, and not only where an alert may fire."""

    def __init__(self, rule: Rule, clean: Clean) -> None:
        self.rule = rule
        self.counts = RuleCounts()
        self.clean = clean
        self.naming = Naming(rule.by, clean)
        self.keys: Keys[W] = Keys(rule.max_keys)
        self.windows = self.keys.windows
        self.within = rule.within.total_seconds() if rule.within else 0.0
        self.quiet = (rule.resolve_after or RESOLVE_AFTER).total_seconds()
        self.rest = self.within if self.always else self.quiet
        self.began: float | None = None
        self._windowed = self.always or bool(rule.by)
        self._dirty: set[str] = set()
        self._gone: set[str] = set()
        self._rule_row: str | None = None
        self._heap: list[tuple[float, str]] = []
        self._told: dict[str, list[Run | Ended]] = {}

    # What a type says

    def hit(self, hit: Hit, at: float) -> None:
        """An entry that matched; for `percentage` also one that did not."""
        raise NotImplementedError

    def sighting(self, sighting: Sighting, groups: Mapping[str, str], at: float) -> None:
        """A template not seen before; for `novel`."""

    def unseen_before(self, at: float) -> None:
        """Nobody could look, until `at`; for rules to which it means something that nothing came."""

    def count_all(self, count: int, first: float, last: float) -> None:
        """So many entries between two moments; for `flatline` without a question to the entries."""

    def make(self) -> W:
        raise NotImplementedError

    def state(self, window: W) -> list[Any]:
        """What is to be stored of a window, as JSON has it."""
        return []

    def restore(self, state: list[Any]) -> W:
        return self.make()

    def empty_at(self, window: W) -> float:
        """When nothing of the window counts any more; `rest` seconds after an entry, or later."""
        return 0.0

    def words(self, run: Run, key: str) -> Words:
        raise NotImplementedError

    def more_state(self) -> list[Any]:
        """What is to be stored of the rule as a whole."""
        return []

    def restore_more(self, state: list[Any]) -> None:
        """Take back what `more_state` gave."""

    # Windows

    def begin(self, at: float) -> None:
        """The rule runs for the first time."""
        self.began = at

    def window(self, key: str, at: float) -> W:
        """The window of a key, made if there is none; one that is too much leaves."""
        window = self.windows.get(key)
        if window is not None:
            if self.keys.touch(key, window):
                self._dirty.add(key)
            return window
        window = self.make()
        if key in self._gone:
            self._gone.discard(key)
            window.kept = True
        self.keys.add(key, window)
        self._dirty.add(key)
        if self.rest < math.inf:
            self.schedule(key, window, at + self.rest)
        if len(self.windows) > self.keys.most:
            self.make_room(at)
        return window

    def make_room(self, at: float) -> None:
        for key, window in self.keys.crowded():
            self.counts.evicted += 1
            if window.fired is not None:
                text = f"more than {self.keys.most} keys: the least recent is let go"
                self.end(key, max(at, window.fired), text, crowded_out=True)
            self.forgotten(key, window)

    def drop(self, key: str) -> None:
        window = self.windows.pop(key, None)
        if window is not None:
            self.forgotten(key, window)

    def forgotten(self, key: str, window: W) -> None:
        self._dirty.discard(key)
        if window.kept:
            self._gone.add(key)

    def changed(self, key: str) -> None:
        self._dirty.add(key)

    def schedule(self, key: str, window: W, due: float) -> None:
        """Look at a window again when `due` has come; not later than that matters."""
        window.due = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self.windows) + 1000:
            self._heap = [(each.due, name) for name, each in self.windows.items()]
            heapq.heapify(self._heap)

    def visit(self, key: str, window: W, to: float) -> float | None:
        """Look at a window whose time has come; gives when to look again, None: it is empty."""
        empty = self.empty_at(window)
        if window.fired is not None:
            empty = max(empty, window.fired + self.quiet)
        return empty if empty > to else None

    def advance(self, to: float) -> None:
        """Nothing unread lies before `to`."""
        heap = self._heap
        while heap and heap[0][0] <= to:
            due, key = heapq.heappop(heap)
            window = self.windows.get(key)
            if window is None or window.due != due:
                continue
            again = self.visit(key, window, to)
            if again is None:
                self.drop(key)
            else:
                self.schedule(key, window, again)
            heap = self._heap

    def next_due(self) -> float | None:
        """When `advance` could next tell something; may be too early, never too late."""
        return self._heap[0][0] if self.lasting and self._heap else None

    # Telling

    def tell(
        self,
        key: str,
        at: float,
        count: int,
        entry: Entry | None,
        groups: Mapping[str, str],
        lines: Iterable[Line] = NO_LINES,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """
        The rule's occasion has come for `key`.

        lines: what led to it, where it begins anew; else the entry's own line is its evidence. facts: as the
        occurrence begins; those of later ones that are merged with it are not told.
        """
        self.counts.occurrences += 1
        told = self._told.get(key)
        if told is not None:
            last = told[-1]
            run = last if type(last) is Run and self._follows(last, at) else self._other_run(told, at)
            if run is not None:
                run.count += count
                if at > run.last_at:
                    run.last_at = at
                elif at < run.at:
                    run.at = at
                if entry is not None:
                    run.add((entry.place, entry.text))
                return
        new = Run(at, count, entry, groups, facts or {}, lines)
        if entry is not None and not new.head:
            new.add((entry.place, entry.text))
        if told is None:
            self._told[key] = [new]
        else:
            place = len(told)
            while place and isinstance(before := told[place - 1], Run) and before.at > at:
                place -= 1
            told.insert(place, new)

    def _other_run(self, told: list[Run | Ended], at: float) -> Run | None:
        for run in reversed(told):
            if isinstance(run, Ended):
                break
            if self._follows(run, at):
                return run
        return None

    def _follows(self, run: Run, at: float) -> bool:
        return run.at - self.quiet < at < run.last_at + self.quiet

    def fire(self, key: str, window: W, at: float) -> bool:
        """Note that the alert of a window fires; True when it had come to rest before."""
        fresh = window.fired is None or at - window.fired >= self.quiet
        if window.fired is None or at > window.fired:
            window.fired = at
        self._dirty.add(key)
        return fresh

    def note_fired(self, key: str, at: float) -> None:
        """The same where nothing but the alert is kept of a key."""
        if self._windowed:
            self.fire(key, self.window(key, at), at)

    def end(self, key: str, at: float, text: str, *, crowded_out: bool = False) -> None:
        ended = Ended(self.rule.name, self.naming.named(key), moment(at), text, crowded_out)
        self._told.setdefault(key, []).append(ended)

    def take_events(self) -> Iterator[Draft | Ended]:
        told, self._told = self._told, {}
        for key, events in told.items():
            by = self.naming.named(key)
            for event in events:
                if isinstance(event, Ended):
                    yield event
                else:
                    yield Draft(self.rule.name, by, event, self.words(event, key), self._values(event, by))

    def _values(self, run: Run, by: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {name: value for name, value in run.groups.items() if value}
        name = self.rule.field
        if name is not None and run.entry is not None:
            value = value_of(name, run.groups, run.entry)
            if value:
                values.setdefault(name, value)
        return {**values, **by, **run.facts}

    def since(self, key: str) -> str:
        """` from ip 192.0.2.1, user bob`: the key, for people."""
        by = self.naming.named(key)
        return " from " + ", ".join(f"{name} {value}" for name, value in by.items()) if by else ""

    @property
    def window_text(self) -> str:
        return show_duration(self.rule.within) if self.rule.within else ""

    # The store

    def take_rows(self) -> Iterator[tuple[str, list[Any] | None]]:
        """The rows that changed since the last time, by key: what to store, or None to delete. Key "": the rule's."""
        for key in self._gone:
            yield key, None
        self._gone.clear()
        for key in self._dirty:
            window = self.windows[key]
            window.kept = True
            yield key, [window.seq, window.fired, *self.state(window)]
        self._dirty.clear()
        yield from self.more_rows()
        if self._windowed or self.begins:
            row = [self.began, self.keys.state(), *self.more_state()]
            if (text := encode(row)) != self._rule_row:
                self._rule_row = text
                yield "", row

    def more_rows(self) -> Iterator[tuple[str, list[Any] | None]]:
        """Rows of a second table, if the type has one."""
        return iter(())

    def load(self, rows: Mapping[str, str]) -> None:
        """Take back what `take_rows` gave. A row that cannot be read is deleted, as if it had never been."""
        numbers = [1, 0, 0]
        windows: list[tuple[str, W]] = []
        for key, text in rows.items():
            try:
                row = json.loads(text)
                if key == "":
                    began, (following, turn, fresh), *more = row
                    self.restore_more(more)
                    numbers = [int(following), int(turn), int(fresh)]
                    self.began = None if began is None else float(began)
                elif not self.load_more(key, row):
                    if len(self.naming.named(key)) != len(self.rule.by) or (not self.rule.by and key != ALL):
                        raise ValueError(key)
                    window = self.restore(row[2:])
                    window.seq, window.fired = int(row[0]), None if row[1] is None else float(row[1])
                    window.kept = True
                    windows.append((key, window))
            except (ValueError, TypeError, IndexError, KeyError, AttributeError):
                self._gone.add(key)
        self.keys.restore(numbers, windows)
        for key, window in windows:
            if self.rest < math.inf:
                self.schedule(key, window, self.restored_due(window))
        self._rule_row = rows.get("")
        self.make_room(self.began or 0.0)
        self.loaded()

    def load_more(self, key: str, row: list[Any]) -> bool:
        """Take a row of the second table; False when it is none."""
        return False

    def loaded(self) -> None:
        """All rows are there."""

    def restored_due(self, window: W) -> float:
        empty = self.empty_at(window)
        return empty if window.fired is None else max(empty, window.fired + self.quiet)
