"""Back-off, Retry-After, buckets and breaker."""

from __future__ import annotations

import asyncio
import random
import timeit
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.pacing import Breaker, Bucket, KeyedBuckets, full_jitter, retry_after_s
from agentd.settings import RateLimit
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Highest:
    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 5), (1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (10_000, 3600)]
)
def test_backoff_doubles_to_its_cap(attempt: int, longest: float) -> None:
    """A receiver that is down for days must neither be hammered nor overflow the exponent."""
    assert full_jitter(attempt, base_s=5, cap_s=3600, rng=Highest()) == longest


def test_backoff_is_spread_over_the_whole_range() -> None:
    """Senders that failed together must not return together."""
    waits = [full_jitter(3, base_s=5, cap_s=3600, rng=random.Random(n)) for n in range(200)]

    assert min(waits) < 2
    assert max(waits) > 18
    assert all(0 <= wait <= 20 for wait in waits)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("99999999", 3600),
        ("9" * 90, 3600),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("٣", None),
        ("1" * 5000, None),
        ("Mon, 05 Jan 2026 12:01:30 GMT", 90),
        ("Mon, 05 Jan 2026 12:01:30 -0000", 90),
        ("Mon, 05 Jan 2026 11:59:00 GMT", None),
        ("Mon, 05 Jan 2099 11:59:00 GMT", 3600),
        ("Mon, 99 Jan 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, wait_s: float | None) -> None:
    """Seconds and dates both occur in the wild; nonsense must not stop deliveries for ever."""
    assert retry_after_s(value, NOW) == wait_s


@given(st.text())
def test_retry_after_takes_any_text(value: str) -> None:
    """The header comes from the other side: whatever it holds is no exception."""
    wait_s = retry_after_s(value, NOW)

    assert wait_s is None or 0 <= wait_s <= 3600


async def taken_at(clock: FakeClock, bucket: Bucket, count: int, over_s: float) -> list[float]:
    start = clock.monotonic()
    times: list[float] = []

    async def taker() -> None:
        await bucket.take()
        times.append(round(clock.monotonic() - start, 6))

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(taker())
        await clock.advance(over_s)
    return times


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        (RateLimit(2, 1), [0, 0, 0.5, 1, 1.5]),
        (RateLimit(1, 60), [0, 60, 120, 180, 240]),
        (RateLimit(0.5, 1), [0, 2, 4, 6, 8]),
        (RateLimit(3, 86400), [0, 0, 0, 28800, 57600]),
    ],
)
def test_bucket_lets_a_burst_through_and_then_the_rate(rate: RateLimit, times: list[float]) -> None:
    """A webhook's limit is a promise to its owner; below one a second it must wait, not raise."""
    clock = FakeClock()

    assert clock.run(taken_at(clock, Bucket(rate), 5, 90_000)) == times


@pytest.mark.parametrize("count", [3, 7, 30, 41])
def test_bucket_never_spins_on_rounding(count: int) -> None:
    """A waker that is early by one rounding error would re-arm for the same moment without end."""
    clock = FakeClock()

    times = clock.run(taken_at(clock, Bucket(RateLimit(count, 60)), 3 * count, 600))

    assert len(times) == 3 * count
    assert times[-1] == pytest.approx(120, abs=0.01)


def test_bucket_says_how_long_to_wait() -> None:
    """The courier plans its next wake-up by it."""
    clock = FakeClock()

    async def story() -> None:
        bucket = Bucket(RateLimit(1, 60))
        assert bucket.wait_s() == 0
        await bucket.take()
        assert bucket.wait_s() == 60
        await clock.advance(20)
        assert bucket.wait_s() == pytest.approx(40)

    clock.run(story())


def test_keys_do_not_share_a_bucket() -> None:
    """One chatty host must not slow the checks of the others."""
    clock = FakeClock()

    async def story() -> list[str]:
        buckets = KeyedBuckets(RateLimit(1, 60))
        done = []

        async def take(key: str) -> None:
            await buckets.take(key)
            done.append(key)

        async with asyncio.TaskGroup() as group:
            for key in ("a", "a", "b"):
                group.create_task(take(key))
            await clock.settle()
            early = list(done)
            await clock.advance(60)
        return early

    assert clock.run(story()) == ["a", "b"]


def test_least_recent_key_is_forgotten() -> None:
    """A hostile stream of keys must not grow memory."""
    clock = FakeClock()

    async def story() -> KeyedBuckets:
        buckets = KeyedBuckets(RateLimit(1, 60), max_keys=3)
        for key in ("keep", *map(str, range(50))):
            await buckets.take(key)
            if len(buckets) == 3:
                buckets._buckets.move_to_end("keep")
        return buckets

    buckets = clock.run(story())

    assert len(buckets) == 3
    assert "keep" in buckets._buckets


def test_breaker_opens_after_failures_in_a_row() -> None:
    """One success between failures shows a receiver that is alive."""
    breaker = Breaker(failures=3, open_s=10)
    for now in (0, 1):
        breaker.fail(now)
    breaker.succeed()
    for now in (2, 3):
        breaker.fail(now)
    assert breaker.admit(3)

    breaker.fail(4)

    assert breaker.state(4) == "open"
    assert not breaker.admit(13.9)
    assert breaker.retry_at() == 14


def test_breaker_lets_one_trial_through() -> None:
    """A receiver that comes back must not be met by everything that waited."""
    breaker = Breaker(failures=1, open_s=10)
    breaker.fail(0)

    assert breaker.admit(10)
    assert breaker.state(10) == "half-open"
    assert not breaker.admit(10)

    breaker.succeed()
    assert breaker.state(10) == "closed"
    assert breaker.admit(10)


def test_failed_trial_opens_for_longer_up_to_the_cap() -> None:
    """A receiver that is down all night is looked at now and then, no more."""
    breaker = Breaker(failures=1, open_s=10, cap_s=30)
    now, waits = 0.0, []
    breaker.fail(now)
    for _ in range(5):
        retry_at = breaker.retry_at()
        assert retry_at is not None
        waits.append(retry_at - now)
        now = retry_at
        assert breaker.admit(now)
        breaker.fail(now)

    assert waits == [10, 20, 30, 30, 30]


def test_late_failures_of_calls_begun_before_do_not_lengthen_the_opening() -> None:
    """Four calls in flight that fail together are one outage, not four."""
    breaker = Breaker(failures=1, open_s=10)
    for _ in range(4):
        breaker.fail(0)

    assert breaker.retry_at() == 10


def test_abandoned_trial_frees_its_place() -> None:
    """A trial cancelled by a reload says nothing about the receiver."""
    breaker = Breaker(failures=1, open_s=10)
    breaker.fail(0)
    assert breaker.admit(10)

    breaker.abandon(11)

    assert breaker.admit(11)


def test_lost_trial_is_given_up() -> None:
    """A trial whose outcome never comes must not close the road for ever."""
    breaker = Breaker(failures=1, open_s=10)
    breaker.fail(0)
    assert breaker.admit(10)

    assert not breaker.admit(19)
    assert breaker.admit(20)


def bench() -> None:
    """Run by hand: the cost of a take when there is room."""

    async def loop() -> None:
        buckets = KeyedBuckets(RateLimit(1e9, 1))
        count = 200_000
        started = timeit.default_timer()
        for _ in range(count):
            await buckets.take("host")
        print(f"{(timeit.default_timer() - started) / count * 1e6:.2f} µs")

    asyncio.run(loop())


if __name__ == "__main__":
    bench()
