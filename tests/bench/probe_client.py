"""
What one HTTP GET on a new connection costs the client in CPU: raw asyncio streams, the probe transport, httpx.

The server runs in a process of its own on another core. Prints microseconds (user and system time of this process) a
GET, the median of three rounds in which the clients take turns.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable

import uvloop

BODY = b'{"status":"UP","version":"1.2.3"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n" % len(BODY)
) + BODY
GETS = 3000
ROUNDS = 3

Get = Callable[[], Awaitable[None]]


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.transport.write(ANSWER)  # type: ignore[attr-defined]
            self.transport.close()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _measure(get: Get, gets: int) -> float:
    for _ in range(gets // 10):
        await get()
    before = _cpu_s()
    for _ in range(gets):
        await get()
    return (_cpu_s() - before) / gets * 1e6


def _raw(port: int) -> Get:
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

    async def get() -> None:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")

    return get


def _ours(port: int) -> Get:
    from agentd.net import Endpoint, Timings
    from agentd.net.http import open_http

    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    endpoint = Endpoint.of("127.0.0.1", port)

    async def get() -> None:
        timings = Timings()
        async with asyncio.timeout(10):
            connection = await open_http(endpoint, timings, 10)
            try:
                response = await connection.exchange(request, timings, head_only=False, max_body=1 << 20)
            finally:
                connection.abandon()
        assert response.status == 200

    return get


def _probe(port: int) -> Get:
    from agentd.clock import SystemClock
    from agentd.pacing import KeyedBuckets
    from agentd.settings import RateLimit
    from agentd.watch.http import HTTP
    from agentd.watch.probe import ProbeTools

    hosts = KeyedBuckets(RateLimit(1e9, 1))
    tools = ProbeTools(clock=SystemClock(), hosts=hosts, beats=None)  # type: ignore[arg-type]  # not used here
    settings = HTTP.settings.model_validate({"url": f"http://127.0.0.1:{port}/health"})
    probe = HTTP.open(settings, "bench", tools)
    probe.wanted = frozenset({"status", "latency_ms"})  # type: ignore[attr-defined]

    async def get() -> None:
        observation = await probe.look(10)
        assert observation.values["status"] == 200

    return get


def _httpx(port: int) -> Get:
    import httpx

    # Like a probe: a connection of its own for every GET, one context for all.
    client = httpx.AsyncClient(
        verify=False, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0), timeout=10
    )

    async def get() -> None:
        response = await client.get(f"http://127.0.0.1:{port}/health")
        assert response.status_code == 200

    return get


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        uvloop.run(_serve())
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    server = subprocess.Popen(
        ["taskset", "-c", str(cores[-1]), sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        print(f"{'CPU µs per GET':26}{'asyncio':>10}{'uvloop':>10}")
        rows: dict[str, list[float]] = {}
        for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
            clients = {
                "raw asyncio streams": (_raw(port), GETS),
                "probe transport": (_ours(port), GETS),
                "http probe, whole look": (_probe(port), GETS),
                "httpx.AsyncClient": (_httpx(port), GETS // 4),
            }
            measured: dict[str, list[float]] = {name: [] for name in clients}
            with asyncio.Runner(loop_factory=factory) as runner:
                for _ in range(ROUNDS):
                    for name, (get, gets) in clients.items():
                        measured[name].append(runner.run(_measure(get, gets)))
            for name, values in measured.items():
                rows.setdefault(name, []).append(statistics.median(values))
        for name, (plain, fast) in rows.items():
            print(f"{name:26}{plain:10.0f}{fast:10.0f}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
