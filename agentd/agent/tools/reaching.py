"""
Which addresses of an allowed host may be connected to.

In: the host in its one spelling. Out: addresses, to be connected to as they are and not resolved again.
Promise: addresses of private networks only with `private_networks`; link-local ones, where clouds offer the keys of
the machine, only where the configuration names the very address, and so however an IPv6 address wraps them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted
from agentd.net.address import NetFailure, carried, resolve_checked


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
    every: tuple[IPv4Address | IPv6Address, ...] = (ip, *carried(ip)) if isinstance(ip, IPv6Address) else (ip,)
    return any(each.is_link_local or each in _METADATA for each in every)


_METADATA = {ip_address(each) for each in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")}
"""Where clouds offer the same beside the link-local networks."""
