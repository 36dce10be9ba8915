"""
What our agent costs beside others: agentd, pydantic-ai's Agent, LangGraph's ReAct agent and openai-agents.

All do the same scripted work, streaming, against one server of the OpenAI-compatible protocol that answers from memory
on the other processor: goals of ten steps, each a call of the same instant tool, and answers of fifty pieces, in one go
and piece by piece. All is overhead then. Printed: CPU time (user and system) of each process, medians of alternating
rounds, and the ratio to the best peer of the same run; `httpx alone` is no agent, it shows what asking takes at least.
The aim: at most a third of the best peer. Then, of agentd alone: a thousand goals at once in one process, as many
through the real agent host, and twenty thousand calls of a model, whose memory must stay flat.

    python tests/bench/agent.py [--rounds 5] [--only peers|many|calls] [--quick]

The peers live in a virtual environment of their own, .venv-bench, which `make bench` brings: what they pin is not ours.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from processes import SUBJECT_CPU, WORLD_CPU, median, need

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
PEER_PYTHON = HERE.parents[1] / ".venv-bench" / "bin" / "python"
STEPS, PIECES = 10, 50
WORK = {
    "a step: an answer, a call of a tool": (f"steps-{STEPS}", STEPS, 20),
    f"a goal of one answer in {PIECES} pieces, all at once": (f"text-{PIECES}", 1, 60),
    f"a goal of one answer in {PIECES} pieces, 1 ms between them": (f"text-{PIECES}-1", 1, 20),
}
"""The server's model, how many units a goal has, goals a round."""
SUBJECTS = {
    "agentd": (sys.executable, "our_agent.py"),
    "pydantic-ai": (str(PEER_PYTHON), "pydantic_ai_agent.py"),
    "LangGraph": (str(PEER_PYTHON), "langgraph_agent.py"),
    "openai-agents": (str(PEER_PYTHON), "openai_agents_agent.py"),
    "httpx alone": (sys.executable, "bare_call.py"),
}
NO_PEER = {"agentd", "httpx alone"}
HOST_AT_ONCE = 64
MANY_GOALS, MANY_CALLS, FIRST_CALLS = 1000, 20_000, 1000
AIM = 1 / 3


class Process:
    """A subject, or the server; speaks by lines."""

    def __init__(self, python: str, cpu: str, *arguments: str) -> None:
        self._name = arguments[0]
        self._process = subprocess.Popen(
            ["taskset", "-c", cpu, python, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PEERS,
            env={**os.environ, "LANGSMITH_TRACING": "false"},
        )  # fmt: skip
        self.first = self.line()

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended with {self._process.wait()}")
        return line.strip()

    def do(self, model: str, goals: int, at_once: int = 1) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"model": model, "goals": goals, "at_once": at_once}) + "\n")
        self._process.stdin.flush()
        done: dict[str, Any] = json.loads(self.line())
        return done

    def most_at_once(self) -> int:
        """Of the server: answers under way at once since the last time."""
        self._process.send_signal(signal.SIGUSR1)
        return int(self.line())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def running(python: str, cpu: str, *arguments: str) -> Iterator[Process]:
    process = Process(python, cpu, *arguments)
    try:
        yield process
    finally:
        process.end()


