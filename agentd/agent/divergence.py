"""
Where a run goes another way than the one that was recorded.

In: the records of then and of now. Out: divergences, in their order.
Promise: pure. Times, costs and texts that are only for people do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

from agentd.agent.port import Record

What = Literal["prompt", "request", "call", "decision", "finding", "outcome"]
_MOST = 100
_SHOWN = 300


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
    """At most a hundred; the first is what matters, the others mostly follow from it."""
    found: list[Divergence] = []
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
        for place, (old, new) in enumerate(zip_longest(before, after), 1):
            if _essence(what, old) != _essence(what, new):
                found.append(Divergence(what, place, *_shown(what, old, new)))
    return tuple(found[:_MOST])


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
    return tuple("" if data is None else _short(_essence(what, data)) for data in (old, new))  # type: ignore[return-value]  # two of them


def _text_of(data: Mapping[str, Any] | None, key: str) -> str:
    return "" if data is None else str(data.get(key, ""))


def _message(message: Mapping[str, Any] | None) -> str:
    return "" if message is None else f"{message.get('role')}: {message.get('content')}"


def _difference(old: str, new: str) -> tuple[str, str]:
    """Both from shortly before the place where they part."""
    same = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - 40)
    return _short(old[start:]), _short(new[start:])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
