"""
Plots: what was measured as coordinates, and these as SVG.

In: series and strips as plain values. Out: numbers that a template draws, and SVG paths; nothing of it is a target's
text. Promise: what was not measured is a gap, never a line across it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agentd.api.web.text import milliseconds, moment

Json = Mapping[str, Any]

WIDTH, HEIGHT = 1000, 240
"""Of the latency plot, in its own units; it is stretched to the room there is."""
BARS = 90
_STATES = ("ok", "failing", "blind", "paused")
_LINES = 4
_TICKS = (
    (timedelta(hours=2), timedelta(minutes=15), "%H:%M"),
    (timedelta(hours=36), timedelta(hours=4), "%H:%M"),
    (timedelta(days=10), timedelta(days=1), "%a %d"),
    (timedelta(days=45), timedelta(days=5), "%d %b"),
)


def strip_paths(strip: Sequence[str | None], bars: int = BARS) -> dict[str, str]:
    """
    One path for each state, drawn with a stroke of 3: a bar each 4 units, oldest first, the last one at the right.

    A short strip stands at the right, what nobody looked at before it is `none`.
    """
    shown = [None] * (bars - len(strip)) + list(strip[-bars:])
    paths: dict[str, list[str]] = {}
    for index, verdict in enumerate(shown):
        state = verdict if verdict in _STATES else "none"
        paths.setdefault(state, []).append(f"M{index * 4 + 2} 0v1")
    return {state: "".join(steps) for state, steps in paths.items()}


def strip_words(strip: Sequence[str | None], span: str = "90 minutes") -> str:
    """The strip in words, for who cannot see it."""
    known = [verdict for verdict in strip if verdict is not None]
    if not known:
        return f"nothing known of the last {span}"
    bad = sum(verdict == "failing" for verdict in known)
    blind = sum(verdict == "blind" for verdict in known)
    parts = [f"{bad} of {len(known)} bars failing"] if bad else []
    parts += [f"{blind} of {len(known)} could not look"] if blind else []
    return f"last {span}: {', '.join(parts) or 'all ok'}"


def share_ok(strip: Iterable[str | None]) -> float | None:
    """Of the bars in which something could be seen, those that were ok."""
    known = [verdict for verdict in strip if verdict in ("ok", "failing")]
    return sum(verdict == "ok" for verdict in known) / len(known) if known else None


def spark(values: Sequence[Any], width: int = 96, height: int = 20) -> str:
    """A path through the values, oldest first; a gap where one is not a number. "" where there are not two."""
    known = [value for value in values if _is_number(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    room = (high - low) or 1.0
    step = width / max(len(values) - 1, 1)
    points = [
        None if not _is_number(value) else (index * step, height - 2 - (value - low) / room * (height - 4))
        for index, value in enumerate(values)
    ]
    if high == low:
        points = [None if point is None else (point[0], height / 2) for point in points]
    return "".join(_line(run) for run in _runs(points))


@dataclass(frozen=True, slots=True)
class Tick:
    """share: where, 0 to 1 from the left or from the top. text: what stands there. at: its moment, of a time axis."""

    share: float
    text: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table that says the same as the plot."""

    at: str
    checks: int
    failing: int
    blind: int
    min: float | None
    mean: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class Plot:
    """
    In units of WIDTH and HEIGHT, y from the top. band: closed path between min and max. mean: path. dots: path of what
    stands alone. failing, blind: (x, width) of spans. Empty where nothing was measured.
    """

    band: str = ""
    mean: str = ""
    dots: str = ""
    failing: tuple[tuple[float, float], ...] = ()
    blind: tuple[tuple[float, float], ...] = ()
    x: tuple[Tick, ...] = ()
    y: tuple[Tick, ...] = ()
    rows: tuple[Row, ...] = field(default=())
    words: str = "nothing was measured"

    @property
    def empty(self) -> bool:
        return not (self.mean or self.dots or self.failing or self.blind)


