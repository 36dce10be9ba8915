"""
The account of a run: what it recorded, asked, spent.

In: everything that happens in a run, in its order. Out: numbered records to whoever keeps them, sums for the outcome.
Promise: the records hold enough to run it again without network, files or clock; nothing here waits or raises.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentd.agent.port import Record
from agentd.clock import Clock
from agentd.llm.port import ChatMessage, Done, Request, ToolCall, Usage
from agentd.telemetry.redact import redact_all

log = logging.getLogger("agentd.agent")


class Keeping(Protocol):
    """Whoever keeps the records of a run."""

    def record(self, record: Record) -> None: ...


class _Sum:
    __slots__ = ("usage", "usd")

    def __init__(self) -> None:
        self.usage = Usage()
        self.usd: float | None = 0.0

    def add(self, usage: Usage, usd: float | None) -> None:
        self.usage = self.usage + usage
        self.usd = None if usd is None or self.usd is None else self.usd + usd


class Account:
    """One for each run. Seconds count from its making."""

    def __init__(self, keeping: Keeping, clock: Clock) -> None:
        self._keeping = keeping
        self._clock = clock
        self._begun = clock.monotonic()
        self._digests: dict[int, tuple[ChatMessage, str]] = {}
        self.seq = 0
        self.steps = 0
        self.tool_calls = 0
        self.model_calls = 0
        self._answered = _Sum()
        self._settled: _Sum | None = None
        self.models: list[str] = []
        self.artifacts: list[str] = []

    @property
    def elapsed_s(self) -> float:
        return self._clock.monotonic() - self._begun

    def record(self, kind: str, /, **data: Any) -> None:
        self.seq += 1
        try:
            self._keeping.record(Record(self.seq, round(self.elapsed_s, 6), kind, data))
        except Exception:
            # A run is worth more than its record.
            log.exception("record_lost", extra={"kind": kind})

    def spent(self, done: Done) -> None:
        """Count an answer."""
        self._answered.add(done.usage, done.usd)
        if done.model and done.model not in self.models:
            self.models.append(done.model)

    def settled(self, usage: Usage, usd: float | None) -> None:
        """
        Count what a call took, by the purse.

        Where it says anything it alone is believed: it knows of answers that broke off and of models that failed.
        """
        self._settled = self._settled or _Sum()
        self._settled.add(usage, usd)

    @property
    def usage(self) -> Usage:
        return (self._settled or self._answered).usage

    @property
    def usd(self) -> float | None:
        """A price that is not known makes the sum unknown, never smaller."""
        return (self._settled or self._answered).usd

    def question(self, request: Request, prompt_hash: str) -> tuple[str, list[dict[str, Any]]]:
        """
        The request's hash, and those of its messages that were not asked with before.

        Both without secrets: a replay of records that were kept without them asks the same.
        """
        digests, new = {}, []
        whole = hashlib.sha256(prompt_hash.encode())
        for message in request.messages:
            known = self._digests.get(id(message))
            if known is None:
                shown = redact_all(message_json(message))
                new.append(shown)
                known = (message, sha256(shown))
            digests[id(message)] = known
            whole.update(known[1].encode())
        # The messages stay referenced here, so that no other comes to stand at the address of one.
        self._digests = digests
        return whole.hexdigest(), new


def sha256(value: Any) -> str:
    """Of a text, or of anything that is JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def message_json(message: ChatMessage) -> dict[str, Any]:
    """The message as plain JSON, without what it does not have."""
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    for name in ("name", "tool_call_id", "thinking", "provider_data"):
        if (value := getattr(message, name)) is not None:
            shown[name] = value
    return shown


def message_from(data: Mapping[str, Any]) -> ChatMessage:
    """What `message_json` gave."""
    calls: Sequence[Mapping[str, str]] = data.get("tool_calls", ())
    return ChatMessage(**{**data, "tool_calls": tuple(ToolCall(**call) for call in calls)})
