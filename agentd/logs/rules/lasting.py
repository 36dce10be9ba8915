"""
Rules about what does not come: flatline, and cardinality with `fewer_than`.

Their alert begins when time passes and ends when enough has come; between the two it is told again and again, so that
it does not come to rest by quiet. Silence counts only up to a moment before which nothing is unread (`advance`): while
the source is behind or blind, it stands still. Nor does it count before a moment until which nobody could look
(`unseen_before`).
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, ClassVar

from agentd.logs.compiled import value_of
from agentd.logs.port import Entry, Hit
from agentd.logs.rules.base import RuleState
from agentd.logs.rules.distinct import kept_value
from agentd.logs.rules.keys import ALL, Clean, Window
from agentd.logs.rules.telling import Line, Run, Words, moment, restored_line, stored_line, window_line
from agentd.logs.rules.windows import EXACT, Distinct, Slots, add_newest
from agentd.logs.settings import Rule
from agentd.settings import show_duration

FORGET_AFTER = timedelta(hours=24)
"""A key of `by` that was silent for so long beyond `within` is not waited for any more, and its alert ends."""

_TOLD_AGAIN = 4
"""So many times within `resolve_after`."""


class _Newest:
    """When the newest lines came, as many as are needed; by slots where that is more than 200."""

    __slots__ = ("_need", "_slots", "_times")

    def __init__(self, need: int, within: float, state: list[Any] | None = None) -> None:
        self._need = need
        self._times: list[float] = []
        self._slots = Slots(within / EXACT, EXACT) if need > EXACT else None
        if state is not None and self._slots is not None:
            self._slots = Slots(within / EXACT, EXACT, state)
        elif state is not None:
            self._times = [float(at) for at in state][-need:]

    def add(self, at: float, value: str, count: int = 1) -> None:
        if self._slots is not None:
            self._slots.add(at, count)
            return
        for _ in range(min(count, self._need)):
            add_newest(self._times, at, self._need)

    def enough_since(self) -> float | None:
        """The moment since which there have been as many as are needed; None while there were not."""
        if self._slots is not None:
            return self._slots.nth_newest(self._need)
        return self._times[0] if len(self._times) == self._need else None

    def cut_at(self, to: float) -> None:
        if self._slots is not None:
            self._slots.cut_at(to)
        else:
            self._times = [min(at, to) for at in self._times]

    def state(self) -> list[Any]:
        return self._slots.rows() if self._slots is not None else self._times


class _Values:
    """When different values came last."""

    __slots__ = ("_need", "_values")

    def __init__(self, need: int, within: float, state: list[Any] | None = None) -> None:
        self._need = need
        self._values = Distinct(need, state or ())

    def add(self, at: float, value: str, count: int = 1) -> None:
        self._values.add(value, at)

    def enough_since(self) -> float | None:
        return self._values.oldest() if len(self._values) == self._need else None

    def cut_at(self, to: float) -> None:
        self._values.cut_at(to)

    def state(self) -> list[Any]:
        return sorted(self._values.times.items())


class _Wait(Window):
    """
    since: when the key was first seen, or the rule began. last_at: its newest line. line: that line, if it is known.

    `fired` is when its silence was last told, None while all is well.
    """

    __slots__ = ("came", "last_at", "line", "since")

    def __init__(self, came: _Newest | _Values) -> None:
        super().__init__()
        self.came = came
        self.since: float | None = None
        self.last_at: float | None = None
        self.line: Line | None = None


class _Lasting(RuleState[_Wait]):
    lasting = True
    begins = True
    always = True
    amount: ClassVar[type[_Newest] | type[_Values]]

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self.need = 1 if rule.fewer_than is None else rule.fewer_than
        self._unseen_before = -math.inf

    def unseen_before(self, at: float) -> None:
        self._unseen_before = at

    def advance(self, to: float) -> None:
        self._unseen_before = min(self._unseen_before, to)  # a clock set back would put silence off for as long
        super().advance(to)

    def begin(self, at: float) -> None:
        super().begin(at)
        self._await_all()

    def loaded(self) -> None:
        if self.began is not None:
            self._await_all()

    def _await_all(self) -> None:
        if not self.rule.by and ALL not in self.windows:
            assert self.began is not None
            self.window(ALL, self.began).since = self.began

    def came(self, key: str, points: list[tuple[float, int]], value: str, entry: Entry | None) -> None:
        """points: when how many came, in order."""
        at = points[-1][0]
        window = self.window(key, at)
        if window.since is None:
            window.since = at
        for each, count in points:
            window.came.add(each, value, count)
        if window.last_at is None or at >= window.last_at:
            window.last_at = at
            window.line = None if entry is None else window_line(entry, self.clean)
        self.changed(key)
        if window.fired is None:
            return
        enough = window.came.enough_since()
        if enough is not None and enough > max(window.last_at, window.fired) - self.within:
            self._over(key, window, max(at, window.fired))
            self.schedule(key, window, max(enough, window.since) + self.within)

    def _over(self, key: str, window: _Wait, at: float) -> None:
        window.fired = None
        self.changed(key)
        self.end(key, at, self.enough_text())

    def visit(self, key: str, window: _Wait, to: float) -> float | None:
        start = self._start(key, window, to)
        dry = start + self.within
        if dry > to:
            if window.fired is not None:
                self._over(key, window, to)
            return dry
        if window.fired is None:
            lines = [window.line] if window.line is not None else []
            last_at = None if window.last_at is None else moment(window.last_at).isoformat()
            self.tell(key, dry, 1, None, {}, lines, {"last_at": last_at})
            self.goes_on(key, to)
        elif to >= window.fired + self.quiet / _TOLD_AGAIN:
            known = max(start, self._unseen_before)
            if self.rule.by and to >= known + self.within + FORGET_AFTER.total_seconds():
                self.end(key, to, f"silent for {show_duration(FORGET_AFTER)} beyond {self.window_text}: forgotten")
                return None
            self.goes_on(key, to)
        else:
            return window.fired + self.quiet / _TOLD_AGAIN
        window.fired = to
        self.changed(key)
        return to + self.quiet / _TOLD_AGAIN

    def _start(self, key: str, window: _Wait, to: float) -> float:
        """Since when `within` is waited; what is dated after `to` came at `to`: nothing unread lay before it."""
        enough = window.came.enough_since()
        start = window.since if window.since is not None else to
        if enough is not None and enough > start:
            start = enough
        if start <= to:
            # A silence that was told goes on, for all we know: only lines end it.
            return start if window.fired is not None else max(start, self._unseen_before)
        window.came.cut_at(to)
        window.since = min(to, start if window.since is None else window.since)
        window.last_at = None if window.last_at is None else min(window.last_at, to)
        self.changed(key)
        return to

    def goes_on(self, key: str, to: float) -> None:
        """The silence that was told lasts until `to`."""
        told = self._told.setdefault(key, [])
        if told and isinstance(run := told[-1], Run):
            run.last_at = max(run.last_at, to)
            return
        window = self.windows[key]
        lines = [window.line] if window.line is not None else []
        last_at = None if window.last_at is None else moment(window.last_at).isoformat()
        run = Run(to, 0, None, {}, {"last_at": last_at}, lines)
        told.append(run)

    def words(self, run: Run, key: str) -> Words:
        reason = f"{self.too_few_text()} within {self.window_text}"
        last = f"; the last was: {run.head[0][1]}" if run.head else ""
        return Words(f"{reason}{self.since(key)}{last}", reason)

    def too_few_text(self) -> str:
        raise NotImplementedError

    def enough_text(self) -> str:
        raise NotImplementedError

    def make(self) -> _Wait:
        return _Wait(self.amount(self.need, self.within))

    def state(self, window: _Wait) -> list[Any]:
        line = None if window.line is None else stored_line(window.line)
        return [window.since, window.last_at, window.came.state(), line]

    def restore(self, state: list[Any]) -> _Wait:
        window = _Wait(self.amount(self.need, self.within, state[2]))
        window.since, window.last_at = state[:2]
        window.line = None if state[3] is None else restored_line(state[3])
        return window

    def restored_due(self, window: _Wait) -> float:
        return 0.0


class Flatline(_Lasting):
    """
    Fewer than `fewer_than` (default 1) lines within the last `within`.

    Never before a whole `within` has passed since the rule first ran or, with `by`, since the key was first seen: only
    keys that came once are waited for, and 24 h beyond `within` at most.
    """

    amount = _Newest

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        self.came(self.naming.key(hit.groups, hit.entry, self.windows), [(at, 1)], "", hit.entry)

    def count_all(self, count: int, first: float, last: float) -> None:
        """As if they had come at even distances."""
        self.counts.hits += count
        parts = min(count, self.need, EXACT)
        step = (last - first) / count
        points = [(last - step * part, 1) for part in range(parts - 1, -1, -1)]
        if self.need > EXACT:
            each, rest = divmod(count, parts)
            step = (last - first) / parts
            points = [(last - step * part, each + (rest if part == 0 else 0)) for part in range(parts - 1, -1, -1)]
        self.came(ALL, points, "", None)

    def too_few_text(self) -> str:
        which = "matching line" if self.rule.match or self.rule.when else "line"
        return f"no {which}" if self.need == 1 else f"fewer than {self.need} {which}s"

    def enough_text(self) -> str:
        return "lines come again" if self.need == 1 else f"{self.need} lines within {self.window_text} again"


class FewValues(_Lasting):
    """
    Fewer than `fewer_than` different values of `field` within the last `within`.

    Never before a whole `within` has passed since the rule first ran or, with `by`, since the key was first seen.
    """

    amount = _Values

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        value = value_of(self.rule.field or "", hit.groups, hit.entry)
        if not value:
            self.counts.without_value += 1
            return
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        self.came(key, [(at, 1)], kept_value(value), hit.entry)

    def too_few_text(self) -> str:
        return f"fewer than {self.need} values of {self.rule.field}"

    def enough_text(self) -> str:
        return f"{self.need} values of {self.rule.field} within {self.window_text} again"