def latency_plot(series: Json) -> Plot:
    """series: as `Reading.series` gives it."""
    begin, end = moment(series.get("from")), moment(series.get("to"))
    if begin is None or end is None or end <= begin:
        return Plot()
    span_s = (end - begin).total_seconds()
    step_s = float(series.get("step_s") or 60)
    points = [(at, each) for each in series.get("points", ()) if (at := moment(each.get("at"))) is not None]
    first = begin - timedelta(seconds=step_s)
    points = sorted(((at, each) for at, each in points if first < at <= end), key=lambda point: point[0])
    top = _nice(max((each["max"] for _, each in points if _is_number(each.get("max"))), default=0.0))
    half = step_s / 2 if len(points) > 1 else 0.0

    def x(at: datetime) -> float:
        return min(max((at - begin).total_seconds() + half, 0.0), span_s) / span_s * WIDTH

    def y(value: float) -> float:
        return HEIGHT - min(max(value / top, 0.0), 1.0) * HEIGHT

    drawn: list[tuple[float, float, float, float] | None] = []
    before: datetime | None = None
    for at, each in points:
        # What is missing between two points is a gap; a step and a half allows for a check that came late.
        if before is not None and (at - before).total_seconds() > step_s * 1.5 + 1:
            drawn.append(None)
        before = at
        low, mean, high = each.get("min"), each.get("mean"), each.get("max")
        if not (_is_number(low) and _is_number(mean) and _is_number(high)):
            drawn.append(None)
        else:
            drawn.append((x(at), y(low), y(mean), y(high)))
    runs = list(_runs(drawn))
    lines = [run for run in runs if len(run) > 1]
    return Plot(
        band="".join(_band(run) for run in lines),
        mean="".join(_line([(point[0], point[2]) for point in run]) for run in lines),
        dots="".join(f"M{_n(run[0][0])} {_n(run[0][2])}h0" for run in runs if len(run) == 1),
        failing=_spans(points, "failing", begin, step_s, span_s),
        blind=_spans(points, "blind", begin, step_s, span_s),
        x=_time_ticks(begin, end),
        y=tuple(Tick(line / _LINES, milliseconds(top * (1 - line / _LINES))) for line in range(_LINES + 1)),
        rows=tuple(_row(each) for _, each in reversed(points)),
        words=_words([each for _, each in points]),
    )


def _row(point: Json) -> Row:
    counts = [int(point.get(key) or 0) for key in ("ok", "failing", "blind")]
    return Row(str(point.get("at")), sum(counts), counts[1], counts[2], *(point.get(k) for k in ("min", "mean", "max")))


def _words(points: Sequence[Json]) -> str:
    checks = sum(int(each.get(key) or 0) for each in points for key in ("ok", "failing", "blind"))
    if not checks:
        return "nothing was measured"
    failing = sum(int(each.get("failing") or 0) for each in points)
    blind = sum(int(each.get("blind") or 0) for each in points)
    parts = [f"{checks} checks, {failing} failing"] + ([f"{blind} could not look"] if blind else [])
    timed = [each for each in points if all(_is_number(each.get(key)) for key in ("min", "mean", "max"))]
    if timed:
        weights = [int(each.get("ok") or 0) + int(each.get("failing") or 0) or 1 for each in timed]
        mean = sum(each["mean"] * weight for each, weight in zip(timed, weights, strict=True)) / sum(weights)
        low, high = min(each["min"] for each in timed), max(each["max"] for each in timed)
        parts.append(f"{milliseconds(low)} to {milliseconds(high)}, {milliseconds(mean)} on average")
    return "; ".join(parts)


def _spans(
    points: Sequence[tuple[datetime, Json]], key: str, begin: datetime, step_s: float, span_s: float
) -> tuple[tuple[float, float], ...]:
    """(x, width) of the steps in which checks came out so, neighbours joined."""
    spans: list[tuple[float, float]] = []
    for at, each in points:
        if not each.get(key):
            continue
        first_s = max((at - begin).total_seconds(), 0.0)
        last_s = min(first_s + step_s, span_s)
        if spans and first_s - spans[-1][1] <= 1:
            spans[-1] = (spans[-1][0], max(last_s, spans[-1][1]))
        else:
            spans.append((first_s, last_s))
    # At least as wide as can be seen.
    return tuple(
        (round(first / span_s * WIDTH, 1), round(max((last - first) / span_s * WIDTH, 2.0), 1)) for first, last in spans
    )


def _time_ticks(begin: datetime, end: datetime) -> tuple[Tick, ...]:
    span = end - begin
    step, shape = next(((step, shape) for most, step, shape in _TICKS if span <= most), (span / 6, "%d %b"))
    origin = datetime(2001, 1, 1, tzinfo=UTC)
    at = origin + math.ceil((begin - origin) / step) * step
    ticks = []
    while at <= end:
        share = (at - begin) / span
        if 0.02 <= share <= 0.98:
            ticks.append(Tick(round(share, 4), f"{at:{shape}}", at.isoformat().replace("+00:00", "Z")))
        at += step
    return tuple(ticks)


def _nice(value: float) -> float:
    """The least round number that has room for the value, and whose fourth is round too."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    size: float = 10.0 ** math.floor(math.log10(value))
    return next((size * factor for factor in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8) if value <= size * factor), size * 10)


def _runs(points: Iterable[Any]) -> Iterable[list[Any]]:
    """The points between gaps."""
    run: list[Any] = []
    for point in points:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        return f"M{_n(points[0][0])} {_n(points[0][1])}h0"
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _band(points: Sequence[tuple[float, float, float, float]]) -> str:
    there = [f"{_n(x)} {_n(high)}" for x, _, _, high in points]
    back = [f"{_n(x)} {_n(low)}" for x, low, _, _ in reversed(points)]
    return f"M{'L'.join(there + back)}Z"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
