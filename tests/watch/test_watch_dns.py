"""The dns probe against a small server over UDP and TCP."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from loopback import LOOPS, probe_tools, runner
from pydantic import ValidationError

from agentd.records import Observation
from agentd.watch import dns as dns_module
from agentd.watch.dns import DNS, read_server, system_servers

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Answer = Callable[[dns.message.Message, bool], list[bytes]]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for wire in self.answer(dns.message.from_wire(data), False):
            self.transport.sendto(wire, addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def name_server(answer: Answer) -> AsyncIterator[str]:
    """Both on one port. `answer` gets the query and whether it came over TCP, and gives the messages to send."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        for wire in answer(dns.message.from_wire(await reader.readexactly(length)), True):
            writer.write(struct.pack("!H", len(wire)) + wire)
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    tcp = await asyncio.start_server(stream, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(answer), local_addr=("127.0.0.1", port))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        udp.close()
        tcp.close()


def replying(
    *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, flags: int = 0, ttl: int = 300, owner: str | None = None
) -> Answer:
    """Answers every question with records such as `MX 10 mail.example.com.`"""

    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        response.flags |= flags
        name = owner or query.question[0].name.to_text()
        for record in records:
            kind, _, data = record.partition(" ")
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, data))
        return [response.to_wire(max_size=65535)]

    return answer


async def look(server: str | None, *, timeout_s: float = 20, **settings: Any) -> Observation:
    model = DNS.settings.model_validate({"name": "example.com", "server": server, **settings})
    return await DNS.open(model, "mx", probe_tools()).look(timeout_s)


def seen(run: Run, answer: Answer, **settings: Any) -> Observation:
    async def story() -> Observation:
        async with name_server(answer) as server:
            return await look(server, **settings)

    observation: Observation = run(story())
    return observation


@pytest.mark.parametrize("tcp", [False, True])
def test_every_variable_has_its_value(run: Run, tcp: bool) -> None:
    answer = replying("MX 10 mail.example.com.", "MX 20 backup.example.com.", flags=dns.flags.AA, ttl=120)

    observation = seen(run, answer, type="MX", tcp=tcp)

    values = observation.values
    assert observation.error is None
    assert sorted(values["answers"]) == ["backup.example.com", "mail.example.com"]
    assert "10 mail.example.com." in values["records"]
    assert (values["rcode"], values["ttl"], values["authoritative"]) == ("NOERROR", 120, True)
    assert values["latency_ms"] > 0
    assert set(values) == set(DNS.variables)


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        ("A 192.0.2.7", "192.0.2.7"),
        ("AAAA 2001:db8::7", "2001:db8::7"),
        ("NS ns1.example.com.", "ns1.example.com"),
        ("CNAME other.example.com.", "other.example.com"),
        ("PTR host.example.com.", "host.example.com"),
        ("SRV 1 2 443 srv.example.com.", "srv.example.com"),
        ('TXT "v=spf1 " "-all"', "v=spf1 -all"),
        ("SOA ns1.example.com. root.example.com. 7 1 2 3 4", "ns1.example.com. root.example.com. 7 1 2 3 4"),
        ('CAA 0 issue "letsencrypt.org"', '0 issue "letsencrypt.org"'),
    ],
)
def test_an_answer_is_what_one_would_compare(run: Run, record: str, answer: str) -> None:
    assert seen(run, replying(record), type=record.split()[0]).values["answers"] == [answer]


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_refusal_is_an_answer(run: Run, rcode: dns.rcode.Rcode) -> None:
    """A watch may want a name not to exist."""
    observation = seen(run, replying(rcode=rcode))

    assert observation.error is None
    assert observation.values["rcode"] == dns.rcode.to_text(rcode)
    assert observation.values["answers"] == []
    assert "ttl" not in observation.values


def test_a_cut_answer_is_asked_for_again_over_tcp(run: Run) -> None:
    """Half of the records would be half of the truth."""

    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        flags = 0 if over_tcp else dns.flags.TC
        count = 100 if over_tcp else 1
        return replying(*(f"A 192.0.2.{number}" for number in range(count)), flags=flags)(query, over_tcp)

    assert len(seen(run, answer).values["answers"]) == 100


