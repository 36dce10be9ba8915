"""What each type of rule makes of lines, in event time."""

from __future__ import annotations

from typing import Any

import pytest
from rule_script import at, engine, fed, field_hit, hit, only, rule, sighting, told

from agentd.logs.port import Hit
from agentd.logs.settings import Rule


def ips(*pairs: tuple[float, str]) -> list[Hit]:
    return [hit(when, f"from {ip}", ip=ip) for when, ip in pairs]


def lines(*seconds: float) -> list[Hit]:
    return [hit(when) for when in seconds]


def values(*pairs: tuple[float, Any]) -> list[Hit]:
    return [field_hit(when, v=value) for when, value in pairs]


ANY = rule("any")
FREQUENCY = rule("frequency", count=3, within="10s")
CASES: list[tuple[str, Rule, list[Hit], list[tuple[Any, ...]]]] = [
    ("any tells every line", ANY, lines(1, 2, 3), [(1, 3, 3)]),
    ("a gap as long as resolve_after makes two", ANY, lines(1, 301), [(1, 1, 1), (301, 301, 1)]),
    ("a shorter gap makes one", ANY, lines(1, 300.9), [(1, 300.9, 2)]),
    ("the gap is the rule's own", rule("any", resolve_after="5s"), lines(1, 7), [(1, 1, 1), (7, 7, 1)]),
    ("an older line is told before", ANY, lines(1000, 1), [(1, 1, 1), (1000, 1000, 1)]),
    ("lines out of order are one", ANY, lines(5, 3, 4), [(3, 5, 3)]),
    (
        "each value of by counts for itself",
        rule("any", by=["ip"]),
        ips((1, "a"), (2, "b")),
        [(1, 1, 1, "a"), (2, 2, 1, "b")],
    ),
    ("a line without the group counts too", rule("any", by=["ip"]), lines(1), [(1, 1, 1, "(none)")]),
    ("too few", FREQUENCY, lines(1, 2), []),
    ("enough", FREQUENCY, lines(1, 2, 3), [(3, 3, 3)]),
    ("too far apart", FREQUENCY, lines(1, 6, 11), []),
    ("just near enough", FREQUENCY, lines(1, 6, 10.9), [(10.9, 10.9, 3)]),
    ("further lines go on counting", FREQUENCY, lines(1, 2, 3, 4, 5), [(3, 5, 5)]),
    ("the window slides", FREQUENCY, lines(1, 8, 9, 15), [(9, 15, 4)]),
    ("out of order is put in order", FREQUENCY, lines(3, 1, 2), [(2, 2, 3)]),
    ("older than the window is late", FREQUENCY, lines(20, 21, 5), []),
    (
        "frequency by",
        rule("frequency", count=2, within="10s", by=["ip"]),
        ips((1, "a"), (2, "b"), (3, "a")),
        [(3, 3, 2, "a")],
    ),
    ("many lines by slots", rule("frequency", count=300, within="10s"), lines(*[i / 100 for i in range(299)]), []),
    (
        "enough by slots",
        rule("frequency", count=300, within="10s"),
        lines(*[i / 100 for i in range(301)]),
        [(2.99, 3, 301)],
    ),
    ("by slots too far apart", rule("frequency", count=300, within="1s"), lines(*[i / 100 for i in range(900)]), []),
    ("a first value is no change", rule("change", field="v"), values((1, "a"), (2, "a")), []),
    ("a change", rule("change", field="v"), values((1, "a"), (2, "b"), (3, "b")), [(2, 2, 1)]),
    ("a change and back", rule("change", field="v"), values((1, "a"), (2, "b"), (3, "a")), [(2, 3, 2)]),
    ("a number and its text are one value", rule("change", field="v"), values((1, 5), (2, "5")), []),
    ("a missing field is no change", rule("change", field="v"), [*values((1, "a")), *lines(2), *values((3, "a"))], []),
    ("a key's first value is no news", rule("new_value", field="v"), values((1, "a"), (2, "a")), []),
    ("a new value", rule("new_value", field="v"), values((1, "a"), (2, "b"), (3, "b"), (4, "a")), [(2, 2, 1)]),
    (
        "a value while learning is no news",
        rule("new_value", field="v", learn="5s"),
        values((1, "a"), (2, "b"), (5, "c")),
        [(5, 5, 1)],
    ),
    ("few values", rule("cardinality", field="v", within="10s", more_than=2), values((1, "a"), (2, "b"), (3, "a")), []),
    (
        "many values",
        rule("cardinality", field="v", within="10s", more_than=2),
        values((1, "a"), (2, "b"), (3, "c"), (4, "c")),
        [(3, 4, 2)],
    ),
    (
        "values leave the window",
        rule("cardinality", field="v", within="10s", more_than=2),
        values((1, "a"), (2, "b"), (11, "c")),
        [],
    ),
    (
        "a value seen again stays",
        rule("cardinality", field="v", within="10s", more_than=2),
        values((1, "a"), (2, "b"), (9, "a"), (11, "c")),
        [(11, 11, 1)],
    ),
    ("blocklist", rule("blocklist", field="v", values=["x"]), values((1, "x"), (2, "y")), [(1, 1, 1)]),
    ("blocklist without the field", rule("blocklist", field="v", values=["x"]), lines(1), []),
    ("allowlist", rule("allowlist", field="v", values=["x"]), values((1, "x"), (2, "y")), [(2, 2, 1)]),
    ("allowlist without the field", rule("allowlist", field="v", values=["x"]), lines(1), []),
    ("a field of a field", rule("blocklist", field="v.w", values=["3"]), values((1, {"w": 3})), [(1, 1, 1)]),
]


