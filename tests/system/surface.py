"""
A daemon that has something of everything that its API tells of, and a key that may do everything.

In: a stage and a server of models. Out: an address and a key. Watches of several kinds that are well, down, paused and
switched off; alerts that fire, one of them looked into; a silence; messages that were delivered, that wait and that are
dead; tasks that ended and one under way; what is public; a heartbeat and a hook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
from agents import configure, ended, finish, submit, task_of
from around import Target
from log_files import LogFile, any_line, watch
from loopback import free_port
from modelserver import Asked, ModelServer, Reply, call, calls
from stage import Daemon, Stage

from agentd.config.key_hash import make_key

SECRET = "secret-0123456789-of-hook-and-heartbeat"
PLENTY = {"requests_per_minute": 600_000, "burst_size": 100_000}


@dataclass
class Surface:
    """
    url: of TCP. key: of scope admin. target: of the watch `shop`, which is down; well: of the watch of that name.

    task, session: ids of one that has ended and one that is open.
    """

    stage: Stage
    daemon: Daemon
    target: Target
    well: Target
    url: str
    key: str
    task: str = ""
    session: str = ""

    async def ask(self, method: str, path: str, body: Any = None, *, key: bool = True) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if key else {}
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.request(method, self.url + path, json=body, headers=headers)

    async def names(self) -> list[str]:
        """Of what there is: watches, webhooks, hooks, alerts, tasks, runs, silences, messages, numbers of events."""
        found = {"shop", "well", "mail", "switched-off", "disk", "echo", "backup", "app", "review"}
        found |= {"hook", "dead", "deploy", "2", "7"}
        for path, key, field in (
            ("alerts", "alerts", "fingerprint"),
            ("runs", "runs", "id"),
            ("silences", "silences", "id"),
            ("outbox?state=dead", "deliveries", "id"),
        ):
            rows = (await self.ask("GET", f"/api/v1/{path}")).json()[key]
            found |= {str(row[field]) for row in rows[:4]}
        return sorted(found)


async def open_surface(stage: Stage, server: ModelServer) -> Surface:
    """Start it, and wait until all of that is there."""
    target, well = await stage.target(), await stage.target()
    target.status = 503
    dead = await stage.add_hook("dead")
    dead.answers(*[400] * 1000)
    key, hashed = make_key("fuzz")
    url = f"http://127.0.0.1:{(port := free_port())}"
    log = LogFile(stage.folder / "app.log")
    server.otherwise = _Model()
    configure(
        stage,
        server,
        _watches(target.url, well.url, log),
        api={
            "listen": [f"unix:{stage.folder}/api.sock", f"127.0.0.1:{port}"],
            "keys": [{"name": "fuzz", "hash": hashed, "scope": "admin", "rate_limiting": PLENTY}],
            "hooks": {"deploy": {"secret": SECRET, "rate": "1000/s"}},
        },
        defaults={"every": "1s", "timeout": "5s", "fail_after": 1, "recover_after": 1},
        budgets={"daemon_per_day": {"usd": 100}},
        alerting={"notify": ["hook", "dead"]},
    )
    daemon = await stage.start()
    found = Surface(stage, daemon, target, well, url, key)
    log.write("ERROR the disk is full", "WARN slow")
    await stage.hook.message("alert.firing", watch="shop")
    await daemon.logged("delivery_refused")
    await _live(found)
    return found


async def _live(surface: Surface) -> None:
    """What a person does in a morning."""
    stage = surface.stage
    surface.task = await submit(stage, "Look around.", task_id="look-around", metadata={"ticket": 7})
    await task_of(stage, surface.task)
    surface.session = await submit(stage, "Stay here.", task_id="stay-here", session=True)
    for path, body in (
        ("/api/v1/watches/mail/pause", {"reason": "they move"}),
        ("/api/v1/silences", {"matchers": ["watch=other"], "for_s": 3600, "reason": "known"}),
        ("/api/v1/alerts/ack", {"alerts": ["shop"], "comment": "on it"}),
        ("/api/v1/tasks/batch", {"tasks": [{"task": "One."}, {"task": "Two."}], "mode": "sequential"}),
        ("/api/v1/watches/review/check", {}),
    ):
        answer = await surface.ask("POST", path, body)
        assert answer.is_success, (path, answer.text)
    await ended(stage, watch="shop")
    await stage.cli("silence", "list")


class _Model:
    """Answers every run with a look into the folder, then with a finding; a session it answers for ever."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count()

    async def __call__(self, asked: Asked) -> Reply:
        await asyncio.sleep(0)
        if next(self._numbers) % 2 and "list_files" in asked.tools:
            return calls(call("list_files", path="."))
        return finish() if "finish" in asked.tools else Reply("All is well.")


def _watches(down: str, well: str, log: LogFile) -> list[dict[str, Any]]:
    return [
        {
            "name": "shop",
            "description": "Where people buy.",
            "http": {"url": down},
            "expect": ["status == 200"],
            "public": True,
            "severity": "critical",
            "labels": {"team": "web"},
            "investigate": "Find out why the shop is down.",
        },
        {"name": "well", "http": {"url": well}, "expect": ["status == 200"], "public": True},
        {"name": "mail", "tcp": {"host": "127.0.0.1", "port": 1}},
        {"name": "switched-off", "tcp": {"host": "127.0.0.1", "port": 1}, "enabled": False},
        {"name": "disk", "host": {"disk": "/"}, "expect": ["disk.used_percent < 200"]},
        {"name": "echo", "command": {"argv": ["echo", "hello"]}, "expect": ["stdout == 'hello\\n'"]},
        {"name": "backup", "heartbeat": {"expect_every": "1h", "token": SECRET}},
        watch(log.path, any_line("errors", "^ERROR (?P<what>.*)$", by=["what"])),
        {"name": "review", "goal": "Look at the day.", "on": ["hook:deploy"]},
    ]
