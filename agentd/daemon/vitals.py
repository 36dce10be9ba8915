"""
What agentd watches of itself: which numbers mean trouble, how long they must, and how that is told.

In: numbers. Out: a reason in words, or None. All of it pure: `measures.py` takes the numbers, `selfwatch.py` tells.
Promise: nothing here flaps. Trouble is told when it has lasted, and is over when it has stayed away for a while; what
is undecided between the two, as after a restart, leaves its alert as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from agentd.alert.routing import WEBHOOK_RULE
from agentd.records import Severity
from agentd.schedule.scheduler import LATE
from agentd.settings import show_duration

MIB = 2**20
GIB = 2**30

LATE_SHARE = 0.01
"""Of the checks; what `late` means (10 s, a third of the usual interval) the scheduler says."""
SLOW_WRITE_S = 1.0
"""Every alert waits for its commit; a healthy disk takes milliseconds."""
SLOW_SHARE = 0.05
SLOW_SAMPLES = 20
OLD_MESSAGE = timedelta(minutes=15)
"""The patience that a failing webhook has, too."""
LOW_SHARE = 0.05
LOW_LEAST = 256 * MIB
"""A busy day of history, and time to do something."""
LOW_MOST = 4 * GIB
"""Of a large disk 5 % is plenty: our own stores take 1 GiB unless the configuration says otherwise."""
LOW_SMALL_SHARE = 0.25
"""Of a disk so small that LOW_LEAST would be most of it."""
HIGH_MEMORY_SHARE = 0.8
CLOCK_JUMP = timedelta(minutes=1)
"""Less is what NTP does after a boot."""
FAR_BEHIND = 100 * MIB
"""At the slowest rules' pace some seconds of work; more is a backlog."""


@dataclass(frozen=True, slots=True)
class Vital:
    """
    One alert of the watch `agentd`. rule: its name; one that ends in `:` is followed by the name of what it is about.

    patience_s, calm_s: how long trouble must last to be told, and be away to be over. what: for the README.
    """

    rule: str
    severity: Severity
    what: str
    patience_s: float = 0.0
    calm_s: float = 0.0


LOG_BEHIND_RULE = "log_behind:"

VITALS = {
    vital.rule: vital
    for vital in (
        Vital("disk_full", Severity.CRITICAL, "nothing more fits on the disk; alerts live on the ballast"),
        Vital("disk_low", Severity.WARNING, "less than 5 % free where the state lies (256 MiB to 4 GiB)", 60, 300),
        Vital("store", Severity.CRITICAL, "the state file is damaged, or its backup failed"),
        Vital("store_slow", Severity.WARNING, "a write takes more than 1 s (p95 over 5 min)", 0, 300),
        Vital("memory", Severity.WARNING, "above `memory_limit` for 5 min; agentd restarts itself"),
        Vital("memory_high", Severity.WARNING, "above 80 % of `memory_limit` for 5 min", 300, 300),
        Vital("scheduler_late", Severity.WARNING, "1 % of the checks begin 10 s late, or more, for 2 min", 120, 300),
        Vital("clock", Severity.WARNING, "the wall clock jumped by more than 1 min; over after 10 min", 0, 600),
        Vital(LOG_BEHIND_RULE, Severity.WARNING, "more than 100 MiB of a log unread for 5 min", 300, 60),
        Vital("outbox_old", Severity.CRITICAL, "a message waits for 15 min though its webhook works", 60, 60),
        Vital(WEBHOOK_RULE, Severity.CRITICAL, "a webhook is disabled, or took nothing for 15 min"),
    )
}


def vital_of(rule: str) -> Vital:
    """Of a rule as alerts carry it, such as `webhook:ops`. KeyError: none of ours."""
    kind, colon, _ = rule.partition(":")
    return VITALS[kind + colon]


