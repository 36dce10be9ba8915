"""
What mining templates costs and how well it groups: our miner beside drain3, both as they come, untuned.

Speed: lines a second of CPU time on one thread, median of five rounds in which the two take turns, each in a fresh
process; ours by blocks of 1 MiB, as the log thread does it, and line by line, as the peer works. RSS: how much the
process grew. Accuracy: the share of lines whose group is exactly that of their true template, on 2,000 labelled lines
of each style, without and with header; the mean of three seeds.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loglines import STYLES, grouping_accuracy, labelled

from agentd.logs.templates import Miner

LINES = 100_000
JUNK_LINES = 3_000
ROUNDS = 5
SEEDS = (1, 2, 3)
BLOCK = 1 << 20
PEER = importlib.util.find_spec("drain3") is not None
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Work = Callable[[Sequence[str]], object]


def ours_by_blocks(lines: Sequence[str]) -> object:
    miner = Miner()
    text = "".join(f"{line}\n" for line in lines).encode()
    at = 0
    while at < len(text):
        end = text.find(b"\n", min(at + BLOCK, len(text) - 1)) + 1
        miner.add(text[at:end], NOW, NOW)
        at = end
    return miner


def ours_by_lines(lines: Sequence[str]) -> object:
    miner = Miner()
    for line in lines:
        miner.add_one(line)
    return miner


def theirs(lines: Sequence[str]) -> object:
    miner = _peer()
    for line in lines:
        miner.add_log_message(line)
    return miner


def _peer() -> Any:
    from drain3 import TemplateMiner
    from drain3.template_miner_config import TemplateMinerConfig

    return TemplateMiner(config=TemplateMinerConfig())


def group_ours(lines: Sequence[str]) -> list[object]:
    miner = Miner()
    first = [miner.add_one(line) for line in lines]
    return [id and miner.current(id) for id in first]


def group_theirs(lines: Sequence[str]) -> list[object]:
    miner = _peer()
    return [miner.add_log_message(line)["cluster_id"] for line in lines]


def syslog(count: int) -> list[str]:
    """What a server's /var/log/syslog and auth.log are made of."""
    return _mixed(["openssh", "linux", "systemd", "thunderbird"], count)


def everything(count: int) -> list[str]:
    return _mixed(STYLES, count)


def junk(count: int) -> list[str]:
    """No word twice: the worst there is."""
    dice = random.Random(1)
    return [" ".join(f"{dice.getrandbits(48):x}".translate(_LETTERS) for _ in range(10)) for _ in range(count)]


_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")


def _mixed(styles: Sequence[str], count: int) -> list[str]:
    share = count // len(styles)
    lines = [line for style in styles for _, line in labelled(style, share)]
    random.Random(1).shuffle(lines)
    return lines


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _measured(work: Work, lines: Sequence[str]) -> tuple[float, float]:
    """Lines a second, and MiB of growth, in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, other = context.Pipe()

    def child() -> None:
        logging.disable()
        work(lines[:100])
        before = _resident_bytes()
        start = time.process_time()
        kept = work(lines)
        took = time.process_time() - start
        other.send((len(lines) / took, (_resident_bytes() - before) / 2**20))
        del kept

    process = context.Process(target=child)
    process.start()
    measured: tuple[float, float] = ours.recv()
    process.join()
    return measured


def speed() -> None:
    workers: dict[str, Work] = {"ours, blocks": ours_by_blocks, "ours, lines": ours_by_lines}
    if PEER:
        workers["drain3"] = theirs
    for name, make, count in (("syslog", syslog, LINES), ("21 styles", everything, LINES), ("junk", junk, JUNK_LINES)):
        lines = make(count)
        rounds: dict[str, list[tuple[float, float]]] = {worker: [] for worker in workers}
        for _ in range(ROUNDS):
            for worker, work in workers.items():
                rounds[worker].append(_measured(work, lines))
        middle = {worker: statistics.median(rate for rate, _ in found) for worker, found in rounds.items()}
        for worker, found in rounds.items():
            grown = statistics.median(mib for _, mib in found)
            ratio = f"  {middle[worker] / middle['drain3']:5.1f} x drain3" if PEER else ""
            print(f"{name:10} {worker:13} {middle[worker]:12,.0f} lines/s{ratio}  RSS {grown:+.1f} MiB")


def accuracy() -> None:
    groupers = {"ours": group_ours, **({"drain3": group_theirs} if PEER else {})}
    means: dict[str, list[float]] = {}
    print(
        f"{'grouping accuracy':18} "
        + " ".join(f"{f'{who}, {how}':>16}" for who in groupers for how in ("bare", "header"))
    )
    for style in STYLES:
        row = []
        for who, group in groupers.items():
            for header in (False, True):
                right = []
                for seed in SEEDS:
                    known = labelled(style, 2000, seed=seed, header=header)
                    right.append(grouping_accuracy([label for label, _ in known], group([line for _, line in known])))
                row.append(statistics.fmean(right))
                means.setdefault(f"{who} {header}", []).append(row[-1])
        print(f"{style:18} " + " ".join(f"{value:16.3f}" for value in row))
    print(f"{'mean':18} " + " ".join(f"{statistics.fmean(values):16.3f}" for values in means.values()))


if __name__ == "__main__":
    logging.disable()
    if not PEER:
        print("drain3 is not installed, so ours stands alone: pip install 'agentd[bench]'")
    speed()
    accuracy()
