"""
A daemon as a service that others ask: over TCP with keys, over its unix socket, and by commands.

    async with opened(tmp_path) as service:
        answer = await service.api("POST", "/api/v1/tasks", {"task": "Look around."})    # TCP, with the widest key

In: sections of the configuration. Out: a daemon with agents, three keys of all scopes whose own rate nobody reaches, a
folder of files that agents may see, and the server of models that it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from agents import configure, model, submit, task_of
from around import WITHIN_S
from loopback import free_port
from modelserver import ModelServer
from stage import Daemon, Said, Stage

from agentd.config.key_hash import make_key

PLENTY = {"requests_per_minute": 600_000, "burst_size": 100_000}
SCOPES = ("read", "operate", "admin")

Json = dict[str, Any]


@dataclass
class Service:
    """url: of TCP. keys: by scope. files: a folder that agents may read and write in."""

    stage: Stage
    server: ModelServer
    daemon: Daemon
    url: str
    keys: Mapping[str, str]
    files: Path
    client: httpx.AsyncClient

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """Over TCP. key: one of the service's, by scope, or any other text; None: nothing is shown."""
        shown = {} if key is None else {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        return await self.client.request(method, path, json=body, headers={**shown, **headers})

    async def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.ask(method, path, body, key="admin")

    async def json(self, path: str) -> Json:
        answer = await self.api("GET", path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def done(self, task: str = "Look around.", **more: Any) -> Json:
        """Have it done; returns the task's view when it has ended."""
        return await task_of(self, await submit(self, task, **more))

    async def said(self, *words: str, typed: str = "", **environment: str) -> Said:
        """Any program, to its end. typed: its input."""
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=self.stage.folder,
            env={**self.stage.environment, **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(3 * WITHIN_S):
                out, err = await process.communicate(typed.encode())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def agentd(self, *words: str, typed: str = "") -> Said:
        """A command, as a person types it."""
        return await self.said(sys.executable, "-m", "agentd", *words, "-c", str(self.stage.path), typed=typed)


@cache
def _keys() -> Mapping[str, tuple[str, str]]:
    """By scope, a token and its hash."""
    return {scope: make_key(scope) for scope in SCOPES}


def sections(stage: Stage, **more: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the configuration of such a service says; `more` is laid over it."""
    keys = [
        {"name": scope, "hash": hashed, "scope": scope, "rate_limiting": PLENTY}
        for scope, (_, hashed) in _keys().items()
    ]
    files = stage.folder / "files"
    found: dict[str, dict[str, Any]] = {
        "api": {"listen": [f"unix:{stage.folder}/api.sock", f"127.0.0.1:{free_port()}"], "keys": keys},
        "agent": {
            "tools": ["read_file", "list_files", "write_file", "run_command", "http_get"],
            "files": {"allow": [str(files)], "write": True},
            "working_directory": str(files),
            "retries": 0,
            "tool_timeout": "5s",
        },
        "telemetry": {"content": "full"},
    }
    for name, values in more.items():
        found[name] = {**found.get(name, {}), **values}
    return found


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    keys: Sequence[Mapping[str, Any]] = (),
    **more: Mapping[str, Any],
) -> AsyncIterator[Service]:
    """
    environment: of the daemon alone. settings: of its model, on top of where it is. keys: besides its own.
    more: sections.
    """
    (folder / "files").mkdir(parents=True)
    async with Stage(folder) as stage, ModelServer() as server:
        laid = sections(stage, **more)
        laid["api"]["keys"] += keys
        models = laid.pop("models", {"default": model(server, **(settings or {}))})
        configure(stage, server, (), models=models, **laid)
        daemon = await stage.start(**(environment or {}))
        address = laid["api"]["listen"][1]
        url = f"http://{address}"
        server.otherwise = "All is well."
        tokens = {scope: token for scope, (token, _) in _keys().items()}
        async with httpx.AsyncClient(base_url=url, timeout=WITHIN_S, trust_env=False) as client:
            yield Service(stage, server, daemon, url, tokens, folder / "files", client)


def environment_of_tests() -> dict[str, str]:
    """For programs that are no commands: without what a developer has set for agentd."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
