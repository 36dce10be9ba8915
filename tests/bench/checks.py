"""
500 HTTP checks a second: agentd beside Prometheus + blackbox_exporter + Alertmanager, in the same run.

Both look at the same nginx (one worker, on the other processor), new connection each, and would alert. agentd also
judges three conditions, keeps history and traces. Printed: CPU time per check and RSS over all processes, medians of
alternating rounds; then what only agentd can be asked: idle RSS, start to READY, schedule lag, alert latency.

    python tests/bench/checks.py [--rounds 3] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import (
    SUBJECT_CPU,
    WORLD_CPU,
    answers,
    cpu_s,
    free_port,
    median,
    need,
    percentile,
    rss_mib,
    running,
    until,
)

TARGETS = 500
WARM_UP_S = 8.0
AGENTD = [sys.executable, "-m", "agentd"]


@dataclass(frozen=True)
class Round:
    """CPU microseconds a check, RSS in MiB of all processes, checks a second that were really made."""

    cpu_us: float
    rss_mib: float
    rate: float

    def __str__(self) -> str:
        return f"{self.cpu_us:.0f} us, {self.rss_mib:.0f} MiB, {self.rate:.0f}/s"


class Target:
    """nginx with one worker that answers a small JSON document and counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.config = folder / "nginx.conf"
        self.config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location = /count {{ stub_status; }}
    location / {{ default_type application/json; return 200 '{{"status": "UP", "version": "1.2.3"}}'; }}
  }}
}}
""")

    def count(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count") as answer:
            return int(re.findall(rb"\d+", answer.read())[3])


def measure(target: Target, pids: list[int], seconds: float) -> Round:
    time.sleep(WARM_UP_S)
    count, cpu, began = target.count(), sum(map(cpu_s, pids)), time.monotonic()
    time.sleep(seconds)
    checks = target.count() - count - 1
    used, lasted = sum(map(cpu_s, pids)) - cpu, time.monotonic() - began
    return Round(used / checks * 1e6, sum(map(rss_mib, pids)), checks / lasted)


def agentd_config(folder: Path, watches: str, *, webhooks: str = "", more: str = "") -> Path:
    path = folder / "agentd.yaml"
    path.write_text(f"""
daemon: {{state_dir: {folder}/state, log_level: warning, host_rate: 5000/s}}
api: {{listen: ["unix:{folder}/api.sock"]}}
{webhooks or "webhooks: {sink: {url: 'http://127.0.0.1:9/'}}"}
alerting: {{notify: [sink]}}
{more}
watches:
{watches}
""")
    return path


@contextlib.contextmanager
def agentd(folder: Path, config: Path) -> Iterator[tuple[int, float]]:
    """A running agentd: its pid, and seconds from start to READY."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(60)
        began = time.monotonic()
        environment = {"NOTIFY_SOCKET": str(folder / "notify")}
        with running(
            [*AGENTD, "run", "-c", str(config)], cpu=SUBJECT_CPU, log=folder / "agentd.log", env=environment
        ) as process:
            while b"READY=1" not in notify.recv(4096):
                pass
            ready_s = time.monotonic() - began
            try:
                yield process.pid, ready_s
            finally:
                (folder / "notify").unlink()


def status(folder: Path) -> dict[str, Any]:
    import httpx

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "api.sock"))) as client:
        answer: dict[str, Any] = client.get("http://agentd/api/v1/status").json()
        return answer


def measure_agentd(target: Target, seconds: float) -> Round:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expect = "['status == 200', 'body.status == \"UP\"', 'latency_ms < 2000']"
        watches = "\n".join(
            f"  - {{name: t{n}, every: 1s, http: {{url: 'http://127.0.0.1:{target.port}/{n}'}}, expect: {expect}}}"
            for n in range(TARGETS)
        )
        with agentd(folder, agentd_config(folder, watches)) as (pid, _):
            return measure(target, [pid], seconds)


def measure_peers(target: Target, seconds: float) -> Round:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        prometheus, blackbox, alertmanager = free_port(), free_port(), free_port()
        (folder / "blackbox.yml").write_text(
            "modules: {http_2xx: {prober: http, timeout: 5s, http: {preferred_ip_protocol: ip4}}}\n"
        )
        (folder / "alertmanager.yml").write_text(
            "route: {receiver: sink, group_wait: 0s}\n"
            "receivers: [{name: sink, webhook_configs: [{url: 'http://127.0.0.1:9/'}]}]\n"
        )
        (folder / "rules.yml").write_text(
            "groups: [{name: probes, interval: 1s, rules: [{alert: Down, expr: probe_success == 0}]}]\n"
        )
        targets = [f"http://127.0.0.1:{target.port}/{n}" for n in range(TARGETS)]
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": ["rules.yml"],
                    "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
                    "scrape_configs": [
                        {
                            "job_name": "probes",
                            "metrics_path": "/probe",
                            "params": {"module": ["http_2xx"]},
                            "static_configs": [{"targets": targets}],
                            "relabel_configs": [
                                {"source_labels": ["__address__"], "target_label": "__param_target"},
                                {"source_labels": ["__param_target"], "target_label": "instance"},
                                {"target_label": "__address__", "replacement": f"127.0.0.1:{blackbox}"},
                            ],
                        }
                    ],
                }
            )
        )
        programs = [
            ["prometheus-blackbox-exporter", f"--config.file={folder}/blackbox.yml",
             f"--web.listen-address=127.0.0.1:{blackbox}", "--log.level=error"],
            ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am",
             f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address=", "--log.level=error"],
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{prometheus}", "--log.level=error"],
        ]  # fmt: skip
        pids = [stack.enter_context(running(argv, cpu=SUBJECT_CPU, log=folder / "peers.log")).pid for argv in programs]
        for port in (blackbox, alertmanager, prometheus):
            until(lambda port=port: answers(port), f"a peer on port {port}")  # type: ignore[misc]
        return measure(target, pids, seconds)


