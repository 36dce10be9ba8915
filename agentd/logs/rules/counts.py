"""
Rules that count lines within a window: frequency, spike, percentage.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from agentd.logs.port import Entry, Hit
from agentd.logs.rules.base import RuleState
from agentd.logs.rules.keys import Clean, Window
from agentd.logs.rules.telling import Line, Run, Words, message_of, restored_line, stored_line, window_line
from agentd.logs.rules.windows import EXACT, Slots, add_time
from agentd.logs.settings import Rule

_KEPT_LINES = 5
SPIKE_WINDOWS = 12
PERCENTAGE_COUNT = 10


class _Counted(Window):
    """lines: the last few of the window, each with its event time."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, Line]] = []

    def keep(self, at: float, entry: Entry, clean: Clean, most: int) -> None:
        self.lines.append((at, window_line(entry, clean)))
        if len(self.lines) > most:
            del self.lines[0]

    def after(self, floor: float) -> list[Line]:
        """Those that still lie in the window."""
        return [line for at, line in self.lines if at > floor]

    def stored(self) -> list[Any]:
        return [[at, *stored_line(line)] for at, line in self.lines]

    def restored(self, lines: list[Any]) -> None:
        self.lines = [(float(line[0]), restored_line(line[1:])) for line in lines]


C = TypeVar("C", bound=_Counted)


class _CountRule(RuleState[C], Generic[C]):
    always = True

    def words(self, run: Run, key: str) -> Words:
        reason = f"{self.lines_of(run.facts['count'])} within {self.window_text}{self.because(run)}"
        many = reason
        if run.count != run.facts["count"]:
            many = f"{self.lines_of(run.count)}, {run.facts['count']} within {self.window_text}{self.because(run)}"
        line = message_of(run.entry) if run.entry is not None else ""
        return Words(f"{many}{self.since(key)}", reason, line)

    def lines_of(self, count: int) -> str:
        return "1 line" if count == 1 else f"{count} lines"

    def because(self, run: Run) -> str:
        return ""


class _TimesWindow(_Counted):
    __slots__ = ("times",)

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []


class Frequency(_CountRule[_TimesWindow]):
    """
    `count` lines within `within`: each line at which the last `within`, counted back from the newest line of the
    key, holds so many.

    Exact up to a `count` of 200 (`FrequencyBySlots` beyond). Lines out of order are put in order; one that is older
    than the window is late and does not count.
    """

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self.count = rule.count or 1
        self._kept = min(self.count, _KEPT_LINES)

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        entry = hit.entry
        key = self.naming.key(hit.groups, entry, self.windows)
        window = self.window(key, at)
        times = window.times
        if not add_time(times, at, self.within, self.count):
            self.counts.late += 1
            return
        self._dirty.add(key)
        window.keep(at, entry, self.clean, self._kept)
        if len(times) < self.count:
            return
        if self.fire(key, window, at):
            lines = window.after(times[-1] - self.within)
            self.tell(key, at, self.count, entry, hit.groups, lines, {"count": self.count})
        else:
            self.tell(key, at, 1, entry, hit.groups, facts={"count": self.count})

    def make(self) -> _TimesWindow:
        return _TimesWindow()

    def state(self, window: _TimesWindow) -> list[Any]:
        return [window.times, window.stored()]

    def restore(self, state: list[Any]) -> _TimesWindow:
        window = _TimesWindow()
        window.times = [float(at) for at in state[0]][-self.count :]
        window.restored(state[1][-self._kept :])
        return window

    def empty_at(self, window: _TimesWindow) -> float:
        return window.times[-1] + self.within if window.times else 0.0


class _SlotsWindow(_Counted):
    __slots__ = ("slots",)

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots


S = TypeVar("S", bound=_SlotsWindow)


class _SlotsRule(_CountRule[S], Generic[S]):
    """
    steps: slots in one `within`, without `by` and with it, when there may be ten thousand windows.
    kept: so many `within` are kept.
    """

    steps = (EXACT, EXACT)
    kept = 1

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self.step = self.steps[bool(rule.by)]
        self.span = self.step * self.kept
        self.width = self.within / self.step

    def put(self, window: S, at: float, marked: int = 0) -> bool:
        if window.slots.add(at, 1, marked):
            return True
        self.counts.late += 1
        return False

    def floor(self, window: S) -> float:
        """When the window begins that ends with the newest slot."""
        assert window.slots.newest is not None
        return (window.slots.newest - self.step + 1) * self.width

    def slots(self) -> Slots:
        return Slots(self.width, self.span)

    def state(self, window: S) -> list[Any]:
        return [window.slots.rows(), window.stored()]

    def restore(self, state: list[Any]) -> S:
        window = self.make()
        window.slots = Slots(self.width, self.span, state[0])
        window.restored(state[1])
        return window

    def empty_at(self, window: S) -> float:
        return window.slots.last_at + self.span * self.width


