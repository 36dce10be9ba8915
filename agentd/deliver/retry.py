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


def retry_in_s(attempt: int, retry_after_s: float | None, rng: Uniform | None = None) -> float:
    """
    Seconds until the next attempt: 5 s doubling to 1 h, full jitter; or what the receiver asked for and up to 5 s more,
    so that what waited for the same moment does not come at once.
    """
    if retry_after_s is not None:
        return min(retry_after_s, CAP_S) + full_jitter(1, base_s=BASE_S, cap_s=BASE_S, rng=rng)
    return full_jitter(attempt, base_s=BASE_S, cap_s=CAP_S, rng=rng)


def expired(delivery: Delivery, failures: int, now: datetime) -> bool:
    """
    Is it time to give up? failures: how often the webhook failed in a row, this attempt among them.

    Age alone does not bury: after a jump of the wall clock, or days switched off, the first failure would.
    """
    return now - delivery.created_at >= MAX_AGE and max(failures, delivery.attempts) >= MIN_FAILURES
