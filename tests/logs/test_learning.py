"""Learning templates beside the rules: everything while there is time for it, and never at the rules' cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentd.logs.eventtime import EventTime
from agentd.logs.learning import FAR_BEHIND_BYTES, Learning
from agentd.logs.match import Matcher
from agentd.logs.multiline import make_joiner
from agentd.logs.parse import make_parser
from agentd.logs.port import Block
from agentd.logs.settings import LogSource, Rule
from agentd.memory.logs import LogMemory

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINES = 20_000
TEXT = b"".join(b"Mar  1 12:00:00 web-1 sshd[%d]: session opened for root\n" % n for n in range(LINES))


def learned(*, behind_bytes: int, multiline: str | None = None, novel: bool = False) -> tuple[int, int]:
    """Lines that were learned from, and bytes that were not."""
    rules = [Rule(name="new", type="novel")] if novel else []
    joiner = make_joiner(multiline)
    matcher = Matcher(rules, joiner, make_parser(LogSource(files=("/x",))))
    learning = Learning(
        "w", LogMemory(), matcher, joiner, range(len(rules)), monotonic=iter(range(0, 1000, 60)).__next__
    )

    list(learning.add(Block("s", "s", TEXT, 0, NOON), behind_bytes, NOON, EventTime(lambda: NOON)))

    return sum(row.count for row in learning.changes()[2]), learning.skipped_bytes


@pytest.mark.parametrize("multiline", [None, "auto"])
def test_every_line_is_counted_while_the_source_keeps_up(multiline: str | None) -> None:
    """The table says how often a kind of line came."""
    assert learned(behind_bytes=FAR_BEHIND_BYTES, multiline=multiline) == (LINES, 0)


@pytest.mark.parametrize("multiline", [None, "auto"])
def test_far_behind_a_part_of_a_block_must_do(multiline: str | None) -> None:
    """A backlog must be through the rules soon; that its counts are not whole is said."""
    lines, skipped = learned(behind_bytes=FAR_BEHIND_BYTES + 1, multiline=multiline)

    assert 0 < lines < LINES
    assert TEXT[-skipped:].count(b"\n") == LINES - lines


def test_a_rule_that_waits_for_new_templates_is_told_of_every_line() -> None:
    """What it was made for may stand in any of them."""
    assert learned(behind_bytes=FAR_BEHIND_BYTES + 1, novel=True) == (LINES, 0)


def test_a_few_lines_of_each_of_many_files_are_learned_when_they_are_committed() -> None:
    """They are put together, which costs a fifth; none may be forgotten, or counted twice."""
    joiner = make_joiner(None)
    matcher = Matcher([], joiner, make_parser(LogSource(files=("/x",))))
    learning = Learning("w", LogMemory(), matcher, joiner, (), monotonic=iter(range(0, 1000, 60)).__next__)

    counts = []
    for _ in range(2):
        for file in range(100):
            block = Block(f"s{file}", "s", b"Mar  1 12:00:00 web-1 cron[7]: ran\n" * 4, 0, NOON)
            list(learning.add(block, 0, NOON, EventTime(lambda: NOON)))
        counts.append(sum(row.count for row in learning.changes()[2]))

    assert counts == [400, 800]
