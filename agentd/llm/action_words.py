"""
The words in which models write actions: which object is which, by whatever name its keys go.

In: an object of parsed JSON. Out: its kind, its fields freed of their spelling, the plan in it. Never raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    CALL = "ToolCall"
    PARALLEL = "Parallel"
    GRAPH = "Graph"
    FINAL = "Final"
    PLAN = "Plan"


KINDS = {
    **dict.fromkeys(("toolcall", "tool", "call", "function", "functioncall", "tooluse", "usetool"), Kind.CALL),
    **dict.fromkeys(("parallel", "toolcalls", "batch"), Kind.PARALLEL),
    **dict.fromkeys(("graph", "taskgraph", "rungraph"), Kind.GRAPH),
    **dict.fromkeys(("final", "finalanswer", "answer", "finish"), Kind.FINAL),
    "plan": Kind.PLAN,
}
TYPE_KEYS = ("type", "actiontype", "kind")
TOOL_KEYS = ("toolname", "tool", "function", "name", "recipientname")
INPUT_KEYS = ("input", "inputs", "arguments", "args", "parameters", "params", "toolinput", "actioninput")
ANSWER_KEYS = ("answer", "finalanswer", "final", "finding", "result", "response", "output", "content", "text")
LIST_KEYS = ("actions", "toolcalls", "calls", "tooluses")
WRAPPERS = ("action", "nextaction", "toolcall", "functioncall", "response", "output")
_PLAN_KEYS = {
    "understanding": "understanding",
    "approach": "approach",
    "strategy": "approach",
    "steps": "approach",
    "complexity": "complexity",
    "estimatedsteps": "estimated_steps",
    "requirements": "requirements",
}
_COMPLEXITY = {
    **dict.fromkeys(("simple", "low", "easy", "trivial"), "simple"),
    **dict.fromkeys(("moderate", "medium", "normal"), "moderate"),
    **dict.fromkeys(("complex", "high", "hard", "difficult"), "complex"),
}
_OURS = {
    *TYPE_KEYS, *TOOL_KEYS, *INPUT_KEYS, "id", "taskid", "plan", "dependson", "dependencies",
    "timeout", "timeouts", "timeoutseconds", "timeoutms", "thought", "thoughts", "thinking", "reasoning", "explanation",
    "comment",
}  # fmt: skip
_LONGEST_TEXT = 4000
_LONGEST_LIST = 50


@dataclass(frozen=True, slots=True)
class Fields:
    """An object by its keys, freed of case, `_` and `-`. rest: what no key of ours is, by its own name."""

    known: Mapping[str, Any]
    rest: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Fields:
        known: dict[str, Any] = {}
        for key, value in data.items():
            known.setdefault(plain(key), value)
        return cls(known, {key: value for key, value in data.items() if plain(key) not in _OURS})

    def first(self, keys: Iterable[str]) -> Any:
        return next((self.known[key] for key in keys if self.known.get(key) is not None), None)

    def has(self, keys: Iterable[str]) -> bool:
        return any(key in self.known for key in keys)


def kind_in(data: Mapping[str, Any]) -> tuple[Kind | None, bool]:
    """Which action this object is, and whether it says so itself; (None, False) when it is none."""
    fields = Fields.of(data)
    said = fields.first(TYPE_KEYS)
    if isinstance(said, str) and (kind := KINDS.get(plain(said))) is not None:
        return kind, True
    action = fields.known.get("action")
    if isinstance(action, str):
        if (named := KINDS.get(plain(action))) is not None:
            return named, True
        if fields.has(INPUT_KEYS):
            return Kind.CALL, False
    return _guessed(fields, isinstance(said, str)), False


def _guessed(fields: Fields, typed: bool) -> Kind | None:
    known = fields.known
    given = fields.has(INPUT_KEYS)
    if isinstance(known.get("tool"), str) or isinstance(known.get("toolname"), str):
        return Kind.CALL
    if isinstance(known.get("function"), Mapping) or (given and isinstance(known.get("name"), str)):
        return Kind.CALL
    if typed and any(isinstance(known.get(key), Mapping) for key in INPUT_KEYS):
        # The tool's name in place of the type.
        return Kind.CALL
    if any(isinstance(known.get(key), list) for key in LIST_KEYS):
        return Kind.PLAN if known.get("understanding") or known.get("plan") else Kind.PARALLEL
    if isinstance(known.get("tasks"), list):
        return Kind.GRAPH
    if fields.has(("answer", "finalanswer", "final", "finding")) or ("summary" in known and "status" in known):
        return Kind.FINAL
    if "understanding" in known or isinstance(known.get("plan"), Mapping) or set(known) == {"plan"}:
        return Kind.PLAN
    return None


def says_something(value: Any) -> bool:
    return value not in (None, "", {}, []) and not (isinstance(value, str) and not value.strip())


def plan_of(said: Any) -> dict[str, Any]:
    """The plan in what was said, bounded, of plain types; empty when there is none."""
    if isinstance(said, str | list):
        said = {"approach": said}
    if not isinstance(said, Mapping):
        return {}
    plan: dict[str, Any] = {}
    for key, value in said.items():
        name = _PLAN_KEYS.get(plain(key))
        if name is None or name in plan or not says_something(value):
            continue
        if name == "requirements":
            plan[name] = [_text(each) for each in (value if isinstance(value, list) else [value])[:_LONGEST_LIST]]
        elif name == "estimated_steps":
            number = re.search(r"[0-9]{1,6}", str(value)[:100])
            plan |= {name: max(1, int(number[0]))} if number else {}
        elif name == "complexity":
            plan[name] = _COMPLEXITY.get(plain(str(value)[:40]), "moderate")
        else:
            plan[name] = _text(value)
    return plan


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "; ".join(_text(each) for each in value[:_LONGEST_LIST])
    elif not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return str(value)[:_LONGEST_TEXT]


def plain(word: str) -> str:
    """A key or a type without case, `_`, `-` and spaces; `input_1` stays apart from `input`."""
    return re.sub(r"[\s_-]+", "", word[:64].lower())
