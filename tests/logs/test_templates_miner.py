"""
The miner: what a template is, who it stays, and what it costs, whatever lines come.
"""

from __future__ import annotations

import random
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.logs.templates import Changes, Miner, StoredTemplate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=10)


def block(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def patterns(miner: Miner) -> dict[str, int]:
    return {row.pattern: row.count for row in miner.rows()}


def test_lines_that_differ_in_values_are_one_template() -> None:
    """The whole point: a flood becomes a line of a table."""
    miner = Miner()

    miner.add(
        block(
            "Jun 14 15:16:01 web-1 sshd[4242]: Failed password for root from 192.0.2.7 port 4711 ssh2",
            "Jun 14 15:16:09 web-2 sshd[77]: Failed password for bob from 198.51.100.23 port 9 ssh2",
        ),
        NOON,
        LATER,
    )

    assert patterns(miner) == {"<time> web-<num> sshd[<num>]: Failed password for <*> from <ip> port <num> ssh<num>": 2}


def test_a_word_that_tells_what_happened_keeps_templates_apart() -> None:
    """`VM Started` and `VM Stopped` must not become `VM <*>`."""
    miner = Miner()

    miner.add(block("[4f2a] VM Started by the host", "[77b0] VM Stopped by the host"), NOON, LATER)

    assert len(miner) == 2


def test_many_words_at_one_place_become_a_value() -> None:
    """A table with a row for each plugin of a system says nothing."""
    miner = Miner()
    names = ["apple", "pear", "plum", "cherry", "quince", "grape", "fig", "melon"]
    first = miner.add_one(f"plugin {names[0]} took over the queue", NOON)

    ids = [miner.add_one(f"plugin {name} took over the queue", NOON) for name in names]

    assert patterns(miner) == {"plugin <*> took over the queue": 9}
    assert first is not None
    assert {miner.current(id) for id in ids if id} == {first}


def test_first_sight_is_told_once_with_its_place() -> None:
    """What is new must be shown by the line that was new, and never again."""
    miner = Miner()
    text = block("alpha 1 begins", "alpha 2 begins", "", "omega ends", "alpha 3 begins")

    news = miner.add(text, NOON, LATER)

    assert [(new.pattern, text[new.offset :].split(b"\n")[0]) for new in news] == [
        ("alpha <num> begins", b"alpha 1 begins"),
        ("omega ends", b"omega ends"),
    ]
    assert miner.add(text, LATER, LATER) == []


def test_blank_lines_count_for_nothing_and_bare_numbers_do() -> None:
    """Without its digits a bare number looks blank."""
    miner = Miner()

    miner.add(block("", "17", " ", "4", ""), NOON, LATER)
    miner.add(block("", "", "8"), NOON, LATER)

    assert patterns(miner) == {"<num>": 3}


def test_a_restart_changes_no_id_and_nothing_is_new_again() -> None:
    """An id that changed would orphan its history; a template that is new again would wake people after each update."""
    lines = [
        "service payments-1 restarted in 3 s",
        "mapred.job.id is deprecated. Instead, use mapreduce.job.id",
        "user.name is deprecated. Instead, use mapreduce.job.user.name",
        "session opened for user root by (uid=0)",
        "session opened for user alice by (uid=1000)",
        "17",
    ]
    before = Miner()
    before.add(block(*lines), NOON, LATER)
    ids = {line: before.match(line) for line in lines}

    after = Miner(stored=before.changes().identities)

    assert after.add(block(*reversed(lines)), LATER, LATER) == []
    assert {line: after.match(line) for line in lines} == ids


def test_the_id_stays_when_the_pattern_grows() -> None:
    """Wider is not other."""
    miner = Miner()
    first = miner.add_one("session opened for user root by (uid=0)", NOON)
    miner.changes()

    second = miner.add_one("session opened for user alice by (uid=0)", NOON)

    assert first == second
    assert [(stored.id, stored.pattern) for stored in miner.changes().identities] == [
        (first, "session opened for user <*> by (uid=<num>)")
    ]


def test_changes_are_told_once() -> None:
    """What was stored need not be written again."""
    miner = Miner()
    miner.add(block("alpha 1 begins"), NOON, LATER)

    first, second = miner.changes(), miner.changes()

    assert [counted.count for counted in first.counted] == [1]
    assert second == Changes()


def test_a_flood_of_junk_pushes_out_no_established_template() -> None:
    """Whoever can write random lines could otherwise make everything look new again."""
    miner = Miner(max_templates=50)
    known = [f"the {word} of the pump is well" for word in ("valve", "motor", "tank")]
    for line in known * 3:
        miner.add_one(line, NOON)
    ids = [miner.match(line) for line in known]
    dice = random.Random(7)

    for _ in range(2000):
        miner.add_one(" ".join("".join(dice.choices("qwertzuiop", k=9)) for _ in range(dice.randint(2, 9))), NOON)

    assert [miner.match(line) for line in known] == ids
    assert len(miner) <= 50
    assert miner.evicted > 1000


def test_junk_without_end_takes_no_memory() -> None:
    """The miner sees whatever anybody can make a program log."""
    dice = random.Random(3)

    def junk() -> bytes:
        return block(*(" ".join("".join(dice.choices("qwertzuiopas", k=12)) for _ in range(8)) for _ in range(500)))

    tracemalloc.start()
    try:
        miner = Miner(max_templates=100)
        for _ in range(20):
            miner.add(junk(), NOON, LATER)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len(miner) == 100
    assert held < 12 * 2**20


def test_samples_go_on_after_a_clock_that_was_ahead() -> None:
    """A machine that boots in the year 2099 must not keep the samples of that minute for good."""
    miner = Miner()
    ahead = NOON + timedelta(days=9000)
    for minute in range(9):
        miner.add(block(f"job {minute} done"), ahead, ahead + timedelta(minutes=minute))

    miner.add(block("job 17 done"), LATER, LATER)

    assert "job 17 done" in miner.rows()[0].samples


def test_what_was_pushed_out_is_told_to_the_store_only_if_it_was_there() -> None:
    """The store must not keep what nobody knows; a flood must not fill the list of what to delete."""
    miner = Miner(max_templates=4)
    stored_id = miner.add_one("alpha begins", NOON)
    miner.changes()

    for word in ("one", "two", "three", "four", "five", "six", "seven"):
        miner.add_one(f"{word} " * (len(word) - 1) + word, NOON)

    assert miner.changes().gone == {stored_id: None}


def test_samples_spread_over_time() -> None:
    """Five lines of the first second say little about a week."""
    miner = Miner()

    for hour in range(100):
        miner.add(block(f"job {hour} done"), NOON + timedelta(hours=hour), NOON + timedelta(hours=hour))

    (row,) = miner.rows()
    hours = [int(line.split()[1]) for line in row.samples]
    assert 3 <= len(hours) <= 5
    assert hours[0] < 40 < 60 < hours[-1]


def test_entries_of_several_lines_go_by_their_first_line_and_exception() -> None:
    """The same log message with another exception is another thing."""
    miner = Miner()
    entries = [
        b"ERROR request 17 failed\nTraceback (most recent call last):\n  File x, line 3\nValueError: bad\n",
        b"ERROR request 18 failed\nTraceback (most recent call last):\n  File y, line 4\nKeyError: 'a'\n",
        b"ERROR request 19 failed\n",
    ]
    starts = [0, len(entries[0]), len(entries[0]) + len(entries[1])]

    news = miner.add(b"".join(entries), NOON, LATER, starts)

    assert [(new.pattern, new.offset) for new in news] == [
        ("ERROR request <num> failed ValueError", starts[0]),
        ("ERROR request <num> failed KeyError", starts[1]),
        ("ERROR request <num> failed", starts[2]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "\0" * 1000,
        "a" * 65536,
        "a." * 32768,
        "a1" * 32768,
        "0" * 65536,
        "/" * 65536,
        "a@" * 32768,
        ":" * 65536,
        "ab:" * 20000,
        "<*> <*> <num>",
        "<" * 5000 + ">" * 5000,
        "=,;|" * 5000,
        "naïve Ünïcödé 日本語 \U0001f600 \u2028 \x1c \x85",
        "\udcff broken",
        "((((((((((((" * 400,
        "'" * 3000 + '"' * 3000,
        "-" * 65536,
        "Jan " * 9000,
        "1 s " * 9000,
    ],
    ids=lambda line: repr(line[:6]),
)
def test_hostile_lines_are_lines(line: str) -> None:
    """Whatever a log says, it is taken, matched again, restored, and short."""
    miner = Miner()

    miner.add(line.encode("utf-8", "replace") + b"\n", NOON, LATER)
    id = miner.add_one(line)

    assert id is not None
    assert miner.match(line) == id
    assert Miner(stored=miner.changes().identities).match(line) == id
    assert len(miner.rows()[0].pattern) < 6000


WORDS = st.sampled_from(
    ["alpha", "beta", "gamma", "open", "close", "of", "for", "user", "7", "10.0.0.1", "x=1", "a-3", "K", "<*>"]
)
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=40)


