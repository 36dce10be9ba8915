"""
When to try again, and when to give up. Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from agentd.pacing import Uniform, full_jitter
from agentd.records import Delivery

BASE_S = 5.0
CAP_S = 3600.0
MAX_AGE = timedelta(hours=72)
MIN_FAILURES = 12
MIN_TRYING_S = 3600.0


def retry_in_s(attempt: int, retry_after_s: float | None, rng: Uniform | None = None) -> float:
    """
    Seconds until the next attempt: 5 s doubling to 1 h, full jitter; or what the receiver asked for and up to 5 s more,
    so that what waited for the same moment does not come at once.
    """
    if retry_after_s is not None:
        return min(retry_after_s, CAP_S) + full_jitter(1, base_s=BASE_S, cap_s=BASE_S, rng=rng)
    return full_jitter(attempt, base_s=BASE_S, cap_s=CAP_S, rng=rng)


def hopeless(failures: int, failing_s: float) -> bool:
    """
    Is there no sign of life of the webhook? failures: in a row. failing_s: for how long, by the monotonic clock.

    Only an hour of this process counts: after a jump of the wall clock, or days switched off, all that waits is old,
    and a dozen failures in a row take but minutes.
    """
    return failures >= MIN_FAILURES and failing_s >= MIN_TRYING_S


def expired(delivery: Delivery, now: datetime, *, hopeless: bool, trying_s: float) -> bool:
    """
    Is it time to give up? hopeless: nothing gets through to the webhook. trying_s: since its first failure in this
    process, by the monotonic clock.

    A message that alone fails, time and again, does not need a hopeless webhook: it would block its lane for ever.
    """
    if now - delivery.created_at < MAX_AGE:
        return False
    return hopeless or (delivery.attempts >= MIN_FAILURES and trying_s >= MIN_TRYING_S)
