"""
A run as a timeline of its graph: what was asked of the model and of each tool, when, for how long, at what cost.

In: the lanes of a run and the lines of its record. Out: bars on a seconds axis, in the order they began, and the record
for people. Promise: what a record lacks is left out; one that is damaged gives fewer lines, never an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentd.api.web.text import duration, one_line, shown

Json = Mapping[str, Any]

MOST_BARS = 300
_TEXT_CHARS = 6000
_LEAST_SHARE = 0.004


@dataclass(frozen=True, slots=True)
class Bar:
    """
    One call. lane: `model` or `tool`. left, width: shares of the whole, 0 to 1. state: ok, failed or open (no end is
    known). after: ids that it waited for. id: of its line in the record.
    """

    id: str
    lane: str
    label: str
    detail: str
    began_s: float
    took_s: float
    left: float
    width: float
    state: str
    tokens: int | None
    usd: float | None
    after: tuple[str, ...]
    attempts: int


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


@dataclass(frozen=True, slots=True)
class Timeline:
    """ticks: (share, text) on the axis. models_s, tools_s: how long each worked, all calls added up."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    length_s: float
    more: int
    models_s: float
    tools_s: float


def timeline(page: Json) -> Timeline:
    """page: as `Reading.run_page` gives it."""
    lanes = [lane for lane in _list(page.get("lanes")) if isinstance(lane, Mapping) and lane.get("kind") != "note"]
    ends = [_seconds(lane.get("end_s")) for lane in lanes]
    length_s = max([_seconds(page.get("total_s")), *ends])
    bars = tuple(_bar(lane, length_s or 1.0) for lane in lanes[:MOST_BARS])
    return Timeline(
        bars,
        _ticks(length_s),
        length_s,
        max(0, len(lanes) - MOST_BARS) + _count(page.get("more_lanes")),
        sum(bar.took_s for bar in bars if bar.lane == "model"),
        sum(bar.took_s for bar in bars if bar.lane == "tool"),
    )


def _bar(lane: Json, whole_s: float) -> Bar:
    began_s, ended_s = _seconds(lane.get("start_s")), _seconds(lane.get("end_s"))
    left = min(began_s / whole_s, 1 - _LEAST_SHARE)
    width = min(max((ended_s - began_s) / whole_s, _LEAST_SHARE), 1 - left)
    ok, usd = lane.get("ok"), lane.get("usd")
    return Bar(
        one_line(lane.get("id") or "", 60),
        "model" if lane.get("kind") == "model" else "tool",
        one_line(lane.get("label") or "", 160),
        shown(lane.get("detail") or "", 700),
        began_s,
        max(0.0, ended_s - began_s),
        round(left, 5),
        round(width, 5),
        "open" if ok is None else "ok" if ok else "failed",
        _count(lane.get("tokens")) if lane.get("tokens") is not None else None,
        float(usd) if isinstance(usd, int | float) else None,
        tuple(one_line(each, 40) for each in _list(lane.get("depends_on"))[:8]),
        _count(lane.get("attempts")) or 1,
    )


def _ticks(length_s: float) -> tuple[tuple[float, str], ...]:
    """Four to eight marks."""
    if length_s <= 0:
        return ()
    size = 10.0 ** math.floor(math.log10(length_s / 4))
    step = next((size * factor for factor in (1, 2, 2.5, 5) if length_s / (size * factor) <= 8), size * 10)
    marks = [index * step for index in range(int(length_s / step + 1e-9) + 1)]
    return tuple((round(at / length_s, 4), "0" if at == 0 else duration(at)) for at in marks if at / length_s <= 0.97)


def entries(record: Sequence[Json], *, from_begin: bool = True) -> list[Entry]:
    """The lines that say something to people. from_begin: none is left out before the first."""
    found, models = [], 0
    for line in record:
        data, kind = line.get("data"), str(line.get("kind"))
        if not isinstance(data, Mapping):
            continue
        models += kind == "model"
        id = (
            f"m{models}" if kind == "model" and from_begin else one_line(data.get("task"), 60) if kind == "task" else ""
        )
        entry = _entry(kind, data, _seconds(line.get("at_s")), _count(line.get("seq")))
        if entry is not None:
            found.append(replace(entry, id=id))
    return found


