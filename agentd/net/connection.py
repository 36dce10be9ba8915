"""
One TCP or TLS connection, measured step by step.

In: an `Endpoint`. Out: a connected `Connection` and its `Timings`, or `NetFailure`.
Promise: no task, no buffer and no thread beside what the loop's transport needs; TLS runs over memory buffers inside
the protocol itself, so that its time, its certificate and its moment (STARTTLS) are ours, alike on asyncio and uvloop.
Nothing here has a deadline of its own save the share of each address; callers put `asyncio.timeout` around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import ClassVar

from agentd.net.address import NetFailure, classify, describe, literal_address, resolve_checked
from agentd.net.certificate import Certificate, read_certificate
from agentd.net.tls import TlsSettings, context_for, describe_tls

_LINGER_OFF = struct.pack("ii", 1, 0)
_TLS_READ_BYTES = 65536


class Timings:
    """
    How long each step took, in milliseconds, summed over redirects; and the step under way, for messages.

    first_byte_ms: from the request being sent to the first byte of the answer.
    """

    FIRST_STEP: ClassVar[str] = "waiting for a turn"

    __slots__ = ("connect_ms", "dns_ms", "first_byte_ms", "step", "tls_ms")

    def __init__(self) -> None:
        self.dns_ms = self.connect_ms = self.tls_ms = self.first_byte_ms = 0.0
        self.step = self.FIRST_STEP


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Where to connect, worked out at load.

    family: socket.AF_INET, AF_INET6, or 0 for both. literal: the host when it is an IP address, which needs no DNS.
    private: addresses outside the public internet are allowed.
    tls: None is plain TCP. server_name: the name for SNI and for verification.
    """

    host: str
    port: int
    family: int = 0
    private: bool = True
    tls: TlsSettings | None = None
    server_name: str = ""
    literal: str | None = None

    @classmethod
    def of(
        cls,
        host: str,
        port: int,
        *,
        family: int = 0,
        private: bool = True,
        tls: TlsSettings | None = None,
        server_name: str | None = None,
    ) -> Endpoint:
        literal = literal_address(host)
        if family and literal is not None and family != _family(literal):
            literal = None  # `resolve` says why it cannot be used
        host = host.strip("[]")
        name = (server_name or host).rstrip(".").partition("%")[0]
        return cls(host, port, family, private, tls, name, literal if private else None)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Connection(asyncio.Protocol):
    """
    The bytes of one connection; what they mean is for a subclass: `received` and `ended`.

    `waiter` is what the connection's one user waits on; `settle` and `fail` end the wait.
    """

    __slots__ = (
        "_handshaking",
        "_incoming",
        "_outgoing",
        "abandoned",
        "address",
        "closed",
        "tls",
        "transport",
        "waiter",
    )

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.address = ""
        self.closed = False
        self.abandoned = False
        self.waiter: asyncio.Future[None] | None = None
        self.tls: ssl.SSLObject | None = None
        self._handshaking = False

    # What a subclass makes of it.

    def received(self, data: bytes) -> None:
        """Bytes came in, decrypted."""

    def ended(self, failure: NetFailure | None) -> None:
        """No more bytes will come. May be called more than once."""

    # Called by users.

    def write(self, data: bytes) -> None:
        """Send. Errors show up in `ended`."""
        transport = self.transport
        if transport is None:
            self.ended(NetFailure("the connection was closed"))
        elif self.tls is None:
            transport.write(data)
        else:
            try:
                self.tls.write(data)
            except ssl.SSLError as error:
                self._broken(NetFailure(f"TLS failed: {describe_tls(error)}"), error)
            self._flush()

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Begin TLS on the connection as it stands. Raises NetFailure."""
        if self.transport is None:
            raise NetFailure("the other side ended the connection before the TLS handshake")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._handshaking = True
        waiter = self.wait()
        self._shake_hands()
        await waiter

    def certificate_der(self) -> bytes | None:
        return self.tls.getpeercert(binary_form=True) if self.tls is not None else None

    def certificate(self) -> Certificate | None:
        """The other side's certificate; None without TLS, or when it cannot be read."""
        der = self.certificate_der()
        try:
            return read_certificate(der) if der else None
        except ValueError:
            return None

    def abandon(self) -> None:
        """Let go at once. Ends by RST: nothing is owed to the other side, and no port stays in TIME_WAIT."""
        self.abandoned = True
        transport = self.transport
        if transport is not None:
            self.transport = None
            linger = transport.get_extra_info("socket")
            if linger is not None and not self.closed:
                with contextlib.suppress(OSError):
                    linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
            transport.abort()

    def close(self) -> None:
        """Let go with a proper end (close_notify, FIN), for servers that log anything else."""
        self.abandoned = True
        transport = self.transport
        if transport is None:
            return
        self.transport = None
        if self.tls is not None and not self._handshaking:
            with contextlib.suppress(ssl.SSLError, OSError):  # theirs is not there yet; ours is in the buffer
                self.tls.unwrap()
            transport.write(self._outgoing.read())
        transport.close()

    def wait(self) -> asyncio.Future[None]:
        """A new future that `settle` or `fail` will end."""
        self.waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    def settle(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, failure: NetFailure) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_exception(failure)

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's, though uvloop's is no subclass of it
        if self.abandoned:
            self.abandon()

    def data_received(self, data: bytes) -> None:
        if self.tls is None:
            self.received(data)
            return
        self._incoming.write(data)
        if self._handshaking:
            self._shake_hands()
            if self._handshaking:
                return
        self._decrypt()

    def eof_received(self) -> None:
        self._over(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.transport = None
        self._over(error)

    def _over(self, error: Exception | None) -> None:
        failure = None
        if error is not None:
            failure = NetFailure(describe(error) if isinstance(error, OSError) else str(error))
            failure.__cause__ = error
        if self._handshaking:
            self._handshaking = False
            said = "" if failure is None else f": {failure}"
            self.fail(NetFailure(f"the other side ended the connection in the TLS handshake{said}"))
        else:
            self.ended(failure)

    def _shake_hands(self) -> None:
        assert self.tls is not None
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLCertVerificationError as error:
            refused = NetFailure(f"certificate not accepted: {describe_tls(error)}", certificate_refused=True)
            self._broken(refused, error)
        except ssl.SSLError as error:
            self._broken(NetFailure(f"TLS handshake failed: {describe_tls(error)}"), error)
        else:
            self._handshaking = False
            self._flush()
            self.settle()

    def _decrypt(self) -> None:
        assert self.tls is not None
        try:
            while self.transport is not None:
                data = self.tls.read(_TLS_READ_BYTES)
                if not data:
                    self.ended(None)
                    break
                self.received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended(None)
        except ssl.SSLError as error:
            self._broken(NetFailure(f"TLS failed: {describe_tls(error)}"), error)
        self._flush()

    def _broken(self, failure: NetFailure, cause: Exception) -> None:
        failure.__cause__ = cause
        self._flush()  # the alert that tells the other side why
        self._handshaking = False
        self.fail(failure)
        self.ended(failure)

    def _flush(self) -> None:
        if self._outgoing.pending and self.transport is not None:
            self.transport.write(self._outgoing.read())


async def connect(connection: Connection, endpoint: Endpoint, timings: Timings, timeout_s: float) -> None:
    """
    Resolve, connect, and shake hands.

    timeout_s: the time left; with several addresses each gets an even share of what is still left of it.
    Raises NetFailure. It is blind only when no address could even be tried. The caller abandons the connection.
    """
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    if endpoint.literal is not None:
        await _connect_to(loop, connection, endpoint.literal, endpoint.port, timings)
    else:
        timings.step = f"resolving {endpoint.host}"
        addresses = await resolve_checked(
            endpoint.host, endpoint.port, private=endpoint.private, family=endpoint.family
        )
        timings.dns_ms += (time.monotonic() - started) * 1000
        await _connect_to_first(loop, connection, addresses, timings, started + timeout_s)
    if endpoint.tls is not None:
        await shake_hands(connection, endpoint.tls, endpoint.server_name, timings)


async def shake_hands(connection: Connection, tls: TlsSettings, server_name: str, timings: Timings) -> None:
    """Begin TLS on a connected connection, and count its time. Raises NetFailure."""
    timings.step = "in the TLS handshake"
    context = await context_for(tls)
    started = time.monotonic()
    try:
        await connection.start_tls(context, server_name)
    finally:
        timings.tls_ms += (time.monotonic() - started) * 1000


async def _connect_to_first(
    loop: asyncio.AbstractEventLoop,
    connection: Connection,
    addresses: list[tuple[str, int]],
    timings: Timings,
    deadline: float,
) -> None:
    failures: list[NetFailure] = []
    for tried, (address, port) in enumerate(addresses):
        left = len(addresses) - tried
        if left == 1:
            share: float | None = None  # the caller's own deadline
        else:
            share = max(0.0, deadline - time.monotonic()) / left
        try:
            async with asyncio.timeout(share):
                await _connect_to(loop, connection, address, port, timings)
            return
        except NetFailure as failure:
            failures.append(failure)
        except TimeoutError:
            failures.append(NetFailure(f"no answer from {_shown(address, port)}"))
    # That one address was out of our reach says nothing when another one refused us.
    raise next((failure for failure in failures if not failure.blind), failures[0])


async def _connect_to(
    loop: asyncio.AbstractEventLoop, connection: Connection, address: str, port: int, timings: Timings
) -> None:
    timings.step = "connecting"
    started = time.monotonic()
    connection.address = address
    try:
        await loop.create_connection(_Given(connection), address, port)
    except OSError as error:
        blind = classify(error, address) == "blind"
        raise NetFailure(f"{describe(error)} ({_shown(address, port)})", blind=blind) from error
    finally:
        timings.connect_ms += (time.monotonic() - started) * 1000


class _Given:
    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __call__(self) -> Connection:
        return self.connection


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
