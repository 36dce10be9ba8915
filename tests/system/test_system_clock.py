"""The wall clock is set, or the process stands still: checks go on, nothing stampedes, nothing cries wolf."""

from __future__ import annotations

import asyncio
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from around import Target
from stage import Daemon, Stage

WATCHES = 50
MINUTE, DAY = 60, 86400
MIB = 2**20

NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the clock that can be moved")

CLOCKS = """
import sys, time, datetime, uvloop
loop = uvloop.new_event_loop()
def look():
    return [time.time(), datetime.datetime.now(datetime.UTC).timestamp(), time.time_ns() / 1e9, loop.time(),
            time.monotonic()]
print(*look(), flush=True)
sys.stdin.readline()
print(*look(), flush=True)
"""


class WallClock:
    """The wall clock of the processes that get `environment`, to be moved by `jump`."""

    def __init__(self, folder: Path) -> None:
        library, self._offset = folder / "wallshim.so", folder / "offset"
        source = Path(__file__).with_name("wallshim.c")
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
        )
        self._seconds = 0
        self._offset.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "WALLSHIM": str(self._offset)}

    def jump(self, seconds: int) -> None:
        self._seconds += seconds
        # Into the same file: it is mapped by the others.
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=q", self._seconds * 10**9))


@NEEDS_GCC
@pytest.mark.parametrize("by", [-10 * MINUTE, 30 * DAY])
def test_the_clock_that_can_be_moved_moves_for_python(tmp_path: Path, by: int) -> None:
    """Or the tests below would show nothing: the wall clock jumps, the monotonic ones do not."""
    clock = WallClock(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", CLOCKS],
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        before = [float(each) for each in child.stdout.readline().split()]
        clock.jump(by)
        child.stdin.write("\n")
        child.stdin.flush()
        after = [float(each) for each in child.stdout.readline().split()]

    moved = [round((later - sooner) / MINUTE) for sooner, later in zip(before, after, strict=True)]
    assert moved == [by // MINUTE] * 3 + [0, 0]


def configure(stage: Stage, target: Target) -> None:
    watches = [{"name": f"w{number}", "http": {"url": f"{target.url}w{number}"}} for number in range(WATCHES)]
    beats = {"name": "job", "heartbeat": {"expect_every": "1h", "grace": "1m"}, "fail_after": 1}
    # No reminders or blindness either: any word to the webhook would be a false one.
    stage.configure([*watches, beats], defaults={"every": "1s", "fail_after": 2, "timeout": "5s"})


async def all_looked_at(stage: Stage, target: Target, since: int, times: int = 1) -> None:
    """Wait until every watch has looked so often, counted from the `since`th hit."""

    def look() -> bool:
        counts = Counter(hit.path for hit in target.hits[since:])
        return sum(count >= times for count in counts.values()) == WATCHES

    await stage.news.until(look, f"every watch looks {times} times")


async def calm(stage: Stage, daemon: Daemon) -> None:
    """The heartbeat is looked at too, and nobody was told anything but, maybe, that the clock jumped."""
    answer = await stage.api("POST", "/api/v1/watches/job/check")
    assert answer.json()["check"]["verdict"] == "ok", answer.text
    status = (await stage.api("GET", "/api/v1/status")).json()
    assert status["watches"]["ok"] == WATCHES + 1
    assert not daemon.logs("alert_pending")
    assert {line["rule"] for line in daemon.logs("alert_firing")} <= {"clock"}
    assert {request.json["data"]["rule"] for request in stage.hook.requests} <= {"clock"}


@NEEDS_GCC
@pytest.mark.slow
async def test_a_jump_of_the_wall_clock_harms_nothing(tmp_path: Path) -> None:
    """Back ten minutes must not mean ten minutes of blindness, nor 30 days forward a month of runs at once."""
    async with Stage(tmp_path) as stage:
        target, clock = await stage.target(), WallClock(tmp_path)
        configure(stage, target)
        daemon = await stage.start(**clock.environment)
        await stage.api("POST", "/api/v1/heartbeat/job")
        await all_looked_at(stage, target, 0, times=4)
        resident = daemon.resident_bytes()

        for number, by in enumerate([-10 * MINUTE, 30 * DAY, -30 * DAY], 1):
            since, jumped_at = len(target.hits), time.monotonic()
            clock.jump(by)
            await all_looked_at(stage, target, since, times=4)
            jump = await daemon.logged("clock_jumped", nth=number)
            assert abs(jump["by_s"] - by) < 1

            hits = target.hits[since:]
            for name in range(WATCHES):
                times = [hit.at - jumped_at for hit in hits if hit.path == f"/w{name}"]
                assert times[0] <= 2.0, f"w{name} was blind for {times[0]:.2f} s"
                assert max(late - soon for soon, late in pairwise(times)) <= 2.0
                assert sum(time_s < 1.0 for time_s in times) <= 2, f"w{name} ran for the time that never was: {times}"
            await calm(stage, daemon)

        assert target.most_at_once == 1
        grown = daemon.resident_bytes() - resident
        assert grown < 16 * MIB, f"{grown / MIB:.1f} MiB"
        assert await daemon.stop() == 0


@NEEDS_GCC
async def test_a_jump_in_the_middle_of_an_incident_loses_no_message(tmp_path: Path) -> None:
    """What waits for its next try waits by the wall clock; a jump must neither strand it nor bury it as too old."""
    async with Stage(tmp_path) as stage:
        target, clock = await stage.target(), WallClock(tmp_path)
        stage.configure([{"name": "shop", "http": {"url": target.url}}])
        target.status = 503
        await stage.hook.stop()
        daemon = await stage.start(**clock.environment)
        await daemon.logged("delivery_delayed")
        clock.jump(30 * DAY)
        await daemon.logged("delivery_delayed", nth=2)
        await stage.hook.start()
        clock.jump(30 * DAY)

        def kinds() -> list[str]:
            # A month later a reminder is due too, and agentd may have told of the receiver itself.
            messages = [request.json for request in stage.hook.taken]
            told = [each["type"] for each in messages if each["data"]["watch"] == "shop"]
            return [kind for kind in told if kind != "alert.reminder"]

        await stage.news.until(lambda: kinds() == ["alert.firing"], "the message arrives")
        target.status = 200
        await stage.news.until(lambda: kinds() == ["alert.firing", "alert.resolved"], "the end arrives")
        await daemon.logged("delivered", id=stage.hook.ids[-1])
        assert await stage.outbox() == []


async def test_a_process_that_stood_still_takes_up_its_work_without_a_stampede(tmp_path: Path) -> None:
    """A suspended machine, or one that starved: what was missed meanwhile is no use to anybody."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        configure(stage, target)
        daemon = await stage.start()
        await stage.api("POST", "/api/v1/heartbeat/job")
        await all_looked_at(stage, target, 0, times=2)

        daemon.signal(signal.SIGSTOP)
        await asyncio.sleep(7)  # the stillness itself; nothing happens that could be waited for
        since, woken_at = len(target.hits), time.monotonic()
        daemon.signal(signal.SIGCONT)
        await all_looked_at(stage, target, since, times=3)

        early = Counter(hit.path for hit in target.hits[since:] if hit.at < woken_at + 1.0)
        assert max(early.values()) <= 2, "one look that was due, and one that is"
        assert target.most_at_once == 1
        await daemon.logged("loop_stalled")
        await calm(stage, daemon)