@given(LINES, st.integers(1, 7))
def test_how_lines_are_cut_into_blocks_changes_nothing(lines: list[str], size: int) -> None:
    """Reading faster or slower must not change what is found."""
    whole, parts, single = Miner(), Miner(), Miner()

    whole.add(block(*lines), NOON, LATER)
    for at in range(0, len(lines), size):
        parts.add(block(*lines[at : at + size]), NOON, LATER)
    for line in lines:
        single.add_one(line, LATER)

    ids = {row.id for row in whole.rows()}
    assert ids == {row.id for row in parts.rows()} == {row.id for row in single.rows()}
    assert sum(row.count for row in whole.rows()) == len(lines) == sum(row.count for row in single.rows())


@given(LINES)
def test_every_line_seen_is_known_after_a_restart(lines: list[str]) -> None:
    """Nothing may be new again."""
    before = Miner()
    before.add(block(*lines), NOON, LATER)

    after = Miner(stored=before.changes().identities)

    assert after.add(block(*lines), LATER, LATER) == []


def test_damaged_stored_templates_do_no_harm() -> None:
    """The store may hold what an older version wrote."""
    miner = Miner(stored=[StoredTemplate(id, pattern, NOON) for id, pattern in (("a", ""), ("b", "x y"), ("c", "x y"))])

    assert miner.match("x y") in {"b", "c"}
