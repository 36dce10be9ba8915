"""
Finding a few lines among many: agentd beside ripgrep, grep and fail2ban-regex, in the same run.

All look for the same patterns in the same syslog, which is in the page cache, each in a process of its own on one
processor. Printed: MB a second of CPU time, medians of alternating rounds, and the ratio to each peer in its round;
then what only agentd can be asked: lines that are all hits, conditions without a pattern, memory.

    python tests/bench/logs.py [--rounds 3] [--size 200] [--only peers|own]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from processes import SUBJECT_CPU, median, need
from syslog_lines import patterns, write

from agentd.logs.match import Matcher
from agentd.logs.parse import make_parser
from agentd.logs.port import Block
from agentd.logs.settings import LogSource, Rule

RULES = (1, 10, 100)
BLOCK_BYTES = 1 << 20
FAIL2BAN_BYTES = 8 << 20
"""fail2ban-regex is given so much of the file: all of it would take it minutes."""
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


# --- what is measured of agentd, in a process of its own ---------------------------------------------------------


class _Lines:
    plain = True

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        raise NotImplementedError

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        raise NotImplementedError


class _Now:
    def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
        return read_at


def match_file(path: Path, rules: Sequence[Rule]) -> int:
    """Read and match a file by blocks; how many lines were hit."""
    matcher = Matcher(rules, _Lines(), make_parser(LogSource(files=(str(path),), format="syslog")))
    hits, last, offset, times = 0, None, 0, _Now()
    with path.open("rb", buffering=0) as file:
        while read := os.pread(file.fileno(), BLOCK_BYTES, offset):
            text = read[: read.rfind(b"\n") + 1]
            offset += len(text)
            for hit in matcher.hits(Block("s", str(path), text, 0, NOW), times):
                hits += hit.entry is not last
                last = hit.entry
    return hits


def rules_of(count: int) -> list[Rule]:
    return [Rule(name=f"r{n}", type="any", match=text) for n, text in enumerate(patterns(count, "re2"))]


def dense_rules() -> list[Rule]:
    """Nearly every line is hit by one of ten."""
    words = [
        "sshd",
        "CRON",
        "kernel",
        "nginx",
        "postfix/smtpd",
        "postfix/qmgr",
        "systemd",
        "dhclient",
        "rsyslogd",
        "app",
    ]
    return [Rule(name=f"r{n}", type="any", match=rf" (?P<host>web-\d) {word}[:\[]") for n, word in enumerate(words)]


def conditional(when: str) -> Rule:
    return Rule(name="r", type="any", when=when)


SUBJECTS: dict[str, Callable[[Path], int]] = {
    **{f"{count}": lambda path, count=count: match_file(path, rules_of(count)) for count in RULES},  # type: ignore[misc]
    "dense": lambda path: match_file(path, dense_rules()),
    "dense, one rule": lambda path: match_file(path, dense_rules()[3:4]),
    "when, literal": lambda path: match_file(path, [conditional('message.contains("Killed process")')]),
    "when, every line": lambda path: match_file(path, [conditional('level == "error"')]),
}
"""The matcher alone. The whole path (follow, match, windows, checkpoint) takes its place beside it here."""


def measure_here(subject: str, path: Path) -> None:
    """In the child: take the file twice, the first time to warm up, and say CPU seconds, hits and memory."""
    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hits = SUBJECTS[subject](path)
    began = time.process_time()
    SUBJECTS[subject](path)
    cpu_s = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before
    print(json.dumps({"cpu_s": cpu_s, "hits": hits, "grown_mib": grown / 1024}))


# --- everybody, from outside ------------------------------------------------------------------------------------


def agentd(subject: str, path: Path) -> tuple[float, int, float]:
    """MB/s, hits and growth of memory in MiB."""
    argv = ["taskset", "-c", SUBJECT_CPU, sys.executable, __file__, "--measure", subject, str(path)]
    said = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return path.stat().st_size / 1e6 / said["cpu_s"], said["hits"], said["grown_mib"]


def peer(argv: Sequence[str | Path], path: Path, *, size: int | None = None) -> tuple[float, str]:
    """MB/s of a program's CPU time, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["taskset", "-c", SUBJECT_CPU, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (size or path.stat().st_size) / 1e6 / max(cpu_s, 0.001), done.stdout


def compare(path: Path, folder: Path, rounds: int) -> None:
    part = folder / "part.log"
    with path.open("rb") as file:
        part.write_bytes(file.read(FAIL2BAN_BYTES).rpartition(b"\n")[0] + b"\n")
    print(f"\n{path.stat().st_size / 1e6:.0f} MB of syslog, MB per CPU second (ratio: agentd's in the same round)")
    for count in RULES:
        wanted = folder / f"wanted-{count}"
        wanted.write_text("\n".join(patterns(count, "extended")) + "\n")
        jail = folder / f"jail-{count}.conf"
        jail.write_text("[Definition]\nfailregex = " + "\n            ".join(patterns(count, "fail2ban")) + "\n")
        found: dict[str, list[float]] = {name: [] for name in ("agentd", "rg -c", "grep -cE", "fail2ban-regex")}
        counted: set[int] = set()
        for _ in range(rounds):
            speed, hits, _ = agentd(str(count), path)
            found["agentd"].append(speed)
            counted.add(hits)
            speed, said = peer(["rg", "-c", "-f", wanted, path], path)
            found["rg -c"].append(speed)
            counted.add(int(said or 0))
            speed, said = peer(["grep", "-cE", "-f", wanted, path], path)
            found["grep -cE"].append(speed)
            counted.add(int(said))
            speed, said = peer(["fail2ban-regex", "--print-no-missed", part, jail], part)
            assert "Lines:" in said, said[-2000:]
            found["fail2ban-regex"].append(speed)
        print(f"  {count} rules, {'/'.join(map(str, sorted(counted)))} lines hit")
        for name, speeds in found.items():
            ratio = median([a / b for a, b in zip(found["agentd"], speeds, strict=True)])
            print(f"    {name:<18} {median(speeds):9.1f} MB/s   ratio {ratio:8.2f}")


def report_own(path: Path, rounds: int) -> None:
    print("\nagentd alone                     MB per CPU second    lines hit    memory grown by")
    for subject in SUBJECTS:
        measured = [agentd(subject, path) for _ in range(rounds)]
        speed, hits, grown = (median([each[n] for each in measured]) for n in range(3))
        print(f"  {subject:<32} {speed:9.1f} {hits:14.0f} {grown:10.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=200, help="MB of the syslog")
    parser.add_argument("--only", choices=["peers", "own"], help="leave the other half out")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_here(options.measure[0], Path(options.measure[1]))
        return
    need("rg", "grep", "fail2ban-regex", "taskset")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, smaller = folder / "syslog", folder / "smaller"
        write(path, options.size * 1_000_000)
        if options.only != "own":
            compare(path, folder, options.rounds)
        if options.only != "peers":
            write(smaller, min(options.size, 20) * 1_000_000)
            report_own(smaller, options.rounds)


if __name__ == "__main__":
    main()
