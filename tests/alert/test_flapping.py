"""Flapping by Icinga's score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.alert.flapping import Flap, FlappingSettings, share_of_changes, step_flapping

ICINGA = FlappingSettings()


def run(checks: str, settings: FlappingSettings = ICINGA) -> list[Flap]:
    outcomes, flapping, told = "", False, []
    for each in checks:
        flap = step_flapping(outcomes, each == "1", flapping, settings)
        outcomes, flapping = flap.outcomes, flap.flapping
        told.append(flap)
    return told


class Icinga:
    """The same as checkable-flapping.cpp does it: a ring of 20 bits."""

    def __init__(self) -> None:
        self.changes, self.last, self.flapping = [False] * 20, "0", False

    def check(self, state: str) -> tuple[float, bool]:
        self.changes = [*self.changes[1:], state != self.last]
        self.last = state
        share = 100.0 * sum(0.8 + 0.02 * n for n in range(20) if self.changes[n]) / 20.0
        self.flapping = share > (25.0 if self.flapping else 30.0)
        return share, self.flapping


@given(st.text("01", min_size=1, max_size=120).map(lambda text: "0" + text))
def test_the_score_is_that_of_icinga(checks: str) -> None:
    """The numbers that people know from there mean the same here."""
    icinga = Icinga()

    for mine, each in zip(run(checks), checks, strict=True):
        share, flapping = icinga.check(each)
        assert mine[1] == pytest.approx(share)
        assert mine[2] is flapping


def test_a_target_that_comes_and_goes_flaps_and_steadies() -> None:
    """One begin and one end, not a change at every check between them."""
    states = [flapping for _, _, flapping in run("0" * 20 + "01" * 10 + "0" * 30)]

    begin = states.index(True)
    assert 20 < begin < 30
    end = states.index(False, begin)
    assert 40 < end < 60
    assert not any(states[end:])


def test_a_steady_target_has_nothing_to_store() -> None:
    """10,000 calm watches must not write at every check."""
    assert {outcomes for outcomes, _, _ in run("0" * 50)} == {""}
    assert {outcomes for outcomes, _, _ in run("1" * 50)[20:]} == {"1"}
    assert run("0" * 30 + "1" + "0" * 21)[-1] == ("", 0.0, False)


def test_a_single_outage_is_no_flapping() -> None:
    assert not any(flapping for _, _, flapping in run("0" * 20 + "1" * 5 + "0" * 30))


def test_the_number_of_checks_is_as_set() -> None:
    settings = FlappingSettings(start=50, end=20, of=5)

    assert [flapping for _, _, flapping in run("0101000000", settings)].index(True) == 3
    assert len(max((outcomes for outcomes, _, _ in run("01" * 50, settings)), key=len)) == 6
    assert share_of_changes("010101", 5) == pytest.approx(100 * sum(0.8 + 0.08 * n for n in range(5)) / 5)


def test_fewer_checks_than_before_after_a_reload() -> None:
    """`of` may be made smaller while longer outcomes are stored."""
    assert step_flapping("01" * 10, False, True, FlappingSettings(of=3)).outcomes == "1010"
