"""
What is measured, as a process: it reads one piece of work a line, does it, and answers with what that took.

In: `{"model": "steps-10", "goals": 20, "at_once": 1}`. Out: CPU and wall seconds, RSS, and what was really done: calls
of the tool, pieces of text seen on their way, the last answer. Both loop and tool are the same for all subjects.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

GOAL = "Find out whether all is well."
SYSTEM = "You look after a server. Use the tool look until you know enough, then say what you found."
ABOUT_LOOK = "Look at one part of the server."
ABOUT_N = "Number of the part"


@dataclass
class Seen:
    """What was done for one goal, or for all."""

    tools: int = 0
    pieces: int = 0
    said: str = ""


def looked(n: int) -> str:
    """What the tool says: short, and another each time."""
    return f"part {n}: load 0.{n % 10}, disk {n % 100} % full, no errors in the last hour"


Pursue = Callable[[str, Seen], Awaitable[None]]
"""Pursue the goal with the model of this name."""
Opens = Callable[[str], AbstractAsyncContextManager[Pursue]]
"""All that lives as long as the process, for a server at this address."""


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _work(pursue: Pursue, model: str, goals: int, at_once: int) -> dict[str, float | str]:
    seen = Seen()
    free = asyncio.Semaphore(at_once)
    now = most = done_at_1000 = 0

    async def one() -> None:
        nonlocal now, most
        async with free:
            now += 1
            most = max(most, now)
            try:
                await pursue(model, seen)
            finally:
                now -= 1

    cpu, began = cpu_s(), time.monotonic()
    if at_once == 1:
        rss_then = 0.0
        for number in range(goals):
            await one()
            done_at_1000 = number + 1
            if done_at_1000 == 1000:
                rss_then = rss_mib()
    else:
        rss_then = rss_mib()
        await asyncio.gather(*(one() for _ in range(goals)))
    return {
        "cpu_s": cpu_s() - cpu,
        "wall_s": time.monotonic() - began,
        "rss_then_mib": rss_then,
        "rss_mib": rss_mib(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "most_at_once": most,
        "tools": seen.tools,
        "pieces": seen.pieces,
        "said": seen.said,
    }


async def _serve(opens: Opens, url: str) -> None:
    loop = asyncio.get_running_loop()
    async with opens(url) as pursue:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            print(json.dumps(await _work(pursue, asked["model"], asked["goals"], asked["at_once"])), flush=True)


def main(opens: Opens) -> None:
    asyncio.run(_serve(opens, sys.argv[1]))
