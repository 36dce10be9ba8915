"""
A run as a timeline of its graph: what was asked of the model and of each tool, when, for how long, at what cost.

In: the lanes of a run. Out: bars on a seconds axis, in the order they began.
Promise: numbers that are none count as zero; what is too short to be seen is drawn as wide as can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentd.api.web.text import duration, one_line, shown

Json = Mapping[str, Any]

MOST_BARS = 300
_LEAST_SHARE = 0.004


@dataclass(frozen=True, slots=True)
class Bar:
    """
    One call. lane: `model` or `tool`. left, width: shares of the whole, 0 to 1. state: ok, failed or open (no end is
    known). after: ids that it waited for. id: of its line in the record. began_s: since the
    first of them.
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
class Timeline:
    """
    ticks: (share, text) on the axis, which begins with the first call, `begin_s` after the run. models_s, tools_s: how
    long each worked, all calls added up.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    begin_s: float
    length_s: float
    more: int
    models_s: float
    tools_s: float


def timeline(page: Json, names: Mapping[str, str] | None = None) -> Timeline:
    """page: as `Reading.run_page` gives it. names: of the models that answered, by the id of the call."""
    lanes = [lane for lane in as_list(page.get("lanes")) if isinstance(lane, Mapping) and lane.get("kind") != "note"]
    ends = [as_seconds(lane.get("end_s")) for lane in lanes]
    # Before the first call a host starts: of that there is nothing to be seen.
    begin_s = min((as_seconds(lane.get("start_s")) for lane in lanes), default=0.0)
    length_s = max([as_seconds(page.get("total_s")), *ends, begin_s]) - begin_s
    bars = tuple(_bar(lane, begin_s, length_s or 1.0, names or {}) for lane in lanes[:MOST_BARS])
    return Timeline(
        bars,
        _ticks(length_s),
        begin_s,
        length_s,
        max(0, len(lanes) - MOST_BARS) + as_count(page.get("more_lanes")),
        sum(bar.took_s for bar in bars if bar.lane == "model"),
        sum(bar.took_s for bar in bars if bar.lane == "tool"),
    )


def _bar(lane: Json, begin_s: float, whole_s: float, names: Mapping[str, str]) -> Bar:
    began_s, ended_s = (max(as_seconds(lane.get(key)) - begin_s, 0.0) for key in ("start_s", "end_s"))
    id, label = one_line(lane.get("id") or "", 60), str(lane.get("label") or "")
    if (name := names.get(id)) and name not in label:
        label = f"{label} · {name}"
    left = min(began_s / whole_s, 1 - _LEAST_SHARE)
    width = min(max((ended_s - began_s) / whole_s, _LEAST_SHARE), 1 - left)
    ok, usd = lane.get("ok"), lane.get("usd")
    return Bar(
        id,
        "model" if lane.get("kind") == "model" else "tool",
        one_line(label, 160),
        shown(lane.get("detail") or "", 700),
        began_s,
        max(0.0, ended_s - began_s),
        round(left, 5),
        round(width, 5),
        "open" if ok is None else "ok" if ok else "failed",
        as_count(lane.get("tokens")) if lane.get("tokens") is not None else None,
        float(usd) if isinstance(usd, int | float) else None,
        tuple(one_line(each, 40) for each in as_list(lane.get("depends_on"))[:8]),
        as_count(lane.get("attempts")) or 1,
    )


def _ticks(length_s: float) -> tuple[tuple[float, str], ...]:
    """Four to eight marks."""
    if length_s <= 0:
        return ()
    size = 10.0 ** math.floor(math.log10(length_s / 4))
    step = next((size * factor for factor in (1, 2, 2.5, 5) if length_s / (size * factor) <= 8), size * 10)
    marks = [index * step for index in range(int(length_s / step + 1e-9) + 1)]
    return tuple((round(at / length_s, 4), "0" if at == 0 else duration(at)) for at in marks if at / length_s <= 0.97)


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def as_seconds(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return max(float(value), 0.0) if is_number else 0.0


def as_count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0
