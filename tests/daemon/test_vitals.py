"""What counts as trouble of our own, and for how long it must before anybody is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentd.daemon import vitals
from agentd.daemon.vitals import GIB, MIB, VITALS, Settling, vital_of
from agentd.settings import NAME_PATTERN


@pytest.mark.parametrize(
    ("runs", "late", "overdue_s", "words"),
    [
        (60_000, 0, 0.0, None),
        (60_000, 600, 0.0, None),
        (60_000, 601, 0.0, "601 of 60000"),
        (2, 1, 0.0, "1 of 2"),
        (0, 0, 9.0, None),
        (0, 0, 11.0, "due for 11s"),
        (0, 0, 0.0, None),
    ],
)
def test_lateness_is_one_check_in_a_hundred(runs: int, late: int, overdue_s: float, words: str | None) -> None:
    """The 99th percentile, without keeping a minute of numbers; or a scheduler that begins nothing at all."""
    found = vitals.scheduler_late(runs, late, overdue_s)

    assert found is None if words is None else words in (found or "")


@pytest.mark.parametrize(
    ("free", "total", "low"),
    [
        (300 * MIB, 4 * GIB, False),
        (200 * MIB, 4 * GIB, True),
        (2 * GIB, 50 * GIB, True),
        (3 * GIB, 50 * GIB, False),
        (5 * GIB, 10_000 * GIB, False),
        (3 * GIB, 10_000 * GIB, True),
        (40 * MIB, 64 * MIB, False),
        (10 * MIB, 64 * MIB, True),
    ],
    ids=["small", "small low", "4 %", "6 %", "huge", "huge low", "tiny", "tiny low"],
)
def test_a_low_disk_depends_on_its_size(free: int, total: int, low: bool) -> None:
    """500 GiB free on a large disk are no trouble, and a tiny one must not cry for ever."""
    assert (vitals.disk_low(free, total) is not None) is low


def test_a_slow_store_is_more_than_one_slow_write() -> None:
    """A single hiccup of the disk is none of anybody's business."""
    quick = [0.004] * (vitals.SLOW_SAMPLES - 1)

    assert vitals.store_slow([*quick, 30.0]) is None
    assert "1.5s" in (vitals.store_slow([*quick[1:], 30.0, 1.5]) or "")
    assert vitals.store_slow([30.0] * 5) is None, "too few to judge by"


def test_an_old_message_names_the_worst_webhook() -> None:
    """Whoever reads it has to look somewhere."""
    age = vitals.OLD_MESSAGE

    assert vitals.outbox_old({}) is None
    assert vitals.outbox_old({"ops": age}) is None
    found = vitals.outbox_old({"ops": age * 2, "chat": age * 3, "audit": timedelta(seconds=2)}) or ""
    assert found.startswith("a message for webhook chat has waited for 45m, and for 1 more")


def test_memory_is_high_before_it_is_too_much() -> None:
    """There is time to raise the limit before the restart."""
    assert vitals.memory_high(79 * MIB, 100 * MIB) is None
    assert "100 MiB" in (vitals.memory_high(81 * MIB, 100 * MIB) or "")
    assert vitals.memory_high(81 * MIB, 0) is None, "no limit, no trouble"


@pytest.mark.parametrize(
    ("jump", "words"),
    [
        (timedelta(0), None),
        (timedelta(seconds=60), None),
        (timedelta(seconds=61), "forward by 1m1s"),
        (timedelta(hours=-3), "back by 3h"),
    ],
)
def test_only_a_jump_of_the_clock_is_told(jump: timedelta, words: str | None) -> None:
    """What NTP mends after a boot is no news."""
    found = vitals.clock(jump)

    assert found is None if words is None else words in (found or "")


def test_a_log_is_behind_by_a_backlog_and_not_by_a_batch() -> None:
    """A busy log always has something unread."""
    assert vitals.log_behind(5 * MIB) is None
    assert "150 MiB" in (vitals.log_behind(150 * MIB) or "")


def settle(settling: Settling, rule: str, *story: tuple[float, str | None]) -> list[dict[str, str | None]]:
    return [settling.settle({rule: wrong}, now_s) for now_s, wrong in story]


def test_trouble_is_told_when_it_lasted_and_over_when_it_stayed_away() -> None:
    """An alert about ourselves that flaps is the first that people mute."""
    rule, vital = "scheduler_late", VITALS["scheduler_late"]
    on, off = vital.patience_s, vital.calm_s

    told = settle(
        Settling(),
        rule,
        (0, None),
        (off, None),
        (off + 15, "late"),
        (off + 15 + on - 1, "late"),
        (off + 15 + on, "later still"),
        (off + 30 + on, None),
        (off + 45 + on, "late"),
        (off + 60 + on, None),
        (off + 59 + on + off, None),
        (off + 60 + on + off, None),
    )

    assert told == [{}, {rule: None}, {}, {}, {rule: "later still"}, {}, {}, {}, {}, {rule: None}]


def test_after_a_restart_nothing_is_over_that_was_not_looked_at() -> None:
    """The alert of the process before stays until we know better."""
    assert settle(Settling(), "memory_high", (0, "80 %"), (15, "80 %")) == [{}, {}]
    assert settle(Settling(), "memory_high", (0, None), (15, None)) == [{}, {}]


def test_a_jump_is_told_at_once_and_over_after_a_while() -> None:
    """It is over the moment it happened, but a message must have the time to be seen as firing."""
    told = settle(Settling(), "clock", (0, "back by 3h"), (15, None), (600, None), (615, None))

    assert told == [{"clock": "back by 3h"}, {}, {}, {"clock": None}]


def test_a_rule_that_is_no_longer_measured_begins_anew() -> None:
    """A log that comes back under its name has its own history."""
    settling = Settling()
    settling.settle({"log_behind:app": "far"}, 0)
    settling.settle({}, 15)

    assert settling.settle({"log_behind:app": "far"}, 10_000) == {}


def test_rules_about_something_are_found_by_their_kind() -> None:
    """And no watch's rule can be taken for one, for a name holds no colon."""
    assert vital_of("webhook:ops") is VITALS["webhook:"]
    assert ":" not in NAME_PATTERN
