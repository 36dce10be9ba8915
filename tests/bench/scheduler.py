"""
What one scheduled run costs, ours beside stock APScheduler, in the same process and run.

Each job does nothing; the cost is all CPU of the process, the loop's wakings too, divided by runs. The cheapest of
three rounds counts, since neighbours on the machine only ever add. Off: how far from its due time a run began.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import uvloop
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from agentd.clock import SystemClock
from agentd.schedule.scheduler import Due, Scheduler
from agentd.schedule.triggers import Every

JOBS = 1000
SECONDS = 2.0
ROUNDS = 3
lags: list[float] = []


async def ours() -> Callable[[], Awaitable[None]]:
    async def run(due: Due) -> None:
        lags.append(abs((datetime.now(UTC) - due.at).total_seconds()))

    scheduler = Scheduler(SystemClock())
    for number in range(JOBS):
        scheduler.add(f"watch-{number}", Every(timedelta(seconds=1), f"watch-{number}"), run)
    scheduler.start()

    async def stop() -> None:
        await scheduler.stop(1)

    return stop


async def stock() -> Callable[[], Awaitable[None]]:
    async def run(number: int, start: datetime) -> None:
        late = (datetime.now(UTC) - start).total_seconds() % 1.0
        lags.append(late)

    scheduler = AsyncIOScheduler(timezone=UTC)
    begin = datetime.now(UTC) + timedelta(seconds=0.2)
    for number in range(JOBS):
        first = begin + timedelta(seconds=number / JOBS)
        scheduler.add_job(
            run,
            "interval",
            seconds=1,
            start_date=first,
            args=(number, first),
            id=f"watch-{number}",
            misfire_grace_time=None,
            coalesce=True,
        )
    scheduler.start()

    async def stop() -> None:
        scheduler.pause()
        await asyncio.sleep(0.05)  # or it logs the runs it cancels as errors
        scheduler.shutdown(wait=False)
        await asyncio.sleep(0.05)

    return stop


async def measure(setup: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]) -> tuple[float, float, float, float]:
    stop = await setup()
    await asyncio.sleep(1.0)
    lags.clear()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    runs = sorted(lags)
    await stop()
    return cpu / len(runs) * 1e6, len(runs) / wall, runs[len(runs) // 2] * 1e3, runs[len(runs) * 99 // 100] * 1e3


async def load(jobs: int = 10_000) -> float:
    async def run(due: Due) -> None:
        pass

    begin = time.perf_counter()
    scheduler = Scheduler(SystemClock())
    for number in range(jobs):
        scheduler.add(f"watch-{number}", Every(timedelta(hours=1), f"watch-{number}"), run)
    scheduler.start()
    took = time.perf_counter() - begin
    await scheduler.stop(0)
    return took


def main() -> None:
    logging.disable(logging.INFO)
    print(f"{JOBS} empty runs a second, best of {ROUNDS} rounds of {SECONDS:.0f} s\n")
    print(f"{'scheduler':<22}{'µs CPU/run':>11}{'runs/s':>9}{'off p50 ms':>12}{'off p99 ms':>12}")
    for loop_name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for name, setup in (("agentd", ours), ("APScheduler", stock)):
            rounds = []
            for _ in range(ROUNDS):
                with asyncio.Runner(loop_factory=factory) as runner:
                    rounds.append(runner.run(measure(setup)))
            cost, rate, p50, p99 = min(rounds)
            print(f"{name + ', ' + loop_name:<22}{cost:>11.1f}{rate:>9.0f}{p50:>12.2f}{p99:>12.2f}")
    print(f"\n10,000 jobs added and started in {asyncio.run(load()):.2f} s")
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
