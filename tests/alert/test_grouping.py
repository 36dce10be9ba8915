"""When a receiver is told of a group, as Alertmanager decides it, and the three ways in which we differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentd.alert.grouping import Pace, Standing, Told, Why, group_of, look, next_look, next_tick

T = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PACE = Pace(interval=MINUTE, repeat=timedelta(hours=4), doubling=False)


def some(*names: str) -> frozenset[str]:
    return frozenset(names)


def told(firing: str = "", resolved: str = "", muted: str = "", ago: timedelta = MINUTE, reminders: int = 0) -> Told:
    """Fingerprints of one letter."""
    return Told(some(*firing), some(*resolved), some(*muted), T - ago, reminders)


def now(firing: str = "", muted: str = "", resolved: str = "", **more: str) -> Standing:
    return Standing(some(*firing), some(*muted), some(*resolved), **{name: some(*each) for name, each in more.items()})


@pytest.mark.parametrize(
    ("before", "standing", "why"),
    [
        (Told(), now("a"), Why.FIRST),
        (Told(), now(resolved="a"), None),
        (Told(), now(), None),
        (told("a"), now("a"), None),
        (told("a"), now("ab"), Why.NEW_FIRING),
        (told("ab"), now("a", resolved="b"), Why.NEW_RESOLVED),
        (told("ab"), now(resolved="ab"), Why.ALL_CLEAR),
        (told(resolved="a"), now(resolved="b"), None),
        (told(resolved="a"), now("a"), Why.NEW_FIRING),
        (told("a"), now("a", resolved="b"), Why.NEW_RESOLVED),
        (told("a", ago=timedelta(hours=4)), now("a"), Why.REPEAT),
        (told("a", ago=timedelta(hours=3)), now("a"), None),
    ],
    ids=[
        "first firing",
        "came and went unseen",
        "nobody there",
        "nothing new",
        "new member",
        "one resolved",
        "all clear",
        "came and went after the all-clear",
        "fires again",
        "another came and went while one fires",
        "time to repeat",
        "not yet",
    ],
)
def test_alertmanagers_decisions(before: Told, standing: Standing, why: Why | None) -> None:
    """needsUpdate of notify.go, case by case."""
    assert look(before, standing, PACE, T).why is why


def test_what_is_told_is_known_afterwards() -> None:
    """Or the same news would be told at every tick."""
    came = look(told("ab"), now("ac", resolved="b"), PACE, T)

    assert (came.firing, came.resolved) == (some("a", "c"), some("b"))
    assert look(came.told, now("ac"), PACE, T + MINUTE).why is None


def test_what_is_muted_is_not_told() -> None:
    """A silence means silence."""
    assert look(Told(), now("a", muted="a"), PACE, T).why is None
    assert look(Told(), now("ab", muted="a"), PACE, T).firing == some("b")


def test_what_still_fires_when_the_mute_ends_is_told_then() -> None:
    """Whether or not it was told before it was muted: the person who silenced it may not be the one who wakes."""
    silent = look(told("a"), now("a", muted="a"), PACE, T)
    assert silent.why is None

    assert look(silent.told, now("a"), PACE, T + MINUTE).why is Why.NEW_FIRING


def test_a_resolve_reaches_whoever_was_told_although_it_is_muted() -> None:
    """An incident that was opened must be closed, silence or not."""
    silent = look(told("a"), now("a", muted="a"), PACE, T)

    came = look(silent.told, now(resolved="a"), PACE, T + MINUTE)

    assert (came.why, came.resolved) == (Why.ALL_CLEAR, some("a"))


def test_what_came_and_went_muted_is_no_news() -> None:
    """Behind a dead gateway, the shops' recovery is no message either."""
    assert look(told("a"), now("a", muted="b", resolved="b"), PACE, T).why is None


def test_known_and_muted_members_stay_known_while_others_are_told_of() -> None:
    """News of b must not make the receiver forget that it knows of a."""
    came = look(told("a"), now("ab", muted="a"), PACE, T)
    assert (came.why, came.firing) == (Why.NEW_FIRING, some("b"))

    over = look(came.told, now("b", resolved="a"), PACE, T + MINUTE)

    assert over.resolved == some("a")


def test_a_one_off_event_is_told_although_it_is_over() -> None:
    """A line in a log is the message; that it is long past when we look changes nothing."""
    came = look(Told(), now(resolved="a", one_off="a"), PACE, T)

    assert (came.why, came.unseen) == (Why.FIRST, some("a"))


def test_an_acknowledged_alert_is_not_repeated_but_its_end_is_told() -> None:
    """Somebody is on it."""
    late = told("a", ago=timedelta(hours=9))

    assert look(late, now("a", acked="a"), PACE, T).why is None
    assert look(late, now("ab", acked="a"), PACE, T).why is Why.NEW_FIRING
    assert look(late, now(resolved="a"), PACE, T).why is Why.ALL_CLEAR


def test_news_of_a_known_alert_is_told() -> None:
    """It got worse: the receiver knows of it, and has to know that."""
    assert look(told("a"), now("a", news="a"), PACE, T).why is Why.NEW_FIRING


def test_reminders_double_up_to_a_day() -> None:
    """An alert that nobody can mend today should not cry every four hours."""
    pace = Pace(repeat=timedelta(hours=4))

    assert [pace.until_reminder(count) for count in range(5)] == [
        timedelta(hours=hours) for hours in (4, 8, 16, 24, 24)
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-5, 0), (0, 0), (1, 60), (60, 60), (61, 120), (3599, 3600)], ids=str
)
def test_looks_go_by_ticks_from_the_first_one(seconds: int, expected: int) -> None:
    """As Alertmanager's timer does: news in the middle of an interval waits for its end."""
    assert next_tick(T, MINUTE, T + timedelta(seconds=seconds)) == T + timedelta(seconds=expected)


def test_a_group_with_nothing_to_wait_for_is_not_looked_at() -> None:
    """Ten thousand firing alerts must cost nothing until something happens or a reminder is due."""
    quiet = Pace(interval=MINUTE, repeat=None)

    assert next_look(told("a"), now("a"), quiet, T, T) is None
    assert next_look(told("a", ago=MINUTE), now("a"), PACE, T - MINUTE, T) == T - MINUTE + timedelta(hours=4)
    assert next_look(told("a"), now("a", muted="a"), quiet, T, T) == T + MINUTE


def test_a_group_has_the_labels_it_is_named_by() -> None:
    """A label that an alert lacks counts as empty, so such alerts are a group too."""
    assert group_of(["zone", "team"], {"zone": "dmz", "x": "y"}) == {"zone": "dmz", "team": ""}
    assert group_of(["..."], {"b": "2", "a": "1"}) == {"a": "1", "b": "2"}
