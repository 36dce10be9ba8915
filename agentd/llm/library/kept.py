"""
What a provider signed in an answer, kept beside our message and given back with it.

In: the parts of the library's answer. Out: plain JSON for `ChatMessage.provider_data`, and from there the parts again.
Promise: texts stand in the message alone; where it was shortened since, so that signatures would no longer fit what
was signed, nothing is given back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentd.llm.port import ChatMessage

OURS = "library"
"""Under this name stands what is ours in `ChatMessage.provider_data`."""

_KINDS: Mapping[str, Literal["thinking", "text", "call"]] = {
    "thinking": "thinking",
    "text": "text",
    "tool-call": "call",
}


@dataclass(frozen=True, slots=True)
class KeptPart:
    """chars: of the message's thinking or text that are this part. details: of the library's, JSON."""

    kind: Literal["thinking", "text", "call"]
    chars: int = 0
    signature: str | None = None
    id: str | None = None
    details: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """system: whose signatures these are, in the library's words."""

    system: str | None
    parts: tuple[KeptPart, ...]


def keep(response: Any) -> dict[str, Any] | None:
    """response: the library's. None when nothing in it needs to go back but what the message itself says."""
    parts = [_of(part) for part in response.parts if part.part_kind in _KINDS]
    if not any("signature" in part or "details" in part for part in parts):
        return None
    kept = {"provider": response.provider_name, "system": response.canonical_system, "parts": parts}
    try:
        # What the library adds of its own may be anything; only JSON survives the way through the store.
        return {OURS: json.loads(json.dumps(kept))}
    except (TypeError, ValueError, RecursionError):
        return None


def kept_of(message: ChatMessage, provider: str) -> Kept | None:
    """What `keep` made, if it is this provider's and fits the message still."""
    ours = (message.provider_data or {}).get(OURS)
    if not isinstance(ours, Mapping) or ours.get("provider") != provider:
        return None
    try:
        parts = tuple(KeptPart(**part) for part in ours["parts"])
        system = ours.get("system")
    except (KeyError, TypeError):
        return None
    fits = (
        _chars(parts, "thinking") == len(message.thinking or "")
        and _chars(parts, "text") == len(message.content)
        and sum(part.kind == "call" for part in parts) == len(message.tool_calls)
    )
    return Kept(system if isinstance(system, str) else None, parts) if fits else None


def _of(part: Any) -> dict[str, Any]:
    kind = _KINDS[part.part_kind]
    found: dict[str, Any] = {"kind": kind}
    if kind != "call":
        found["chars"] = len(part.content)
    if kind == "thinking":
        found |= {"signature": part.signature} if part.signature else {}
        found |= {"id": part.id} if part.id else {}
    return found | ({"details": part.provider_details} if part.provider_details else {})


def _chars(parts: Sequence[KeptPart], kind: str) -> int:
    return sum(part.chars for part in parts if part.kind == kind)