class FrequencyBySlots(_SlotsRule[_SlotsWindow]):
    """Frequency with a `count` beyond 200: the window moves in steps of `within` / 200."""

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        window = self.window(key, at)
        if not self.put(window, at):
            return
        self._dirty.add(key)
        window.keep(at, hit.entry, self.clean, _KEPT_LINES)
        assert self.rule.count is not None
        if window.slots.all < self.rule.count:
            return
        if self.fire(key, window, at):
            facts = {"count": window.slots.all}
            self.tell(key, at, window.slots.all, hit.entry, hit.groups, window.after(self.floor(window)), facts)
        else:
            self.tell(key, at, 1, hit.entry, hit.groups, facts={"count": window.slots.all})

    def make(self) -> _SlotsWindow:
        return _SlotsWindow(self.slots())


class _SpikeWindow(_SlotsWindow):
    """now, usual: of the newest slot; None until they are worked out."""

    __slots__ = ("now", "usual")

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.now: int | None = None
        self.usual: float | None = None


class Spike(_SlotsRule[_SpikeWindow]):
    """
    Each line at which the last `within` holds at least `times` what is usual, and at least `count` (default 1).

    Usual is the mean of the windows of that length before it: of the last 12, or of as many as are complete since the
    rule first ran, with nothing told before there is one. A mean below 1 is taken as 1. Windows move in steps of
    `within` / 20, with `by` of `within` / 5.
    """

    begins = True
    steps = (20, 5)
    kept = SPIKE_WINDOWS + 1

    def hit(self, hit: Hit, at: float) -> None:
        self.counts.hits += 1
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        window = self.window(key, at)
        slots = window.slots
        before = slots.newest
        if not self.put(window, at):
            return
        self._dirty.add(key)
        window.keep(at, hit.entry, self.clean, _KEPT_LINES)
        newest = slots.newest
        assert newest is not None
        if window.now is not None and newest == before and int(at // self.width) == newest:
            window.now += 1
        else:
            window.now = slots.between(newest - self.step, newest)
            window.usual = self._usual(slots, newest)
        if window.usual is None or window.now < (self.rule.count or 1):
            return
        if window.now < (self.rule.times or 1.0) * window.usual:
            return
        facts = {"count": window.now, "usual": round(window.usual, 2)}
        if self.fire(key, window, at):
            self.tell(key, at, window.now, hit.entry, hit.groups, window.after(self.floor(window)), facts)
        else:
            self.tell(key, at, 1, hit.entry, hit.groups, facts=facts)

    def unseen_before(self, at: float) -> None:
        # What is missing of a few seconds changes the mean little; windows in which nobody looked are not usual.
        heard = max((each.slots.newest for each in self.windows.values() if each.slots.newest is not None), default=0)
        if self.began is not None and at - heard * self.width >= self.within:
            self.began = max(self.began, at)

    def _usual(self, slots: Slots, newest: int) -> float | None:
        assert self.began is not None
        to = newest - self.step
        complete = min(SPIKE_WINDOWS, (to - int(self.began // self.width)) // self.step)
        if complete < 1:
            return None
        return max(1.0, slots.between(to - complete * self.step, to) / complete)

    def because(self, run: Run) -> str:
        return f", usual are {run.facts['usual']:g}"

    def make(self) -> _SpikeWindow:
        return _SpikeWindow(self.slots())


class Percentage(_SlotsRule[_SlotsWindow]):
    """
    Each matching line at which more than `more_than` percent of all lines of the key within `within` match, when there
    are at least `count` (default 10) of them.

    Lines that match `ignore` are none at all. The window moves in steps of `within` / 200, with `by` of `within` / 20.
    """

    steps = (EXACT, 20)

    def hit(self, hit: Hit, at: float) -> None:
        matched = hit.matched
        key = self.naming.key(hit.groups, hit.entry, self.windows)
        window = self.window(key, at)
        if matched:
            self.counts.hits += 1
        if not self.put(window, at, int(matched)):
            return
        self._dirty.add(key)
        if not matched:
            return
        window.keep(at, hit.entry, self.clean, _KEPT_LINES)
        slots = window.slots
        if slots.all < (self.rule.count or PERCENTAGE_COUNT):
            return
        share = 100 * slots.marked / slots.all
        if share <= (self.rule.more_than or 0):
            return
        facts = {"share": round(share, 1), "count": slots.marked, "of": slots.all}
        if self.fire(key, window, at):
            self.tell(key, at, slots.marked, hit.entry, hit.groups, window.after(self.floor(window)), facts)
        else:
            self.tell(key, at, 1, hit.entry, hit.groups, facts=facts)

    def words(self, run: Run, key: str) -> Words:
        facts = run.facts
        reason = f"{facts['share']:g}% of {facts['of']} lines within {self.window_text}"
        line = message_of(run.entry) if run.entry is not None else ""
        return Words(f"{reason}{self.since(key)}", reason, line)

    def make(self) -> _SlotsWindow:
        return _SlotsWindow(self.slots())
