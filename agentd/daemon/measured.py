"""
What was measured of one watch over an hour, a day, a week, a month: points to plot, bars, uptime, pauses.

In: results and roll-ups of the history, the pauses of the audit trail. Out: plain JSON values.
Promise: what is read grows with the span that is asked for, never with how many watches there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import apsw

from agentd.api.reading import Span
from agentd.api.service import Json
from agentd.clock import iso
from agentd.config.watches import OTHER_SOURCES
from agentd.memory import audit, results, rollups
from agentd.memory.audit import Deed
from agentd.memory.pauses import Pause
from agentd.memory.results import Step
from agentd.memory.rollups import Bar, Point

DAY = timedelta(days=1)
SPANS: Mapping[Span, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": DAY,
    "7d": 7 * DAY,
    "30d": 30 * DAY,
}
UPTIMES: tuple[Span, ...] = ("24h", "7d", "30d")
BARS = 90
_STEPS: Mapping[Span, timedelta] = {
    "1h": timedelta(minutes=1),
    "24h": timedelta(minutes=15),
    "7d": timedelta(hours=2),
    "30d": timedelta(hours=8),
}
_FINE = timedelta(seconds=20)
_BARS_OF_HOUR = 60
_PAUSING = ("pause", "resume")


def is_measured(kind: str | None) -> bool:
    """Whether there are looks at all times, of which a share can be ok: not at a log, nor of an agent's goal."""
    return kind not in OTHER_SOURCES


def uptimes(c: apsw.Connection, watch: str, kind: str | None, now: datetime) -> Json:
    """{"24h", "7d", "30d": share of known time that was ok, or None}. kind: of the watch."""
    return {span: uptime(c, watch, span, now) if is_measured(kind) else None for span in UPTIMES}


def uptime(c: apsw.Connection, watch: str, span: Span, now: datetime) -> float | None:
    """The share of the span before `now` that was ok; None when nobody could look. The one number for all places."""
    return _share(rollups.uptime(c, watch, now - SPANS[span], now))


def month(c: apsw.Connection, watch: str, kind: str | None, now: datetime) -> tuple[float | None, list[str | None]]:
    """The share of the last thirty days that was ok, and bars of them, all from hours."""
    strip = rollups.strip(c, watch, now, buckets=BARS, span=SPANS["30d"])
    return uptime(c, watch, "30d", now) if is_measured(kind) else None, [bar_word(bar) for bar in strip]


def series(c: apsw.Connection, watch: str, span: Span, now: datetime) -> Json:
    """What `Reading.series` gives, but for the watch's kind and its pauses."""
    since = now - SPANS[span]
    fine = results.steps(c, watch, since, now, _FINE) if span == "1h" else None
    if fine is not None:
        step, points = _FINE, [_fine_point(each) for each in fine]
    else:
        step = _STEPS[span]
        points = [_point(each) for each in rollups.series(c, watch, since, now, step)]
    buckets = _BARS_OF_HOUR if span == "1h" else BARS
    strip = rollups.strip(c, watch, now, buckets=buckets, span=SPANS[span])
    begin, width = rollups.strip_place(now, buckets=buckets, span=SPANS[span])
    timed = any(point["max"] is not None for point in points)
    return {
        "watch": watch,
        "span": span,
        "from": iso(since),
        "to": iso(now),
        "step_s": int(step.total_seconds()),
        "source": "rollups" if fine is None else "results",
        "value": {"name": "latency", "unit": "ms"} if timed else None,
        "points": points,
        "bars": [bar_word(bar) for bar in strip],
        "bars_from": iso(begin),
        "bar_s": int(width.total_seconds()),
    }


def pauses_of(c: apsw.Connection, watch: str) -> list[Deed]:
    """When it was paused and resumed, newest first."""
    return audit.about(c, watch, _PAUSING, limit=200)


def with_pauses(found: Json, deeds: Sequence[Deed], pause: Pause | None, now: datetime) -> Json:
    """The series with `pauses` and with the bars of which nothing is known because of them. pause: that of now."""
    since, begin = datetime.fromisoformat(found["from"]), datetime.fromisoformat(found["bars_from"])
    width = timedelta(seconds=found["bar_s"])
    pauses = [each for each in paused_times(deeds, pause) if each[1] is None or each[1] > since]
    bars = list(found["bars"])
    for place, bar in enumerate(bars):
        at = begin + place * width
        if bar is None and any(start < at + width and (end is None or end > at) for start, end, _, _ in pauses):
            bars[place] = "paused" if at <= now else None
    listed = [
        {"from": iso(start), "to": None if end is None else iso(end), "by": by, "reason": reason}
        for start, end, by, reason in pauses
    ]
    return found | {"bars": bars, "pauses": listed}


Paused = tuple[datetime, datetime | None, str, str]


def paused_times(deeds: Sequence[Deed], pause: Pause | None) -> list[Paused]:
    """From, to, by whom and why, oldest first. deeds: newest first. pause: that of now, which alone may be open."""
    times: list[Paused] = []
    start: Deed | None = None
    for deed in reversed(deeds):
        if deed.action == "pause":
            start = start or deed
        elif start is not None:
            times.append((start.at, deed.at, start.who, start.detail))
            start = None
    if pause is not None:
        times.append((start.at if start is not None else pause.at, None, pause.by, pause.reason))
    return times


def bar_word(bar: Bar | None) -> str | None:
    """What the worst of the checks in it was; None without any."""
    if bar is None:
        return None
    return "failing" if bar.failing else "blind" if bar.blind else "ok"


def _fine_point(step: Step) -> Json:
    return _counts(step) | {"min": step.min_ms, "mean": _rounded(step.mean_ms), "p95": None, "max": step.max_ms}


def _point(point: Point) -> Json:
    found = {"min": point.min_ms, "mean": point.avg_ms, "p95": point.p95_ms, "max": point.max_ms}
    return _counts(point) | {name: _rounded(value) for name, value in found.items()}


def _counts(step: Step | Point) -> Json:
    ok = step.count - step.failing - step.blind
    return {"at": iso(step.at), "count": step.count, "ok": ok, "failing": step.failing, "blind": step.blind}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _share(share: float | None) -> float | None:
    """Rounded down: what was not always up is never shown as 1."""
    return None if share is None else math.floor(share * 1e6 + 1e-6) / 1e6
