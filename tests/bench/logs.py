"""
Finding a few lines among many: agentd beside ripgrep, grep and fail2ban-regex, in the same run.

All look for the same patterns in the same syslog, which is in the page cache, each in a process of its own on one
processor. agentd is there three times: a whole daemon that follows the file, judges by the rules and commits what came
of it with the place it has read to; the same daemon keeping a table of templates too; and its matcher alone. Printed:
MB a second of CPU time, medians of alternating rounds, and the ratio to each peer in its round; then what only agentd
can be asked: a large backlog, many files that grow a little, lines that are all hits, conditions without a pattern,
memory, and how late the event loop is meanwhile.

    python tests/bench/logs.py [--rounds 3] [--size 200] [--backlog 1000] [--only peers|own|daemon] [--quick]
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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from log_daemon import DENSE, append, few_hits, idle, read_file
from processes import SUBJECT_CPU, median, need
from syslog_lines import patterns, write, write_days

from agentd.logs.eventtime import EventTime
from agentd.logs.match import Matcher
from agentd.logs.multiline import make_joiner
from agentd.logs.parse import make_parser
from agentd.logs.port import Block
from agentd.logs.settings import LogSource, Rule
from agentd.logs.work import MAX_BATCH_BYTES

RULES = (1, 10, 100)
BLOCK_BYTES = MAX_BATCH_BYTES
FAIL2BAN_BYTES = 8 << 20
"""fail2ban-regex is given so much of the file: all of it would take it minutes."""
SIDE_BY_SIDE = ("agentd", "  with templates", "  matching alone", "rg -c", "grep -cE", "fail2ban-regex")
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


# --- what is measured of agentd, in a process of its own ---------------------------------------------------------


def match_file(path: Path, rules: Sequence[Rule]) -> int:
    """Read and match a file by blocks; how many lines were hit."""
    matcher = Matcher(rules, make_joiner(None), make_parser(LogSource(files=(str(path),), format="syslog")))
    hits, last, offset, times = 0, None, 0, EventTime(lambda: NOW)
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
"""The matcher alone; of the whole path, see `log_daemon`."""


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
    print(f"\n{path.stat().st_size / 1e6:.0f} MB of syslog, MB per CPU second (ratio: of agentd in the same round)")
    for count in RULES:
        wanted = folder / f"wanted-{count}"
        wanted.write_text("\n".join(patterns(count, "extended")) + "\n")
        jail = folder / f"jail-{count}.conf"
        jail.write_text("[Definition]\nfailregex = " + "\n            ".join(patterns(count, "fail2ban")) + "\n")
        found: dict[str, list[float]] = {name: [] for name in SIDE_BY_SIDE}
        counted: set[int] = set()
        for _ in range(rounds):
            found["agentd"].append(read_file(path, few_hits(count), templates=False)["mb_per_s"])
            found["  with templates"].append(read_file(path, few_hits(count), templates=True)["mb_per_s"])
            speed, hits, _ = agentd(str(count), path)
            found["  matching alone"].append(speed)
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
        print(f"  {count} rules, {'/'.join(map(str, sorted(counted)))} lines hit", flush=True)
        for name, speeds in found.items():
            ratio = median([a / b for a, b in zip(found["agentd"], speeds, strict=True)])
            print(f"    {name:<18} {median(speeds):9.1f} MB/s   ratio {ratio:8.2f}", flush=True)


def report_own(path: Path, rounds: int) -> None:
    print("\nagentd's matcher alone           MB per CPU second    lines hit    memory grown by")
    for subject in SUBJECTS:
        measured = [agentd(subject, path) for _ in range(rounds)]
        speed, hits, grown = (median([each[n] for each in measured]) for n in range(3))
        print(f"  {subject:<32} {speed:9.1f} {hits:14.0f} {grown:10.1f} MiB", flush=True)


def report_daemon(backlog: Path, smaller: Path, seconds: float) -> None:
    """What a whole daemon does; lateness is of its event loop."""
    print("\nagentd's daemon                       MB per CPU s  lines per CPU s  late p99   most   memory grown by")
    subjects = [
        (f"{backlog.stat().st_size / 1e6:.0f} MB, 10 rules", backlog, few_hits(10), False),
        ("  with templates", backlog, few_hits(10), True),
        *((name, smaller, [rule], False) for name, rule in DENSE.items()),
    ]
    for name, path, rules, templates in subjects:
        said = read_file(path, rules, templates=templates, watched=True)
        print(
            f"  {name:<36} {said['mb_per_s']:9.1f} {said['lines'] / said['cpu_s']:16.0f} {said['late_p99_ms']:7.1f} "
            f"{said['late_most_ms']:6.1f} ms {said['grown_mib']:10.1f} MiB",
            flush=True,
        )
    print("\n2,000 lines/s appended to 100 files    CPU of a core   seen within   RSS")
    for name, rules, templates in (
        ("10 rules", few_hits(10), False),
        ("  with templates", few_hits(10), True),
        ("frequency by ip, with templates", [DENSE["frequency by ip, 10,000 keys"]], True),
    ):
        found = append(rules, templates=templates, files=100, rate=2000, seconds=seconds)
        print(
            f"  {name:<36} {found['cpu_percent']:9.2f} %  {found['seen_s']:9.2f} s {found['rss_mib']:8.1f} MiB",
            flush=True,
        )
    without, watching = idle(None), idle(few_hits(1))
    print(f"\nidle RSS without a log watch {without:.1f} MiB, with one {watching:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=200, help="MB of the syslog")
    parser.add_argument("--backlog", type=int, default=1000, help="MB of the large one")
    parser.add_argument("--seconds", type=float, default=20, help="for which lines are appended")
    parser.add_argument("--only", choices=["peers", "own", "daemon"], help="leave the rest out")
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of the size: to see that it runs")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_here(options.measure[0], Path(options.measure[1]))
        return
    need("rg", "grep", "fail2ban-regex", "taskset")
    if options.quick:
        options.rounds, options.size, options.backlog, options.seconds = 1, 20, 100, 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, smaller, backlog = folder / "syslog", folder / "smaller", folder / "backlog"
        write(path, options.size * 1_000_000)
        write(smaller, min(options.size, 20) * 1_000_000)
        if options.only in (None, "peers"):
            compare(path, folder, options.rounds)
        if options.only in (None, "own"):
            report_own(smaller, options.rounds)
        if options.only in (None, "daemon"):
            write_days(backlog, path, options.backlog * 1_000_000)
            report_daemon(backlog, smaller, options.seconds)


if __name__ == "__main__":
    main()
