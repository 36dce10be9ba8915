"""
Names of hosts in their one spelling, and the patterns that allow them.

In: hosts as people, models and servers write them. Out: the spelling that is compared and connected to.
Promise: pure; two spellings of one host or address become one (case, final dot, international letters, IPv4 in
decimal, octal, hex or inside IPv6), so what was compared is what is reached.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")


def canonical_host(text: str) -> str:
    """
    The host in lower case and ASCII, without final dot and brackets; an address as `ipaddress` writes it.

    An IPv6 address that is an IPv4 one (`::ffff:127.0.0.1`) becomes that. Raises ValueError saying what is wrong.
    """
    if not text or len(text) > 1000:
        raise ValueError("it is empty or too long")
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        if "%" in host:
            raise ValueError("an address with a zone cannot be used")
        try:
            six = IPv6Address(host)
        except ValueError:
            raise ValueError("it is no IPv6 address") from None
        return str(six.ipv4_mapped or six)
    # Full-width letters, digits and dots are what they look like.
    host = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower().removesuffix(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise ValueError("it is no valid international name") from error
    if _NUMERIC.fullmatch(host):
        try:
            # As the C library would read it: 2130706433, 0x7f.1 and 0177.0.0.1 are all 127.0.0.1.
            return str(IPv4Address(socket.inet_aton(host)))
        except (OSError, ValueError):
            raise ValueError("it is a number, but no address") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("write a name such as shop.example or an address such as 192.0.2.1")
    if host.rpartition(".")[2].isdigit():
        raise ValueError("a name cannot end with a number")
    return host


def host_matches(pattern: str, host: str) -> bool:
    """
    Whether a host in its one spelling is one that the pattern means.

    `*.x.y`: names beneath x.y, not x.y itself. `*`: every host. `10.0.0.0/8`: hosts written as addresses of that
    network. A pattern that cannot be read means none.
    """
    if pattern == "*":
        return True
    address = _address(host)
    if "/" in pattern:
        try:
            return address is not None and address in ip_network(pattern, strict=False)
        except ValueError:
            return False
    try:
        if pattern.startswith("*."):
            return address is None and host.endswith("." + canonical_host(pattern[2:]))
        return host == canonical_host(pattern)
    except ValueError:
        return False


def host_pattern_covers(wide: str, narrow: str) -> bool:
    """Whether every host that `narrow` means is one that `wide` means."""
    if wide in ("*", narrow):
        return True
    if narrow == "*":
        return False
    try:
        if "/" in narrow:
            inner, outer = ip_network(narrow, strict=False), ip_network(wide, strict=False)
            return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version
        if narrow.startswith("*."):
            base, beneath = canonical_host(narrow[2:]), wide.startswith("*.")
            return beneath and ("." + base).endswith("." + canonical_host(wide[2:]))
        return host_matches(wide, canonical_host(narrow))
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
