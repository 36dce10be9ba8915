"""
The record of a run for people: who said and did what, line by line.

In: lines of a run's record. Out: entries: a title, and what is shown when it is opened.
Promise: what nobody knows is left out; a damaged line gives less, never an error; every text is cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentd.api.web.text import one_line
from agentd.api.web.timeline import as_count, as_list, as_seconds

Json = Mapping[str, Any]
Said = tuple[str, str, tuple[tuple[str, str], ...]]
"""Title, state, parts."""

_TEXT_CHARS = 6000
_TELLING = ("url", "path", "argv")
_OF_PLAN = ("understanding", "approach", "complexity", "estimated_steps", "requirements")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the record for people. id: of the bar that it belongs to. parts: (title, text), shown when opened."""

    seq: int
    at_s: float
    kind: str
    title: str
    state: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    id: str = ""


def entries(record: Sequence[Json], *, from_begin: bool = True) -> list[Entry]:
    """The lines that say something to people. from_begin: none is left out before the first."""
    found, models = [], 0
    for line in record:
        data, kind = line.get("data"), str(line.get("kind"))
        if not isinstance(data, Mapping):
            continue
        models += kind == "model"
        id = one_line(data.get("task"), 60) if kind == "task" else ""
        if kind == "model" and from_begin:
            id = f"m{models}"
        said = None if (tell := _TELL.get(kind)) is None else tell(data)
        if said is not None:
            title, state, parts = said
            entry = Entry(as_count(line.get("seq")), as_seconds(line.get("at_s")), kind, title, state, parts)
            found.append(replace(entry, id=id))
    return found


def model_names(record: Sequence[Json]) -> dict[str, str]:
    """What the models that answered call themselves, by the ids of their bars. record: from its begin."""
    models = [data for line in record if line.get("kind") == "model" and isinstance(data := line.get("data"), Mapping)]
    names = {f"m{number}": one_line(data.get("served_by") or "", 80) for number, data in enumerate(models, 1)}
    return {id: name for id, name in names.items() if name}


def _model(data: Json) -> Said:
    answer, error = _mapping(data.get("answer")), data.get("error")
    calls = [each for each in as_list(answer.get("tool_calls"))[:20] if isinstance(each, Mapping)]
    said = str(answer.get("content") or "")
    if error is not None:
        why = _mapping(error)
        title = f"the model failed{_because(why.get('message') or why.get('kind'))}"
    elif calls:
        title = f"the model calls {', '.join(one_line(each.get('name'), 60) for each in calls)}"
    else:
        title = f"the model says: {one_line(said, 200)}"
    parts = [("answer", _text(said))] if said else []
    parts += [(f"calls {one_line(each.get('name'), 60)}", _text(each.get("arguments"))) for each in calls]
    return title, "ok" if error is None else "failed", tuple(parts)


def _task(data: Json) -> Said:
    title = f"{one_line(data.get('task'), 40)} {one_line(data.get('tool'), 60)} {_input_line(data.get('input'))}"
    return title.strip(), "", (("input", _text(data.get("input"))),)


def _result(data: Json) -> Said:
    error = data.get("error")
    head = f"{one_line(data.get('task'), 40)} {one_line(data.get('tool'), 60)}"
    if error:
        message = data.get("message")
        return f"{head} {one_line(error, 60)}{_because(message)}", "failed", (("message", _text(message)),)
    return f"{head} ok", "ok", (("output", _text(data.get("output"))),)


def _plan(data: Json) -> Said:
    parts = tuple((key.replace("_", " "), _text(data[key])) for key in _OF_PLAN if data.get(key))
    return f"plan: {one_line(data.get('approach') or data.get('understanding'), 200)}", "", parts


def _decision(data: Json) -> Said | None:
    # That a step went well is seen by its results.
    word = one_line(data.get("decision"), 40)
    return None if word == "continue" else (f"decides: {word}{_because(data.get('reason'))}", "", ())


def _event(data: Json) -> Said:
    return f"{one_line(data.get('type'), 60)}{_because(data.get('reason') or data.get('text'))}", "", ()


def _outcome(data: Json) -> Said:
    state = one_line(data.get("state"), 40)
    return f"ends: {state}{_because(data.get('error'))}", "ok" if state == "completed" else "failed", ()


_TELL: Mapping[str, Callable[[Json], Said | None]] = {
    "model": _model,
    "task": _task,
    "result": _result,
    "plan": _plan,
    "decision": _decision,
    "observation": lambda data: ("is told what came of it", "", (("text", _text(data.get("text"))),)),
    "prompt": lambda data: ("is told what to do", "", (("prompt", _text(data.get("text"))),)),
    "steer": lambda data: (f"somebody says: {one_line(data.get('what'), 60)}{_because(data.get('text'))}", "", ()),
    "event": _event,
    "outcome": _outcome,
}


def _because(why: object) -> str:
    return f": {one_line(why, 300)}" if why else ""


def _input_line(value: Any) -> str:
    """What a tool was called with, on one line."""
    if not isinstance(value, Mapping):
        return one_line(value, 200) if value is not None else ""
    parts = []
    for key, each in list(value.items())[:6]:
        words = " ".join(map(str, each)) if isinstance(each, list) else _text(each)
        plain = len(value) == 1 or key in _TELLING
        parts.append(one_line(words, 160) if plain else f"{one_line(key, 40)}={one_line(words, 80)}")
    return " ".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + "…"


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}
