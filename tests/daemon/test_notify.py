"""What systemd hears from us, on a real datagram socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.daemon.notify import ServiceManager, listen_fds, strip_environment, watchdog_interval_s


class Manager:
    """The other end: what PID 1 would read."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@agentd-test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def systemd(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.socket.close()


@pytest.fixture
def service(systemd: Manager, address: str) -> Iterator[ServiceManager]:
    service = ServiceManager({"NOTIFY_SOCKET": address})
    yield service
    service.close()


def test_the_whole_life_is_told(service: ServiceManager, systemd: Manager) -> None:
    """systemd waits for each of these words."""
    assert service.ready("watching 3")
    assert service.status("watching 4")
    assert service.ping()
    assert service.extend(2.5)
    assert service.stopping("draining")

    assert systemd.heard() == [
        "READY=1\nSTATUS=watching 3",
        "STATUS=watching 4",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_a_reload_carries_the_monotonic_time(service: ServiceManager, systemd: Manager) -> None:
    """Without it systemd cannot match READY to the reload it answers."""
    before = time.monotonic_ns() // 1000
    service.reloading()
    after = time.monotonic_ns() // 1000

    [message] = systemd.heard()
    word, moment = message.split("\n")
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_status_cannot_smuggle_an_assignment(service: ServiceManager, systemd: Manager) -> None:
    """Names of watches and texts of errors come from outside; MAINPID=1 among them would be obeyed."""
    service.status("bad config: x\nMAINPID=1\x00\x1b[31m")

    [message] = systemd.heard()
    assert "\n" not in message
    assert message.startswith("STATUS=bad config: x MAINPID=1")


def test_an_alarm_stands_before_the_status_until_it_is_over(service: ServiceManager, systemd: Manager) -> None:
    """The usual status line, written every few seconds, must not paint over what is wrong."""
    service.status("watching 3")
    service.alarm("store is silent")
    service.status("watching 4")
    service.alarm(None)

    assert systemd.heard() == [
        "STATUS=watching 3",
        "STATUS=store is silent | watching 3",
        "STATUS=store is silent | watching 4",
        "STATUS=watching 4",
    ]


def test_a_manager_that_does_not_read_blocks_nobody(service: ServiceManager, systemd: Manager) -> None:
    """PID 1 may hang; the checks go on."""
    sent = [service.ping() for _ in range(5000)]

    assert sent[0]
    assert not sent[-1]
    assert not service.stopping("draining")


def test_without_a_manager_nothing_is_sent() -> None:
    """Containers and terminals have none."""
    service = ServiceManager({})

    assert not service.present
    assert not service.ready("x")
    assert service.watchdog_s is None


@pytest.mark.parametrize("address", ["/nowhere/at/all", "vsock:2:1234", "relative"])
def test_an_address_that_does_not_work_is_survived(address: str) -> None:
    """A wrong variable must not stop the daemon."""
    service = ServiceManager({"NOTIFY_SOCKET": address})

    assert not service.ready("x")
    service.close()


def test_the_watchdog_interval_is_ours_only() -> None:
    """The variables are inherited by children, to whom they do not apply."""
    mine, other = str(os.getpid()), str(os.getpid() + 1)

    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": mine}) == 30.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": other}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_interval_s({}) is None


def test_children_inherit_nothing_of_it() -> None:
    """A command that inherits NOTIFY_SOCKET could feed our watchdog."""
    environment = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "api",
        "PATH": "/bin",
    }

    strip_environment(environment)

    assert environment == {"PATH": "/bin"}


def test_sockets_passed_to_us_are_taken_by_name(tmp_path: Path) -> None:
    """Both addresses of one .socket unit carry one name; a restart must not lose a request to either."""
    code = (
        "import json, os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from agentd.daemon.notify import listen_fds\n"
        "found = listen_fds()\n"
        "left = [name for name in os.environ if name.startswith('LISTEN_')]\n"
        "shown = {name: [s.family.name for s in sockets] for name, sockets in found.items()}\n"
        "inherited = [s.get_inheritable() for sockets in found.values() for s in sockets]\n"
        "again = listen_fds()\n"
        "print(json.dumps([shown, left, inherited, bool(again)]))\n"
    )
    with socket.socket(socket.AF_UNIX) as one, socket.socket() as two:
        one.bind(str(tmp_path / "api.sock"))
        two.bind(("127.0.0.1", 0))
        # Whatever was descriptor 3, 4 and 5 of the child becomes a socket, a socket and a plain file.
        script = f'exec "$@" 3<&{one.fileno()} 4<&{two.fileno()} 5</dev/null'
        shown = subprocess.run(
            ["/bin/bash", "-c", script, "-", sys.executable, "-c", code],
            pass_fds=[one.fileno(), two.fileno()],
            env={**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "api:api:stored"},
            capture_output=True,
            text=True,
            check=True,
        )

    assert json.loads(shown.stdout) == [{"api": ["AF_UNIX", "AF_INET"]}, [], [False, False], False]


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    """Descriptor 3 of ours is then something else entirely."""
    assert listen_fds({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == {}
    assert listen_fds({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}) == {}
    assert listen_fds({}) == {}
