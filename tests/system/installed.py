"""
agentd as `make install` leaves it on a machine with systemd: units, users and folders, in a box that is thrown away.

    with machine() as box:
        service = Service(box)
        service.configure(…)
        await service.sh("systemctl start agentd")

In: this tree, as it is, and the packages that these tests run with. Out: what the units, the API and the journal say.
Promise: all of `make install` is its own recipe, save that pip fetches nothing: a stand-in points to what is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml
from around import WITHIN_S, Hook, News, Target
from systemd_box import Box

REPO = Path(__file__).resolve().parents[2]
DAEMON, HOST, SOCKET = "agentd.service", "agentd-agent.service", "agentd-agent.socket"
# Of the box, beneath /usr, from where the units' sandboxes let programs run.
_OURS = "/usr/local/lib/agentd-tests"
REPOSITORY = f"{_OURS}/repository"
_PYTHON = f'#!/bin/sh -e\n{_OURS}/base/bin/python{sysconfig.get_python_version()} "$@" --without-pip\n'
_PIP = """\
install -d /opt/agentd/bin
cat >/opt/agentd/bin/pip <<'END'
#!/bin/sh -e
printf '%s\\n' {ours}/source {ours}/packages >"$(echo /opt/agentd/lib/python*/site-packages)/agentd.pth"
printf '#!/opt/agentd/bin/python\\nfrom agentd.__main__ import main\\nmain()\\n' >/opt/agentd/bin/agentd
chmod 755 /opt/agentd/bin/agentd
END
chmod 755 /opt/agentd/bin/pip
"""


@contextlib.contextmanager
def machine() -> Iterator[Box]:
    """A box that shares our network, where `make install` has been run and nothing been started."""
    reads = {
        REPO: REPOSITORY,
        REPO / "agentd": f"{_OURS}/source/agentd",
        Path(sysconfig.get_path("purelib")): f"{_OURS}/packages",
        Path(sys.base_prefix): f"{_OURS}/base",
    }
    files = {
        f"{_OURS}/python": _PYTHON + _PIP.format(ours=_OURS),
        # An interpreter that is no package of the system looks for its library where it was built.
        "/etc/ld.so.conf.d/agentd-tests.conf": f"{_OURS}/base/lib\n",
    }
    with Box(files=files, reads=reads, network=True) as box:
        box.run("rm -rf /etc/agentd /var/lib/agentd /opt/agentd; ldconfig")
        box.run(f"chmod 755 {_OURS}/python; make -C {REPOSITORY} install SERVICE_PYTHON={_OURS}/python")
        yield box


class Service:
    """The units of one test, and what stands around them. hook: a receiver, configured as the webhook `hook`."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.news = News()
        self.hook = Hook(self.news, "hook")
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Service:
        await self._stack.enter_async_context(self.hook)
        self.write("/etc/agentd/environment", f"HOOK_SECRET={self.hook.secret}\n", mode=0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        units = f"{SOCKET} {DAEMON} {HOST}"
        try:
            await self.sh(f"systemctl stop {units}; systemctl reset-failed {units}", check=False)
            await self.sh(
                "rm -rf /var/lib/agentd/* /run/agentd /etc/systemd/system/*.service.d /etc/agentd/*environment;"
                f"systemctl disable {units} 2>/dev/null; journalctl --rotate --vacuum-time=1us 2>/dev/null;"
                "systemctl daemon-reload"
            )
        finally:
            await self._stack.aclose()

    async def sh(self, command: str, *, check: bool = True) -> str:
        """What a shell command, run as root, says; what stands around goes on meanwhile."""
        return (await asyncio.to_thread(self.box.run, command, check=check)).strip()

    def write(self, name: str, text: str, *, mode: int = 0o644) -> None:
        """A file of root's."""
        path = self.box.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, mode), "w") as file:
            file.write(text)
        path.chmod(mode)

    async def target(self) -> Target:
        target = Target(self.news)
        await target.start()
        self._stack.push_async_callback(target.stop)
        return target

    async def configure(self, watches: Sequence[Mapping[str, Any]], **sections: Mapping[str, Any]) -> None:
        config = {
            "daemon": {"instance": "box"},
            "api": {"listen": ["unix:/run/agentd/api.sock"]},
            "webhooks": {"hook": {"url": self.hook.url, "secret": "${env:HOOK_SECRET}"}},
            "alerting": {"notify": ["hook"], "group_by": ["..."], "group_interval": 0},
            "defaults": {"every": "200ms", "timeout": "10s", "fail_after": 1, "recover_after": 1},
            **sections,
            "watches": list(watches),
        }
        self.write("/etc/agentd/agentd.yaml", yaml.safe_dump(config, sort_keys=False))
        await self.sh("systemd-tmpfiles --create /etc/tmpfiles.d/agentd.conf")

    async def start(self) -> None:
        await self.sh(f"systemctl start {DAEMON} || {{ journalctl -n 40 -u {DAEMON}; false; }}")

    async def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask as root does. body: JSON."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.box.path("/run/agentd/api.sock")))
        async with httpx.AsyncClient(transport=transport, timeout=WITHIN_S) as client:
            return await client.request(method, f"http://agentd{path}", json=body)

    async def unit(self, name: str, property: str) -> str:
        """A property of a unit, such as ActiveState."""
        return await self.sh(f"systemctl show -P {property} {name}")

    async def environment(self, name: str) -> dict[str, str]:
        """Of the unit's main process, as the kernel shows it."""
        pid = await self.unit(name, "MainPID")
        found = (await self.sh(f"tr '\\0' '\\n' </proc/{pid}/environ")).splitlines()
        return dict(line.split("=", 1) for line in found)

    async def journal(self, name: str) -> list[dict[str, Any]]:
        """What a unit's processes have written, with all fields."""
        lines = await self.sh(f"journalctl --sync; journalctl -o json --all _SYSTEMD_UNIT={name}")
        return [json.loads(line) for line in lines.splitlines()]
