"""
How fast the store is: durable writes one by one and by fifty callers, the cost of a post, of a check's result, and how
long a write waits while housekeeping works.

Run: python tests/bench/store.py [DIRECTORY]   (a directory on the disk to be measured; default: a temporary one)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from agentd.memory import meta, outbox, results, rollups
from agentd.memory.recorder import Recorder
from agentd.memory.store import Store
from agentd.records import CheckResult, Delivery, EventType, Verdict

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECONDS = 2.0


def row(number: int, webhook: str = "ops") -> Delivery:
    return Delivery(f"m{number}", webhook, f"lane{number % 1000}", EventType.FIRING, "x" * 800, NOW, NOW, f"f{number}")


async def durable(store: Store, callers: int, first: int) -> float:
    """Durable outbox rows a second."""
    done = 0
    until = time.perf_counter() + SECONDS

    async def one(caller: int) -> None:
        nonlocal done
        number = first + caller * 10_000_000
        while time.perf_counter() < until:
            await store.state.write(partial(outbox.put, delivery=row(number)))
            number += 1
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one(caller) for caller in range(callers)))
    return done / (time.perf_counter() - started)


async def posts(store: Store) -> float:
    """Microseconds that the caller of a post pays."""
    spent = 0.0
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(500):
            store.history.post(nothing)
        spent += time.perf_counter() - started
        while store.history.pending:
            await asyncio.sleep(0.001)
    return spent / 10_000 * 1e6


def nothing(_: object) -> None:
    return None


async def recorded(store: Store) -> tuple[float, float]:
    """Microseconds a check pays, and CPU microseconds a result costs until it is stored and rolled up."""
    recorder = Recorder(store.history)
    found = [
        CheckResult(f"watch{n % 500}", NOW + timedelta(milliseconds=2 * n), Verdict.OK, 0.01, 9.5)
        for n in range(10_000)
    ]
    cpu = time.process_time()
    started = time.perf_counter()
    for result in found:
        recorder.record(result)
    appended = time.perf_counter() - started
    recorder.flush()
    while await store.history.write(rollups.roll_up):
        pass
    return appended / len(found) * 1e6, (time.process_time() - cpu) / len(found) * 1e6


async def waits_while_tidying(store: Store) -> tuple[float, float]:
    """Milliseconds a history write waits while 100,000 old results go: median and worst."""
    old = [CheckResult(f"watch{n % 500}", NOW - timedelta(days=3), Verdict.OK, 0.01, 9.5) for n in range(100_000)]
    for begin in range(0, len(old), 2000):
        await store.history.write(partial(results.insert, results=old[begin : begin + 2000]))
    tidying = asyncio.create_task(store.housekeeping(NOW))
    waits = []
    while not tidying.done():
        started = time.perf_counter()
        await store.history.write(nothing)
        waits.append((time.perf_counter() - started) * 1000)
    waits.sort()
    return waits[len(waits) // 2], waits[-1]


async def claims(store: Store) -> float:
    """Milliseconds of a claim with 100,000 rows behind a dead webhook."""

    def fill(number: int, c: object) -> None:
        for n in range(number, number + 1000):
            outbox.put(c, row(n + 10**12, "dead"))  # type: ignore[arg-type]  # the bench's own shortcut

    for number in range(0, 100_000, 1000):
        await store.state.write(partial(fill, number))
    started = time.perf_counter()
    for _ in range(100):
        await store.state.read(lambda c: outbox.next_due(c, skip={"dead"}))
    reads = (time.perf_counter() - started) / 100
    return reads * 1000


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


async def main(folder: Path) -> None:
    before = resident_mib()
    store = await Store.open(folder)
    await store.state.write(partial(meta.put, key="a", value="b"))
    print(f"opening the store: {resident_mib() - before:.1f} MiB of RSS")
    commits = store.state.counts.commits
    print(f"durable writes, one caller: {await durable(store, 1, 0):,.0f} /s")
    print(f"durable writes, fifty callers: {await durable(store, 50, 10**10):,.0f} /s", end="")
    print(f" ({store.state.counts.changes / (store.state.counts.commits - commits):.1f} changes a commit over both)")
    print(f"post: {await posts(store):.2f} µs")
    append, whole = await recorded(store)
    print(f"result of a check: {append:.2f} µs in the check, {whole:.1f} µs of CPU until stored and rolled up")
    median, worst = await waits_while_tidying(store)
    print(f"write while 100,000 results are tidied away: median {median:.1f} ms, worst {worst:.1f} ms")
    print(f"next_due with 100,000 rows behind a dead webhook: {await claims(store):.2f} ms")
    print(f"RSS at the end: {resident_mib() - before:.1f} MiB more than at the start")
    started = time.perf_counter()
    await store.close()
    print(f"close: {(time.perf_counter() - started) * 1000:.0f} ms")


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        place = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(tempfile.TemporaryDirectory())
        asyncio.run(main(Path(place) / "bench"))
