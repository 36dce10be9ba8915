"""From series to coordinates."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentd.api.web.plots import HEIGHT, WIDTH, latency_plot, share_ok, spark, strip_paths, strip_words

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=15)


def point(step: int, *, mean: float | None = 10.0, failing: int = 0, blind: int = 0) -> dict[str, Any]:
    low, high = (None, None) if mean is None else (mean / 2, mean * 2)
    at = (BEGIN + step * STEP).isoformat()
    return {"at": at, "ok": 5, "failing": failing, "blind": blind, "min": low, "mean": mean, "max": high}


def series(*points: dict[str, Any], hours: float = 24) -> dict[str, Any]:
    end = BEGIN + timedelta(hours=hours)
    return {"from": BEGIN.isoformat(), "to": end.isoformat(), "step_s": 900, "points": list(points)}


def coordinates(path: str) -> list[list[tuple[float, float]]]:
    """The lines of a path."""
    lines = [each for each in path.split("M") if each]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", line)] for line in lines]


def test_points_stand_where_and_as_high_as_they_were_measured() -> None:
    """In the middle of their step; the plot's top is the round number above the highest."""
    plot = latency_plot(series(point(0, mean=10), point(1, mean=5), hours=1))

    (line,) = coordinates(plot.mean)
    assert line == [(WIDTH / 8, HEIGHT / 2), (WIDTH * 3 / 8, HEIGHT * 0.75)]
    assert [tick.text for tick in plot.y] == ["20.0 ms", "15.0 ms", "10.0 ms", "5.0 ms", "0 ms"]


def test_the_band_goes_along_the_highest_and_back_along_the_lowest() -> None:
    plot = latency_plot(series(point(0, mean=10), point(1, mean=10), hours=1))

    (band,) = coordinates(plot.band)
    assert [y for _, y in band] == [0.0, 0.0, HEIGHT * 0.75, HEIGHT * 0.75]
    assert plot.band.endswith("Z")


def test_what_was_not_measured_is_a_gap() -> None:
    """A line across would say that all was well."""
    plot = latency_plot(series(point(0), point(1), point(4), point(5), point(6, mean=None), point(7), point(8)))

    assert [len(line) for line in coordinates(plot.mean)] == [2, 2, 2]


def test_a_point_alone_is_a_dot() -> None:
    plot = latency_plot(series(point(3)))

    assert plot.mean == ""
    assert len(coordinates(plot.dots)) == 1
    assert not plot.empty


def test_failing_steps_are_shaded_and_neighbours_are_one_span() -> None:
    plot = latency_plot(series(point(0), point(1, failing=1), point(2, failing=2), point(3), point(4, blind=1)))

    step = WIDTH / 96
    assert plot.failing == ((round(step, 1), round(2 * step, 1)),)
    assert plot.blind == ((round(4 * step, 1), round(step, 1)),)


def test_a_failure_is_never_too_narrow_to_be_seen() -> None:
    minute = series(point(0, failing=1), hours=24 * 30) | {"step_s": 60}

    assert latency_plot(minute).failing == ((0.0, 2.0),)


def test_failures_without_any_latency_are_shown() -> None:
    """Of a host that is off nothing can be measured, and that is what one looks for."""
    plot = latency_plot(series(point(0, mean=None, failing=1)))

    assert not plot.empty


@pytest.mark.parametrize(
    ("hours", "first", "least"), [(1, "00:15", 3), (24, "04:00", 5), (24 * 7, "Mon 02", 6), (24 * 30, "06 Mar", 5)]
)
def test_the_axis_names_round_moments(hours: int, first: str, least: int) -> None:
    plot = latency_plot(series(point(0), hours=hours))

    assert plot.x[0].text == first
    assert least <= len(plot.x) <= 8
    assert all(0 < tick.share < 1 for tick in plot.x)


def test_the_table_says_the_same_newest_first() -> None:
    plot = latency_plot(series(point(0), point(1, failing=2)))

    assert [(row.checks, row.failing) for row in plot.rows] == [(7, 2), (5, 0)]
    assert plot.words == "12 checks, 2 failing; 5.0 ms to 20.0 ms, 10.0 ms on average"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"from": "x", "to": "y", "points": []},
        {"from": BEGIN.isoformat(), "to": BEGIN.isoformat(), "points": [point(0)]},
        series(),
        series({"at": "never"}),
        series(point(0) | {"max": float("nan")}),
        series(point(0) | {"mean": "1", "failing": None}),
        series(point(10_000)),
    ],
)
def test_what_is_no_series_is_an_empty_plot(broken: dict[str, Any]) -> None:
    assert latency_plot(broken).empty


def test_a_strip_has_a_place_for_each_bar_the_last_at_the_right() -> None:
    paths = strip_paths([None, "ok", "failing", "ok", "paused"], bars=5)

    assert paths == {
        "none": "M2 0v1",
        "ok": "M6 0v1M14 0v1",
        "failing": "M10 0v1",
        "paused": "M18 0v1",
    }


def test_a_short_strip_stands_at_the_right_and_a_long_one_shows_its_end() -> None:
    assert strip_paths(["ok"], bars=3) == {"none": "M2 0v1M6 0v1", "ok": "M10 0v1"}
    assert strip_paths(["failing", "ok"], bars=1) == {"ok": "M2 0v1"}


def test_a_strip_is_said_in_words() -> None:
    assert strip_words(["ok", None]) == "last 90 minutes: all ok"
    assert strip_words(["ok", "failing", "blind"]) == ("last 90 minutes: 1 of 3 bars failing, 1 of 3 could not look")
    assert strip_words([None]) == "nothing known of the last 90 minutes"


def test_uptime_counts_only_what_could_be_seen() -> None:
    assert share_ok(["ok", "ok", "failing", "blind", None, "paused"]) == pytest.approx(2 / 3)
    assert share_ok([None, "blind"]) is None


def test_a_sparkline_has_gaps_and_needs_two_points() -> None:
    assert len(coordinates(spark([1, 2, None, 3, 1]))) == 2
    assert spark([None, 1, None]) == ""
    assert coordinates(spark([5, 5], width=10, height=20)) == [[(0, 10), (10, 10)]]
