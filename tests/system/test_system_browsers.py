"""
Two hundred browsers that listen, and clients that never read, cost the daemon neither its schedule nor its memory.

AGENTD_TEST_BROWSERS: how many listen, at most 390 (a remote address may have 400 connections). AGENTD_TEST_EVENTS: how
many events are told before memory is looked at for the first time; three times as many until the second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import until
from around import Target
from listeners import EVENTS, deaf, holds, listening
from loopback import free_port
from stage import Daemon, Stage

BROWSERS = int(os.environ.get("AGENTD_TEST_BROWSERS", "200"))
EVENTS_BEFORE = int(os.environ.get("AGENTD_TEST_EVENTS", "600"))
MIB = 2**20
_STEADY, _FLAPPING = 20, 8
_LOOKED = 60
_DROPPED_S = 100.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def flapping() -> Callable[[str], int]:
    """Every second look at /flap/… fails."""
    looked: dict[str, int] = {}

    def answer(path: str) -> int:
        looked[path] = looked.get(path, 0) + 1
        return 503 if path.startswith("/flap") and looked[path] % 2 else 200

    return answer


async def started(stage: Stage, target: Target) -> tuple[Daemon, int]:
    port = free_port()
    target.answer = flapping()
    settings = {"expect": ["status == 200"], "fail_after": 1, "recover_after": 1, "notify": []}
    bulk = {"note": "n" * 3000}  # or it takes a minute until the kernel has no more room for who does not read
    watches: list[dict[str, Any]] = [
        {"name": f"steady-{n}", "http": {"url": f"{target.url}steady/{n}"}, "every": "500ms", **settings}
        for n in range(_STEADY)
    ] + [
        {"name": f"flap-{n}", "http": {"url": f"{target.url}flap/{n}"}, "every": "200ms", "labels": bulk, **settings}
        for n in range(_FLAPPING)
    ]
    stage.configure(watches, api={"listen": [f"unix:{stage.folder}/api.sock", f"127.0.0.1:{port}"]})
    return await stage.start(), port


async def steady_pace(stage: Stage, target: Target) -> float:
    """How many seconds so many looks at the steady watches take."""

    def steady() -> int:
        return sum(hit.path.startswith("/steady") for hit in target.hits)

    begun, begin = steady(), time.monotonic()
    await stage.news.until(lambda: steady() >= begun + _LOOKED * 3, "the steady watches are looked at", 120)
    return time.monotonic() - begin


async def checks(stage: Stage) -> tuple[int, int]:
    """How many are done, and how many were left out because the one before was still under way."""
    found = (await stage.api("GET", "/api/v1/status")).json()["checks"]
    return found["done"], found["overlaps"]


async def test_listeners_and_those_who_never_read_cost_neither_checks_nor_memory(tmp_path: Path) -> None:
    """A page left open on every desk of a company must not be what makes the alert late."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        daemon, port = await started(stage, target)
        alone_s, (done_alone, late_alone) = await steady_pace(stage, target), await checks(stage)
        mute = await deaf(port, EVENTS)
        greedy = await deaf(port, "/api/v1/openapi.json", times=10)
        await until(lambda: holds(daemon.pid, mute) and holds(daemon.pid, greedy), "both are let in")

        async with listening(port, BROWSERS) as listeners:
            first = listeners[0]
            together_s = await steady_pace(stage, target)

            await until(lambda: len(first.numbers) >= EVENTS_BEFORE, "events are told", 300)
            before = daemon.resident_bytes()
            await until(lambda: len(first.numbers) >= EVENTS_BEFORE * 3, "three times as many are told", 600)
            after = daemon.resident_bytes()
            await until(lambda: not holds(daemon.pid, mute), "who does not read the events is dropped", _DROPPED_S)
            await until(lambda: not holds(daemon.pid, greedy), "who does not read answers is dropped", _DROPPED_S)

            done, late = await checks(stage)
            done, late = done - done_alone, late - late_alone

            # What all of them must have heard by the time the slowest one is as far as the first is now.
            last = first.numbers[-1]
            await until(lambda: all(each.numbers[-1] >= last for each in listeners), "all hear the same", 60)

        print(
            f"\n{BROWSERS} listeners, {len(first.numbers)} events: {before / MIB:.1f} MiB, then {after / MIB:.1f} MiB; "
            f"{_LOOKED * 3} checks in {alone_s:.1f} s alone, {together_s:.1f} s together; {late} of {done} "
            "checks left out"
        )
        for each in listeners:
            assert each.resets == 0
            begin, end = each.numbers[0], each.numbers[-1]
            assert each.numbers == list(range(begin, end + 1)), "in order, none twice, none left out"
        assert together_s < alone_s * 1.5
        assert late < done / 10, "on a machine that does much else, some are"
        assert after - before < 32 * MIB, "what is told is not kept"
        mute.close()
        greedy.close()
        assert await daemon.stop() == 0
