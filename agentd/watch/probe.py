"""
The port between the main path and the probe kinds.

A kind is one file: its settings, the variables its conditions may read, and how to open a probe.
A probe looks once per call and says what it saw; it never decides, stores or tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agentd.records import Observation
from agentd.settings import Settings

if TYPE_CHECKING:
    from agentd.clock import Clock
    from agentd.pacing import KeyedBuckets
    from agentd.watch.heartbeat import Beats


class Probe(Protocol):
    async def look(self, timeout_s: float) -> Observation:
        """
        Look once, within `timeout_s` seconds.

        Whatever the target does is an Observation, never an exception; an exception is a defect of the probe.
        Cancelling ends the look at once and leaves no connection and no child behind.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held open between looks."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeTools:
    """
    What the daemon hands to every probe.

    hosts: token buckets by probed host; a probe takes one token before it connects.
    beats: the heartbeats that came in.
    """

    clock: Clock
    hosts: KeyedBuckets
    beats: Beats


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of probe.

    name: its key in a watch. settings: the model of what stands under that key.
    variables: the names its conditions may read, with a short explanation each (shown by errors and the schema).
    open: makes a probe of (settings, name of the watch, tools); cheap, and opens nothing.
    network: True when a dead uplink of our own would make it fail.
    expect: the conditions that hold for a healthy target when the watch names none.
    every: the interval in seconds when the watch names none.
    """

    name: str
    settings: type[Settings]
    variables: dict[str, str]
    open: Callable[[Any, str, ProbeTools], Probe]
    network: bool = True
    expect: tuple[str, ...] = ()
    every: float = 60.0
