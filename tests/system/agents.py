"""
A daemon that asks agents, and the server of models that it asks.

In: a stage and a `ModelServer`. Out: a configuration with that model, runs and their records as the API shows them,
and the processes that a daemon has started.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import httpx
import psutil
from around import WITHIN_S, Target
from modelserver import Call, ModelServer, Reply, call, calls
from stage import Daemon, Stage

ENDED = ("completed", "failed", "stopped", "cancelled", "interrupted")
HOST = "agentd.agent.host"


class Asked(Protocol):
    """A daemon's API: of a stage, or of a service."""

    async def api(self, method: str, path: str, body: Any = None) -> httpx.Response: ...


def model(server: ModelServer, **more: Any) -> dict[str, Any]:
    """Settings of a model that this server answers for."""
    settings = {"provider": "openai-compatible", "base_url": server.url, "model": "fake"}
    return {**settings, "price": {"input": 1, "output": 1}, **more}


def configure(
    stage: Stage, server: ModelServer, watches: Sequence[Mapping[str, Any]] = (), **sections: Mapping[str, Any]
) -> None:
    """One model called default; tools that are tried again at once; loopback may be asked."""
    agent = {"retry_delay": 0, "http": {"allow": ["127.0.0.1"], "private_networks": True}, **sections.pop("agent", {})}
    models = sections.pop("models", {"default": model(server)})
    stage.configure(watches, models=models, agent=agent, **sections)


def shop(target: Target, **more: Any) -> dict[str, Any]:
    """A watch whose first failure is looked into."""
    watch = {"name": "shop", "http": {"url": target.url}, "expect": ["status == 200"], "fail_after": 1}
    return {**watch, "recover_after": 1, "investigate": "Find out why the shop is down.", **more}


def finish(status: str = "problem", summary: str = "The disk is full.", **more: Any) -> Reply:
    """An answer that ends the run with a finding."""
    return calls(found(status, summary, **more))


def found(status: str = "problem", summary: str = "The disk is full.", **more: Any) -> Call:
    return call("finish", **{"status": status, "severity": "critical", "summary": summary, **more})


async def submit(stage: Asked, task: str = "Look around.", **more: Any) -> str:
    """Set a task as a person would; returns its id."""
    answer = await stage.api("POST", "/api/v1/tasks", {"task": task, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


async def runs(stage: Asked, **query: str) -> list[dict[str, Any]]:
    """Newest first."""
    words = "&".join(f"{key}={value}" for key, value in query.items())
    answer = await stage.api("GET", f"/api/v1/runs?{words}")
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["runs"]
    return listed


async def until(look: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """The first true thing that `look` gives: of what nobody tells, such as the API's views and processes."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                given = look()
                if seen := await given if asyncio.iscoroutine(given) else given:
                    return seen
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {within_s} s") from None


async def ended(stage: Asked, *, count: int = 1, **query: str) -> list[dict[str, Any]]:
    """Wait until so many runs have ended and none is under way; newest first."""

    async def look() -> list[dict[str, Any]]:
        listed = await runs(stage, **query)
        return listed if len(listed) >= count and all(each["state"] in ENDED for each in listed) else []

    seen: list[dict[str, Any]] = await until(look, f"{count} runs end")
    return seen


async def run_of(stage: Asked, id: str) -> dict[str, Any]:
    """A run with its record, as soon as that is whole."""

    async def look() -> dict[str, Any] | None:
        answer = await stage.api("GET", f"/api/v1/runs/{id}")
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view if view["state"] in ENDED and view["whole"] else None

    seen: dict[str, Any] = await until(look, f"{id} ends with its record whole")
    return seen


async def task_of(stage: Asked, id: str) -> dict[str, Any]:
    """A task's own view, when it has ended."""

    async def look() -> dict[str, Any] | None:
        view: dict[str, Any] = (await stage.api("GET", f"/api/v1/tasks/{id}")).json()
        return view if view["result"] is not None else None

    seen: dict[str, Any] = await until(look, f"{id} ends")
    return seen


def results(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a run's view: what came of each call of a tool."""
    return [line["data"] for line in view["record"] if line["kind"] == "result"]


def hosts_of(daemon: Daemon) -> list[psutil.Process]:
    """The agent hosts that the daemon has started and that live."""
    with contextlib.suppress(psutil.Error):
        return [each for each in psutil.Process(daemon.pid).children() if HOST in _words(each)]
    return []


def processes_with(word: str) -> list[psutil.Process]:
    """All processes with that word on their command line."""
    return [each for each in psutil.process_iter() if word in _words(each)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        return []
