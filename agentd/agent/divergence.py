"""
Where a run goes another way than the one that was recorded.

In: the records of then and of now. Out: divergences, in their order.
Promise: pure. Times, costs and texts that are only for people do not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from agentd.agent.port import Record

What = Literal["prompt", "request", "call", "decision", "finding", "outcome"]
_MOST = 100
_SHOWN = 300
_DONE = ("prompt", "model", "steps", "task", "result", "decision", "outcome")


@dataclass(frozen=True, slots=True)
class Divergence:
    """
    what: which kind of thing differs. place: which one of its kind, counted from 1. then, now: both, shortened; empty
    where there is none. text: one line for people.
    """

    what: What
    place: int
    then: str
    now: str

    @property
    def text(self) -> str:
        if not self.now:
            return f"{self.what} {self.place} is not there any more; it was {self.then}"
        if not self.then:
            return f"{self.what} {self.place} is new: {self.now}"
        return f"{self.what} {self.place} was {self.then}, and is now {self.now}"


def divergences(then: Sequence[Record], now: Sequence[Record]) -> tuple[Divergence, ...]:
    """
    At most a hundred; the first is what matters, the others mostly follow from it. Of a record that was cut off, what
    comes behind its end is no divergence.
    """
    found: list[Divergence] = []
    cut_off = is_cut_off(then)
    kinds: tuple[tuple[What, str], ...] = (
        ("prompt", "prompt"),
        ("request", "model"),
        ("call", "steps"),
        ("decision", "decision"),
        ("finding", "finding"),
        ("outcome", "outcome"),
    )
    for what, kind in kinds:
        before = [record.data for record in then if record.kind == kind]
        after = [record.data for record in now if record.kind == kind]
        if cut_off:
            after = after[: len(before)]
        for place, (old, new) in enumerate(zip_longest(before, after), 1):
            if _essence(what, old) != _essence(what, new):
                found.append(Divergence(what, place, *_shown(what, old, new)))
    return tuple(found[:_MOST])


def is_cut_off(records: Sequence[Record]) -> bool:
    """Whether the run was interrupted: what it did last came to no outcome."""
    last = next((record.kind for record in reversed(records) if record.kind in _DONE), "")
    return last != "outcome"


def _essence(what: What, data: Mapping[str, Any] | None) -> Any:
    """What has to be the same."""
    if data is None:
        return None
    if what == "prompt":
        return data.get("sha256")
    if what == "request":
        return data.get("request")
    if what == "call":
        return [_call(task) for task in data.get("tasks", ())]
    if what == "decision":
        return data.get("decision"), list(data.get("tasks", ()))
    if what == "outcome":
        return data.get("state"), data.get("answer"), data.get("error"), data.get("steps")
    return dict(data)


def _call(task: Mapping[str, Any]) -> tuple[Any, ...]:
    return task.get("id"), task.get("tool"), dict(task.get("input") or {}), list(task.get("depends_on") or ())


def _shown(what: What, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> tuple[str, str]:
    if what == "prompt":
        return _difference(_text_of(old, "text"), _text_of(new, "text"))
    if what == "request" and old is not None and new is not None:
        pairs = zip_longest(old.get("new", ()), new.get("new", ()))
        for before, after in pairs:
            if before != after:
                return _difference(_message(before), _message(after))
        # The same messages are new: what differs came before, in the prompt, the tools, or an earlier request.
        return "the same new message", "after another beginning"
    return _in_words(what, old), _in_words(what, new)


def _in_words(what: What, data: Mapping[str, Any] | None) -> str:
    """For people; what is a value stays JSON."""
    if data is None:
        return ""
    if what == "call":
        return _short("; ".join(_called(task) for task in data.get("tasks", ())) or "no call")
    if what == "decision":
        tasks = ", ".join(map(str, data.get("tasks", ())))
        return _short(f"{data.get('decision')} of {tasks}" if tasks else str(data.get("decision")))
    if what == "outcome":
        said = data.get("answer") or data.get("error") or "no answer"
        return _short(f"{data.get('state')} in {data.get('steps')} steps: {said}")
    return _short(_json(dict(data)))


def _called(task: Mapping[str, Any]) -> str:
    after = ", ".join(map(str, task.get("depends_on") or ()))
    return f"{task.get('id')} {task.get('tool')} {_json(task.get('input') or {})}" + (
        f" after {after}" if after else ""
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _text_of(data: Mapping[str, Any] | None, key: str) -> str:
    return "" if data is None else str(data.get(key, ""))


def _message(message: Mapping[str, Any] | None) -> str:
    return "" if message is None else f"{message.get('role')}: {message.get('content')}"


def _difference(old: str, new: str) -> tuple[str, str]:
    """Both from shortly before the place where they part."""
    same = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - 40)
    return _short(old[start:]), _short(new[start:])


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
