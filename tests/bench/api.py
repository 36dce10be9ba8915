"""
The HTTP API under load, beside the APIs of Prometheus and Alertmanager, in the same run: 1,000 requests, 50 at once.

Tasks are posted to a daemon without a model, so that what is measured is taking, keeping and ending them; each is on
disk before it is answered. Alertmanager's alerts are its nearest: posted, and held in memory. `hey` asks from the other
processor, over TCP, with a key whose own rate allows it. Printed: requests a second, p50 and p99, medians of
alternating rounds, and the ratio to the peer; how long it takes until all tasks have ended. Then the same while agentd
makes 500 HTTP checks a second: how late checks begin before and meanwhile.

    python tests/bench/api.py [--rounds 3] [--seconds 10]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from checks import TARGETS, WARM_UP_S, Target, agentd
from processes import SUBJECT_CPU, WORLD_CPU, answers, free_port, median, need, percentile, running, until

from agentd.config.key_hash import make_key

REQUESTS, AT_ONCE, TO_WARM_UP = 1000, 50, 100
ALERT = [{"labels": {"alertname": "Down", "watch": "shop"}, "annotations": {"summary": "no answer"}}]
TASK = {"task": "Look around."}
ENDED_S = 180.0


@dataclass(frozen=True)
class Load:
    """Of one `hey`: requests a second, and of each the milliseconds to its answer."""

    rate: float
    p50_ms: float
    p99_ms: float


def hey(url: str, requests: int = REQUESTS, *, key: str = "", body: Any = None, good: int = 200) -> Load:
    """Ends the bench when any answer has another status than `good`."""
    words = ["hey", "-n", str(requests), "-c", str(AT_ONCE), "-o", "csv"]
    if key:
        words += ["-H", f"Authorization: Bearer {key}"]
    if body is not None:
        words += ["-m", "POST", "-T", "application/json", "-d", json.dumps(body)]
    run = subprocess.run(["taskset", "-c", WORLD_CPU, *words, url], check=True, capture_output=True, text=True)
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    statuses = {row["status-code"] for row in rows}
    if statuses != {str(good)} or len(rows) != requests:
        raise SystemExit(f"{url}: {len(rows)} answers with statuses {statuses}, and not {requests} with {good}")
    times = [float(row["response-time"]) for row in rows]
    lasted = max(float(row["offset"]) + taken for row, taken in zip(rows, times, strict=True))
    return Load(len(rows) / lasted, median(times) * 1000, percentile(times, 0.99) * 1000)


class Agentd:
    """A running daemon over TCP. ended_a_second: tasks, of each load that was posted."""

    def __init__(self, port: int, key: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._key = key
        self.ended_a_second: list[float] = []
        self._client = httpx.Client(base_url=self._url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def loads(self, requests: int = REQUESTS) -> dict[str, Load]:
        found = {
            "status": hey(f"{self._url}/api/v1/status", requests, key=self._key),
            "metrics": hey(f"{self._url}/metrics", requests, key=self._key),
            "health": hey(f"{self._url}/health", requests, key=self._key),
            "watches": hey(f"{self._url}/api/v1/watches", requests, key=self._key),
        }
        began = time.monotonic()
        found["tasks"] = hey(f"{self._url}/api/v1/tasks", requests, key=self._key, body=TASK, good=202)
        self.all_ended()
        self.ended_a_second.append(requests / (time.monotonic() - began))
        return found

    def all_ended(self) -> float:
        """Seconds until no task waits or is under way."""
        return until(lambda: not (self._are("pending") or self._are("in_progress")), "the tasks end", ENDED_S)

    def checks(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.get("/api/v1/status").raise_for_status().json()["checks"]
        return found

    def _are(self, status: str) -> bool:
        time.sleep(0.1)
        answer = self._client.get("/api/v1/tasks", params={"status": status, "limit": "1"}).raise_for_status()
        return bool(answer.json()["tasks"])


@contextlib.contextmanager
def our_daemon(watches: list[dict[str, Any]]) -> Iterator[Agentd]:
    port = free_port()
    token, hashed = make_key("bench")
    plenty = {"requests_per_minute": 1_000_000, "burst_size": 100_000}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = {
            "daemon": {"state_dir": f"{folder}/state", "log_level": "warning", "host_rate": "5000/s"},
            "api": {
                "listen": [f"unix:{folder}/api.sock", f"127.0.0.1:{port}"],
                "keys": [{"name": "bench", "hash": hashed, "scope": "operate", "rate_limiting": plenty}],
            },
            "watches": watches,
        }
        (folder / "agentd.yaml").write_text(json.dumps(config))
        with agentd(folder, folder / "agentd.yaml"):
            yield Agentd(port, token)


@contextlib.contextmanager
def peers() -> Iterator[tuple[str, str]]:
    """Addresses of Prometheus, which watches itself, and of Alertmanager."""
    prometheus, alertmanager = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        itself = {"job_name": "self", "static_configs": [{"targets": [f"127.0.0.1:{prometheus}"]}]}
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [itself]}))
        (folder / "alertmanager.yml").write_text(
            json.dumps({"route": {"receiver": "sink"}, "receivers": [{"name": "sink"}]})
        )
        programs = [
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error"],
            ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am",
             f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=", "--log.level=error"],
        ]  # fmt: skip
        for argv in programs:
            stack.enter_context(running(argv, cpu=SUBJECT_CPU, log=folder / "peers.log"))
        for port in (prometheus, alertmanager):
            until(lambda port=port: answers(port), f"a peer on port {port}")  # type: ignore[misc]
        time.sleep(2)
        yield f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}"


def their_loads() -> dict[str, Load]:
    with peers() as (prometheus, alertmanager):
        return {
            "status": hey(f"{prometheus}/api/v1/query?query=up"),
            "metrics": hey(f"{prometheus}/metrics"),
            "tasks": hey(f"{alertmanager}/api/v2/alerts", body=ALERT),
        }


BESIDE = {
    "status": ("GET /api/v1/status", "Prometheus, GET /api/v1/query"),
    "metrics": ("GET /metrics", "Prometheus, GET /metrics"),
    "tasks": ("POST /api/v1/tasks", "Alertmanager, POST /api/v2/alerts"),
}
ALONE = {"health": "GET /health", "watches": f"GET /api/v1/watches, {TARGETS}"}


def compare(rounds: int) -> None:
    ours: list[dict[str, Load]] = []
    theirs: list[dict[str, Load]] = []
    ended: list[float] = []
    for _ in range(rounds):
        with our_daemon([]) as daemon:
            daemon.loads(TO_WARM_UP)  # what only runs need is loaded with the first of them
            ours.append(daemon.loads())
            ended.append(daemon.ended_a_second[-1])
        theirs.append(their_loads())
    print(
        f"{REQUESTS} requests, {AT_ONCE} at once         requests/s   p50 ms   p99 ms   ratio of requests/s to the peer"
    )
    for what, (our_name, their_name) in BESIDE.items():
        mine, other = ([each[what] for each in side] for side in (ours, theirs))
        ratio = median([a.rate / b.rate for a, b in zip(mine, other, strict=True)])
        _show(f"agentd, {our_name}", mine, f"{ratio:8.2f}")
        _show(their_name, other)
    print(f"  tasks posted and ended, a second     {median(ended):9.0f}")


def _show(title: str, loads: list[Load], more: str = "") -> None:
    rate, p50, p99 = (median([getattr(each, key) for each in loads]) for key in ("rate", "p50_ms", "p99_ms"))
    print(f"  {title:<36} {rate:9.0f} {p50:9.1f} {p99:8.1f} {more}")


def beside_checks(target: Target, rounds: int, seconds: float) -> None:
    watches = [
        {"name": f"t{n}", "every": "1s", "http": {"url": f"http://127.0.0.1:{target.port}/{n}"}}
        | {"expect": ["status == 200"]}
        for n in range(TARGETS)
    ]
    with our_daemon(watches) as daemon:
        time.sleep(WARM_UP_S)
        daemon.loads(TO_WARM_UP)
        time.sleep(seconds)  # what is kept of how late checks began is of the last seconds alone
        before, made, began = daemon.checks(), target.count(), time.monotonic()
        loads: list[dict[str, Load]] = []
        lags: list[Mapping[str, Any]] = []
        for _ in range(rounds):
            loads.append(daemon.loads())
            lags.append(daemon.checks())
        rate = (target.count() - made) / (time.monotonic() - began)
    print(f"\nThe same while {TARGETS} HTTP checks a second are made; {rate:.0f} were made meanwhile")
    for what, (name, _) in BESIDE.items():
        _show(f"agentd, {name}", [each[what] for each in loads])
    for what, name in ALONE.items():
        _show(f"agentd, {name}", [each[what] for each in loads])
    for name, each in (("before", before), ("meanwhile, at most", max(lags, key=lambda lag: lag["lag_p99_ms"]))):
        print(
            f"  how late checks begin, {name:<20} p50 {each['lag_p50_ms']:7.2f} ms   p99 {each['lag_p99_ms']:7.2f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    need("hey", "nginx", "taskset", "prometheus", "prometheus-alertmanager")
    compare(given.rounds)
    with tempfile.TemporaryDirectory() as name:
        target = Target(Path(name))
        nginx = ["nginx", "-c", str(target.config), "-p", name]
        with running(nginx, cpu=WORLD_CPU, log=Path(name) / "nginx.out"):
            until(lambda: answers(target.port), "nginx")
            beside_checks(target, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
