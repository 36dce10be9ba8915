"""
One webhook as the courier sees it: its sender, its limits, and how it has been doing.

In: outcomes of attempts, monotonic seconds.  Out: how many messages may be under way to it now.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentd.clock import Clock
from agentd.deliver.sender import Sender
from agentd.deliver.webhook import WebhookSettings
from agentd.pacing import Breaker, Bucket

FAILURES = 5
OPEN_S = 5.0
OPEN_CAP_S = 300.0


@dataclass(frozen=True, slots=True)
class OutletHealth:
    """
    How one webhook is doing since the start.

    state: `ok`, `failing` (retried), `waiting` (breaker open, or the receiver asked for a pause) or `disabled`.
    failures: in a row. last_error: of the last attempt, None after a success.
    """

    state: str
    in_flight: int
    delivered: int
    failed: int
    refused: int
    failures: int
    last_error: str | None
    disabled: str | None


class Outlet:
    """
    What is known of one webhook while the daemon runs.

    in_flight: messages under way. disabled: why it is, or None. retired: the configuration has replaced it.
    """

    def __init__(self, name: str, settings: WebhookSettings, sender: Sender) -> None:
        self.name = name
        self.settings = settings
        self.sender = sender
        self.bucket = None if settings.rate is None else Bucket(settings.rate)
        self.breaker = Breaker(failures=FAILURES, open_s=OPEN_S, cap_s=OPEN_CAP_S)
        self.in_flight = 0
        self.disabled: str | None = None
        self.retired = False
        self._held_until = 0.0
        self._failing_since: float | None = None
        self._first_failure: float | None = None
        self._delivered = self._failed = self._refused = 0
        self._last_error: str | None = None

    def room(self, now: float) -> int:
        """How many more messages may be sent to it now."""
        if self.disabled is not None or now < self._held_until:
            return 0
        free = self.settings.concurrency - self.in_flight
        if self.bucket is not None:
            free = min(free, self.bucket.ready())
        retry_at = self.breaker.retry_at()
        if retry_at is not None:
            free = min(free, 1) if now >= retry_at else 0
        return max(0, free)

    def opens_at(self, now: float) -> float | None:
        """When it has room again by the mere passing of time; None when it has, or only an event gives it some."""
        if self.disabled is not None:
            return None
        doors = [self._closed_until(now)]
        if self.bucket is not None and not self.bucket.ready():
            # Never a moment that rounding makes equal to now: that would be a spin.
            doors.append(now + max(self.bucket.wait_s(), 0.001))
        return max(filter(None, doors), default=None)

    def _closed_until(self, now: float) -> float | None:
        until = max(self._held_until, self.breaker.retry_at() or 0.0)
        return until if until > now else None

    def succeeded(self) -> bool:
        """Note a success; True when it failed before."""
        came_back = self.breaker.failures > 0
        self.breaker.succeed()
        self._held_until = 0.0
        self._delivered += 1
        self._last_error = None
        return came_back

    def delayed(self, error: str, now: float, *, hold_s: float | None = None) -> None:
        """hold_s: the receiver asked for a pause, which holds for every message to it."""
        if not self.breaker.failures:
            self._failing_since = now
        if self._first_failure is None:
            self._first_failure = now
        self.breaker.fail(now)
        if hold_s is not None:
            self._held_until = max(self._held_until, now + hold_s)
        self._failed += 1
        self._last_error = error

    def failing_s(self, now: float) -> float:
        """How long every attempt has failed; 0 when the last one did not."""
        return now - self._failing_since if self.breaker.failures and self._failing_since is not None else 0.0

    def trying_s(self, now: float) -> float:
        """How long ago the first attempt failed that did; 0 when none has."""
        return 0.0 if self._first_failure is None else now - self._first_failure

    def refused(self, error: str) -> None:
        """One message was refused for good: the receiver itself is alive."""
        self.breaker.succeed()
        self._refused += 1
        self._last_error = error

    def health(self, now: float) -> OutletHealth:
        if self.disabled is not None:
            state = "disabled"
        elif self._closed_until(now) is not None:
            state = "waiting"
        else:
            state = "failing" if self.breaker.failures else "ok"
        return OutletHealth(
            state,
            self.in_flight,
            self._delivered,
            self._failed,
            self._refused,
            self.breaker.failures,
            self._last_error,
            self.disabled,
        )


def make_outlet(name: str, settings: WebhookSettings, clock: Clock) -> Outlet:
    return Outlet(name, settings, Sender(settings, clock=clock))
