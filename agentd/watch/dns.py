"""
The `dns` probe: one question to one server, and its answer.

In: a name, a type, a server (default: the system's). Out: answers, rcode, ttl as variables.
Promise: NXDOMAIN and SERVFAIL are answers, not errors; a truncated answer is asked for again over TCP; a datagram that
does not answer our question is passed over. Silence of a server that the watch names is its failure; silence of
the system's own resolvers is blind.
dnspython reads and writes the messages; the sockets are ours, so that queues are bounded and deadlines one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from agentd.net.address import NetFailure, classify, describe, literal_address, threads
from agentd.net.connection import Endpoint, Timings, connect
from agentd.net.stream import StreamConnection
from agentd.records import Observation
from agentd.settings import Settings
from agentd.watch.probe import Kind, Probe, ProbeTools
from agentd.watch.reach import TIMING_VARIABLES, check_host, observe

if TYPE_CHECKING:
    from dns.message import Message

_RESOLV_CONF = Path("/etc/resolv.conf")
_MAX_SERVERS = 3
_RESEND_S = 2.0
_MAX_WAITING = 8
_EDNS_BYTES = 1232  # the size that dnsflagday.net/2020 found to pass unfragmented
_LARGE_BYTES = 4096
_MAX_ANSWERS = 200

RecordType = Literal["A", "AAAA", "MX", "NS", "TXT", "CNAME", "SOA", "SRV", "PTR", "CAA"]


def read_server(text: str) -> tuple[str, int]:
    """`192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353` as address and port."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:]+|[^\[\]]*:[^\[\]]*:[^\[\]]*)(?::(\d{1,5}))?", text)
    address = None if match is None else literal_address(match[1])
    if match is None or address is None or not 1 <= (port := int(match[2] or 53)) <= 65535:
        raise ValueError(
            f"{text!r} is no address of a server; write e.g. 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
        )
    return address, port


def _check_server(text: str) -> str:
    read_server(text)
    return text


class DnsSettings(Settings):
    """What stands under `dns:`."""

    name: str = Field(description="The name to ask for; for PTR an address will do")
    type: RecordType = "A"
    server: Annotated[str, AfterValidator(_check_server)] | None = Field(
        None, description="Address of the server, with :port if not 53; default: the system's"
    )
    tcp: bool = Field(False, description="Ask over TCP from the start")

    @model_validator(mode="after")
    def _check_name(self) -> DnsSettings:
        if self.name != "." and literal_address(self.name) is None:
            check_host(self.name)
        elif self.name != "." and self.type != "PTR":
            raise ValueError(f"{self.name} is an address, which only has PTR records; write `type: PTR` or a name")
        return self


class DnsProbe:
    def __init__(self, settings: DnsSettings, name: str, tools: ProbeTools) -> None:
        self.wanted: frozenset[str] | None = None
        self._settings = settings
        self._tools = tools
        self._servers = [read_server(settings.server)] if settings.server is not None else None

    async def look(self, timeout_s: float) -> Observation:
        host = self._servers[0][0] if self._servers else "the system's resolver"
        return await observe(self._look, host=host, tools=self._tools, timeout_s=timeout_s)

    async def close(self) -> None:
        pass

    async def _look(self, observation: Observation, timings: Timings, left_s: float) -> None:
        deadline = time.monotonic() + left_s
        servers = self._servers or system_servers()
        failure: NetFailure | None = None
        for tried, (address, port) in enumerate(servers):
            left = len(servers) - tried
            share_s = (deadline - time.monotonic()) / left
            server = Endpoint.of(address, port)
            timings.step = "resolving" if self._servers is None else f"waiting for the answer of {server}"
            try:
                async with asyncio.timeout(None if left == 1 else share_s):
                    response = await self._ask(server, timings, share_s)
            except TimeoutError:
                failure = NetFailure(f"no answer from {server}")
            except NetFailure as error:
                failure = error
            else:
                observation.notes["peer"] = address
                self._report(observation, response)
                return
        assert failure is not None
        if self._servers is None:
            raise NetFailure(f"the system's resolver cannot be asked: {failure}", blind=True)
        raise failure

    async def _ask(self, server: Endpoint, timings: Timings, share_s: float) -> Message:
        import dns.flags
        import dns.message
        import dns.reversename

        name: Any = self._settings.name
        if self._settings.type == "PTR" and literal_address(name) is not None:
            name = dns.reversename.from_address(name)
        elif not name.isascii():
            name = check_host(name)
        query = dns.message.make_query(name, self._settings.type, use_edns=0, payload=_EDNS_BYTES)
        if not self._settings.tcp:
            response = await _over_udp(query, server, share_s)
            if not response.flags & dns.flags.TC:
                return response
        return await _over_tcp(query, server, timings, share_s)

    def _report(self, observation: Observation, response: Message) -> None:
        import dns.flags
        import dns.rcode
        import dns.rdatatype

        wanted = dns.rdatatype.from_text(self._settings.type)
        found = [rrset for rrset in response.answer if rrset.rdtype == wanted]
        records = [record for rrset in found for record in rrset]
        values = observation.values
        values["rcode"] = dns.rcode.to_text(response.rcode())
        values["authoritative"] = bool(response.flags & dns.flags.AA)
        values["answers"] = [_short(record) for record in records[:_MAX_ANSWERS]]
        values["records"] = [record.to_text() for record in records[:_MAX_ANSWERS]]
        if found:
            values["ttl"] = min(int(rrset.ttl) for rrset in found)