def test_a_forged_datagram_is_passed_over(run: Run) -> None:
    """Whoever guesses the port must guess the id and the question as well."""

    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        other = dns.message.make_query("other.example", "A", id=query.id)
        wrong_id = dns.message.make_query("example.com", "A", id=(query.id + 1) % 65536)
        forged = [replying("A 203.0.113.1")(lie, False)[0] for lie in (other, wrong_id)]
        return [*forged, b"\x00", *replying("A 192.0.2.1")(query, over_tcp)]

    assert seen(run, answer).values["answers"] == ["192.0.2.1"]


@pytest.mark.parametrize("tcp", [False, True])
def test_rubbish_is_an_error(run: Run, tcp: bool) -> None:
    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        return [struct.pack("!H", query.id) + b"\x81\x80" + b"\xff" * 40]

    assert "no DNS message" in str(seen(run, answer, tcp=tcp).error)


def test_a_lost_datagram_is_sent_again(run: Run) -> None:
    """One packet in a thousand is lost on a good day; that is no outage."""
    asked = 0

    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        nonlocal asked
        asked += 1
        return replying("A 192.0.2.1")(query, over_tcp) if asked > 1 else []

    assert seen(run, answer, timeout_s=1.0).error is None


def test_silence_of_a_named_server_is_its_failure(run: Run) -> None:
    async def story() -> tuple[str, Observation]:
        async with name_server(lambda query, over_tcp: []) as server:
            return server, await look(server, timeout_s=0.3)

    server, observation = run(story())

    assert observation.error == f"no answer within 0.3 s, waiting for the answer of {server}"
    assert observation.blind is None


def test_a_closed_port_is_the_server_s_failure(run: Run) -> None:
    async def story() -> str:
        async with name_server(replying()) as server:
            return server

    server = run(story())
    observation = run(look(server))
    assert f"connection refused ({server})" in observation.error


def test_the_system_s_resolvers_are_asked_in_turn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> Observation:
        async with name_server(replying()) as gone:
            pass
        async with name_server(replying("A 192.0.2.1")) as server:
            monkeypatch.setattr(dns_module, "system_servers", lambda: [read_server(gone), read_server(server)])
            return await look(None)

    assert run(story()).values["answers"] == ["192.0.2.1"]


def test_without_the_system_s_resolver_we_are_blind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ours, not the watched name's; every watch without a server would fire at once."""

    async def story() -> tuple[Observation, Observation]:
        async with name_server(replying()) as gone:
            pass
        monkeypatch.setattr(dns_module, "system_servers", lambda: [read_server(gone)])
        refused = await look(None)
        async with name_server(lambda query, over_tcp: []) as silent:
            monkeypatch.setattr(dns_module, "system_servers", lambda: [read_server(silent)])
            return refused, await look(None, timeout_s=0.3)

    for observation in run(story()):
        assert observation.error is None
        assert "resolver" in observation.blind


def test_an_address_is_asked_for_by_its_reverse_name(run: Run) -> None:
    def answer(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        assert query.question[0].name.to_text() == "7.2.0.192.in-addr.arpa."
        return replying("PTR host.example.com.")(query, over_tcp)

    assert seen(run, answer, name="192.0.2.7", type="PTR").values["answers"] == ["host.example.com"]


def test_resolv_conf_is_read_and_read_again_when_it_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DHCP rewrites it while we run."""
    conf = tmp_path / "resolv.conf"
    monkeypatch.setattr(dns_module, "_RESOLV_CONF", conf)
    monkeypatch.setattr(dns_module, "_read_conf", None)

    assert system_servers() == [("127.0.0.1", 53)]
    conf.write_text("# x\nsearch a\nnameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver rubbish\nnameserver\n")
    assert system_servers() == [("192.0.2.1", 53), ("fe80::1%lo", 53)]
    renewed = tmp_path / "new"
    renewed.write_text("options edns0\n")
    renewed.replace(conf)
    assert system_servers() == [("127.0.0.1", 53)]


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_a_server_is_an_address_with_or_without_a_port(text: str, server: tuple[str, int]) -> None:
    assert read_server(text) == server


@pytest.mark.parametrize(
    "settings",
    [
        *({"server": text} for text in ("ns1.example", "192.0.2.1:0", "192.0.2.1:99999", "", "[]:53", "1.2.3.4:x")),
        *({"type": "ANY"}, {"name": "a b"}, {"name": "x" * 64 + ".example"}, {"name": "192.0.2.1"}, {"nmae": "x"}),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DNS.settings.model_validate({"name": "example.com", **settings})
