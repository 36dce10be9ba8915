"""dns_lookup and tls_info: of allowed hosts only, and an answer whatever the other side does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
from loopback import Authority, answering, plain, serving
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import ToolContext
from agentd.agent.tools.dns_lookup import DnsLookup
from agentd.agent.tools.tls_info import TlsInfo
from agentd.fleet.messages import ErrorKind

TLS = TlsInfo()
DENIED, ERROR = ErrorKind.DENIED, ErrorKind.TOOL_ERROR


def to(*hosts: str, private: bool = True, **limits: Any) -> ToolContext:
    return context(Permissions(http=hosts, private_networks=private), **limits)


@asynccontextmanager
async def name_server(*records: str) -> AsyncIterator[tuple[DnsLookup, list[str]]]:
    """A server that answers every question with these records, and the names it was asked for."""
    asked: list[str] = []

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            query = dns.message.from_wire(data)
            question = query.question[0]
            asked.append(question.name.to_text())
            response = dns.message.make_response(query)
            if records:
                response.answer.append(
                    dns.rrset.from_text(question.name, 60, "IN", dns.rdatatype.to_text(question.rdtype), *records)
                )
            self.transport.sendto(response.to_wire(), addr)  # type: ignore[attr-defined]

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    try:
        yield DnsLookup(f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"), asked
    finally:
        transport.close()


async def test_a_name_is_looked_up() -> None:
    async with name_server("192.0.2.1", "10.0.0.1") as (tool, _):
        answer = await call(tool, to("*.example.com", private=False), name="Shop.Example.com.")

    assert sorted(answer["answers"]) == ["10.0.0.1", "192.0.2.1"]
    assert (answer["name"], answer["type"], answer["rcode"], answer["ttl"]) == ("shop.example.com", "A", "NOERROR", 60)


async def test_names_beside_the_list_are_not_even_asked_for() -> None:
    """A name is a message to whoever serves its zone."""
    async with name_server("192.0.2.1") as (tool, asked):
        for name in ("c2VjcmV0.evil.test", "example.com.evil.test", "1.0.0.127.in-addr.arpa"):
            await failing(tool, to("*.example.com"), DENIED, name=name)

    assert asked == []


async def test_other_types() -> None:
    async with name_server('"v=spf1 -all"', '"\\009x\\027[2J"') as (tool, _):
        answer = await call(tool, to("*.example.com"), name="_dmarc.example.com", type="TXT")
    assert sorted(answer["answers"]) == ["\tx\ufffd[2J", "v=spf1 -all"]
    async with name_server("host.example.com.") as (tool, _):
        answer = await call(tool, to("192.0.2.1"), name="192.0.2.1", type="PTR")
        assert answer["answers"] == ["host.example.com"]
        await failing(tool, to("192.0.2.1"), ErrorKind.INVALID_INPUT, name="192.0.2.1", type="A")


async def test_a_silent_server_is_a_failure() -> None:
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    try:
        tool = DnsLookup(f"127.0.0.1:{silent.getsockname()[1]}")
        assert "no answer" in await failing(tool, to("*", timeout_s=0.3), ERROR, name="a.example")
    finally:
        silent.close()


async def test_a_certificate_is_shown_though_nobody_accepts_it(tmp_path: Path) -> None:
    """That it is refused, and why, is just what one wants to know."""
    authority = Authority(tmp_path)
    async with serving(answering(plain()), tls=authority.server(authority.issue(days=20))) as served:
        answer = await call(TLS, to("127.0.0.1"), host="127.0.0.1", port=served.port)

    assert answer["verified"] is False
    assert answer["verify_error"]
    assert answer["cert_subject"] == "CN=server"
    assert 19 < answer["cert_days_left"] <= 20
    assert answer["cert_names"] == ["localhost", "127.0.0.1"]
    assert answer["address"] == "127.0.0.1"
    assert answer["protocol"].startswith("TLS")


async def test_the_name_is_shown_to_the_server_at_the_checked_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNI decides which certificate comes; the address was resolved once, and checked."""
    asked: list[str] = []

    def look_up(host: str, port: Any, **more: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "10.0.0.1", 0))]

    monkeypatch.setattr("agentd.net.address.socket.getaddrinfo", look_up)
    names: list[str | None] = []
    authority = Authority(tmp_path)
    server = authority.server(authority.issue())
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(answering(plain()), tls=server) as served:
        await call(TLS, to("*.example.com"), host="shop.example.com", port=served.port)

    assert set(names) == {"shop.example.com"}
    assert asked == ["shop.example.com"]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[::1]", "10.0.0.1", "169.254.169.254", "localhost"])
async def test_private_addresses_are_not_connected_to(host: str) -> None:
    await failing(TLS, to("*", private=False), DENIED, host=host)


@pytest.mark.parametrize(
    "host",
    [
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:0:a9:fea9:fe00::"),
        *("2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "2001::5601:5601", "::ffff:0:a9fe:a9fe", "::a9fe:a9fe"),
        *("168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110"),
    ],
)
async def test_the_keys_of_the_machine_stay_closed_however_they_are_wrapped(host: str) -> None:
    """A translator on the way unwraps these; private networks are on, as where one looks at one's own servers."""
    assert "link-local" in await failing(TLS, to("*"), DENIED, host=host)


async def test_hosts_beside_the_list_are_refused() -> None:
    await failing(TLS, to("*.example.com"), DENIED, host="evil.test")
    await failing(TLS, to("*"), DENIED, host="169.254.169.254")


async def test_a_closed_port_is_a_failure() -> None:
    assert "refused" in await failing(TLS, to("127.0.0.1"), ERROR, host="127.0.0.1", port=1)