def _short(record: Any) -> str:
    """What one compares: an address, or a host name without its final dot; other types as in a zone file."""
    kind = type(record).__name__
    if kind in ("A", "AAAA"):
        return str(record.address)
    if kind == "MX":
        return _host(record.exchange)
    if kind in ("NS", "CNAME", "PTR", "SRV"):
        return _host(record.target)
    if kind == "TXT":
        return b"".join(record.strings).decode("utf-8", "replace")
    return str(record.to_text())


def _host(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True))


class _Datagrams(asyncio.DatagramProtocol):
    """The last few datagrams of one socket; a flood pushes nothing into memory."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes | OSError] = asyncio.Queue(_MAX_WAITING)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._add(data)

    def error_received(self, exc: Exception) -> None:
        self._add(exc if isinstance(exc, OSError) else OSError(str(exc)))

    def _add(self, item: bytes | OSError) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self.waiting.put_nowait(item)


async def _over_udp(query: Message, server: Endpoint, share_s: float) -> Message:
    wire = query.to_wire()
    loop = asyncio.get_running_loop()
    try:
        # Connected, so that the kernel drops what comes from elsewhere and reports a closed port.
        transport, datagrams = await loop.create_datagram_endpoint(_Datagrams, remote_addr=(server.host, server.port))
    except OSError as error:
        raise _failure(error, server) from error
    try:
        while True:
            transport.sendto(wire)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_RESEND_S, share_s / 3)):
                    return await _matching(query, datagrams, server)
    finally:
        transport.close()


async def _matching(query: Message, datagrams: _Datagrams, server: Endpoint) -> Message:
    while True:
        item = await datagrams.waiting.get()
        if isinstance(item, OSError):
            raise _failure(item, server)
        try:
            response = await _read(item)
        except NetFailure:
            if item[:2] == struct.pack("!H", query.id):
                raise
            continue
        if query.is_response(response):
            return response


async def _over_tcp(query: Message, server: Endpoint, timings: Timings, share_s: float) -> Message:
    wire = query.to_wire()
    step = timings.step
    connection = StreamConnection(65535 + 2)
    try:
        await connect(connection, server, timings, share_s)
        timings.step = step
        connection.write(struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await connection.read_exactly(2))
        response = await _read(await connection.read_exactly(length))
    finally:
        connection.abandon()
    if not query.is_response(response):
        raise NetFailure("the server answered another question than the one asked")
    return response


async def _read(wire: bytes) -> Message:
    if len(wire) <= _LARGE_BYTES:
        return _parse(wire)
    # A message of 64 KiB holds thousands of records and takes a tenth of a second.
    return await asyncio.get_running_loop().run_in_executor(threads, _parse, wire)


def _parse(wire: bytes) -> Message:
    import dns.exception
    import dns.message

    try:
        return dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error) as error:
        raise NetFailure(f"the server's answer is no DNS message: {error or type(error).__name__}"[:200]) from error


def _failure(error: OSError, server: Endpoint) -> NetFailure:
    return NetFailure(f"{describe(error)} ({server})", blind=classify(error, server.host) == "blind")


_read_conf: tuple[int, list[tuple[str, int]]] | None = None


def system_servers() -> list[tuple[str, int]]:
    """The resolvers that resolv.conf(5) names, this machine where it names none; read anew when the file changed."""
    global _read_conf
    try:
        changed = os.stat(_RESOLV_CONF).st_mtime_ns
        if _read_conf is not None and _read_conf[0] == changed:
            return _read_conf[1]
        lines = _RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return [("127.0.0.1", 53)]
    words = [line.split() for line in lines]
    named = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver" and literal_address(word[1])]
    servers = [(address, 53) for address in named[:_MAX_SERVERS]] or [("127.0.0.1", 53)]
    _read_conf = (changed, servers)
    return servers


def _open(settings: DnsSettings, name: str, tools: ProbeTools) -> Probe:
    return DnsProbe(settings, name, tools)


DNS = Kind(
    name="dns",
    settings=DnsSettings,
    variables={
        "answers": "the records of the type asked for: addresses, host names without final dot, texts",
        "records": "the same in full, as in a zone file: `10 mail.example.com.`",
        "rcode": "NOERROR, NXDOMAIN, SERVFAIL, REFUSED …",
        "ttl": "the shortest time to live of the answers, in seconds; missing without answers",
        "authoritative": "whether the server says that the zone is its own",
        **TIMING_VARIABLES,
    },
    open=_open,
    expect=('rcode == "NOERROR" && answers.size() > 0',),
)
