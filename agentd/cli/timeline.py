"""
The record of a run as a timeline for people: a line for each thing that happened, with its time and what it cost.

In: lines of the record as JSON. Out: lines without control characters. What a record holds that nobody knows is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentd.cli.answer import call_line, output_text, short, shown_seconds, shown_usd
from agentd.cli.tables import clean

Json = Mapping[str, Any]


def timeline(record: Sequence[Json]) -> Iterator[str]:
    begun: dict[str, tuple[float, int]] = {}
    for line in record:
        kind, data, at_s = str(line.get("kind")), line.get("data") or {}, float(line.get("at_s") or 0.0)
        if kind == "task":
            begun[str(data.get("task"))] = at_s, int(data.get("attempt", 1))
        elif kind == "result" and (begin := begun.get(str(data.get("task")))) is not None:
            data = _with_tries(data, at_s, *begin)
        shown = _SHOWN.get(kind)
        text = None if shown is None else shown(data)
        if text is not None:
            yield f"{shown_seconds(at_s):>8}  {text}"


def _with_tries(result: Json, at_s: float, began_s: float, first: int) -> Json:
    """Of a call that was tried again at once, the time of all its tries: the result has that of the last one alone."""
    tries = int(result.get("attempt", 1)) - first + 1
    if tries <= 1:
        return result
    return {**result, "tries": tries, "duration_s": max(at_s - began_s, float(result.get("duration_s") or 0.0))}


def _model(data: Json) -> str:
    asked = clean(data.get("model"))
    who = clean(data.get("answered_by")) or asked
    instead = f" instead of {asked}" if who != asked else ""
    head = f"model {who}{instead} {shown_seconds(data.get('duration_s') or 0.0)}"
    if (error := data.get("error")) is not None:
        return f"{head} {clean(error.get('kind'))}: {short(error.get('message'))}"
    usage, answer = data.get("usage") or {}, data.get("answer") or {}
    tokens = f"{usage.get('input_tokens', 0)}+{usage.get('output_tokens', 0)} tokens"
    calls = ", ".join(clean(call.get("name")) for call in answer.get("tool_calls") or ())
    said = f" calls {calls}" if calls else f": {short(answer.get('content'))}"
    return f"{head}, {tokens}, {shown_usd(data.get('usd'))}{said}"


def _result(data: Json) -> str:
    head = f"{clean(data.get('task'))} {clean(data.get('tool'))} {shown_seconds(data.get('duration_s') or 0.0)}"
    again = f" (try {data['attempt']})" if data.get("attempt", 1) != 1 else ""
    if data.get("tries"):
        again = f" in {data['tries']} tries"
    if data.get("error"):
        return f"{head}{again} {clean(data['error'])}: {short(data.get('message'))}"
    return f"{head}{again} ok: {output_text(data.get('output'))}"


def _decision(data: Json) -> str | None:
    # That a step went well is seen by its results.
    return (
        None
        if data.get("decision") == "continue"
        else f"decides: {clean(data.get('decision'))}: {short(data.get('reason'))}"
    )


def _steer(data: Json) -> str:
    said = data.get("text")
    return f"somebody says: {clean(data.get('what'))}{': ' + short(said) if said else ''}"


def _event(data: Json) -> str:
    said = data.get("reason") or data.get("text")
    return f"{clean(data.get('type'))}{': ' + short(said) if said else ''}"


_SHOWN: Mapping[str, Callable[[Json], str | None]] = {
    "plan": lambda data: f"plan: {short(data.get('understanding'))}",
    "model": _model,
    "task": lambda data: f"{clean(data.get('task'))} {call_line(data)}",
    "result": _result,
    "decision": _decision,
    "steer": _steer,
    "event": _event,
    "outcome": lambda data: f"{clean(data.get('state'))}{': ' + short(data['error']) if data.get('error') else ''}",
}