def beside_peers(url: str, rounds: int, share: int) -> None:
    """share: one of so many goals is pursued."""
    with ExitStack() as stack:
        subjects = {
            name: stack.enter_context(running(python, SUBJECT_CPU, file, url))
            for name, (python, file) in SUBJECTS.items()
        }
        for title, (model, units, goals) in WORK.items():
            goals = max(3, goals // share)
            cpu_ms: dict[str, list[float]] = {name: [] for name in subjects}
            rss: dict[str, float] = {}
            for name, subject in subjects.items():
                _same_work(name, model, 3, subject.do(model, 3))  # to warm up
            for _ in range(rounds):
                for name, subject in subjects.items():
                    done = subject.do(model, goals)
                    cpu_ms[name].append(done["cpu_s"] / (goals * units) * 1000)
                    rss[name] = done["rss_mib"]
            _show(title, {name: median(each) for name, each in cpu_ms.items()}, rss)


def _same_work(name: str, model: str, goals: int, done: dict[str, Any]) -> None:
    """Everybody has called the tool as often, has seen as many pieces, and says the same in the end."""
    kind, count = model.split("-")[:2]
    wanted = (goals * int(count), goals) if kind == "steps" else (0, goals * int(count))
    said = (done["tools"], done["pieces"])
    if said != wanted or not str(done["said"]).startswith("All is well."):
        raise SystemExit(f"{name} did other work than {model}: (calls, pieces) {said}, not {wanted}: {done['said']!r}")


def _show(title: str, cpu_ms: dict[str, float], rss: dict[str, float]) -> None:
    best = min(each for name, each in cpu_ms.items() if name not in NO_PEER)
    print(f"\n{title}")
    print(f"{'':<16} {'ms CPU':>8} {'to best peer':>13} {'MiB RSS':>8}")
    for name, each in cpu_ms.items():
        print(f"{name:<16} {each:>8.2f} {each / best:>13.2f} {rss[name]:>8.0f}")
    ours = cpu_ms["agentd"] / best
    print(f"agentd: {ours:.2f} of the best peer, the aim is {AIM:.2f}: {'held' if ours <= AIM else 'missed'}")


def many_goals(url: str, server: Process, goals: int) -> None:
    with running(sys.executable, SUBJECT_CPU, "our_agent.py", url) as subject:
        subject.do("steps-3-200", 10, 10)
        server.most_at_once()
        done = subject.do("steps-3-200", goals, goals)
        asked = server.most_at_once()
    print(
        f"\n{goals} goals at once in one process, three steps each, 200 ms for each answer\n"
        f"under way at once: {done['most_at_once']} runs, {asked} calls of the model\n"
        f"{done['cpu_s'] / goals * 1000:.2f} ms CPU a goal, {done['wall_s']:.1f} s in all, "
        f"RSS {done['rss_then_mib']:.0f} MiB before, {done['peak_mib']:.0f} at most, {done['rss_mib']:.0f} after"
    )


def many_in_host(url: str, server: Process, goals: int) -> None:
    with running(sys.executable, SUBJECT_CPU, "our_host.py", url) as subject:
        server.most_at_once()
        done = subject.do("steps-3-200", goals, HOST_AT_ONCE)
        asked = server.most_at_once()
    print(
        f"\nThe same in the real agent host, {HOST_AT_ONCE} goals at once, {asked} calls of the model\n"
        f"{done['cpu_s'] / goals * 1000:.2f} ms CPU of the host a goal, {done['own_cpu_s'] / goals * 1000:.2f} of the "
        f"daemon's side ({done['records']:.0f} records, {done['events']:.0f} events a goal), {done['wall_s']:.1f} s in "
        f"all, RSS {done['rss_then_mib']:.0f} MiB before, {done['rss_mib']:.0f} after"
    )


def many_calls(url: str, calls: int) -> None:
    with running(sys.executable, SUBJECT_CPU, "our_agent.py", url, "calls") as subject:
        done = subject.do("text-10", calls)
    print(
        f"\n{calls} calls of a model, one after the other\n{done['cpu_s'] / calls * 1000:.2f} ms CPU a call, "
        f"RSS {done['rss_then_mib']:.1f} MiB after {FIRST_CALLS} calls, {done['rss_mib']:.1f} after all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["peers", "many", "calls"])
    parser.add_argument("--quick", action="store_true", help="three rounds, few goals, few calls")
    given = parser.parse_args()
    need("taskset")
    quick = bool(given.quick)
    with running(sys.executable, WORLD_CPU, "canned.py") as server:
        url = f"http://127.0.0.1:{server.first}"
        if given.only in (None, "peers"):
            if not PEER_PYTHON.exists():
                raise SystemExit("the peers are missing: `make .venv-bench/ready` brings them")
            beside_peers(url, 3 if quick else given.rounds, 4 if quick else 1)
        if given.only in (None, "many"):
            goals = MANY_GOALS // 10 if quick else MANY_GOALS
            many_goals(url, server, goals)
            many_in_host(url, server, goals)
        if given.only in (None, "calls"):
            many_calls(url, MANY_CALLS // 10 if quick else MANY_CALLS)


if __name__ == "__main__":
    main()
