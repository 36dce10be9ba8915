"""An engine made of what another gave out goes on as that one would have."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rule_script import Store, at, engine, entry, field_hit, rule, told

from agentd.logs.port import Hit, Outcome, Sighting
from agentd.logs.rules import RuleEngine, digest_of
from agentd.logs.settings import Rule

Step = Callable[[RuleEngine], None]

BY = {"by": ["k"], "max_keys": 4}
RULES = [
    rule("any", name="any", **BY),
    rule("any", name="any-all"),
    rule("frequency", name="frequency", count=3, within="60s", **BY),
    rule("frequency", name="frequency-all", count=8, within="60s", resolve_after="20s"),
    rule("frequency", name="frequency-slots", count=201, within="20m"),
    rule("spike", name="spike", within="60s", times=2, **BY),
    rule("flatline", name="flatline", within="60s", fewer_than=2, resolve_after="30s", **BY),
    rule("flatline", name="flatline-all", within="15s"),
    rule("new_value", name="new", field="v", **BY),
    rule("new_value", name="new-all", field="v", learn="60s", max_keys=6),
    rule("change", name="change", field="v", **BY),
    rule("cardinality", name="cardinality", field="v", within="60s", more_than=2, **BY),
    rule("cardinality", name="few", field="v", within="60s", fewer_than=2, **BY),
    rule("percentage", name="percentage", within="60s", more_than=50, count=4, when="x", **BY),
    rule("blocklist", name="block", field="v", values=["a", "b"], **BY),
    rule("novel", name="novel", learn="30s", per_hour=2, **BY),
]


def both(made: RuleEngine, hits: list[Hit], news: list[tuple[int, Sighting, dict[str, str]]]) -> None:
    made.feed(hits)
    made.novel(news)


def steps(seed: int) -> list[Step]:
    """A made-up day: keys and values that come back, lines out of order, quiet times, moments of being caught up."""
    dice = random.Random(seed)
    now = 0.0
    made: list[Step] = []
    for _ in range(60):
        hits: list[Hit] = []
        news: list[tuple[int, Sighting, dict[str, str]]] = []
        for _ in range(dice.randrange(6)):
            now += dice.choice([0, 0.25, 1, 3, 10])
            fields: dict[str, Any] = {"k": f"k{dice.randrange(7)}", "v": "abcdefghij"[dice.randrange(10)]}
            when = max(0.0, now - dice.choice([0, 0, 0, 1, 5, 70]))
            for number, each in enumerate(RULES):
                if each.type == "novel":
                    news.append((number, Sighting("t", "p", entry(when, **fields)), {}))
                else:
                    hits.append(field_hit(when, rule=number, matched=dice.random() < 0.5, **fields))
        made.append(lambda engine, hits=hits, news=news: both(engine, hits, news))  # type: ignore[misc]
        if dice.random() < 0.4:
            now += dice.choice([0, 5, 40, 200])
            made.append(lambda engine, now=now: engine.advance(at(now)))  # type: ignore[misc]
    return made


def run(script: Sequence[Step], restart: Callable[[int], bool]) -> tuple[list[list[Any]], dict[tuple[str, str], str]]:
    store = Store()
    made = engine(*RULES)
    outcomes = []
    for number, step in enumerate(script):
        if restart(number):
            made = engine(*RULES, stored=dict(store.rows), started=1e6)
        step(made)
        outcomes.append(by_alert(store.commit(made.take())))
    return outcomes, store.rows


def by_alert(outcome: Outcome) -> list[Any]:
    """The events, those of each (rule, by) in their order."""
    return sorted(outcome.events, key=lambda event: (event.rule, sorted(event.by.items())))


@pytest.mark.parametrize("seed", range(20))
def test_a_restart_between_any_two_batches_changes_nothing(seed: int) -> None:
    """A daemon that is killed and started again must tell neither more nor less."""
    script = steps(seed)
    expected, rows = run(script, lambda number: False)
    assert any(expected)

    always, always_rows = run(script, lambda number: number > 0)
    dice = random.Random(seed)
    sometimes, _ = run(script, lambda number: number > 0 and dice.random() < 0.2)

    assert always == expected
    assert sometimes == expected
    assert always_rows == rows


def test_every_type_occurs_in_these_days() -> None:
    """A rule that is never told of shows nothing above."""
    seen = {event.rule for seed in range(20) for outcome in run(steps(seed), lambda _: False)[0] for event in outcome}

    assert seen >= {each.name for each in RULES} - {"frequency-slots"}


def test_many_lines_by_slots_are_kept() -> None:
    slots = rule("frequency", count=300, within="60s")
    before, store = engine(slots), Store()
    before.feed(field_hit(n / 10) for n in range(250))
    store.commit(before.take())

    after = engine(slots, stored=store.rows)
    after.feed(field_hit(25 + n / 10) for n in range(51))

    assert told(after.take()) == [(29.9, 30, 301)]


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"severity": "critical"}, True),
        ({"resolve_after": "1h"}, True),
        ({"count": 7}, True),
        ({"max_keys": 7}, True),
        ({"match": "b"}, False),
        ({"by": ["b"]}, False),
        ({"within": "2m"}, False),
        ({"count": 700}, False),
    ],
)
def test_windows_are_dropped_only_where_they_would_mislead(changed: dict[str, Any], same: bool) -> None:
    """A reload that makes an alert critical must not forget who is being counted."""
    settings = {"match": "a", "count": 5, "within": "1m", "by": ["a"]}

    assert (digest_of(rule("frequency", **settings)) == digest_of(rule("frequency", **{**settings, **changed}))) is same


def test_what_is_counted_may_change_under_kept_windows() -> None:
    store = Store()
    before = engine(rule("frequency", count=5, within="60s"))
    before.feed(field_hit(n) for n in range(4))
    store.commit(before.take())

    after = engine(rule("frequency", count=3, within="60s"), stored=store.rows)
    after.feed([field_hit(5)])

    assert told(after.take()) == [(5, 5, 3)]


def test_rules_of_every_sort_are_told_apart_by_their_stored_names() -> None:
    rules: list[Rule] = RULES

    assert set(engine(*rules).digests) == {each.name for each in rules}
