"""
The `host` probe: disks, load, memory and CPU of the machine that we run on.

In: paths, and which of the others to leave out. Out: numbers, in bytes and percent.
Promise: nothing here can hang the loop. A file system that does not answer in time is an error of that file system; a
path that does not exist is `blind`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from agentd.records import Observation
from agentd.settings import Settings
from agentd.watch.probe import Kind, Probe, ProbeTools
from agentd.watch.threads import DaemonThreads

# So many dead file systems leave the others of all host watches still answered.
_threads = DaemonThreads(16, "look-at-host")

CpuTimes = tuple[float, float]
"""Seconds of CPU since boot: in all, and not idle."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_DISK_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)


class HostSettings(Settings):
    """What stands under `host:`."""

    disk: Annotated[list[str], BeforeValidator(_as_list), _DISK_SCHEMA] = Field(
        default=["/"],
        min_length=1,
        description="A path, or several: the file systems they are on",
    )
    load: bool = True
    memory: bool = True
    cpu: bool = True

    @field_validator("disk")
    @classmethod
    def _check_disk(cls, disk: list[str]) -> list[str]:
        for path in disk:
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"{path!r} is no absolute path; write e.g. /var")
        return list(dict.fromkeys(disk))


def disk_values(path: str, seen: os.statvfs_result, is_mount: bool) -> dict[str, Any]:
    """As df(1) has it: blocks kept for root are neither used nor free, and percent are of what a user may fill."""
    used = (seen.f_blocks - seen.f_bfree) * seen.f_frsize
    free = seen.f_bavail * seen.f_frsize
    inodes = seen.f_files - seen.f_ffree
    return {
        "path": path,
        "total_bytes": seen.f_blocks * seen.f_frsize,
        "used_bytes": used,
        "free_bytes": free,
        "used_percent": _percent(used, used + free),
        # btrfs and others have no fixed number of inodes and say 0.
        "inodes_used_percent": _percent(inodes, inodes + seen.f_favail) if seen.f_files else 0.0,
        "read_only": bool(seen.f_flag & os.ST_RDONLY),
        "is_mount": is_mount,
    }


def cpu_percent(before: CpuTimes, after: CpuTimes) -> float | None:
    """Percent of all CPUs used between two readings; None when no time has passed (or a counter went back)."""
    total = after[0] - before[0]
    return None if total <= 0 else min(100.0, max(0.0, _percent(after[1] - before[1], total)))


def _percent(part: float, whole: float) -> float:
    return round(100.0 * part / whole, 2) if whole > 0 else 0.0


def _look_at_disk(path: str) -> dict[str, Any]:
    return disk_values(path, os.statvfs(path), os.path.ismount(path))


def _load_values() -> dict[str, float]:
    one, five, fifteen = os.getloadavg()
    cpus = os.cpu_count() or 1
    return {
        "one": round(one, 2),
        "five": round(five, 2),
        "fifteen": round(fifteen, 2),
        "per_cpu_one": round(one / cpus, 3),
        "per_cpu_five": round(five / cpus, 3),
        "per_cpu_fifteen": round(fifteen / cpus, 3),
    }


def _memory_values() -> dict[str, float]:
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "used_percent": _percent(memory.total - memory.available, memory.total),
        "swap_total_bytes": swap.total,
        "swap_used_percent": _percent(swap.used, swap.total),
    }


def _cpu_times() -> CpuTimes:
    import psutil

    times = psutil.cpu_times()
    # Linux counts the time of guests in user and nice already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total, total - times.idle - getattr(times, "iowait", 0.0)


def _in_thread(call: Callable[[], dict[str, Any]]) -> asyncio.Future[dict[str, Any]]:
    future = asyncio.get_running_loop().run_in_executor(_threads, call)
    # It may end long after the look that asked; its exception then is nobody's concern.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class HostProbe:
    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        # The first look has nothing to compare with and shows the mean since boot: dull, but no false alarm,
        # where a missing value would make every condition on it fail.
        self._cpu_before: CpuTimes = (0.0, 0.0)
        self._cpu_percent = 0.0
        self._disks: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def look(self, timeout_s: float) -> Observation:
        started = time.monotonic()
        observation = Observation()
        await self._fill(observation, timeout_s)
        observation.duration_s = time.monotonic() - started
        return observation

    async def close(self) -> None:
        """Nothing is held; a thread that hangs ends when the kernel lets it go."""

    async def _fill(self, observation: Observation, timeout_s: float) -> None:
        machine = _in_thread(self._machine)
        looks = {path: self._disk(path) for path in self._settings.disk}
        done, _ = await asyncio.wait({machine, *looks.values()}, timeout=timeout_s)
        disks: dict[str, dict[str, Any]] = {}
        silent = []
        missing = []
        for path, look in looks.items():
            if look not in done:
                silent.append(path)
            elif isinstance(problem := look.exception(), OSError):
                missing.append(f"cannot look at {path}: {problem.strerror or problem}")
            else:
                disks[path] = look.result()
        if machine in done:
            self._take(machine, observation)
        if disks:
            observation.values["disk"] = max(disks.values(), key=lambda disk: float(disk["used_percent"]))
        observation.values["disks"] = disks
        if silent:
            paths = ", ".join(silent)
            observation.error = f"{paths} did not answer within {timeout_s:g} s; is its server or disk dead?"
        elif missing:
            observation.blind = missing[0]
        elif machine not in done:
            observation.blind = f"the kernel did not answer within {timeout_s:g} s"

    @staticmethod
    def _take(machine: asyncio.Future[dict[str, Any]], observation: Observation) -> None:
        problem = machine.exception()
        if problem is None:
            observation.values.update(machine.result())
        elif isinstance(problem, OSError):
            observation.blind = f"cannot look at the machine: {problem}"
        else:
            raise problem

    def _disk(self, path: str) -> asyncio.Future[dict[str, Any]]:
        # A call that hangs is waited for again, instead of hanging one more thread at every look.
        pending = self._disks.get(path)
        if pending is None or pending.done():
            pending = self._disks[path] = _in_thread(lambda: _look_at_disk(path))
        return pending

    def _machine(self) -> dict[str, Any]:
        values: dict[str, Any] = {"uptime_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 1)}
        if self._settings.load:
            values["load"] = _load_values()
        if self._settings.memory:
            values["memory"] = _memory_values()
        if self._settings.cpu:
            now = _cpu_times()
            used = cpu_percent(self._cpu_before, now)
            if used is not None:
                self._cpu_before, self._cpu_percent = now, used
            values["cpu"] = {"used_percent": self._cpu_percent}
        return values


def _open(settings: HostSettings, name: str, tools: ProbeTools) -> Probe:
    return HostProbe(settings)


HOST = Kind(
    name="host",
    settings=HostSettings,
    variables={
        "disk": "the fullest file system: path, total_bytes, used_bytes, free_bytes, used_percent, "
        "inodes_used_percent, read_only, is_mount",
        "disks": "the same for every path, by path",
        "load": "one, five, fifteen: mean length of the run queue; per_cpu_one, …: divided by the number of CPUs",
        "memory": "total_bytes, available_bytes, used_percent, swap_total_bytes, swap_used_percent",
        "cpu": "used_percent: of all CPUs since the last look; at the first since boot",
        "uptime_s": "seconds since boot",
    },
    open=_open,
    network=False,
    expect=("disk.used_percent < 90", "disk.inodes_used_percent < 90"),
    every=60.0,
)
