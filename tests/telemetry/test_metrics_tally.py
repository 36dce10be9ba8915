"""Counting costs next to nothing, and is bounded."""

from __future__ import annotations

import pytest

from agentd.telemetry.catalogue import CATALOGUE, Numbers
from agentd.telemetry.tally import OTHER, Admitted, Spread, Spreads, Tally


def test_a_label_with_endless_values_is_counted_together_beyond_the_bound() -> None:
    """A thousand series more for each crash of somebody else's client would bury the Prometheus that reads them."""
    tally, spreads = Tally(most=3), Spreads((1.0,), most=3)
    for number in range(10):
        tally.add((f"a{number}", "b"))
        spreads.add((f"a{number}",), 0.5)

    assert dict(tally) == {("a0", "b"): 1, ("a1", "b"): 1, ("a2", "b"): 1, (OTHER, OTHER): 7}
    assert {labels: seen.count for labels, seen in spreads} == {("a0",): 1, ("a1",): 1, ("a2",): 1, (OTHER,): 7}


def test_a_bound_belongs_to_its_bucket() -> None:
    """`le` means less or equal: a check of exactly a second did not take longer than one."""
    spread = Spread((0.5, 1.0))
    for value in (0.1, 0.5, 1.0, 7.0):
        spread.add(value)
    seen = spread.seen()

    assert (seen.counts, seen.count, seen.total) == ((2, 1, 1), 4, 8.6)


def test_a_watch_keeps_its_own_series_while_it_is_there() -> None:
    """One that jumped to `other` and back at a reload would look like two resets of a counter."""
    admitted = Admitted(most=2)
    admitted.keep(["a", "b", "c"])
    assert [admitted.label(name) for name in "abc"] == ["a", "b", OTHER]

    admitted.keep(["z", "c", "b"])
    assert [admitted.label(name) for name in "azbc"] == [OTHER, "z", "b", OTHER]


def test_watches_beyond_the_bound_are_told_of_as_their_worst() -> None:
    """One that is down must be seen, also where it is one of the rest."""
    numbers = Numbers()
    for up in (1.0, 0.0, 1.0):
        numbers.put("agentd_watch_up", up, OTHER, "http")
        numbers.put("agentd_log_lines_total", 5, OTHER)

    assert numbers.values["agentd_watch_up"] == {(OTHER, "http"): 0.0}
    assert numbers.values["agentd_log_lines_total"] == {(OTHER,): 15}


def test_what_is_no_number_is_left_out() -> None:
    """NaN is no JSON, and one in a sum makes all of it one."""
    numbers = Numbers()
    numbers.put("agentd_watches", float("nan"), "ok")
    numbers.put("agentd_watches", float("inf"), "ok")

    assert numbers.values["agentd_watches"] == {}


@pytest.mark.parametrize(("name", "labels"), [("agentd_watches", ()), ("agentd_ready", ("ok",))])
def test_other_labels_than_the_catalogue_has_are_a_defect(name: str, labels: tuple[str, ...]) -> None:
    """Two shapes of one metric are two metrics to a dashboard, one of which it does not see."""
    with pytest.raises(ValueError, match="the catalogue says how"):
        Numbers().put(name, 1, *labels)


def test_names_say_what_they_are() -> None:
    """By the conventions of Prometheus a counter ends in `_total`, and nothing else does."""
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") is (metric.kind == "counter"), metric.name
