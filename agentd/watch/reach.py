"""
What the probes over the network share: settings of one meaning, and the frame around a look.

In: a probe's story, which connects and fills an observation. Out: that observation, whatever happened.
Promise: a look ends within its time, its own failures come out as `blind` and the target's as `error`, and time spent
waiting for the host's token bucket counts in no timing.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from agentd.net.address import NetFailure, literal_address
from agentd.net.connection import Timings
from agentd.records import Observation
from agentd.secret import SecretMissing
from agentd.watch.probe import ProbeTools

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
FAMILIES = {"any": 0, "4": int(socket.AF_INET), "6": int(socket.AF_INET6)}

TIMING_VARIABLES = {
    "latency_ms": "milliseconds from the start of the look to its end",
    "dns_ms": "milliseconds to resolve the host name; 0 for an IP address",
    "connect_ms": "milliseconds to establish the TCP connection",
}


def check_host(host: str) -> str:
    """A host name in its ASCII form or an IP address, without brackets. Raises ValueError with the cure."""
    literal = literal_address(host)
    if literal is not None:
        return literal
    name = host
    if not host.isascii():
        try:
            name = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{host!r} is not a valid host name: {error}") from error
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r} is neither a host name nor an IP address; write e.g. shop.example or 192.0.2.1")
    return name


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


HostName = Annotated[str, AfterValidator(check_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
IpVersion = Annotated[
    Literal["any", "4", "6"],
    BeforeValidator(_as_text),
    WithJsonSchema({"enum": ["any", "4", "6", 4, 6], "description": "Which addresses of the host to use"}),
]


async def observe(
    story: Callable[[Observation, Timings, float], Awaitable[None]], *, host: str, tools: ProbeTools, timeout_s: float
) -> Observation:
    """
    Take a token of `host`, then run the story against the clock.

    The story gets the observation to fill, the timings to count into, and the seconds it has left.
    """
    observation = Observation()
    timings = Timings()
    entered = started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            await tools.hosts.take(host)
            started = time.monotonic()
            timings.step = "starting"
            await story(observation, timings, timeout_s - (started - entered))
    except TimeoutError:
        _timed_out(observation, timings, host, timeout_s)
    except NetFailure as failure:
        if failure.blind:
            observation.blind = str(failure)
        else:
            observation.error = str(failure)
    except SecretMissing as missing:
        observation.blind = str(missing)
    ended = time.monotonic()
    observation.duration_s = ended - started
    values = observation.values
    values["latency_ms"] = (ended - started) * 1000
    values["dns_ms"] = timings.dns_ms
    values["connect_ms"] = timings.connect_ms
    return observation


def _timed_out(observation: Observation, timings: Timings, host: str, timeout_s: float) -> None:
    if timings.step == Timings.FIRST_STEP:
        observation.blind = f"waited {timeout_s:g} s for a turn: more looks at {host} are due than its rate allows"
    elif timings.step.startswith("resolving"):
        # The resolver is ours: even a name that does not exist has an answer.
        observation.blind = f"no answer from the resolver within {timeout_s:g} s, {timings.step}"
    else:
        observation.error = f"no answer within {timeout_s:g} s, {timings.step}"
