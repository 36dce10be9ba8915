"""
How long a configuration of 10,000 watches takes to load, and where the time goes.

The aim: under 5 s for all, conditions compiled and references checked, on a small machine.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agentd.config.document import read_document
from agentd.config.loader import load

HEAD = "webhooks: {ops: {url: 'https://hooks.example/x'}}\nalerting: {notify: [ops]}\nwatches:\n"


def same(number: int) -> str:
    return f"""  - name: web-{number}
    every: 30s
    http:
      url: http://127.0.0.1:8080/health/{number}
      headers: {{Accept: application/json}}
    expect:
      - status == 200
      - latency_ms < 300
      - body.status == "UP"
    fail_after: 3 of 5
    severity: critical
    labels: {{team: web, rack: r{number % 40}}}
    notify: [ops]
"""


def own(number: int) -> str:
    return same(number).replace('"UP"', f'"UP-{number}"')


def aliased(number: int) -> str:
    expect = "&e [status == 200, latency_ms < 300]" if number == 0 else "*e"
    return f"  - {{name: web-{number}, http: {{url: 'http://127.0.0.1/{number}'}}, expect: {expect}}}\n"


def timed(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    shapes = {"equal conditions": same, "a condition of its own each": own, "flow style, aliases": aliased}
    print(f"{'10,000 watches':<30} {'size':>9} {'YAML':>8} {'all':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in shapes.items():
            path = Path(folder) / "agentd.yaml"
            path.write_text(HEAD + "".join(shape(number) for number in range(10_000)))
            yaml_s = timed(lambda path=path: read_document(path))  # type: ignore[misc]  # mypy infers no default
            all_s = timed(lambda path=path: load(path, environment={}))  # type: ignore[misc]  # the same
            size = path.stat().st_size / 2**20
            print(f"{name:<30} {size:>5.1f} MiB {yaml_s:>6.2f} s {all_s:>6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak RSS {peak:.0f} MiB; aim: all < 5 s")


if __name__ == "__main__":
    main()
