"""
Measure whole processes: CPU time, memory, and how to start and end them for a bench.

CPU time is utime + stime of /proc/PID/stat over a window, memory is VmRSS of /proc/PID/status.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SUBJECT_CPU, WORLD_CPU = "0", "1"


def cpu_s(pid: int) -> float:
    """CPU seconds the process has used so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no VmRSS of {pid}")


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, cpu: str, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one processor, in a group of its own that is ended as a whole."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", cpu, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(holds: Callable[[], bool], what: str, timeout_s: float = 30) -> float:
    """Poll until it holds; returns the seconds that took."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > timeout_s:
            raise TimeoutError(what)
        time.sleep(0.002)
    return time.monotonic() - started


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def need(*programs: str) -> None:
    """End with a clear word when a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; `units/prepare bench` brings them")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
