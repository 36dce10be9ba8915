"""
The real Alertmanager and we, fed the same alerts, tell the same things in the same order.

Both are driven by what they tell: the next step comes when the message that the step before calls for is there. So
Alertmanager may run in real time with short intervals, and we under a fake clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from loopback import free_port
from opentelemetry.trace import NoOpTracer
from receiver import Receiver

from agentd.alert.flapping import FlappingSettings
from agentd.alert.lifecycle import Policy
from agentd.alert.routing import Routing
from agentd.memory import outbox
from agentd.memory.store import Store
from agentd.pipeline import Pipeline, open_watch
from agentd.records import Observation
from agentd.testing import FakeClock

needs_alertmanager = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None, reason="prometheus-alertmanager is not installed"
)

NAMES = "abcdef"
WAIT_S, INTERVAL_S, REPEAT_S = 0.3, 0.6, 2.4
"""Alertmanager's; ours are ten times as long."""
SLOWER = 10


class Told(NamedTuple):
    firing: frozenset[str]
    resolved: frozenset[str]


Step = tuple[str, ...]
"""`+a` fires, `-a` resolves, in this order; then a message is due."""

STORY: tuple[Step, ...] = (
    ("+a",),  # first firing
    ("+b",),  # new member
    ("-b",),  # new resolve
    (),  # repeat
    ("+c", "-c"),  # came and went while a fires
    ("+b", "+c"),
    ("-a", "-b", "-c"),  # all clear
    ("+d", "-d", "+e"),  # came and went before the first look at a new group
    ("-e",),
    ("+a",),  # fires again
    ("-a",),
)


def random_story(seed: int) -> tuple[Step, ...]:
    """Steps of which each calls for a message: a new firing, or the end of one that was told."""
    dice = random.Random(seed)
    told: set[str] = set()
    steps: list[Step] = []
    for _ in range(8):
        over = {name for name in sorted(told) if dice.random() < 0.4}
        new = {name for name in NAMES if name not in told and dice.random() < 0.3}
        brief = [name for name in NAMES if name not in told | new and dice.random() < 0.2]
        if not over | new:
            new = {dice.choice([name for name in NAMES if name not in told])} if len(told) < len(NAMES) else set()
            over = over if new else {min(told)}
        actions = [f"-{name}" for name in sorted(over)] + [f"+{name}" for name in sorted(new)]
        dice.shuffle(actions)
        for name in brief:
            if name not in new:
                actions = [f"+{name}", f"-{name}", *actions]
        steps.append(tuple(actions))
        told = (told - over) | new
    return tuple(steps)


class Alertmanager:
    def __init__(self, port: int, receiver: Receiver) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v2/alerts"
        self._receiver = receiver
        self._began: dict[str, str] = {}
        self.client = httpx.AsyncClient(trust_env=False)

    async def do(self, action: str) -> None:
        name = action[1]
        now = datetime.now(UTC).isoformat()
        alert: dict[str, Any] = {"labels": {"alertname": name, "zone": "dmz"}}
        if action[0] == "+":
            self._began[name] = now
        else:
            alert["endsAt"] = now
        alert["startsAt"] = self._began[name]
        (await self.client.post(self._url, json=[alert])).raise_for_status()

    async def message(self, number: int) -> Told:
        await self._receiver.wait_for(number)
        alerts = json.loads(self._receiver.requests[number - 1].body)["alerts"]
        return told_of((alert["labels"]["alertname"], alert["status"] == "firing") for alert in alerts)


def told_of(pairs: Any) -> Told:
    alerts = dict(pairs)
    return Told(
        frozenset(name for name, firing in alerts.items() if firing),
        frozenset(name for name, firing in alerts.items() if not firing),
    )


@asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[Alertmanager]:
    async with Receiver() as receiver:
        port = free_port()
        config = {
            "route": {
                "receiver": "us",
                "group_by": ["zone"],
                "group_wait": f"{WAIT_S * 1000:.0f}ms",
                "group_interval": f"{INTERVAL_S * 1000:.0f}ms",
                "repeat_interval": f"{REPEAT_S * 1000:.0f}ms",
            },
            "receivers": [{"name": "us", "webhook_configs": [{"url": receiver.url, "send_resolved": True}]}],
        }
        (folder / "am.yml").write_text(json.dumps(config))
        process = await asyncio.create_subprocess_exec(
            "prometheus-alertmanager",
            f"--config.file={folder}/am.yml",
            f"--storage.path={folder}/am",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        theirs = Alertmanager(port, receiver)
        try:
            assert process.stderr is not None
            while b"Listening on" not in (line := await process.stderr.readline()):
                assert line, "Alertmanager ended at its start"
            yield theirs
        finally:
            await theirs.client.aclose()
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()


class _Probe:
    async def look(self, timeout_s: float) -> Observation:
        return Observation(error="down" if self.failing else None)

    failing = False

    async def close(self) -> None:
        pass


async def ours(folder: Path, clock: FakeClock, story: Sequence[Step]) -> list[Told]:
    """The same with us: checks that fail at once, groups by zone, a look each second."""
    store = await Store.open(folder, clock=clock)
    watching = lambda: store.pending > 0  # noqa: E731  # removed below by identity
    clock.busy.append(watching)
    try:
        pipeline = Pipeline(
            state=store.state,
            clock=clock,
            instance="web-1",
            tracer=NoOpTracer(),
            record=lambda result: None,
            told=lambda: None,
        )
        pipeline.routing = Routing(
            group_by=("zone",),
            wait=timedelta(seconds=WAIT_S * SLOWER),
            interval=timedelta(seconds=INTERVAL_S * SLOWER),
        )
        pipeline.flapping = FlappingSettings(start=100, end=100)
        await pipeline.load()
        probes = {name: _Probe() for name in NAMES}
        policy = Policy(
            needed=1,
            of=1,
            recover_after=1,
            labels={"zone": "dmz"},
            remind_every=timedelta(seconds=REPEAT_S * SLOWER),
            remind_doubling=False,
        )
        for name, probe in probes.items():
            watch = open_watch(name, "fake", probe, (), policy, instance="web-1", notify=("us",), timeout_s=10)
            pipeline.watches[name] = watch
        messages: list[Told] = []
        for step in story:
            for action in step:
                probes[action[1]].failing = action[0] == "+"
                await pipeline.check(pipeline.watches[action[1]])  # type: ignore[arg-type]  # all are probes
            before = len(messages)
            for _ in range(60):
                await clock.advance(1)
                await pipeline.look()
                rows = await store.state.read(lambda c: outbox.rows(c, limit=1000))
                messages = [_told(json.loads(row.delivery.data)) for row in rows]
                if len(messages) > before:
                    break
            assert len(messages) == before + 1, f"step {step}: one message is due"
        return messages
    finally:
        clock.busy.remove(watching)
        await store.close()


def _told(data: dict[str, Any]) -> Told:
    alerts = data.get("alerts", [data])
    return told_of((alert["watch"], alert["state"] == "firing") for alert in alerts)


async def theirs(folder: Path, story: Sequence[Step]) -> list[Told]:
    async with alertmanager(folder) as real:
        messages = []
        for number, step in enumerate(story, 1):
            for action in step:
                await real.do(action)
            messages.append(await real.message(number))
        return messages


@needs_alertmanager
@pytest.mark.parametrize("story", [STORY, random_story(1), random_story(2)], ids=["by hand", "random 1", "random 2"])
def test_each_receiver_gets_the_same_messages(story: tuple[Step, ...], tmp_path: Path) -> None:
    """Grouping is where monitors differ in small ways that people stumble over; operators know Alertmanager's."""
    real = asyncio.run(theirs(tmp_path, story))

    clock = FakeClock()
    assert clock.run(ours(tmp_path, clock, story)) == real
