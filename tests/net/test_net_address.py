"""Whose fault a failure is, and which addresses may be reached."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import Any

import pytest

from agentd.net import NetFailure, classify, is_public, resolve, resolve_checked


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.0.9", "169.254.169.254", "172.31.0.1"),
        *("192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "::ffff:168.63.129.16"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001::1", "2001:db8::1", "3fff::1"),
        *("fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "4000::1"),
        *("localhost", "", "127.1", "0x7f.1", "1.1.1.1.1"),
    ],
)
def test_inner_addresses_are_not_public(address: str) -> None:
    """An agent's tool that reaches one of these reads what only this machine may see."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "100.128.0.1",
        "172.32.0.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        *((number, "blind") for number in (errno.ENETUNREACH, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM)),
        *((number, "blind") for number in (errno.EADDRNOTAVAIL, errno.EACCES, errno.ENOMEM, errno.ENETDOWN)),
        *((number, "error") for number in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE)),
    ],
)
def test_a_failure_is_ours_when_we_could_not_even_try(number: int, verdict: str) -> None:
    """An alert about a healthy server because we ran out of file descriptors is a wolf that is none."""
    assert classify(OSError(number, "x")) == verdict


def test_a_silent_neighbour_is_down_and_no_route_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """EHOSTUNREACH is said of both; a dead machine on our own network must fire."""
    unreachable = OSError(errno.EHOSTUNREACH, "No route to host")

    assert classify(unreachable, "127.0.0.1") == "error"

    class NoRoute(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(socket, "socket", NoRoute)
    assert classify(unreachable, "127.0.0.1") == "blind"


@pytest.mark.parametrize(
    ("number", "blind"), [(socket.EAI_NONAME, False), (socket.EAI_FAIL, False), (socket.EAI_AGAIN, True)]
)
async def test_a_name_that_does_not_exist_is_no_blindness(
    monkeypatch: pytest.MonkeyPatch, number: int, blind: bool
) -> None:
    """A domain that lapsed must fire; a resolver that is away must not fire for every watch."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(number, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NetFailure, match=r"cannot resolve shop\.example") as failure:
        await resolve("shop.example")

    assert failure.value.blind is blind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "fe80::1%lo"])
async def test_an_address_asks_no_resolver(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A thread per check for nothing, and a dead resolver would fail watches that need none."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    assert await resolve(host) == [host.strip("[]")]


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "a\0b", ""])
async def test_a_host_that_is_no_name_is_a_failure_and_no_defect(host: str) -> None:
    with pytest.raises(NetFailure):
        await resolve(host)


async def test_an_address_of_the_wrong_version_is_refused() -> None:
    with pytest.raises(NetFailure, match="not an IPv6 address"):
        await resolve("127.0.0.1", family=socket.AF_INET6)


async def test_only_checked_addresses_are_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers with an inner address among public ones must not lead inside."""

    def answer(*args: Any, **kwargs: Any) -> Any:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "8.8.8.8", "169.254.169.254", "8.8.8.8")]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    assert await resolve_checked("rebind.example", 80, private=False) == [("8.8.8.8", 80)]
    assert len(await resolve_checked("rebind.example", 80, private=True)) == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1"])
async def test_loopback_is_refused_in_every_spelling(host: str) -> None:
    """The resolver accepts spellings that a text filter would not recognise."""
    with pytest.raises(NetFailure, match="not a public address"):
        await resolve_checked(host, 80, private=False)


async def test_a_hung_resolver_leaves_the_loop_s_own_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default pool has six threads on two cores; dead name servers would stop all file work of the daemon."""
    release = threading.Event()
    really = socket.getaddrinfo

    def hang(host: str, *args: Any, **kwargs: Any) -> Any:
        release.wait(60)
        return really("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    lookups = [asyncio.ensure_future(resolve(f"host-{number}.example")) for number in range(40)]
    await asyncio.sleep(0)
    try:
        assert await asyncio.get_running_loop().run_in_executor(None, lambda: "free") == "free"
    finally:
        release.set()

    assert await asyncio.gather(*lookups) == [["127.0.0.1"]] * 40
