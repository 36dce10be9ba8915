"""
Whole daemons that follow logs: what a file costs from its bytes to what is committed, and what following alone costs.

`read_file` runs a daemon in a process of its own, this one, beside a clock that notices when the loop is late; a file
is moved into the watched folder once it runs, so that it is read from its beginning. `append` and `idle` watch
`agentd run` from outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from checks import agentd, agentd_config
from processes import SUBJECT_CPU, WORLD_CPU, cpu_s, percentile, rss_mib
from syslog_lines import lines, patterns

TICK_S = 0.002
SETTLED_S = 2.0
PATIENCE_S = 600.0
_SYSLOG_IP = r"(?P<ip>10\.\d+\.\d+\.\d+)"

DENSE: dict[str, dict[str, Any]] = {
    "any, every line": {"type": "any", "match": "web"},
    "frequency by ip, 10,000 keys": {
        "type": "frequency", "match": _SYSLOG_IP, "by": ["ip"], "count": 50, "within": "10m",
    },
    "any by ip, an alert each": {"type": "any", "match": _SYSLOG_IP, "by": ["ip"]},
}  # fmt: skip
"""Rules that hit nearly every line."""


def few_hits(count: int) -> list[dict[str, Any]]:
    return [{"name": f"r{n}", "type": "any", "match": text} for n, text in enumerate(patterns(count, "re2"))]


# --- from outside -----------------------------------------------------------------------------------------------


def read_file(path: Path, rules: Sequence[dict[str, Any]], *, templates: bool, watched: bool = False) -> dict[str, Any]:
    """
    What a daemon says of having read the file: see `live`. watched: look for lateness and memory, which costs CPU.

    The file stays where it is; the folder it is in must be able to hold a link to it.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        config = _config(folder, rules, templates=templates)
        (folder / "waiting").hardlink_to(path)
        done = subprocess.run(
            ["taskset", "-c", SUBJECT_CPU, sys.executable, __file__, config, str(watched), folder / "waiting",
             folder / "in" / "a.log"],
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


def append(
    rules: Sequence[dict[str, Any]], *, templates: bool, files: int, rate: int, seconds: float
) -> dict[str, float]:
    """
    Lines appended to many files at a steady rate, and what the daemon needs for it once it is warm.

    Returns cpu_percent of a core; seen_s, the longest that a line waited until it was read; rss_mib.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _config(folder, rules, templates=templates)
        opened = [(folder / "in" / f"{number}.log").open("wb", buffering=0) for number in range(files)]
        source = lines()
        os.sched_setaffinity(0, {int(WORLD_CPU)})
        with agentd(folder, config) as (pid, _):
            time.sleep(2)
            used = 0.0
            for measured, lasts in ((False, 5.0), (True, seconds)):
                cpu, began, written = cpu_s(pid), time.monotonic(), 0
                while time.monotonic() - began < lasts:
                    for _ in range(rate // 20):
                        opened[written % files].write(next(source))
                        written += 1
                    time.sleep(max(0.0, began + written / rate - time.monotonic()))
                if measured:
                    used = (cpu_s(pid) - cpu) / (time.monotonic() - began)
            waits = [
                _seen_after(folder, opened[number], next(source)) for number in range(0, files, max(1, files // 5))
            ]
            return {"cpu_percent": used * 100, "seen_s": max(waits), "rss_mib": rss_mib(pid)}


def _seen_after(folder: Path, file: Any, line: bytes) -> float:
    wanted = _lines_read(folder) + 1
    began = time.monotonic()
    file.write(line)
    while _lines_read(folder) < wanted:
        time.sleep(0.01)
    return time.monotonic() - began


def _lines_read(folder: Path) -> int:
    import httpx

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "api.sock"))) as client:
        (watch,) = client.get("http://agentd/api/v1/watches").json()["watches"]
        return int(watch["log"].get("lines", 0))


def idle(rules: Sequence[dict[str, Any]] | None) -> float:
    """RSS in MiB of a daemon that has nothing to do but one disk check, and with rules one quiet log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if rules is None:
            config = agentd_config(folder, "  - {name: disk, every: 5s, host: {disk: /}}")
        else:
            config = _config(folder, rules, templates=True, more="  - {name: disk, every: 5s, host: {disk: /}}")
            (folder / "in" / "a.log").write_bytes(b"".join(line for line, _ in zip(lines(), range(1000), strict=False)))
        with agentd(folder, config) as (pid, _):
            time.sleep(12)
            return rss_mib(pid)


def _config(folder: Path, rules: Sequence[dict[str, Any]], *, templates: bool, more: str = "") -> Path:
    (folder / "in").mkdir()
    log = {"files": [str(folder / "in" / "*.log")], "format": "syslog", "templates": templates}
    watch = {"name": "w", "log": log, "rules": [{"name": "r", **rule} for rule in rules]}
    return agentd_config(folder, f"  - {json.dumps(watch)}\n{more}")


# --- from inside ------------------------------------------------------------------------------------------------


class Lateness:
    """
    How late the loop gave us the turn that was due, in ms.

    Without the time for which the loop's thread could have run and the processor was somebody else's.
    """

    def __init__(self) -> None:
        self.ms: list[float] = []
        self._waits = open(f"/proc/self/task/{threading.get_native_id()}/schedstat", "rb", buffering=0)  # noqa: SIM115  # until the end

    async def run(self) -> None:
        waited_s = self._waited_s()
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s = time.monotonic() - due
            before, waited_s = waited_s, self._waited_s()
            self.ms.append(max(0.0, late_s - (waited_s - before)) * 1000)

    def _waited_s(self) -> float:
        """Seconds in the run queue so far; see `sched-stats` in the kernel's documentation."""
        self._waits.seek(0)
        return int(self._waits.read().split()[1]) / 1e9


async def live(config: Path, watched: bool, moves: Iterable[tuple[Path, Path]]) -> dict[str, Any]:
    """Move the files in once the daemon is at rest; what reading all of them took: CPU seconds, lateness, memory."""
    from agentd.config.loader import load
    from agentd.daemon.app import Daemon

    daemon = Daemon(config, load(config))
    run = asyncio.create_task(daemon.run())
    await daemon.ready.wait()
    (watch,) = (planned.watch for planned in daemon.plan.logs.values())
    while watch.last is None:
        await asyncio.sleep(0.05)
    assert watch.work is not None
    counters = watch.work.source.counters
    await asyncio.sleep(1)  # what starting leaves to be done
    late = Lateness()
    meter = asyncio.create_task(late.run()) if watched else None
    rss = [rss_mib(os.getpid())]
    wanted = sum(source.stat().st_size for source, _ in moves)
    commits, cpu, began = daemon.store.state.counts.commits, time.process_time(), time.monotonic()
    for source, target in moves:
        source.rename(target)
    while counters.bytes < wanted:
        await asyncio.sleep(0.02)
        if watched:
            rss.append(rss_mib(os.getpid()))
        if watch.work is None or watch.work.source.counters is not counters:
            raise RuntimeError(f"following ended: {watch.last}")
    found = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - began, "lines": counters.lines}
    if meter is not None:
        meter.cancel()
    await asyncio.sleep(SETTLED_S)
    rss.append(rss_mib(os.getpid()))
    found |= {
        "mb_per_s": wanted / 1e6 / found["cpu_s"],
        "commits": daemon.store.state.counts.commits - commits,
        "late_p99_ms": percentile(late.ms or [0.0], 0.99),
        "late_most_ms": max(late.ms, default=0.0),
        "grown_mib": max(rss) - rss[0],
    }
    daemon.stop()
    await run
    return found


def main(config: str, watched: str, *names: str) -> None:
    import uvloop

    from agentd.cli.run import calm_collector

    calm_collector()
    paths = [Path(name) for name in names]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        moves = list(zip(paths[::2], paths[1::2], strict=True))
        print(json.dumps(runner.run(live(Path(config), watched == "True", moves))))


if __name__ == "__main__":
    main(*sys.argv[1:])
