"""The machine itself: true numbers, and no look that hangs with a dead file system."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from agentd.condition import compile_condition, judge
from agentd.records import Observation, Verdict
from agentd.watch import host
from agentd.watch.host import HOST, HostProbe, HostSettings, cpu_percent, disk_values
from agentd.watch.threads import DaemonThreads

LONG = 30.0


def probe(**settings: Any) -> HostProbe:
    return HostProbe(HostSettings.model_validate(settings))


@pytest.fixture
def dead_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """`/dead` hangs in the kernel until the test ends; counts the calls that do."""
    let_go = threading.Event()
    calls = {"hanging": 0}
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        if path == "/dead":
            calls["hanging"] += 1
            let_go.wait(60)
        return real("/")

    monkeypatch.setattr(os, "statvfs", statvfs)
    yield calls
    let_go.set()


async def test_a_disk_is_seen_as_df_sees_it(tmp_path: Path) -> None:
    """People compare the number with df."""
    seen = await probe(disk=str(tmp_path)).look(LONG)

    disk = seen.values["disk"]
    usage = shutil.disk_usage(tmp_path)
    assert seen.blind is None
    assert disk["total_bytes"] == usage.total
    assert disk["used_percent"] == pytest.approx(100 * usage.used / (usage.used + usage.free), abs=1)
    assert 0 <= disk["inodes_used_percent"] <= 100
    assert disk["is_mount"] is False
    assert seen.values["disks"] == {str(tmp_path): disk}


async def test_load_memory_cpu_and_uptime_come_along() -> None:
    """A watch of the machine must need no list of what to look at."""
    values = (await probe().look(LONG)).values

    assert values["load"]["per_cpu_one"] == pytest.approx(values["load"]["one"] / (os.cpu_count() or 1), abs=0.01)
    assert values["memory"]["total_bytes"] == psutil.virtual_memory().total
    assert 0 < values["memory"]["used_percent"] < 100
    assert 0 <= values["cpu"]["used_percent"] <= 100
    assert values["uptime_s"] > 0


async def test_what_is_not_wanted_is_left_out() -> None:
    """Some sandboxes hide /proc/meminfo; the rest must still be seen."""
    values = (await probe(load=False, memory=False, cpu=False).look(LONG)).values

    assert set(values) == {"disk", "disks", "uptime_s"}


async def test_of_several_disks_the_fullest_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One condition for all of them, and the message knows which."""
    full = {"/a": 10.0, "/b": 95.0, "/c": 50.0}
    monkeypatch.setattr(
        host,
        "_look_at_disk",
        lambda path: {"path": path, "used_percent": full[path], "inodes_used_percent": 1.0},
    )

    seen = await probe(disk=["/a", "/b", "/c"]).look(LONG)

    assert seen.values["disk"]["path"] == "/b"
    assert set(seen.values["disks"]) == {"/a", "/b", "/c"}
    judgement = judge(seen, [compile_condition(text, HOST.variables) for text in HOST.expect])
    assert judgement.verdict is Verdict.FAILING
    assert judgement.summary == "disk.used_percent < 90 does not hold (disk.used_percent = 95.0)"


async def test_a_missing_path_is_blind_and_the_others_are_still_seen(tmp_path: Path) -> None:
    """The path in the config is wrong, or its mount is late; no disk is full."""
    seen = await probe(disk=["/", str(tmp_path / "nowhere")]).look(LONG)

    assert seen.error is None
    assert seen.blind == f"cannot look at {tmp_path}/nowhere: No such file or directory"
    assert set(seen.values["disks"]) == {"/"}


async def test_a_dead_file_system_is_an_error_and_hangs_nothing(dead_disk: dict[str, int]) -> None:
    """statvfs on a gone NFS server does not return; the look must, with what else it saw."""
    seen = await probe(disk=["/", "/dead"]).look(0.2)

    assert seen.error == "/dead did not answer within 0.2 s; is its server or disk dead?"
    assert set(seen.values["disks"]) == {"/"}
    assert "load" in seen.values


