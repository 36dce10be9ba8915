"""What verdicts do to an alert: the decisions, without store or network."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.alert.identity import fingerprint
from agentd.alert.lifecycle import Policy, Step, end, step, step_blind
from agentd.records import Alert, AlertStatus, EventType, Judgement, Reason, Severity, Verdict

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ALERT = Alert(fingerprint("web-1", "shop"), "web-1", "shop", Severity.WARNING)
THREE_OF_FIVE = Policy(needed=3, of=5, recover_after=2)

VERDICTS = {"o": Verdict.OK, "x": Verdict.FAILING, "?": Verdict.BLIND}


def play(verdicts: str, policy: Policy, alert: Alert = ALERT) -> list[Step]:
    """One step for each letter: o ok, x failing, ? blind; a minute apart."""
    steps = []
    for minute, letter in enumerate(verdicts):
        taken = step(alert, Judgement(VERDICTS[letter], summary="down"), policy, NOW + timedelta(minutes=minute))
        alert = taken.alert
        steps.append(taken)
    return steps


def events(steps: list[Step]) -> str:
    """One character for each step: F fired, R resolved, p pending, k back to ok, `.` nothing."""
    letters = {EventType.FIRING: "F", EventType.RESOLVED: "R"}
    seen = ""
    for taken in steps:
        if taken.transition is None:
            seen += "."
        elif taken.transition.event is not None:
            seen += letters[taken.transition.event]
        else:
            seen += "p" if taken.transition.after is AlertStatus.PENDING else "k"
    return seen


@pytest.mark.parametrize(
    ("needed", "of", "recover", "verdicts", "expected"),
    [
        (3, 3, 2, "oxxxxoo", ".p.F..R"),
        (3, 3, 2, "xxoxxx", "p.kp.F"),
        (1, 1, 1, "xoxo", "FRFR"),
        (3, 5, 2, "xoxox", "p...F"),
        (3, 5, 2, "xoxooox", "p......"),
        (3, 5, 2, "xooooxo", "p......"),
        (3, 3, 2, "xxxoxoo", "p.F...R"),
        (2, 2, 1, "xx?o", "pF.R"),
        (3, 3, 2, "xx???x", "p....F"),
    ],
)
def test_streaks(needed: int, of: int, recover: int, verdicts: str, expected: str) -> None:
    """Who sets `3 of 5` counts on exactly this table."""
    policy = Policy(needed=needed, of=of, recover_after=recover)

    assert events(play(verdicts, policy)) == expected


def test_a_single_failure_leaves_the_window_in_the_end() -> None:
    """Otherwise `pending` would stay for ever after one bad answer."""
    steps = play("xooooo", THREE_OF_FIVE)

    assert events(steps) == "p....k"
    assert steps[-1].alert.window == ""


def test_blind_freezes_the_streak_and_is_never_a_failure() -> None:
    """Our own dead network must not report a healthy target as down, nor forget that it was failing."""
    steps = play("xx?????????", Policy(needed=3, of=3))

    assert steps[-1].alert.status is AlertStatus.PENDING
    assert steps[-1].alert.window == "11"
    assert steps[2].changed
    assert not any(taken.changed for taken in steps[3:])


@given(st.text(alphabet="ox?", max_size=60), st.integers(1, 4), st.integers(0, 4), st.integers(1, 3))
def test_firing_and_resolved_always_alternate(verdicts: str, needed: int, more: int, recover: int) -> None:
    """A second firing without a resolve between, or the reverse, is a lie to the receiver."""
    told = events(play(verdicts, Policy(needed=needed, of=needed + more, recover_after=recover)))
    told = "".join(letter for letter in told if letter in "FR")

    assert told == ("FR" * len(told))[: len(told)]


@given(st.text(alphabet="ox?", max_size=40), st.integers(1, 4), st.integers(0, 4))
def test_the_window_never_grows(verdicts: str, needed: int, more: int) -> None:
    """It is a row that is kept for months."""
    for taken in play(verdicts, Policy(needed=needed, of=needed + more)):
        assert len(taken.alert.window) <= needed + more


@pytest.mark.parametrize(("verdicts", "policy"), [("ooooo", THREE_OF_FIVE), ("xxxxxxx", THREE_OF_FIVE)])
def test_a_steady_target_writes_nothing(verdicts: str, policy: Policy) -> None:
    """Thousands of steady checks must not wear the disk."""
    changes = [taken.changed for taken in play(verdicts, policy)]

    assert sum(changes) == (3 if "x" in verdicts else 0)


def test_a_firing_says_how_and_since_when() -> None:
    """The message is all that the person who is woken has."""
    fired = play("xoxox", THREE_OF_FIVE)[-1]

    assert fired.transition is not None
    assert fired.transition.reason is Reason.THRESHOLD
    assert fired.transition.reason_text == "failed 3 of 5"
    assert fired.alert.started_at == NOW + timedelta(minutes=4)
    assert fired.alert.occurrences == 3


def test_lasting_blindness_is_an_alert_of_its_own() -> None:
    """A checker that cannot look must not look like a healthy target."""
    policy = Policy(blind_after=timedelta(minutes=10))
    blind = replace(ALERT, rule="blind")

    early = step_blind(blind, "no route", NOW, policy, NOW + timedelta(minutes=9))
    fired = step_blind(blind, "no route", NOW, policy, NOW + timedelta(minutes=10))
    resolved = step_blind(fired.alert, None, None, policy, NOW + timedelta(minutes=20))

    assert not early.changed
    assert fired.transition is not None
    assert fired.transition.reason is Reason.BLIND
    assert fired.alert.summary == "cannot look: no route"
    assert resolved.transition is not None
    assert resolved.transition.reason is Reason.SIGHT_REGAINED


def test_a_clock_set_back_does_not_hide_blindness() -> None:
    """Since tomorrow is never longer than ten minutes ago."""
    policy = Policy(blind_after=timedelta(minutes=10))
    tomorrow = replace(ALERT, blind_since=NOW + timedelta(days=1))

    seen = step(tomorrow, Judgement(Verdict.BLIND, "no route"), policy, NOW)

    assert seen.changed
    assert seen.alert.blind_since == NOW


def test_a_removed_watch_resolves_with_its_reason() -> None:
    """Nobody may wait for ever for the resolve of a watch that is gone."""
    firing = play("xxx", Policy(needed=3, of=3))[-1].alert

    ended = end(firing, Reason.WATCH_REMOVED, "removed", NOW)

    assert ended.transition is not None
    assert ended.transition.event is EventType.RESOLVED
    assert not end(ALERT, Reason.WATCH_REMOVED, "removed", NOW).changed


def test_fingerprints_do_not_run_together() -> None:
    """Two alerts under one fingerprint would hide one of them."""
    names = [("a", "bc", None), ("ab", "c", None), ("a", "b", "c"), ("a", "bc", "")]
    prints = {fingerprint(*name) for name in names[:3]}

    assert len(prints) == 3
    assert fingerprint("i", "w", "r", {"x": "1", "y": "2"}) == fingerprint("i", "w", "r", {"y": "2", "x": "1"})
    assert fingerprint("i", "w", "r", {"x": "1"}) != fingerprint("i", "w", "r", {"x": "2"})
