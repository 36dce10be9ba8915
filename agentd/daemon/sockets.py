"""
What the HTTP surface listens on: the sockets that the service manager passed to us, and what it did not pass.

In: passed sockets, the addresses of the configuration. Out: sockets that listen.
Promise: a passed socket is held to what `agentd check` holds `api.listen` to, and takes the place of the address that
it listens on and of no other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Sequence

from agentd.api.server import CannotListen, open_socket
from agentd.config.values import Listen

log = logging.getLogger("agentd.daemon")


def open_sockets(
    passed: Sequence[socket.socket], addresses: Sequence[Listen], *, has_keys: bool, stack: contextlib.AsyncExitStack
) -> list[socket.socket]:
    """
    The passed ones, then one for each address that none of these stands for.

    has_keys: the configuration names keys. stack: closes what is opened here. Raises CannotListen, also for a passed
    socket that others can reach while there is no key, or that takes no connections.
    """
    sockets = list(passed)
    there = [_checked(each, has_keys=has_keys) for each in passed]
    for address in addresses:
        if any(_stands_for(each, where, address) for each, where in zip(passed, there, strict=True)):
            continue
        sockets.append(open_socket(str(address)))
        stack.callback(sockets[-1].close)
    return sockets


def _checked(passed: socket.socket, *, has_keys: bool) -> Listen:
    if passed.type != socket.SOCK_STREAM or passed.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise CannotListen(
            "the service manager passed a socket that takes no connections; write ListenStream= in its unit"
        )
    address = _address_of(passed)
    if address.local:
        return address
    if not has_keys:
        raise CannotListen(
            f"the service manager passed {address}, which can be reached by others, and there is no key to ask them "
            "for; make one with `agentd key new NAME`, or write ListenStream=127.0.0.1:PORT in the unit"
        )
    log.warning(
        "passed_socket_open", extra={"address": str(address), "why": "others reach it, and it is not encrypted"}
    )
    return address


def _address_of(passed: socket.socket) -> Listen:
    name = passed.getsockname()
    if passed.family == socket.AF_UNIX:
        # One of the abstract namespace has a name in bytes, and is in no folder.
        return Listen(path=name if isinstance(name, str) else "@" + name[1:].decode(errors="replace"))
    return Listen(None, _bare(name[0]), name[1])


def _stands_for(passed: socket.socket, there: Listen, address: Listen) -> bool:
    if there.path is not None or address.path is not None:
        return there.path is not None and address.path is not None and _same_path(there.path, address.path)
    if there.port != address.port:
        return False
    where = _resolved(address)
    if there.host == where:
        return True
    if not ipaddress.ip_address(there.host).is_unspecified:
        return False
    # One for all addresses: nothing else could bind its port.
    same = (":" in where) == (":" in there.host)
    return same or (":" in there.host and not passed.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def _same_path(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _resolved(address: Listen) -> str:
    """What `open_socket` would bind."""
    try:
        return _bare(str(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][4][0]))
    except OSError:
        return address.host


def _bare(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host
