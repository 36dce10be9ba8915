"""
Real servers on loopback for the tests: plain scripts over TCP and TLS, and the certificates they show.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentd.clock import SystemClock
from agentd.pacing import KeyedBuckets
from agentd.settings import RateLimit
from agentd.watch.heartbeat import Beats
from agentd.watch.probe import ProbeTools

T = TypeVar("T")
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, T]], T]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def runner(loop: str) -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine to its end on a new loop of that kind."""

    def run(story: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as running:
            return running.run(story)

    return run


def probe_tools(rate: RateLimit | None = None) -> ProbeTools:
    clock = SystemClock()
    return ProbeTools(clock=clock, hosts=KeyedBuckets(rate or RateLimit(10_000, 1)), beats=Beats(clock))


class Served:
    """port: where it listens. heads: the request heads that came in. connections: how many were accepted."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.ended = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@asynccontextmanager
async def serving(
    script: Script, *, tls: ssl.SSLContext | None = None, served: Served | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Served]:
    """A server that plays `script` on each connection; what the other side does to the script is no failure."""
    told = served or Served()
    talks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                await script(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the server
        finally:
            talks.discard(task)
            writer.transport.abort()
            told.ended.set()

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # handshakes that a test lets fail
    server = await asyncio.start_server(play, host, 0, ssl=tls)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def answering(*answers: bytes, told: Served | None = None, keep_open: bool = False) -> Script:
    """Reads one request for each answer, sends it, and ends the connection properly."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            if told is not None:
                told.heads.append(head)
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if lengths:
                    told.bodies.append(await reader.readexactly(int(lengths[0].split(b":")[1])))
            writer.write(answer)
            await writer.drain()
        if keep_open:
            await reader.read()
        elif writer.can_write_eof():
            writer.write_eof()
            await reader.read()
        else:
            writer.close()
            await writer.wait_closed()

    return script


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Waits for a request and answers by RST."""
    await reader.read(1)
    linger = writer.get_extra_info("socket")
    linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plain(body: bytes = b"ok", *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Authority:
    """A certificate authority of the tests; certificates are files in `folder`."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests, Inc."),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1000))
            .not_valid_after(now + timedelta(days=1000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = str(folder / f"{name.replace(' ', '-')}.pem")
        Path(self.file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str = "server", *, names: tuple[str, ...] = ("localhost", "127.0.0.1"), days: float = 90.0
    ) -> str:
        """A PEM file with key and certificate, valid for `days` from now; negative: expired so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        sans: list[x509.GeneralName] = []
        for san in names:
            try:
                sans.append(x509.IPAddress(ipaddress.ip_address(san)))
            except ValueError:
                sans.append(x509.DNSName(san))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(sans), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self.folder / f"{name}-{x509.random_serial_number()}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return str(path)

    def server(self, pem: str, *, require_client: bool = False, alpn: list[str] | None = None) -> ssl.SSLContext:
        """What a server needs to show that certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        if require_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context