@dataclass(slots=True)
class Steady:
    """Tells trouble that lasts from trouble that comes and goes. Seconds are monotonic."""

    patience_s: float
    calm_s: float
    _wrong: str | None = None
    _since_s: float | None = None

    def settled(self, wrong: str | None, now_s: float) -> bool:
        """Whether `wrong`, or that nothing is wrong, has lasted long enough to be told."""
        if self._since_s is None or (wrong is None) != (self._wrong is None):
            self._since_s = now_s
        self._wrong = wrong
        return now_s - self._since_s >= (self.calm_s if wrong is None else self.patience_s)


@dataclass(slots=True)
class Settling:
    """One Steady for each rule that is measured."""

    steadies: dict[str, Steady] = field(default_factory=dict)

    def settle(self, found: Mapping[str, str | None], now_s: float) -> dict[str, str | None]:
        """
        Of what was found, what has lasted long enough to be told; the rest is left out.

        found: by rule, what is wrong, None for nothing. A rule that it no longer names is forgotten.
        """
        for rule in self.steadies.keys() - found.keys():
            del self.steadies[rule]
        settled = {}
        for rule, wrong in found.items():
            steady = self.steadies.get(rule)
            if steady is None:
                vital = vital_of(rule)
                steady = self.steadies[rule] = Steady(vital.patience_s, vital.calm_s)
            if steady.settled(wrong, now_s):
                settled[rule] = wrong
        return settled


def scheduler_late(runs: int, late: int, overdue_s: float) -> str | None:
    """runs, late: checks begun in the last minute, and how many late. overdue_s: for how long one has been waiting."""
    if overdue_s > LATE.total_seconds():
        return f"checks do not begin: the first has been due for {_shown(overdue_s)}"
    if late > LATE_SHARE * runs:
        return f"{late} of {max(runs, late)} checks of the last minute began more than {show_duration(LATE)} late"
    return None


def store_slow(writes_s: Sequence[float]) -> str | None:
    """writes_s: how long the last durable writes took, one each sweep; fewer than SLOW_SAMPLES say nothing."""
    if len(writes_s) < SLOW_SAMPLES:
        return None
    p95_s = sorted(writes_s)[int(len(writes_s) * (1 - SLOW_SHARE)) - 1]
    if p95_s <= SLOW_WRITE_S:
        return None
    return f"the store is slow: one write in twenty takes more than {p95_s:.1f}s; every alert waits for one"


def outbox_old(waiting: Mapping[str, timedelta]) -> str | None:
    """waiting: how long the oldest message of each webhook has waited; only of webhooks that work."""
    old = sorted((name for name, age in waiting.items() if age > OLD_MESSAGE), key=lambda name: -waiting[name])
    if not old:
        return None
    more = f", and for {len(old) - 1} more" if old[1:] else ""
    age = _shown(waiting[old[0]].total_seconds())
    return f"a message for webhook {old[0]} has waited for {age}{more}: `agentd outbox list` shows why"


def disk_low(free: int, total: int) -> str | None:
    """free, total: bytes of the filesystem that holds the state."""
    least = min(max(LOW_SHARE * total, LOW_LEAST), LOW_MOST, LOW_SMALL_SHARE * total)
    if free >= least:
        return None
    return f"{free // MIB} MiB of {total // MIB} are free where the state lies; make room before nothing fits"


def memory_high(resident: int, limit: int) -> str | None:
    """resident, limit: bytes; limit 0: none."""
    if not limit or resident <= HIGH_MEMORY_SHARE * limit:
        return None
    return f"{resident // MIB} MiB in use; above memory_limit ({limit // MIB} MiB) agentd restarts itself"


def clock(jump: timedelta) -> str | None:
    """jump: how far the wall clock moved by itself since the last look, negative: back."""
    if abs(jump) <= CLOCK_JUMP:
        return None
    by = _shown(abs(jump).total_seconds())
    return f"the clock was set back by {by}" if jump < timedelta(0) else f"the clock went forward by {by} (or we slept)"


def log_behind(unread: int) -> str | None:
    """unread: bytes of one watch's log that are known and not read."""
    if unread <= FAR_BEHIND:
        return None
    return f"{unread // MIB} MiB of the log are unread: what happens in it is told late"


def _shown(seconds: float) -> str:
    return show_duration(timedelta(seconds=round(seconds)))