@pytest.mark.parametrize(("each", "hits", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_lines_make_occurrences(each: Rule, hits: list[Hit], expected: list[tuple[Any, ...]]) -> None:
    """One line of this table is one promise of the reference."""
    assert fed(engine(each), hits) == expected


def test_new_values_are_of_their_key() -> None:
    """A user from a country where only others came from before is news."""
    made = engine(rule("new_value", field="v", by=["u"]))

    pairs = [("x", "a"), ("y", "a"), ("y", "b"), ("x", "b"), ("x", "a")]

    assert fed(made, [field_hit(n, u=u, v=v) for n, (u, v) in enumerate(pairs)]) == [(2, 2, 1, "y"), (3, 3, 1, "x")]


def test_a_spike_needs_something_usual_to_stand_out_from() -> None:
    """A restart in the middle of the busy hour must not cry wolf."""
    made = engine(rule("spike", within="20s", times=3))

    assert fed(made, lines(*[n / 10 for n in range(200)])) == []


def test_a_spike_stands_out_from_the_usual() -> None:
    """Two lines a window are usual; six are three times that."""
    made = engine(rule("spike", within="20s", times=3))
    assert fed(made, lines(*range(0, 200, 10))) == []

    made.feed(lines(*[200 + n / 10 for n in range(10)]))

    found = only(made.take())
    assert (found.count, found.values["usual"]) == (11, 2.0)
    assert found.values["count"] == 6
    assert found.reason_text == "6 lines within 20s, usual are 2"


def test_a_spike_is_at_least_count() -> None:
    """Three lines where one was usual is a spike in numbers, and none for people."""
    usual = list(range(0, 200, 20))

    assert fed(engine(rule("spike", within="20s", times=3, count=5)), lines(*usual, 200, 201, 202, 203)) == []
    assert fed(engine(rule("spike", within="20s", times=3, count=5)), lines(*usual, 200, 201, 202, 203, 204)) == [
        (204, 204, 5)
    ]


def test_silence_counts_up_to_what_is_known_to_be_read() -> None:
    """While the source is behind nobody knows whether it is silent."""
    made = engine(rule("flatline", within="60s"))
    made.feed(lines(10, 300, 700))
    assert told(made.take()) == []

    made.advance(at(759))
    assert told(made.take()) == []

    made.advance(at(765))
    assert told(made.take()) == [(760, 765, 1)]


def test_a_silence_goes_on_without_counting_and_ends() -> None:
    """It must not resolve by quiet: quiet is what it is about."""
    made = engine(rule("flatline", within="60s", resolve_after="40s"))
    for second in range(60, 200, 5):
        made.advance(at(second))
    assert told(made.take()) == [(60, 190, 1)]
    for second in range(200, 220, 5):
        made.advance(at(second))
    assert told(made.take()) == [(200, 210, 0)]

    assert fed(made, lines(221)) == [("ended", 221)]
    made.advance(at(280))
    assert told(made.take()) == []
    made.advance(at(281))
    assert told(made.take()) == [(281, 281, 1)]


def test_silence_is_told_when_it_comes_and_not_before() -> None:
    """`next_change` is what a source that says nothing at all is woken by."""
    made = engine(rule("flatline", within="60s"))
    assert made.next_change() == at(60)

    made.feed(lines(30))
    made.advance(at(60))

    assert told(made.take()) == []
    assert made.next_change() == at(90)


def test_fewer_lines_than_needed_are_silence() -> None:
    made = engine(rule("flatline", within="60s", fewer_than=3))
    made.feed(lines(10, 20, 30, 40))
    made.advance(at(79))
    assert told(made.take()) == []

    made.advance(at(81))
    assert told(made.take()) == [(80, 81, 1)]
    assert fed(made, lines(91)) == []
    assert fed(made, lines(92)) == [("ended", 92)]


def test_each_key_that_came_once_is_waited_for() -> None:
    """A host that stops logging is the news, and not that others go on."""
    made = engine(rule("flatline", within="60s", by=["ip"]))
    made.feed(ips((10, "a"), (20, "b"), (65, "b")))
    made.advance(at(70))

    assert told(made.take()) == [(70, 70, 1, "a")]


def test_a_key_is_not_waited_for_for_ever() -> None:
    """A machine that was taken away would fire until somebody changes the configuration."""
    made = engine(rule("flatline", within="60s", by=["ip"]))
    made.feed(ips((0, "a")))
    made.advance(at(70))
    made.take()

    made.advance(at(60 + 86400))

    outcome = made.take()
    assert told(outcome) == [("ended", 86460, "a")]
    assert outcome.windows["r", "a"] is None


def test_a_line_dated_ahead_does_not_put_silence_off() -> None:
    """One broken clock among the writers would blind the rule for as long."""
    made = engine(rule("flatline", within="60s"))
    made.feed(lines(100_000))
    made.advance(at(61))
    made.take()

    made.advance(at(125))

    assert told(made.take()) == [(121, 125, 1)]


def test_lines_are_counted_without_a_look_at_each() -> None:
    """A flatline over a whole log costs nothing a line."""
    made = engine(rule("flatline", within="60s", fewer_than=3), rule("any", name="other"))
    assert made.counted == {0}

    made.count_all(1000, at(0), at(50))
    made.advance(at(109))
    assert told(made.take()) == []
    made.advance(at(111))

    assert [each[2] for each in told(made.take())] == [1]


def test_counting_lines_many_at_once_by_slots() -> None:
    made = engine(rule("flatline", within="60s", fewer_than=500))
    made.count_all(1000, at(0), at(50))

    made.advance(at(80))
    assert told(made.take()) == []
    made.advance(at(90))

    assert [each[2] for each in told(made.take())] == [1]


def test_a_gap_in_a_replay_is_silence() -> None:
    """`agentd test` must show it, though nobody tells the engine of the time between two lines."""
    made = engine(rule("flatline", within="60s"), started=None, in_order=True)
    assert made.counted == frozenset()

    found = fed(made, lines(0, 50, 300, 360, 420.5))

    assert found == [(110, 300, 1), ("ended", 300), (420, 420.5, 1), ("ended", 420.5)]


def test_too_few_values_last_until_enough_come() -> None:
    """Two of three nodes report: that is what `fewer_than: 3` is for."""
    made = engine(rule("cardinality", field="v", within="60s", fewer_than=3))
    made.feed(values((10, "a"), (20, "b"), (30, "c"), (60, "b"), (65, "c")))
    made.advance(at(69))
    assert told(made.take()) == []

    made.advance(at(71))
    assert told(made.take()) == [(70, 71, 1)]
    assert fed(made, values((75, "b"), (80, "a"))) == [("ended", 80)]


def test_a_share_of_lines() -> None:
    """Ten errors among twenty lines are an incident, among ten thousand they are not."""
    share = rule("percentage", within="60s", more_than="30%", when="x")
    many = [hit(n / 10, matched=n % 4 == 3) for n in range(40)]

    assert fed(engine(share), many) == []
    found = engine(share)
    found.feed([*many, *(hit(4 + n, matched=True) for n in range(4))])

    assert only(found.take()).summary.startswith("30.2% of 43 lines within 1m")


def test_a_share_of_few_lines_says_nothing() -> None:
    assert fed(engine(rule("percentage", within="60s", more_than=30, when="x")), lines(*range(9))) == []
    assert fed(engine(rule("percentage", within="60s", more_than=30, when="x")), lines(*range(10))) == [(9, 9, 10)]


def test_a_release_is_one_message() -> None:
    """Ten an hour are told, the rest is counted and stands in the next."""
    made = engine(rule("novel", per_hour=3))
    made.novel(sighting(n) for n in range(3000, 3010))
    assert told(made.take()) == []

    made.novel(sighting(n) for n in range(3600, 3640))
    assert told(made.take()) == [(3600, 3602, 3)]

    made.novel([sighting(7201, "fan speed 3")])
    found = only(made.take())

    assert found.count == 38
    assert found.summary == "new kind of line (and 37 more): fan speed 3"
    assert found.values["template"] == "fan speed 3"


def test_what_a_rule_without_a_start_learns_begins_with_the_first_line() -> None:
    """A replay of last year's log learns from its own first hour."""
    made = engine(rule("novel", learn="10s"), started=None)
    made.novel([sighting(100), sighting(109), sighting(110)])

    assert told(made.take()) == [(110, 110, 1)]
