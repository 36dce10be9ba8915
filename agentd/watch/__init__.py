"""Probes: one file per kind. To add one, write the file and its two lines here."""

from __future__ import annotations

from agentd.watch.heartbeat import HEARTBEAT
from agentd.watch.probe import Kind

_ALL: tuple[Kind, ...] = (HEARTBEAT,)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every kind of probe by its key in a watch."""
