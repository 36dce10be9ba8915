"""
How far a task is, made of its events.

In: events, one by one, and the time. Out: plan, calls of tools with states and times, what the model says, tokens and
cost. Promise: pure and bounded; an event that makes no sense changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentd.cli.tables import written

Json = Mapping[str, Any]

MOST_CALLS = 200
_MOST_TEXT = 8000
_MOST_NOTE = 200


@dataclass(slots=True)
class ToolProgress:
    """began_s: when, on the caller's clock. took_s: None while it runs. note: what it says now, or why it failed."""

    id: str
    tool: str
    input: str
    depends_on: tuple[str, ...]
    began_s: float
    state: Literal["running", "ok", "failed"] = "running"
    took_s: float | None = None
    note: str = ""


@dataclass(slots=True)
class Progress:
    """
    plan: as the agent has it, set from outside. text: of the message under way. acting: characters of the calls or the
    thoughts in it. remark: what is happening to the question meanwhile. usd: None once a price was not known. state: of
    the last end, None while it works.
    """

    began_s: float
    plan: Json | None = None
    turn: int = 0
    calls: dict[str, ToolProgress] = field(default_factory=dict)
    text: str = ""
    acting: int = 0
    thinking: int = 0
    remark: str = ""
    model: str = ""
    tokens: int = 0
    usd: float | None = 0.0
    decision: str = ""
    state: str | None = None

    @property
    def is_busy(self) -> bool:
        return self.state is None

    def take(self, event: Json, now_s: float) -> None:
        """The next event. now_s: monotonic."""
        kind = event.get("event")
        if kind == "AgentStart":
            self.state = None
        elif kind == "AgentEnd":
            self.state = str(event.get("state"))
        elif kind == "TurnStart":
            self.turn = int(event.get("turn", 0))
        elif kind == "TurnEnd":
            self.decision = " ".join(str(event.get(key) or "") for key in ("decision", "reason")).strip()
        elif isinstance(kind, str) and kind.startswith("Message"):
            self._message(kind, event)
        elif isinstance(kind, str) and kind.startswith("Tool"):
            self._tool(kind, event, now_s)

    def _message(self, kind: str, event: Json) -> None:
        if kind == "MessageStart":
            self.text, self.acting, self.thinking, self.remark = "", 0, 0, ""
        elif kind == "MessageUpdate":
            delta = str(event.get("delta") or "")
            if event.get("kind") == "text":
                self.text = (self.text + delta)[-_MOST_TEXT:]
            elif event.get("kind") == "thinking":
                self.thinking += len(delta)
            elif event.get("kind") == "remark":
                self.remark = delta[:_MOST_NOTE]
            else:
                self.acting += len(delta)
        elif event.get("role") == "assistant":
            usage = event.get("usage") or {}
            self.model = str(event.get("model") or self.model)
            self.tokens += int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
            if usage:
                usd = event.get("usd")
                self.usd = None if usd is None or self.usd is None else self.usd + float(usd)

    def _tool(self, kind: str, event: Json, now_s: float) -> None:
        id = str(event.get("id"))
        if kind == "ToolExecutionStart":
            depends_on = tuple(map(str, event.get("depends_on", ())))
            input = written(event.get("input") or {})
            self.calls.pop(id, None)
            self.calls[id] = ToolProgress(id, str(event.get("tool")), input, depends_on, now_s)
            while len(self.calls) > MOST_CALLS:
                del self.calls[next(iter(self.calls))]
            return
        call = self.calls.get(id)
        if call is None:
            return
        if kind == "ToolExecutionUpdate":
            call.note = str(event.get("partial") or "")[:_MOST_NOTE]
            return
        error = event.get("error")
        call.state = "failed" if error else "ok"
        call.took_s = float(event.get("duration_s") or 0.0)
        call.note = f"{error}: {event.get('message')}"[:_MOST_NOTE] if error else ""
