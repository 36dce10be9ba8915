"""The keys of `by`: bounded, hostile, and kept over a restart."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
from rule_script import Store, at, engine, entry, fed, hit, occurrences, rule, told

from agentd.logs.port import Ended, Hit
from agentd.logs.rules.keys import Naming


def ip(when: float, value: str) -> Hit:
    return hit(when, ip=value)


def test_the_least_recent_key_leaves_and_its_alert_ends() -> None:
    """An alert that nobody keeps count of any more would stay for ever."""
    made = engine(rule("any", by=["ip"], max_keys=2))

    assert fed(made, [ip(1, "a"), ip(2, "b"), ip(3, "a"), ip(4, "c")]) == [
        (1, 3, 2, "a"),
        (2, 2, 1, "b"),
        ("ended", 4, "b"),
        (4, 4, 1, "c"),
    ]
    assert (made.counts["r"].evicted, made.counts["r"].keys) == (1, 2)


def test_a_key_that_comes_again_fires_anew() -> None:
    made = engine(rule("any", by=["ip"], max_keys=1))

    assert fed(made, [ip(1, "a"), ip(2, "b"), ip(3, "a")]) == [
        (1, 1, 1, "a"),
        ("ended", 2, "a"),
        (3, 3, 1, "a"),
        (2, 2, 1, "b"),
        ("ended", 3, "b"),
    ]


def test_crowding_out_says_so() -> None:
    made = engine(rule("any", by=["ip"], max_keys=1))
    made.feed([ip(1, "a"), ip(2, "b")])

    (ended,) = [event for event in made.take().events if isinstance(event, Ended)]

    assert ended.crowded_out
    assert ended.by == {"ip": "a"}


def test_a_busy_key_outlives_a_flood_of_others() -> None:
    """Else whoever forges a thousand addresses hides behind them."""
    made = engine(rule("frequency", count=50, within="1h", by=["ip"], max_keys=100))
    flood = [each for n in range(1000) for each in (ip(n, f"x{n}"), *([ip(n, "real")] if n % 20 == 0 else []))]

    assert [event[3] for event in fed(made, flood)] == ["real"]


def test_keys_take_no_more_room_than_the_table_has() -> None:
    """A flood of forged addresses must not be the end of the daemon."""
    made = engine(rule("frequency", count=5, within="10m", by=["ip"], max_keys=1000))
    hits = (ip(n / 10_000, f"address-{n}") for n in range(40_000))
    made.feed(islice(hits, 10_000))
    made.take()
    tracemalloc.start()
    try:
        for _ in range(3):
            made.feed(islice(hits, 10_000))
            assert len(made.take().windows) <= 2001
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert made.counts["r"].keys == 1000
    assert kept < 4_000_000


@pytest.mark.slow
def test_a_million_keys_are_as_few_as_the_table_holds() -> None:
    """What is kept beside the table (times to look at it again, rows to delete) must not grow either."""
    made = engine(rule("frequency", count=5, within="10m", by=["ip"], max_keys=1000), rule("any", name="all"))
    for start in range(0, 1_000_000, 20_000):
        made.feed(ip(n / 10_000, f"address-{n}") for n in range(start, start + 20_000))
        made.take()
        state = made._states[0]
        assert max(map(len, (state.windows, state._heap, state._told, state._gone, state._dirty))) <= 3001


def test_rows_of_keys_that_came_and_went_are_not_written() -> None:
    """A flood must not be a flood of writes too."""
    made = engine(rule("frequency", count=5, within="10m", by=["ip"], max_keys=10))
    made.feed(ip(n, f"x{n}") for n in range(1000))

    assert len(made.take().windows) == 11


def test_windows_that_time_has_left_behind_are_deleted() -> None:
    """A store that keeps every address ever seen is full one day."""
    made, store = engine(rule("frequency", count=2, within="60s", by=["ip"], resolve_after="5m")), Store()
    made.feed([ip(0, "calm"), ip(0, "busy"), ip(1, "busy")])
    store.commit(made.take())

    made.advance(at(61))
    store.commit(made.take())
    assert set(store.rows) == {("r", ""), ("r", "busy")}

    made.advance(at(301))
    store.commit(made.take())
    assert set(store.rows) == {("r", "")}


def test_nothing_changed_writes_nothing() -> None:
    """A quiet watch must let the disk sleep."""
    made = engine(rule("frequency", count=2, within="60s"), rule("flatline", within="60s", name="f"))
    made.feed([hit(1)])
    made.take()

    made.advance(at(5))

    assert made.take().windows == {}


def test_a_value_that_is_long_or_odd_is_still_one_key() -> None:
    naming = Naming(("a", "b"), lambda value: value)
    odd = {"a": "x" * 100_000, "b": "p\x1fq\0\ud800"}

    key = naming.key(odd, entry(0), {})

    named = naming.named(key)
    assert len(named["a"]) == 256
    assert named["b"] == "p q ?"
    assert key.encode()
    assert key != naming.key({**odd, "a": "x" * 100_001}, entry(0), {})


def test_a_secret_in_a_key_is_not_kept() -> None:
    """Keys stand in the store, in payloads and on the page."""

    def stars(value: object) -> object:
        return value.replace("hunter22", "***") if isinstance(value, str) else value

    made = engine(rule("frequency", count=1, within="1m", by=["ip"]), secrets_out=stars)
    made.feed([ip(1, "u:hunter22"), ip(2, "u:hunter22")])
    outcome = made.take()

    assert occurrences(outcome)[0].by == {"ip": "u:***"}
    assert ("r", "u:***") in outcome.windows
    assert told(outcome) == [(1, 2, 2, "u:***")]


def test_a_smaller_table_lets_the_oldest_go_at_once() -> None:
    store = Store()
    before = engine(rule("any", by=["ip"], max_keys=10))
    before.feed(ip(n, f"x{n}") for n in range(5))
    store.commit(before.take())

    after = engine(rule("any", by=["ip"], max_keys=2), stored=store.rows)
    outcome = store.commit(after.take())

    assert [event.by["ip"] for event in outcome.events] == ["x0", "x1", "x2"]
    assert {key for _, key in store.rows} == {"", "x3", "x4"}


def test_a_row_that_cannot_be_read_is_as_if_it_had_never_been() -> None:
    """A watch that does not start for one bad row is worse than one count lost."""
    for bad in ("", "{", "null", "[]", "[1]", '[1,null,"x",3]', "{}", '"x"', '[1,null,["a"],[]]'):
        for key in ("*", ""):
            made = engine(rule("frequency", count=2, within="60s"), stored={("r", key): bad})
            assert fed(made, [hit(1), hit(2)]) == [(2, 2, 2)]


def test_windows_of_other_rules_are_left_alone() -> None:
    made = engine(rule("any"), stored={("other", "*"): "[]"})

    assert made.take().windows == {}
