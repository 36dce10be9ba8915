"""A real web server goes down and comes up: the whole path, told once each way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from loopback import free_port
from stage import Stage

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (apt-get install nginx-light)")

CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log stderr notice; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ if (-f {folder}/broken) {{ return 503; }} return 200 "fine"; }}
    }}
}}
"""


class Nginx:
    """broken: a file that, while it is there, makes it answer 503."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.broken = folder / "broken"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        user = "user root;" if os.getuid() == 0 else ""
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=self.port, user=user))

    async def up(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "nginx", "-p", str(self._folder), "-c", "nginx.conf", "-e", "stderr"),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        seen = b""
        async with asyncio.timeout(20):
            while b"start worker process " not in seen:
                line = await self._process.stderr.readline()
                assert line, seen.decode()
                seen += line

    async def down(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        async with asyncio.timeout(20):
            await self._process.communicate()
        self._process = None


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[Nginx]:
    server = Nginx(folder)
    await server.up()
    try:
        yield server
    finally:
        await server.down()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


async def story(stage: Stage, server: Nginx, *, broken: bool) -> list[dict[str, Any]]:
    """Run it, take it down one way or the other, heal it, end the daemon; every message that came, in order."""
    stage.configure(
        [
            {
                "name": "shop",
                "http": {"url": f"http://127.0.0.1:{server.port}/health"},
                "expect": ["status == 200", "latency_ms < 9000"],
                "severity": "critical",
                "labels": {"team": "web"},
            }
        ]
    )
    daemon = await stage.start()
    before = datetime.now(UTC)
    if broken:
        server.broken.touch()
    else:
        await server.down()
    firing = await stage.hook.message("alert.firing")
    assert before <= moment(firing["data"]["started_at"]) <= datetime.now(UTC)

    healing = datetime.now(UTC)
    if broken:
        server.broken.unlink()
    else:
        await server.up()
    resolved = await stage.hook.message("alert.resolved")
    assert healing <= moment(resolved["data"]["ended_at"]) <= datetime.now(UTC)

    assert await daemon.stop() == 0
    assert len(stage.hook.requests) == 2, "each was sent once, and nothing else"
    return [firing, resolved]


async def test_a_server_that_goes_down_and_up_is_one_alert_with_one_end(tmp_path: Path) -> None:
    """The promise of the product in one story: told at once, told once, told the truth, signed."""
    async with Stage(tmp_path) as stage, nginx(tmp_path) as server:
        messages = await story(stage, server, broken=False)
        first, last = (message["data"] for message in messages)

        assert [message["type"] for message in messages] == ["alert.firing", "alert.resolved"]
        assert (first["state"], first["reason"], first["reason_text"]) == (
            "firing",
            "threshold",
            "failed 3 times in a row",
        )
        assert first["summary"] == f"shop: connection refused (127.0.0.1:{server.port})"
        assert (first["occurrences"], first["values"], first["ended_at"]) == (3, {}, None)
        assert (last["state"], last["reason"], last["reason_text"]) == (
            "resolved",
            "recovered",
            "ok 2 times in a row",
        )
        assert last["summary"] == f"shop: ok again; it was: {first['summary'].removeprefix('shop: ')}"
        assert (last["values"], last["failed"]) == ({}, [])
        assert first["fingerprint"] == last["fingerprint"]
        assert first["started_at"] == last["started_at"] == messages[0]["timestamp"]
        assert last["ended_at"] == messages[1]["timestamp"] > last["started_at"]
        assert (first["watch"], first["instance"], first["severity"]) == ("shop", "box", "critical")
        assert first["labels"] == {"team": "web"}


async def test_a_server_that_answers_wrongly_is_told_with_the_values_seen(tmp_path: Path) -> None:
    """Whoever is woken up needs to know what was seen, not that something was."""
    async with Stage(tmp_path) as stage, nginx(tmp_path) as server:
        first, _ = (message["data"] for message in await story(stage, server, broken=True))

        assert first["summary"] == "shop: status == 200 does not hold (status = 503)"
        assert first["values"]["status"] == 503
        assert first["values"]["latency_ms"] > 0, "a slow refusal is another thing than a quick one"
        assert first["failed"] == ["status == 200"]
        for request in stage.hook.requests:
            version, trace, span, flags = request.headers["traceparent"].split("-")
            assert (version, len(span), len(flags)) == ("00", 16, 2)
            assert trace == request.json["data"]["trace_id"], "the message leads to the check that caused it"
