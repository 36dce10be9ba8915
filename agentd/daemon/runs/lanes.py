"""
The record of a run as lanes of a timeline: who worked from when until when, waiting for what, at what cost.

In: lines of the record, one at a time; spans of its trace. Out: plain JSON values. Pure.
Promise: whatever the lines hold, every lane has its id, its times within the run and short texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentd.memory.run_records import Line

Json = dict[str, Any]

KINDS = ("plan", "model", "steps", "task", "result", "decision", "steer", "event", "finding", "outcome")
"""Kinds of lines that are read."""
MOST_LANES = 1000
MOST_SPANS = 500
_LABEL_CHARS = 120
_DETAIL_CHARS = 600
_MOST_DEPENDS = 50
_MOST = 1e15


class Lanes:
    """Give it the lines in their order; `shown` is the lanes then. last_s: the moment of the last of `lines` lines."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.lines = 0
        self.left_out = 0
        self._lanes: list[Json] = []
        self._open: dict[str, Json] = {}
        self._tools: dict[str, Json] = {}
        self._depends: dict[str, list[str]] = {}
        self._asked_by: str | None = None
        self._ended: list[str] = []
        self._models = self._notes = 0
        self._take: Mapping[str, Callable[[Mapping[str, Any], float], None]] = {
            "model": self._model,
            "steps": self._steps,
            "task": self._task,
            "result": self._result,
            "plan": lambda data, at_s: self._note("plan", data.get("understanding"), at_s),
            "decision": self._decision,
            "steer": lambda data, at_s: self._note(f"somebody says: {_text(data.get('what'))}", data.get("text"), at_s),
            "event": lambda data, at_s: self._note(
                _text(data.get("type")), data.get("reason") or data.get("text"), at_s
            ),
            "finding": self._finding,
            "outcome": lambda data, at_s: self._note(_text(data.get("state")), data.get("error"), at_s),
        }

    def take(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.lines += 1
            at_s = _number(line.at_s)
            self.last_s = max(self.last_s, at_s)
            if (take := self._take.get(line.kind)) is not None:
                take(line.data, at_s)

    def shown(self, end_s: float, *, under_way: bool) -> list[Json]:
        """end_s: when the run ended, or what is now: until then lanes reach whose end is not recorded."""
        for lane in self._open.values():
            lane["end_s"] = max(lane["start_s"], end_s)
            lane["ok"] = None if under_way else False
            lane["detail"] = lane["detail"] or ("" if under_way else "its end was not recorded")
        return sorted(self._lanes, key=lambda lane: float(lane["start_s"]))

    def _add(self, id: str, kind: str, label: str, start_s: float, end_s: float, **more: Any) -> Json:
        lane = {
            "id": id,
            "label": _cut(label, _LABEL_CHARS),
            "kind": kind,
            "start_s": round(max(start_s, 0.0), 6),
            "end_s": round(max(end_s, start_s, 0.0), 6),
            "ok": None,
            "detail": "",
            "tokens": None,
            "usd": None,
            "depends_on": [],
            "attempts": 1,
            **more,
        }
        if len(self._lanes) < MOST_LANES:
            self._lanes.append(lane)
        else:
            self.left_out += 1
        return lane

    def _model(self, data: Mapping[str, Any], at_s: float) -> None:
        self._models += 1
        id, error = f"m{self._models}", data.get("error")
        asked = _text(data.get("model"))
        who = _text(data.get("answered_by")) or asked
        purpose = _text(data.get("purpose"))
        label = (who if who == asked else f"{who} instead of {asked}") + ("" if purpose == "step" else f" ({purpose})")
        usage = _mapping(data.get("usage"))
        tokens = _number(usage.get("input_tokens")) + _number(usage.get("output_tokens"))
        if error is not None:
            detail = f"{_text(_mapping(error).get('kind'))}: {_text(_mapping(error).get('message'))}"
        else:
            detail = _said(_mapping(data.get("answer")))
        self._add(
            id,
            "model",
            label,
            at_s - _number(data.get("duration_s")),
            at_s,
            ok=error is None,
            detail=_cut(detail, _DETAIL_CHARS),
            tokens=int(tokens) if usage else None,
            usd=_number(data["usd"]) if isinstance(data.get("usd"), int | float) else None,
            depends_on=self._ended[-_MOST_DEPENDS:],
        )
        if purpose == "step":
            self._asked_by, self._ended = id, []

    def _steps(self, data: Mapping[str, Any], at_s: float) -> None:
        for each in _list(data.get("tasks")):
            task = _mapping(each)
            self._depends[_text(task.get("id"))] = [_text(one) for one in _list(task.get("depends_on"))]

    def _task(self, data: Mapping[str, Any], at_s: float) -> None:
        id = _text(data.get("task"))
        if (again := self._tools.get(id)) is not None:  # tried again: one lane from its first try to its last
            again["attempts"] += 1
            again["ok"] = None
            self._open[id] = again
            return
        waits_for = self._depends.get(id) or ([self._asked_by] if self._asked_by else [])
        label = f"{_text(data.get('tool'))} {_input(data.get('input'))}".rstrip()
        lane = self._add(id, "tool", label, at_s, at_s, depends_on=waits_for[:_MOST_DEPENDS])
        self._open[id] = self._tools[id] = lane

    def _result(self, data: Mapping[str, Any], at_s: float) -> None:
        id, error = _text(data.get("task")), data.get("error")
        lane = self._open.pop(id, None)
        if lane is None:  # it never began: what it waited for failed
            lane = self._add(id, "tool", _text(data.get("tool")), at_s, at_s, depends_on=self._depends.get(id, []))
        lane["end_s"] = round(max(at_s, lane["start_s"]), 6)
        lane["ok"] = error is None
        said = _plain(data.get("output")) if error is None else f"{_text(error)}: {_text(data.get('message'))}"
        lane["detail"] = _cut(said, _DETAIL_CHARS)
        self._ended.append(id)

    def _decision(self, data: Mapping[str, Any], at_s: float) -> None:
        # That a step went well is seen by its results.
        if data.get("decision") != "continue":
            self._note(f"decides: {_text(data.get('decision'))}", data.get("reason"), at_s)

    def _finding(self, data: Mapping[str, Any], at_s: float) -> None:
        self._note(f"finding: {_text(data.get('status'))}", data.get("summary"), at_s)

    def _note(self, label: str, detail: Any, at_s: float) -> None:
        self._notes += 1
        self._add(f"n{self._notes}", "note", label, at_s, at_s, detail=_cut(_text(detail), _DETAIL_CHARS))


def span_views(spans: Sequence[Mapping[str, Any]]) -> list[Json]:
    """The spans of a trace as the store keeps them, in the order in which they began, with how deep each lies."""
    if not spans:
        return []
    begun = min(int(span["start_us"]) for span in spans)
    parents = {span.get("span_id"): span.get("parent") for span in spans}
    return [
        {
            "name": _cut(_text(span.get("name")), _LABEL_CHARS),
            "start_s": (int(span["start_us"]) - begun) / 1e6,
            "end_s": (max(int(span["end_us"]), int(span["start_us"])) - begun) / 1e6,
            "status": _text(span.get("status")),
            "status_text": _cut(_text(span.get("status_text")), _DETAIL_CHARS),
            "depth": _depth(span.get("parent"), parents),
        }
        for span in sorted(spans, key=lambda span: int(span["start_us"]))[:MOST_SPANS]
    ]


def _depth(parent: Any, parents: Mapping[Any, Any]) -> int:
    depth = 0
    while parent in parents and depth < 20:  # a circle ends as well
        parent, depth = parents[parent], depth + 1
    return depth


def _said(answer: Mapping[str, Any]) -> str:
    calls = [_text(_mapping(call).get("name")) for call in _list(answer.get("tool_calls"))]
    said = _text(answer.get("content"))
    return "\n".join(part for part in (said, f"calls {', '.join(calls)}" if calls else "") if part)


def _input(value: Any) -> str:
    """What a tool was called with, as one would say it: the values of a few short arguments."""
    if not isinstance(value, Mapping):
        return _plain(value)
    return " ".join(_plain(each) for each in list(value.values())[:4] if isinstance(each, str | int | float))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value[: 2 * _DETAIL_CHARS]
    return json.dumps(value, ensure_ascii=False, default=str)[: 2 * _DETAIL_CHARS]


def _text(value: Any) -> str:
    return "" if value is None else str(value)[: 2 * _DETAIL_CHARS]


def _cut(text: str, chars: int) -> str:
    text = text.strip()
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _number(value: Any) -> float:
    """What is no number, or none that JSON knows, is 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _MOST:
        return 0.0
    return float(value)
