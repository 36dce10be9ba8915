"""
How well the miner groups labelled lines, by the measure that the literature on log parsing uses.
"""

from __future__ import annotations

import statistics

import pytest
from loglines import STYLES, grouping_accuracy, labelled

from agentd.logs.templates import Miner

LINES = 2000
# What each style must reach without and with its header. These have what no grouping by token places can tell: names
# of several words (systemd), or a header of varying length (proxifier).
HARD = {"systemd": (0.85, 0.85), "proxifier": (0.95, 0.95)}
FLOOR = (0.97, 0.97)


def accuracy(style: str, *, header: bool, seed: int = 1) -> float:
    lines = labelled(style, LINES, seed=seed, header=header)
    miner = Miner()
    found = [miner.add_one(line) for _, line in lines]
    return grouping_accuracy([label for label, _ in lines], [miner.current(id) for id in found if id])


@pytest.mark.parametrize("style", STYLES)
def test_each_style_is_told_apart(style: str) -> None:
    """One family of programs must not be paid for by another."""
    bare, headed = HARD.get(style, FLOOR)

    assert accuracy(style, header=False) >= bare
    assert accuracy(style, header=True) >= headed


@pytest.mark.parametrize("seed", [2, 3])
def test_the_mean_over_all_styles_stays_high(seed: int) -> None:
    """The figure that the README tells."""
    assert statistics.fmean(accuracy(style, header=False, seed=seed) for style in STYLES) >= 0.97


def test_the_styles_are_rich_enough_to_mean_something() -> None:
    """Accuracy over a handful of templates says little."""
    known = {style: len({label for label, _ in labelled(style, LINES)}) for style in STYLES}

    assert len(STYLES) >= 20
    assert [style for style, templates in known.items() if templates < 24] == ["access"]


def test_grouping_accuracy_counts_whole_groups_only() -> None:
    """One line astray makes its whole group wrong: that is the measure."""
    assert grouping_accuracy([1, 1, 2, 2], ["a", "a", "b", "b"]) == 1.0
    assert grouping_accuracy([1, 1, 2, 2], ["a", "a", "b", "c"]) == 0.5
    assert grouping_accuracy([1, 1, 2, 2], ["a", "a", "a", "a"]) == 0.0
    assert grouping_accuracy([1, 1, 1, 2], ["a", "a", "b", "b"]) == 0.0
