"""
Which addresses of an allowed host may be connected to.

In: the host in its one spelling. Out: addresses, to be connected to as they are and not resolved again.
Promise: addresses of private networks only with `private_networks`; link-local ones, where clouds offer the keys of
the machine, only where the configuration names the very address.
"""

from __future__ import annotations

from ipaddress import ip_address

from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted
from agentd.net.address import NetFailure, resolve_checked


async def addresses_of(permissions: Permissions, host: str) -> list[str]:
    """At least one address. Raises NotPermitted, NetFailure when the name cannot be resolved."""
    try:
        found = [address for address, _ in await resolve_checked(host, 0, private=permissions.private_networks)]
    except NetFailure as failure:
        if not failure.blind and "not a public address" in str(failure):
            raise NotPermitted(f"{failure}; private networks are off (agent.http.private_networks)") from failure
        raise
    allowed = [address for address in found if address in permissions.http or not _is_link_local(address)]
    if not allowed:
        raise NotPermitted(
            f"{host} leads to {found[0]}, a link-local address; only naming it in agent.http.allow opens it"
        )
    return allowed


def _is_link_local(address: str) -> bool:
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_link_local or ip in _METADATA


_METADATA = {ip_address("fd00:ec2::254"), ip_address("100.100.100.200"), ip_address("192.0.0.192")}