def measure_idle() -> tuple[float, list[float]]:
    """RSS of an idle daemon without a TCP listener after half a minute, and start to READY of five starts."""
    starts = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = agentd_config(folder, "  - {name: disk, every: 5s, host: {disk: /}}")
        for _ in range(4):
            with agentd(folder, config) as (_, ready_s):
                starts.append(ready_s)
        with agentd(folder, config) as (pid, ready_s):
            time.sleep(30)
            return rss_mib(pid), [*starts, ready_s]


def measure_lag(target: Target, seconds: float) -> tuple[dict[str, Any], float]:
    """Schedule lag as agentd's own status says it, at 1,000 checks a second; and the checks really made a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watches = "\n".join(
            f"  - {{name: t{n}, every: 1s, tcp: {{host: 127.0.0.1, port: {target.port}}}}}" for n in range(1000)
        )
        with agentd(folder, agentd_config(folder, watches)):
            time.sleep(WARM_UP_S)
            before, began = status(folder)["checks"]["done"], time.monotonic()
            time.sleep(seconds)
            checks = status(folder)["checks"]
            return checks, (checks["done"] - before) / (time.monotonic() - began)


def measure_alert_latency(flips: int) -> list[float]:
    """
    Milliseconds from the moment a target gave its failing answer to the moment the webhook was received.

    The target and the receiver are this process, on the other processor.
    """
    failed_at: dict[str, float] = {}
    latencies: list[float] = []
    down: set[str] = set()

    async def serve() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                path = head.split(" ")[1]
                status = 200
                if path == "/hook":
                    message = json.loads(body)
                    if message["type"] == "alert.firing":
                        latencies.append((time.monotonic() - failed_at[message["data"]["watch"]]) * 1000)
                elif (name := path.strip("/")) in down:
                    status = 503
                    failed_at.setdefault(name, time.monotonic())
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            watches = "\n".join(
                f"  - {{name: t{n}, every: 200ms, fail_after: 1, http: {{url: 'http://127.0.0.1:{port}/t{n}'}}}}"
                for n in range(flips)
            )
            hook = f"webhooks: {{sink: {{url: 'http://127.0.0.1:{port}/hook'}}}}"
            config = agentd_config(folder, watches, webhooks=hook)
            manager = agentd(folder, config)
            await asyncio.to_thread(manager.__enter__)
            try:
                await asyncio.sleep(2)
                for n in range(flips):
                    down.add(f"t{n}")
                    await asyncio.sleep(0.1)
                async with asyncio.timeout(20):
                    while len(latencies) < flips:
                        await asyncio.sleep(0.05)
            finally:
                await asyncio.to_thread(manager.__exit__, None, None, None)
        server.close()

    os.sched_setaffinity(0, {int(WORLD_CPU)})
    asyncio.run(serve())
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=["peers", "own"], help="leave the other half out")
    options = parser.parse_args()
    need("nginx", "taskset", "prometheus", "prometheus-blackbox-exporter", "prometheus-alertmanager")
    with tempfile.TemporaryDirectory() as name:
        target = Target(Path(name))
        nginx = ["nginx", "-c", str(target.config), "-p", name]
        with running(nginx, cpu=WORLD_CPU, log=Path(name) / "nginx.out"):
            until(lambda: answers(target.port), "nginx")
            if options.only != "own":
                compare(target, options.rounds, options.seconds)
            if options.only != "peers":
                report_own(target, options.seconds)


def compare(target: Target, rounds: int, seconds: float) -> None:
    ours, theirs = [], []
    for number in range(rounds):
        ours.append(measure_agentd(target, seconds))
        theirs.append(measure_peers(target, seconds))
        print(f"round {number + 1}: agentd {ours[-1]}; peers {theirs[-1]}", flush=True)
    print(f"\n{TARGETS} HTTP checks a second                     CPU a check   RSS       made")
    for label, found in (("agentd", ours), ("Prometheus + blackbox + Alertmanager", theirs)):
        cpu, rss, rate = (median([getattr(each, key) for each in found]) for key in ("cpu_us", "rss_mib", "rate"))
        print(f"  {label:<38} {cpu:8.0f} us  {rss:6.1f} MiB  {rate:5.0f}/s")
    cpu = median([a.cpu_us / b.cpu_us for a, b in zip(ours, theirs, strict=True)])
    rss = median([a.rss_mib / b.rss_mib for a, b in zip(ours, theirs, strict=True)])
    print(f"  {'ratio':<38} {cpu:8.2f}     {rss:6.2f}\n")


def report_own(target: Target, seconds: float) -> None:
    idle, starts = measure_idle()
    lag, rate = measure_lag(target, seconds)
    latencies = measure_alert_latency(40)
    print("agentd alone")
    print(f"  idle RSS, no TCP listener              {idle:8.1f} MiB")
    print(f"  start to READY, median of {len(starts)}            {median(starts):8.2f} s")
    print(f"  schedule lag at {rate:.0f} checks/s, p50       {lag['lag_p50_ms']:8.2f} ms")
    print(f"                                    p99  {lag['lag_p99_ms']:8.2f} ms")
    print(f"  failed answer to webhook received, p50 {median(latencies):8.1f} ms")
    print(f"                                    p99  {percentile(latencies, 0.99):8.1f} ms")


if __name__ == "__main__":
    main()
