"""Sockets of the service manager: none opens more than the configuration may, none closes what it names."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agentd.api.server import CannotListen
from agentd.config.values import Listen, parse_listen
from agentd.daemon.sockets import open_sockets


@pytest.fixture
def held() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def passed_at(held: contextlib.ExitStack, where: tuple[str, int] | str) -> socket.socket:
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    made = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    made.bind(where)
    made.listen(4)
    return made


async def opened(passed: Sequence[socket.socket], *addresses: str | Listen, has_keys: bool = False) -> list[str]:
    """Where all of them listen, by their names; closed again."""
    async with contextlib.AsyncExitStack() as stack:
        found = open_sockets(passed, [parse_listen(each) for each in addresses], has_keys=has_keys, stack=stack)
        return [str(each.getsockname()) for each in found]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_passed_socket_that_others_reach_needs_a_key(host: str, held: contextlib.ExitStack) -> None:
    """As `agentd check` says of `api.listen`; a unit beside it must not be the way around."""
    passed = passed_at(held, (host, 0))

    with pytest.raises(CannotListen, match="no key to ask them for; make one with `agentd key new NAME`"):
        await opened([passed])


async def test_with_a_key_it_is_served_and_told_of(
    held: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent there is not encrypted, whoever opened it."""
    passed = passed_at(held, ("0.0.0.0", 0))

    with caplog.at_level(logging.WARNING):
        assert await opened([passed], has_keys=True) == [str(passed.getsockname())]

    assert [record.message for record in caplog.records] == ["passed_socket_open"]


async def test_addresses_that_were_not_passed_are_opened_here(held: contextlib.ExitStack, tmp_path: Path) -> None:
    """Commands reach the daemon by a unix socket that the unit may not name."""
    passed = passed_at(held, ("127.0.0.1", 0))

    assert await opened([passed], f"unix:{tmp_path}/api.sock") == [str(passed.getsockname()), f"{tmp_path}/api.sock"]


async def test_an_address_that_was_passed_is_not_opened_twice(held: contextlib.ExitStack, tmp_path: Path) -> None:
    """It is taken, by us; another way to write it is the same place."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    tcp = passed_at(held, ("127.0.0.1", 0))
    local = passed_at(held, f"{tmp_path}/run/api.sock")
    port = tcp.getsockname()[1]

    found = await opened([tcp, local], f"127.0.0.1:{port}", f"unix:{tmp_path}/link/api.sock")

    assert found == [str(tcp.getsockname()), f"{tmp_path}/run/api.sock"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_socket_for_all_addresses_stands_for_each(host: str, held: contextlib.ExitStack) -> None:
    """Nobody could bind the port beside it."""
    passed = passed_at(held, (host, 0))
    port = passed.getsockname()[1]

    assert await opened([passed], f"127.0.0.1:{port}", has_keys=True) == [str(passed.getsockname())]


async def test_one_for_ipv6_alone_leaves_ipv4_to_us(held: contextlib.ExitStack) -> None:
    """BindIPv6Only=ipv6-only."""
    passed = held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    passed.bind(("::", 0))
    passed.listen(4)
    port = passed.getsockname()[1]

    assert len(await opened([passed], f"127.0.0.1:{port}", has_keys=True)) == 2


async def test_a_socket_of_datagrams_is_refused(held: contextlib.ExitStack) -> None:
    """ListenDatagram= written by mistake would crash the server later."""
    passed = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    with pytest.raises(CannotListen, match="ListenStream="):
        await opened([passed])


async def test_a_name_without_a_file_is_local(held: contextlib.ExitStack) -> None:
    """The abstract namespace: only this machine is in it."""
    passed = passed_at(held, f"\0agentd-test-{id(held)}")

    assert len(await opened([passed])) == 1


def test_the_daemon_does_not_start_on_an_open_socket_without_keys(held: contextlib.ExitStack, tmp_path: Path) -> None:
    """It served everybody there, and the unix socket of its configuration nobody."""
    passed = passed_at(held, ("0.0.0.0", 0))
    config = tmp_path / "agentd.yaml"
    config.write_text(f"daemon: {{state_dir: {tmp_path}/state}}\nwatches: []\n")

    ended = subprocess.run(
        [
            *("/bin/bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&{passed.fileno()}', "-"),
            *(sys.executable, "-m", "agentd", "run", "--config", str(config)),
        ],
        pass_fds=[passed.fileno()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "no key to ask them for" in ended.stderr
