"""
The ten events of a running agent, for whoever subscribes: command line, page, traces.

Promise: in this order and each begun thing ended: AgentStart, then for every turn TurnStart, MessageStart,
MessageUpdate…, MessageEnd, ToolExecutionStart, ToolExecutionUpdate…, ToolExecutionEnd, TurnEnd, and AgentEnd at last.
Calls that run at once interleave; each has its id. A listener that raises harms nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

log = logging.getLogger("agentd.agent")


@dataclass(frozen=True, slots=True)
class AgentStart:
    run: str
    goal: str


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """state: of `Outcome`. outcome: its JSON."""

    run: str
    state: str
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnStart:
    """turn: one question to the model and what it leads to, counted from 1."""

    turn: int


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """decision: what the supervisor made of it, such as `continue`, `retry`, `final`. reason: for people."""

    turn: int
    decision: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MessageStart:
    role: str


@dataclass(frozen=True, slots=True)
class MessageUpdate:
    """
    kind: `text`, `thinking` or `tool_call`; `remark`: what is happening to the question, no part of the answer.
    delta: what came just now.
    """

    kind: Literal["text", "thinking", "tool_call", "remark"]
    delta: str


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """usage: tokens of this call. usd: None when no price is known."""

    role: str
    content: str
    model: str = ""
    usage: Mapping[str, Any] | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class ToolExecutionStart:
    id: str
    tool: str
    input: Mapping[str, Any]
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolExecutionUpdate:
    """partial: what it has so far, or what is happening to it (`tried again`)."""

    id: str
    tool: str
    partial: str


@dataclass(frozen=True, slots=True)
class ToolExecutionEnd:
    """output: shortened for people. error: of the closed list of `ErrorKind`, None when it went well."""

    id: str
    tool: str
    output: str
    error: str | None = None
    message: str = ""
    duration_s: float = 0.0


AgentEvent = (
    AgentStart
    | AgentEnd
    | TurnStart
    | TurnEnd
    | MessageStart
    | MessageUpdate
    | MessageEnd
    | ToolExecutionStart
    | ToolExecutionUpdate
    | ToolExecutionEnd
)
EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in AgentEvent.__args__}
Listener = Callable[[AgentEvent], None]


def event_json(event: AgentEvent) -> dict[str, Any]:
    """The event as JSON, its name under `event`; what is in it is not copied."""
    return {"event": type(event).__name__, **{name: getattr(event, name) for name in event.__slots__}}


def event_from(data: Mapping[str, Any]) -> AgentEvent:
    """What `event_json` gave. Raises ValueError."""
    fields = {key: tuple(value) if key == "depends_on" else value for key, value in data.items() if key != "event"}
    kind = EVENTS.get(str(data.get("event")))
    if kind is None:
        raise ValueError(f"no event of the agent is called {data.get('event')!r}")
    found: AgentEvent = kind(**fields)
    return found


class Listeners:
    """Those who subscribed."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._next = 0

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends the subscription."""
        self._next += 1
        number = self._next
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def tell(self, event: AgentEvent) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except Exception:
                log.exception("listener_failed", extra={"event": type(event).__name__})
