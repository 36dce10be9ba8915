"""What of the daemon's environment goes to the agent host, which reads what the whole world writes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentd.agent.wire import Wire
from agentd.config.loader import load
from agentd.config.models import Config
from agentd.daemon.runs.environment import host_environment
from agentd.daemon.runs.host import AgentHost, NoHost

FIRST = {
    "provider": "openai-compatible",
    "base_url": "http://127.0.0.1:9/v1",
    "model": "m",
    "price": {"input": 0, "output": 0},
}
SET = {
    "PATH": "/usr/bin",
    "LC_ALL": "C.UTF-8",
    "HTTPS_PROXY": "http://proxy:3128",
    "no_proxy": "localhost",
    "HOOK_SECRET": "whsec_abc",
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "MY_KEY": "mine",
    "GRAFANA": "grafana",
    "AWS_ACCESS_KEY_ID": "aws",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=x",
    "CREDENTIALS_DIRECTORY": "/run/credentials/agentd.service",
    "NOTIFY_SOCKET": "/run/systemd/notify",
}


def config(folder: Path, **more: Any) -> Config:
    path = folder / "agentd.yaml"
    hook = {"ops": {"url": "http://127.0.0.1:9/${env:HOOK_SECRET}"}}
    path.write_text(yaml.safe_dump({"webhooks": hook, **more}))
    return load(path, environment=SET).config


def given(folder: Path, **more: Any) -> set[str]:
    plain = {"PATH", "LC_ALL", "HTTPS_PROXY", "no_proxy"}
    found = set(host_environment(SET, config(folder, **more)))
    assert plain <= found
    return found - plain


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, set()),
        ({"models": {"default": FIRST}}, set()),
        ({"models": {"default": {"provider": "openai", "model": "gpt-4o"}}}, {"OPENAI_API_KEY"}),
        ({"models": {"default": {**FIRST, "api_key": "${env:MY_KEY}"}}}, {"MY_KEY"}),
        ({"models": {"default": {**FIRST, "api_key": "${credential:key}"}}}, {"CREDENTIALS_DIRECTORY"}),
        ({"models": {"default": {**FIRST, "provider": "bedrock", "base_url": None}}}, {"AWS_ACCESS_KEY_ID"}),
        (
            {"agent": {"mcp": {"grafana": {"command": ["true"], "tools": ["q"], "env": {"T": "x ${env:GRAFANA}"}}}}},
            {"GRAFANA"},
        ),
        ({"telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"}}, {"OTEL_EXPORTER_OTLP_HEADERS"}),
    ],
)
def test_the_host_gets_the_keys_that_its_models_and_servers_name_and_no_others(
    tmp_path: Path, more: dict[str, Any], names: set[str]
) -> None:
    """A secret that it does not have no page, log line or model can talk it out of."""
    assert given(tmp_path, **more) == names


class Hosting:
    """A real host, whose environment the test changes."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"PATH": os.environ["PATH"], "FIRST": "1"}
        self.host = AgentHost(folder, lambda: self.environment)

    def seen(self) -> set[str]:
        """Names that the child got."""
        with open(f"/proc/{self.host.pid}/environ", encoding="utf-8") as file:
            return {each.partition("=")[0] for each in file.read().split("\0") if each}


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Hosting]:
    found = Hosting(tmp_path)
    yield found
    await found.host.close()


async def test_after_a_reload_the_next_run_begins_with_the_keys_of_its_models(hosting: Hosting) -> None:
    """A host that is idle would live on for a minute, and know no key of the new model; one at work is left alone."""
    first = await hosting.host.connect()
    pid = hosting.host.pid
    assert "FIRST" in hosting.seen()

    hosting.environment = {"PATH": os.environ["PATH"], "SECOND": "2"}
    beside = await hosting.host.connect()
    assert hosting.host.pid == pid
    for wire in (first, beside):
        wire.close()
        hosting.host.done()

    second = await hosting.host.connect()
    assert hosting.host.pid != pid
    assert {"SECOND"} == hosting.seen() & {"FIRST", "SECOND"}
    second.close()
    hosting.host.done()

    again = await hosting.host.connect()
    assert {"SECOND"} == hosting.seen() & {"FIRST", "SECOND"}
    again.close()
    hosting.host.done()


async def test_a_host_of_another_version_takes_no_run(tmp_path: Path) -> None:
    """An upgrade replaces the files under a host that runs; half of a job that it understands is worse than none."""

    served: set[asyncio.Task[None] | None] = set()

    async def of_yesterday(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        Wire(reader, writer).send("hello", pid=1, version="0.0.1")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(of_yesterday, str(tmp_path / "agent.sock"))
    async with server:
        host = AgentHost(tmp_path, dict, given=tmp_path / "agent.sock")
        with pytest.raises(NoHost, match=r"is agentd 0\.0\.1, and this .*; restart both"):
            await host.connect()
        await host.close()
        await asyncio.gather(*filter(None, served))
