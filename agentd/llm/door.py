"""
The door of a provider's key or of one model: closed while asking is no use.

In: what came of the questions that went through. Out: whether the next may go, or the failure that it is instead.
Promise: what is said of a shut door says why it is shut and when it opens; another key opens at once what was shut for
the key it had.
"""

from __future__ import annotations

import hashlib
import math

from agentd.llm.port import FailureKind, ModelFailure
from agentd.pacing import Breaker

FAILURES = 5
OPEN_S = 5.0
OPEN_CAP_S = 300.0

SHUTS = frozenset({FailureKind.BAD_KEY, FailureKind.QUOTA})
"""What no trying on mends: somebody must do something first."""


class Door:
    """A breaker, and why it is open. Shared by all who go through it. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self.breaker = Breaker(failures=FAILURES, open_s=OPEN_S, cap_s=OPEN_CAP_S)
        self.why: ModelFailure | None = None
        self._key: bytes | None = None

    @property
    def needs_mending(self) -> bool:
        """It is shut for what no waiting mends."""
        return self.why is not None and self.why.kind in SHUTS

    def failed(self, failure: ModelFailure, now: float) -> None:
        self.why = failure
        self.breaker.fail(now)

    def shut(self, failure: ModelFailure, now: float, key: str | None = None) -> None:
        """At once: trying on is no use. key: that was asked with."""
        self.why = failure
        self._key = _digest(key)
        # Those who were under way together fail together; that is one outage, to be left alone for once its time.
        if self.breaker.state(now) != "open":
            self.breaker.trip(now)

    def succeeded(self) -> None:
        self.why = None
        self.breaker.succeed()

    def shown(self, key: str | None) -> None:
        """key: that the next question is asked with."""
        if self.needs_mending and _digest(key) != self._key:
            self.succeeded()

    def wait_s(self, now: float) -> float:
        """Seconds until the next trial may go."""
        return max(0.0, (self.breaker.retry_at() or 0.0) - now)

    def refusal(self, who: str, now: float) -> ModelFailure:
        """What somebody is told who may not go through. who: whom they wanted to ask."""
        wait_s = self.wait_s(now)
        why = self.why
        kind = FailureKind.UNAVAILABLE if why is None else why.kind
        until = f"it is asked again in {max(1, math.ceil(wait_s))} s"
        if kind is FailureKind.BAD_KEY:
            until += ", or at once when its key is another"
        said = "it has failed again and again" if why is None else str(why)
        return ModelFailure(f"{who} was not asked this time, {until}; before that: {said}", kind, retry_after_s=wait_s)


def _digest(key: str | None) -> bytes | None:
    return None if key is None else hashlib.sha256(key.encode()).digest()
