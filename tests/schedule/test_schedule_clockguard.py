"""
The clock guard: what it makes of clocks that do not run as they should.
"""

from __future__ import annotations

from datetime import timedelta

from agentd.schedule.clockguard import ClockGuard
from agentd.testing import FakeClock


def guarded(clock: FakeClock) -> ClockGuard:
    return ClockGuard(clock, lambda jump: None)


def test_a_process_that_was_stopped_stood_still_for_what_began_before() -> None:
    """What began after it moved on again is to be believed."""
    clock = FakeClock()
    guard = guarded(clock)
    began = clock.monotonic()

    clock.tick(4)

    assert guard.stood_still_since(began)
    assert not guard.stood_still_since(clock.monotonic() + 0.001)


def test_a_process_that_is_looked_after_in_time_never_stood_still() -> None:
    """A slow target is not our fault, however long it takes."""
    clock = FakeClock()
    guard = guarded(clock)
    began = clock.monotonic()

    for _ in range(20):
        clock.tick(1.1)
        guard.look()

    assert not guard.stood_still_since(began)


def test_a_wall_clock_that_is_set_is_no_standing_still() -> None:
    """Time limits go by the monotonic clock: what failed then did fail."""
    clock = FakeClock()
    guard = guarded(clock)
    began = clock.monotonic()

    clock.jump(timedelta(days=30))

    assert not guard.stood_still_since(began)
