"""
Names to addresses, addresses that may be reached, and whose fault a failure is.

In: host names, addresses, OS errors. Out: addresses as text, `NetFailure`.
Promise: the address that was checked is the one handed out to connect to; a resolver that hangs holds up to eight
threads of its own and nothing else, not even the end of the process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal, TypeVar

from agentd.errors import AgentdError

T = TypeVar("T")


class NetFailure(AgentdError):
    """
    The other side was not reached, or did not answer as it must.

    blind: it is we who could not look; nothing is known about the other side.
    certificate_refused: the failure is that its certificate was not accepted.
    """

    def __init__(self, message: str, *, blind: bool = False, certificate_refused: bool = False) -> None:
        super().__init__(message)
        self.blind = blind
        self.certificate_refused = certificate_refused


_OWN_FAULT = frozenset(
    {
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EPERM,
        errno.EACCES,
    }
)
_OWN_RESOLVER = frozenset({socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM})


def classify(error: OSError, address: str | None = None) -> Literal["blind", "error"]:
    """
    Whose fault a failure is: `blind` when this machine could not even try, `error` when the other side failed.

    address: where the attempt went, an IP as text. It settles EHOSTUNREACH, which is both "we have no route" (blind)
    and "the last router or the neighbour is silent" (error: a dead machine on our own network shows just that).
    EAI_AGAIN is blind: the C library says it both for a resolver out of reach and for a zone whose servers fail.
    """
    if isinstance(error, socket.gaierror):
        return "blind" if error.errno in _OWN_RESOLVER else "error"
    if error.errno == errno.EHOSTUNREACH:
        return "error" if address is None or _has_route(address) else "blind"
    return "blind" if error.errno in _OWN_FAULT else "error"


def describe(error: OSError) -> str:
    """The error in a few words, without addresses: `connection refused`."""
    if isinstance(error, socket.gaierror):
        return (error.strerror or "name resolution failed").lower()
    if error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _has_route(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing; it only looks up the route.
            probe.connect((address, 9))
    except OSError:
        return False
    return True


# RFC 6890 and the IANA special-purpose registries; written out because `is_global` differs between Pythons. And the
# one address by which a virtual machine of Azure asks its host, in no registry.
_CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_OPEN_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_LAST_FOUR = tuple(IPv6Network(network) for network in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))


def is_public(address: str) -> bool:
    """
    Is this IP address one of the public internet?

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is as public as what it carries.
    Text that is no IP address is not public.
    """
    try:
        if ":" not in address:
            return _is_public_v4(IPv4Address(address))
        ip = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return False
    if ip.ipv4_mapped is not None:
        return _is_public_v4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_v4(IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip in _SIX_TO_FOUR:
        return _is_public_v4(IPv4Address((int(ip) >> 80) & 0xFFFFFFFF))
    return ip in _OPEN_V6 and not any(ip in network for network in _CLOSED_V6)


def _is_public_v4(ip: IPv4Address) -> bool:
    return not any(ip in network for network in _CLOSED_V4)


def carried(ip: IPv6Address) -> tuple[IPv4Address, ...]:
    """
    The IPv4 addresses that an IPv6 one may lead to; most lead to none.

    Compatible, mapped, translated (RFC 2765), NAT64 (RFC 6052, of RFC 8215 by every length of prefix), 6to4, Teredo.
    """
    packed = ip.packed
    if any(ip in network for network in _LAST_FOUR):
        return (IPv4Address(packed[12:]),)
    if ip in _SIX_TO_FOUR:
        return (IPv4Address(packed[2:6]),)
    if ip in _LOCAL_NAT64:
        # Bits 64 to 71 are left out, RFC 6052 section 2.2.
        spread = packed[:8] + packed[9:]
        return tuple(IPv4Address(each) for each in (packed[12:], spread[6:10], spread[7:11], spread[8:12]))
    return ip.teredo or ()


def literal_address(host: str) -> str | None:
    """The host as an IP address when it is one, without asking anybody; brackets of a URL are taken off."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        if ":" in host:
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, host)
    except (OSError, UnicodeError, ValueError):
        return None
    return host


class _DaemonThreads(Executor):
    """
    A pool whose threads do not hold up the end of the process.

    The standard pool joins its threads at exit, and a resolver with dead servers keeps one for half a minute.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        job: Future[T] = Future()
        self._jobs.put((job, lambda: fn(*args, **kwargs)))
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._work, name=f"resolve-{self._started}", daemon=True).start()
        return job

    def _work(self) -> None:
        while True:
            try:
                job, call = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.release()
                job, call = self._jobs.get()
            if job.set_running_or_notify_cancel():
                try:
                    job.set_result(call())
                except BaseException as error:  # it belongs to whoever waits for the job
                    job.set_exception(error)
            del job, call


threads = _DaemonThreads(8)
"""For calls that may block for long, apart from the loop's own threads, which a hung resolver would use up."""


async def resolve(host: str, *, family: int = 0) -> list[str]:
    """
    The addresses of a host as text, in the order to try them; an IP literal is its own answer.

    family: socket.AF_INET, AF_INET6, or 0 for both. No deadline of its own. Raises NetFailure.
    """
    literal = literal_address(host)
    if literal is not None:
        if family and family != (socket.AF_INET6 if ":" in literal else socket.AF_INET):
            raise NetFailure(f"{host} is not an IPv{6 if family == socket.AF_INET6 else 4} address")
        return [literal]
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            threads, lambda: socket.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
        )
    except OSError as error:
        blind = classify(error) == "blind"
        raise NetFailure(f"cannot resolve {host}: {describe(error)}", blind=blind) from error
    except ValueError as error:  # a label too long or empty, a NUL
        raise NetFailure(f"cannot resolve {host}: not a valid host name") from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def resolve_checked(host: str, port: int, *, private: bool, family: int = 0) -> list[tuple[str, int]]:
    """
    Resolve once and keep only addresses that may be reached; connect to exactly these, and do not resolve again.

    private: addresses outside the public internet are allowed. Raises NetFailure, also when none is left.
    """
    found = await resolve(host, family=family)
    allowed = found if private else [address for address in found if is_public(address)]
    if not allowed:
        raise NetFailure(f"{host} resolves to {found[0]}, which is not a public address")
    return [(address, port) for address in allowed]
