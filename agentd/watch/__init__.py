"""Probes: one file per kind. To add one, write the file and its two lines here."""

from __future__ import annotations

from agentd.watch.command import COMMAND
from agentd.watch.dns import DNS
from agentd.watch.heartbeat import HEARTBEAT
from agentd.watch.host import HOST
from agentd.watch.http import HTTP
from agentd.watch.probe import Kind
from agentd.watch.systemd import SYSTEMD
from agentd.watch.tcp import TCP
from agentd.watch.tls import TLS

_ALL: tuple[Kind, ...] = (
    HTTP,
    TCP,
    TLS,
    DNS,
    COMMAND,
    SYSTEMD,
    HOST,
    HEARTBEAT,
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every kind of probe by its key in a watch."""
