"""
A stage for tests of the whole: real daemons as child processes, and what stands around them.

    async with Stage(tmp_path) as stage:
        shop = await stage.target()
        stage.configure([{"name": "shop", "http": {"url": shop.url}}])
        daemon = await stage.start()
        shop.status = 503
        firing = await stage.hook.message("alert.firing")

Everything is seen from outside: what the webhook got, what the command line says, log lines, the words to the service
manager. Nothing sleeps: whatever happens is `News`, and waiting is for news, with a deadline. Whatever was started is
ended, with all its children, when the stage is left, and by the kernel should the tests themselves die.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
import yaml
from around import WITHIN_S, Hook, News, Target

_TIED = ("setpriv", "--pdeathsig", "KILL")


class Daemon:
    """
    One `agentd run`.

    lines: what it wrote, whole; events: of these, the log records. notes: datagrams to the service manager, parsed.
    """

    def __init__(self, news: News) -> None:
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.notes: list[dict[str, str]] = []
        self.news = news
        self._address = f"agentd-test-{uuid.uuid4().hex}"
        self._ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ears.setblocking(False)
        self._ears.bind("\0" + self._address)
        self._reading: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        asyncio.get_running_loop().add_reader(self._ears, self._hear)
        self.process = await asyncio.create_subprocess_exec(
            *_TIED,
            *argv,
            cwd=folder,
            env={**environment, "NOTIFY_SOCKET": f"@{self._address}"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=2**20,
        )
        self._reading = [asyncio.create_task(self._read()), asyncio.create_task(self._wait())]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ready(self, within_s: float = WITHIN_S) -> None:
        await self.noted("READY", within_s=within_s)

    async def noted(self, key: str, *, after: int = 0, within_s: float = WITHIN_S) -> dict[str, str]:
        """The first datagram with that key, of those after the first `after`."""

        def look() -> dict[str, str] | None:
            self._alive_or_fail(f"waiting for {key}=")
            return next((note for note in self.notes[after:] if key in note), None)

        found = await self.news.until(look, f"the service manager hears {key}=", within_s)
        assert found is not None
        return found

    async def logged(self, event: str, *, nth: int = 1, within_s: float = WITHIN_S, **fields: Any) -> dict[str, Any]:
        """The nth log record of that event with those fields."""

        def look() -> dict[str, Any] | None:
            found = self.logs(event, **fields)
            if len(found) < nth:
                self._alive_or_fail(f"waiting for the log to say {event}")
                return None
            return found[nth - 1]

        found = await self.news.until(look, f"the log says {event} {fields or ''}", within_s)
        assert found is not None
        return found

    def logs(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            each
            for each in self.events
            if each["event"] == event and all(each.get(key) == value for key, value in fields.items())
        ]

    async def ended(self, within_s: float = WITHIN_S) -> int:
        """Wait for its end, and for all that it wrote; returns the exit code, negative for a signal."""
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._reading)
        assert self.process.returncode is not None
        return self.process.returncode

    async def stop(self, within_s: float = WITHIN_S) -> int:
        """SIGTERM, and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    async def kill(self) -> None:
        """kill -9, and wait."""
        if self.alive:
            self.signal(signal.SIGKILL)
        await self.ended()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024

    async def close(self) -> None:
        """End it and whatever it has started, however it is."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.gather(*self._reading, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._ears)
        self._ears.close()

    def _alive_or_fail(self, what: str) -> None:
        if not self.alive:
            pytest.fail(f"{what}: agentd has ended with {self.process.returncode}\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.lines[-40:])

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                note = self._ears.recv(65536).decode()
                self.notes.append(dict(line.split("=", 1) for line in note.splitlines()))
        self.news.tell()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode().rstrip("\n")
            self.lines.append(line)
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and "event" in record:
                    self.events.append(record)
            self.news.tell()

    async def _wait(self) -> None:
        await self.process.wait()
        self.news.tell()


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Stage:
    """
    hook: a receiver, configured as the webhook `hook`. environment: of every process started here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "agentd.yaml"
        self.state_dir = folder / "state"
        self.news = News()
        self.news.explain = self._explain
        self.hook = Hook(self.news, "hook")
        self.hooks = {"hook": self.hook}
        self.daemons: list[Daemon] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "HOOK_SECRET": self.hook.secret,
        }
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Stage:
        await self._stack.enter_async_context(self.hook)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self.daemons:
            await daemon.close()
        await self._stack.aclose()
        if kind is None:
            for daemon in self.daemons:
                # Whatever a test is about: nothing that happens out there is worth a traceback.
                assert not any("Traceback" in line for line in daemon.lines), daemon.tail()

    async def add_hook(self, name: str) -> Hook:
        """One more receiver, to be configured as the webhook of that name."""
        hook = Hook(self.news, name)
        await self._stack.enter_async_context(hook)
        self.hooks[name] = hook
        self.environment[f"{name.upper()}_SECRET"] = hook.secret
        return hook

    async def target(self) -> Target:
        target = Target(self.news)
        await target.start()
        self._stack.push_async_callback(target.stop)
        return target

    def configure(self, watches: Sequence[Mapping[str, Any]], **sections: Mapping[str, Any]) -> None:
        """Write the configuration; `sections` are laid over what a short test wants."""
        webhooks = {
            name: {"url": hook.url, "secret": f"${{env:{name.upper()}_SECRET}}"} for name, hook in self.hooks.items()
        }
        config: dict[str, Any] = {
            "daemon": {
                "state_dir": str(self.state_dir),
                "log_format": "json",
                "instance": "box",
                "drain_timeout": "10s",
                "host_rate": "10000/s",
            },
            "api": {"listen": [f"unix:{self.folder}/api.sock"]},
            "webhooks": webhooks,
            # Each change of each alert is a message at once, and nothing counts as flapping: these tests count them.
            "alerting": {
                "notify": ["hook"],
                "group_by": ["..."],
                "group_interval": 0,
                "flapping": {"start": 100, "end": 100},
            },
            # No check of a target that is held up ends by itself: the timeout is longer than any wait of a test.
            "defaults": {"every": "200ms", "timeout": "60s", "fail_after": 3, "recover_after": 2},
        }
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        config["watches"] = list(watches)
        self.path.write_text(yaml.safe_dump(config, sort_keys=False))

    async def spawn(self, **environment: str) -> Daemon:
        """Start `agentd run` and wait for nothing."""
        daemon = Daemon(self.news)
        argv = [sys.executable, "-m", "agentd", "run", "-c", str(self.path)]
        await daemon.spawn(argv, {**self.environment, **environment}, self.folder)
        self.daemons.append(daemon)
        return daemon

    async def start(self, **environment: str) -> Daemon:
        """Start `agentd run` and wait until it is ready."""
        daemon = await self.spawn(**environment)
        await daemon.ready()
        return daemon

    async def cli(self, *arguments: str) -> Said:
        """Run an `agentd` command to its end."""
        process = await asyncio.create_subprocess_exec(
            *_TIED,
            sys.executable,
            "-m",
            "agentd",
            *arguments,
            "-c",
            str(self.path),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                out, err = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode is not None
        said = Said(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in said.err, said.err
        return said

    async def alerts(self) -> list[dict[str, Any]]:
        """Of every alert there is, what `agentd alerts` says."""
        found: list[dict[str, Any]] = (await self.cli("alerts", "--all", "--output", "json")).json["alerts"]
        return found

    async def outbox(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.cli("outbox", "list", "--output", "json", *arguments)).json[
            "deliveries"
        ]
        return found

    async def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask over the unix socket, as the command line does. body: JSON."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / "api.sock"))
        async with httpx.AsyncClient(transport=transport, timeout=WITHIN_S) as client:
            return await client.request(method, f"http://agentd{path}", json=body)

    async def post(self, url: str, **headers: str) -> int:
        """POST over TCP; returns the status."""
        async with httpx.AsyncClient(timeout=WITHIN_S) as client:
            return (await client.post(url, headers=headers)).status_code

    def _explain(self) -> str:
        hooks = [
            f"{name}: {len(hook.requests)} requests, taken {[json.loads(each.body)['type'] for each in hook.taken]}"
            for name, hook in self.hooks.items()
        ]
        return "\n".join([*hooks, *(daemon.tail() for daemon in self.daemons[-1:])])
