"""What agents read, quoted and were asked stays on the machine: over TCP anybody who reaches the port may read."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from test_api import Fake

from agentd.api.abridged import abridged_alert_page, abridged_message, abridged_templates
from agentd.api.app import Parts
from agentd.api.door import Door
from agentd.api.server import make_servers, open_socket
from agentd.api.service import Json
from agentd.api.tasks import Message, TaskAsked, TaskService
from agentd.config.service import ApiSettings

SECRET = "root:x:0:0"
FINDING = {
    "status": "problem",
    "severity": "warning",
    "summary": "the disk is full",
    "confidence": 0.7,
    "claims": [{"text": SECRET, "evidence": ["E1"], "quotes": [SECRET]}],
    "next_steps": [SECRET],
}


class Alerting(Fake):
    """One alert, which an agent looked into, and a message about it in a group."""

    async def alerts(self, *, everything: bool) -> list[Json]:
        return [{"watch": "shop", "state": "firing", "severity": "warning", "finding": FINDING}]

    async def delivery(self, identity: str) -> Json:
        return {"id": identity, "data": {"finding": None, "alerts": [{"watch": "shop", "finding": FINDING}]}}


class Asked:
    """Tasks whose record and answers hold what nobody else should see."""

    def __init__(self) -> None:
        self.asked = 0

    async def _record(self) -> Json:
        self.asked += 1
        return {"id": "run_1", "record": [SECRET]}

    async def submit(self, asked: TaskAsked, *, by: str) -> Json:
        return await self._record()

    async def task(self, id: str) -> Json:
        return await self._record()

    async def cancel(self, id: str, *, by: str) -> Json:
        return await self._record()

    async def say(self, id: str, message: Message, *, by: str) -> Json:
        return await self._record()

    async def events(self, id: str, after: int) -> AsyncIterator[Json]:
        yield {"seq": 1, "event": "ToolExecutionEnd", "output": SECRET}

    async def runs(self, *, watch: str | None, state: str | None, limit: int, before: str | None = None) -> list[Json]:
        return [
            {"id": "run_1", "watch": "shop", "goal": "why?", "status": "problem", "summary": "the disk is full"},
            {"id": "run_2", "watch": "shop", "goal": "why?", "status": None, "summary": SECRET},
            {"id": "run_3", "watch": "task", "goal": SECRET, "status": "ok", "summary": SECRET},
        ]

    async def run(self, id: str, after: int = -1) -> Json:
        return await self._record()

    async def tools(self) -> list[Json]:
        return []

    async def models(self) -> list[Json]:
        return []


@dataclass
class Doors:
    tasks: Asked
    local: httpx.AsyncClient
    tcp: httpx.AsyncClient


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    tasks = Asked()
    sockets = [open_socket(f"unix:{tmp_path}/api.sock"), open_socket("127.0.0.1:0")]
    port = sockets[1].getsockname()[1]
    servers = make_servers(
        Parts(Alerting(), cast(TaskService, tasks)),
        sockets,
        Door(ApiSettings(), names={"127.0.0.1"}, own_uid=os.geteuid()),
    )
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await server.start()
        stack.push_async_callback(lambda: asyncio.gather(*(server.stop() for server in servers)))
        transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/api.sock")
        local = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://agentd"))
        tcp = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
        yield Doors(tasks, local, tcp)


RECORDS = ["/api/v1/runs/run_1", "/api/v1/tasks/run_1", "/api/v1/tasks/run_1/events", "/api/v1/%72uns/run_1"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", RECORDS)
async def test_a_record_is_not_shown_over_tcp(doors: Doors, method: str, path: str) -> None:
    """It holds contents of files and output of commands, which the agent may read and a stranger may not."""
    answer = await doors.tcp.request(method, path)

    assert answer.status_code == 401
    assert doors.tasks.asked == 0
    if method == "GET":
        assert "or use the command line on the machine" in answer.json()["detail"]


@pytest.mark.parametrize("path", RECORDS)
async def test_the_unix_socket_shows_the_record(doors: Doors, path: str) -> None:
    """Its permissions have let the caller in, and the command line lives by it."""
    answer = await doors.local.get(path)

    assert answer.status_code == 200
    assert SECRET in answer.text


async def test_over_tcp_runs_are_listed_without_questions_and_answers(doors: Doors) -> None:
    """That runs are made, how they end and what they cost is for dashboards; what people ask is not."""
    over_tcp, here = await doors.tcp.get("/api/v1/runs"), await doors.local.get("/api/v1/runs")

    assert [run["summary"] for run in over_tcp.json()["runs"]] == ["the disk is full", None, None]
    assert [run["goal"] for run in over_tcp.json()["runs"]] == ["why?", "why?", None]
    assert SECRET not in over_tcp.text
    assert [run["summary"] for run in here.json()["runs"]] == ["the disk is full", SECRET, SECRET]


@pytest.mark.parametrize("path", ["/api/v1/alerts", "/api/v1/outbox/msg_1"])
async def test_over_tcp_a_finding_is_one_sentence(doors: Doors, path: str) -> None:
    """Its quotes are of whatever the agent read."""
    over_tcp, here = await doors.tcp.get(path), await doors.local.get(path)

    assert "the disk is full" in over_tcp.text
    assert SECRET not in over_tcp.text
    assert SECRET in here.text


def test_what_has_no_finding_is_left_as_it_is() -> None:
    """Most alerts; and messages of other shapes than ours."""
    from agentd.api.abridged import abridged_alert, abridged_message

    views: list[dict[str, Any]] = [{"finding": None}, {}, {"data": None}, {"data": {"alerts": [{"finding": None}]}}]

    assert [abridged_alert(view) for view in views] == views
    assert [abridged_message(view) for view in views] == views


def test_of_a_log_the_kinds_of_lines_are_shown_and_no_line() -> None:
    """Who may read the log is for the file's permissions to say."""
    view = {"watch": "ssh", "templates": [{"id": "1", "template": "Failed password for <*>", "samples": [SECRET]}]}

    assert abridged_templates(view) == {
        "watch": "ssh",
        "templates": [{"id": "1", "template": "Failed password for <*>", "samples": []}],
    }
    page = {"fingerprint": "f", "finding": None, "evidence": [{"line": SECRET}], "history": [], "runs": []}
    assert SECRET not in str(abridged_alert_page(page))
    assert SECRET not in str(abridged_message({"data": {"evidence": [{"line": SECRET}], "alerts": []}}))
