"""
agentd's agent in its real agent host, a process of its own, with events, records and money over the wire.

CPU and memory are the host's; this process, which stands for the daemon, says its own CPU beside them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from our_agent import Desk, settings
from subject import GOAL, cpu_s

from agentd.agent.caller import Call
from agentd.agent.job import Job, Limits, Permissions
from agentd.agent.port import Record
from agentd.daemon.runs.host import AgentHost

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Answering(Desk):
    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        return [f"{args['query']}: nothing is known"]


def host_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def host_rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Runs:
    def __init__(self, host: AgentHost, url: str) -> None:
        self.host = host
        self.url = url
        self.records = self.events = self.begun = 0

    def _record(self, record: Record, size: int) -> None:
        self.records += 1

    def _event(self, event: Mapping[str, Any], size: int) -> None:
        self.events += 1

    async def pursue(self, model: str) -> None:
        self.begun += 1
        job = Job(
            run=f"run-{self.begun}",
            goal=GOAL,
            model="scripted",
            models={"scripted": settings(model, self.url)},
            permissions=Permissions(tools=("query_memory",)),
            limits=Limits(time_s=600),
        )
        wire = await self.host.connect()
        try:
            outcome = await Call(wire, job, Answering(), record=self._record, event=self._event).run()
        finally:
            self.host.done()
        assert outcome.state == "completed", outcome

    async def many(self, model: str, goals: int, at_once: int) -> dict[str, float]:
        free = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with free:
                await self.pursue(model)

        await one()  # the host is there, and warm
        pid = self.host.pid
        assert pid is not None
        records, events, cpu, own, began = self.records, self.events, host_cpu_s(pid), cpu_s(), time.monotonic()
        rss = host_rss_mib(pid)
        await asyncio.gather(*(one() for _ in range(goals)))
        assert self.host.pid == pid, "the host ended meanwhile"
        return {
            "cpu_s": host_cpu_s(pid) - cpu,
            "own_cpu_s": cpu_s() - own,
            "wall_s": time.monotonic() - began,
            "rss_then_mib": rss,
            "rss_mib": host_rss_mib(pid),
            "records": (self.records - records) / goals,
            "events": (self.events - events) / goals,
        }


async def serve(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = AgentHost(Path(folder), lambda: os.environ, options=("--runs", "1000000", "--log-level", "warning"))
        print("ready", flush=True)
        try:
            runs = Runs(host, url)
            loop = asyncio.get_running_loop()
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                print(json.dumps(await runs.many(**json.loads(line))), flush=True)
        finally:
            await host.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