async def test_a_dead_file_system_takes_one_thread_and_not_one_more_each_look(dead_disk: dict[str, int]) -> None:
    """A server that is gone over a weekend must not eat every thread there is."""
    looker = probe(disk=["/dead"])
    for _ in range(5):
        assert (await looker.look(0.05)).error

    assert dead_disk["hanging"] == 1


async def test_a_cancelled_look_ends_at_once(dead_disk: dict[str, int]) -> None:
    """A reload must not wait for a dead disk."""
    look = asyncio.create_task(probe(disk=["/dead"]).look(LONG))
    await asyncio.sleep(0)

    look.cancel()

    with pytest.raises(asyncio.CancelledError):
        await look


async def test_what_the_kernel_hides_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ProcSubset=pid` of a hardened unit hides /proc/meminfo."""

    def hidden() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)

    seen = await probe().look(LONG)

    assert seen.blind is not None
    assert "/proc/meminfo" in seen.blind
    assert "disk" in seen.values


async def test_cpu_is_counted_from_look_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look shows the mean since boot; one without time in between repeats the last."""
    readings = iter([(1000.0, 100.0), (1200.0, 250.0), (1200.0, 250.0)])
    monkeypatch.setattr(host, "_cpu_times", lambda: next(readings))
    looker = probe()

    seen: list[Observation] = [await looker.look(LONG) for _ in range(3)]

    assert [each.values["cpu"]["used_percent"] for each in seen] == [10.0, 75.0, 75.0]


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [((100, 50), (200, 100), 50.0), ((100, 50), (100, 50), None), ((100, 50), (90, 10), None), ((0, 9), (9, 0), 0.0)],
)
def test_cpu_counters_that_go_back_give_no_nonsense(
    before: tuple[float, float], after: tuple[float, float], percent: float | None
) -> None:
    """They do when a CPU is taken offline or a container moves."""
    assert cpu_percent(before, after) == percent


def test_a_file_system_without_inodes_or_blocks_divides_by_nothing() -> None:
    """btrfs says 0 inodes, /proc says 0 blocks."""
    nothing = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255))

    values = disk_values("/proc", nothing, True)

    assert (values["used_percent"], values["inodes_used_percent"], values["read_only"]) == (0.0, 0.0, True)


@pytest.mark.parametrize("disk", ["var", "", [], ["/", "a\0"]])
def test_a_path_that_is_none_is_told_at_load(disk: Any) -> None:
    """A relative path would mean whatever folder the service starts in."""
    with pytest.raises(ValidationError):
        HostSettings(disk=disk)


def test_psutil_is_not_loaded_before_it_is_needed() -> None:
    """An idle daemon without a host watch has no use for it."""
    script = "import sys, agentd.watch; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "False\n"


def test_threads_that_hang_do_not_keep_the_process() -> None:
    """The standard pool waits for its threads at the end, for ever if need be."""
    script = (
        "import threading, time\nfrom agentd.watch.threads import DaemonThreads\n"
        "began = threading.Event()\n"
        "DaemonThreads(1, 'x').submit(lambda: (began.set(), time.sleep(600)))\nbegan.wait()\nprint('bye')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "bye\n"


def test_work_beyond_the_threads_waits_in_line_and_can_be_cancelled_there() -> None:
    """The bound must hold, and what nobody waits for must not be done."""
    threads = DaemonThreads(2, "x")
    go = threading.Event()
    together: list[int] = []

    def work(number: int) -> int:
        together.append(number)
        go.wait(60)
        return number

    futures: list[Future[int]] = [threads.submit(work, number) for number in range(4)]
    cancelled = futures[2].cancel()
    go.set()

    assert cancelled
    assert [futures[index].result(60) for index in (0, 1, 3)] == [0, 1, 3]
    assert 2 not in together
