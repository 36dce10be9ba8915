"""What agents read, quoted and were asked stays on the machine: over TCP anybody who reaches the port may read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from test_api import Fake

from agentd.api.abridged import (
    abridged_alert,
    abridged_alert_page,
    abridged_delivery,
    abridged_event,
    abridged_message,
    abridged_templates,
    abridged_watch,
    abridged_watch_row,
)
from agentd.api.door import Door
from agentd.api.parts import Parts
from agentd.api.ring import Ring
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


def log_alert(**changed: Any) -> Json:
    """As a rule of a log raised it: words of lines stand in many places."""
    alert: Json = {
        "watch": "ssh",
        "rule": "bruteforce",
        "by": {"user": SECRET},
        "state": "firing",
        "severity": "warning",
        "summary": f"bruteforce from user {SECRET}: Failed password for {SECRET}",
        "reason_text": "5 lines within 10m",
        "values": {"user": SECRET},
        "occurrences": 5,
        "finding": None,
    }
    return alert | changed


def log_watch() -> Json:
    return {"name": "ssh", "kind": "log", "verdict": "failing", "summary": f"bruteforce: {SECRET}", "log": {"lines": 5}}


def delivery() -> Json:
    lane = json.dumps({"user": SECRET, "watch": "ssh"})
    return {"id": "msg_1", "lane": lane, "last_error": f"answered 500: {SECRET}", "last_status": 500}


class Alerting(Fake):
    """One alert, which an agent looked into, and a message about it in a group."""

    async def alerts(self, *, everything: bool) -> list[Json]:
        shop = {"watch": "shop", "state": "firing", "severity": "warning", "finding": FINDING}
        return [shop, log_alert()]

    async def watches(self) -> list[Json]:
        return [log_watch()]

    async def outbox(self, *, state: str | None, webhook: str | None, limit: int) -> Json:
        return {"deliveries": [delivery()]}

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


def test_of_an_alert_of_a_log_the_rule_and_the_number_of_lines_are_shown() -> None:
    """A line may hold a password that somebody typed for a name; that five of them came is for dashboards."""
    alert = abridged_alert(log_alert())

    assert SECRET not in str(alert)
    assert alert["summary"] == "bruteforce: 5 lines within 10m"
    assert alert["by"] == {"user": "…"}
    assert alert["occurrences"] == 5


def test_a_log_that_cannot_be_read_says_why() -> None:
    """That is what agentd says, and no line; and what a probe saw is a sentence of ours too."""
    blind = log_alert(rule="blind", summary="cannot look: no such file", by={})
    probe = log_alert(rule=None, summary="status == 200 does not hold (status = 503)", by={}, values={"status": 503})

    assert abridged_alert(blind) == blind
    assert abridged_alert(probe) == probe


def test_an_alert_alone_is_shown_without_lines_in_its_history_messages_and_watch() -> None:
    event = {"run": None, "rule": "bruteforce", "summary": f"bruteforce: {SECRET}", "reason_text": "one line"}
    page = log_alert(
        evidence=[{"line": SECRET}], runs=[], history=[event], deliveries=[delivery()], watch_view=log_watch()
    )

    shown = abridged_alert_page(page)

    assert SECRET not in str(shown)
    assert shown["history"][0]["summary"] == "bruteforce: one line" == abridged_event(event)["summary"]
    assert shown["deliveries"][0]["last_error"] == "answered 500"
    assert shown["watch_view"]["summary"] == "a rule fires"


def test_of_a_log_alone_no_line_is_shown() -> None:
    view = log_watch() | {"check": {"verdict": "failing", "summary": SECRET, "values": {}}, "alerts": [log_alert()]}

    assert SECRET not in str(abridged_watch(view))


def test_what_a_job_says_of_its_failure_is_not_shown() -> None:
    """A script sends what it likes, such as its output."""
    said = f"the job reported failure: {SECRET}\nand more {SECRET}"
    check = {"verdict": "failing", "summary": said, "values": {"beats": 3, "message": SECRET}}
    row = {"name": "backup", "kind": "heartbeat", "verdict": "failing", "summary": said}
    alert = {"watch": "backup", "rule": None, "summary": f"ok again; it was: {said}", "finding": None}

    watch = abridged_watch(row | {"check": check})

    assert watch["summary"] == watch["check"]["summary"] == "the job reported failure"
    assert watch["check"]["values"] == {"beats": 3}
    assert abridged_alert(alert)["summary"] == "ok again; it was: the job reported failure"
    assert abridged_event({"run": None, "rule": None, "summary": said})["summary"] == "the job reported failure"
    quiet = {"name": "backup", "kind": "heartbeat", "verdict": "failing", "summary": "no heartbeat for 2h"}
    assert abridged_watch_row(quiet) == quiet


def test_a_message_is_shown_without_words_of_a_log_and_without_the_receivers_answer() -> None:
    """Groups and labels are made of words of lines too."""
    told = log_alert(labels={"user": SECRET}, evidence=[{"line": SECRET}])
    del told["by"]
    group = {"group": {"watch": "ssh", "user": SECRET}, "alerts": [told]}

    for data in (told, group):
        shown = abridged_message(delivery() | {"data": data})
        assert SECRET not in str(shown)
        assert "5 lines within 10m" in str(shown)
        assert json.loads(shown["lane"]) == {"user": "…", "watch": "ssh"}
    assert group["group"] == {"watch": "ssh", "user": SECRET}


def test_what_was_never_answered_says_so_much() -> None:
    """The error may name the receiver's address, which is a secret as a rule."""
    assert abridged_delivery({"last_error": SECRET, "last_status": None}) == {
        "last_error": "not sent",
        "last_status": None,
    }
    assert abridged_delivery({"last_error": None, "lane": "l"}) == {"last_error": None, "lane": "l"}


@pytest.mark.parametrize("path", ["/api/v1/watches", "/api/v1/outbox", "/api/v1/alerts"])
async def test_over_tcp_lists_are_without_words_of_a_log_and_answers_of_receivers(doors: Doors, path: str) -> None:
    over_tcp, here = await doors.tcp.get(path), await doors.local.get(path)

    assert over_tcp.status_code == 200
    assert SECRET not in over_tcp.text
    assert SECRET in here.text


async def test_what_happens_is_told_without_words_of_a_log() -> None:
    ring = Ring()
    heard = {known: ring.listen(f"{ring.life}-0", known=known) for known in (True, False)}
    event = {"name": "ssh", "kind": "log", "verdict": "failing", "alert": "firing", "summary": SECRET}
    ring.tell("watch", event)
    ring.tell("alert", log_alert())

    said = {known: [await anext(pieces) for _ in range(2)][1] for known, pieces in heard.items()}

    assert SECRET.encode() in said[True]
    assert SECRET.encode() not in said[False]
    assert said[False].count(b"event: ") == 2