def _entry(kind: str, data: Json, at_s: float, seq: int) -> Entry | None:
    if kind == "model":
        answer = data.get("answer") if isinstance(data.get("answer"), Mapping) else {}
        error = data.get("error") if isinstance(data.get("error"), Mapping) else None
        wanted = [
            one_line(call.get("name"), 60) for call in _list(answer.get("tool_calls")) if isinstance(call, Mapping)
        ]
        said = str(answer.get("content") or "")
        title = (
            f"the model failed: {one_line(error.get('message') or error.get('kind'), 200)}"
            if error
            else f"the model calls {', '.join(wanted)}"
            if wanted
            else f"the model says: {one_line(said, 200)}"
        )
        parts = [("answer", _text(said))] if said else []
        parts += [
            (f"calls {one_line(call.get('name'), 60)}", _text(call.get("arguments")))
            for call in _list(answer.get("tool_calls"))[:20]
            if isinstance(call, Mapping)
        ]
        return Entry(seq, at_s, kind, title, "failed" if error else "ok", tuple(parts))
    if kind == "task":
        title = f"{one_line(data.get('task'), 40)} {one_line(data.get('tool'), 60)} {_input_line(data.get('input'))}"
        return Entry(seq, at_s, kind, title, "", (("input", _text(data.get("input"))),))
    if kind == "result":
        error_word = data.get("error")
        head = f"{one_line(data.get('task'), 40)} {one_line(data.get('tool'), 60)} "
        said = data.get("message") if error_word else data.get("output")
        title = head + (f"{one_line(error_word, 60)}: {one_line(said, 200)}" if error_word else "ok")
        return Entry(seq, at_s, kind, title, "failed" if error_word else "ok", (("output", _text(said)),))
    if kind == "plan":
        parts = [
            (key.replace("_", " "), _text(data[key]))
            for key in ("understanding", "approach", "complexity", "estimated_steps", "requirements")
            if data.get(key)
        ]
        return Entry(
            seq,
            at_s,
            kind,
            f"plan: {one_line(data.get('approach') or data.get('understanding'), 200)}",
            "",
            tuple(parts),
        )
    if kind == "decision":
        word = one_line(data.get("decision"), 40)
        return Entry(seq, at_s, kind, f"decides: {word}{_because(data.get('reason'))}") if word != "continue" else None
    if kind == "observation":
        return Entry(seq, at_s, kind, "is told what came of it", "", (("text", _text(data.get("text"))),))
    if kind == "prompt":
        return Entry(seq, at_s, kind, "is told what to do", "", (("prompt", _text(data.get("text"))),))
    if kind == "steer":
        return Entry(seq, at_s, kind, f"somebody says: {one_line(data.get('what'), 60)}{_because(data.get('text'))}")
    if kind == "event":
        return Entry(
            seq, at_s, kind, f"{one_line(data.get('type'), 60)}{_because(data.get('reason') or data.get('text'))}"
        )
    if kind == "outcome":
        state = one_line(data.get("state"), 40)
        return Entry(
            seq, at_s, kind, f"ends: {state}{_because(data.get('error'))}", "ok" if state == "completed" else "failed"
        )
    return None


def _because(why: object) -> str:
    return f": {one_line(why, 300)}" if why else ""


def _input_line(value: Any) -> str:
    if not isinstance(value, Mapping):
        return one_line(value, 200) if value is not None else ""
    parts = []
    for key, each in list(value.items())[:6]:
        shown = (
            each
            if isinstance(each, str)
            else " ".join(map(str, each))
            if key == "argv" and isinstance(each, list)
            else json.dumps(each, ensure_ascii=False, default=str)
        )
        parts.append(
            one_line(shown, 160)
            if len(value) == 1 or key in ("url", "path", "argv")
            else f"{one_line(key, 40)}={one_line(shown, 80)}"
        )
    return " ".join(parts)


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + "…"


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _seconds(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return max(float(value), 0.0) if is_number else 0.0


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0
