"""Money is asked for before it is spent: budgets hold over crashes, retries, midnight and a clock that jumps."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from agentd.memory import spend
from agentd.memory.columns import value
from agentd.memory.database import Database
from agentd.memory.migrate import migrate, steps
from agentd.memory.spend import Limit, Limits, Refusal, Spent

DAY = "2026-01-05"
CENT = 10_000_000
NO_LIMITS = Limits()


def opened() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    return connection


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = opened()
    yield connection
    connection.close()


def ask(
    c: apsw.Connection,
    id: str,
    *,
    day: str = DAY,
    watch: str = "shop",
    run: str = "r1",
    model: str = "large",
    tokens: int = 100,
    usd_nano: int | None = CENT,
    limits: Limits = NO_LIMITS,
) -> Refusal | None:
    return spend.reserve(
        c, id=id, day=day, watch=watch, run=run, model=model, tokens=tokens, usd_nano=usd_nano, limits=limits
    )


def test_what_is_reserved_counts_at_once_and_is_put_right_once(c: apsw.Connection) -> None:
    """Two calls at the same time must not both take the last cent."""
    assert ask(c, "a") is None
    assert spend.today(c, DAY) == Spent(1, 100, CENT, 0)

    assert spend.settle(c, "a", 40, CENT // 4)
    assert not spend.settle(c, "a", 0, 0)
    assert not spend.settle(c, "never reserved", 9, 9)

    expected = Spent(1, 40, CENT // 4, 0)
    assert spend.today(c, DAY) == spend.of_run(c, "r1") == spend.of_watch(c, DAY, "shop") == expected
    assert expected.usd == 0.0025


def test_what_was_never_settled_counts_as_spent(c: apsw.Connection) -> None:
    """kill -9 between question and answer: the provider charges all the same."""
    ask(c, "a")

    assert spend.close_all(c) == 1

    assert not spend.settle(c, "a", 0, 0)
    assert spend.of_run(c, "r1") == Spent(1, 100, CENT, 0)


@pytest.mark.parametrize(
    ("limits", "scope", "what"),
    [
        (Limits(run=Limit(usd_nano=CENT)), "run", "usd"),
        (Limits(watch=Limit(usd_nano=CENT)), "watch_per_day", "usd"),
        (Limits(daemon=Limit(usd_nano=CENT)), "daemon_per_day", "usd"),
        (Limits(run=Limit(tokens=100)), "run", "tokens"),
        (Limits(watch=Limit(tokens=100)), "watch_per_day", "tokens"),
        (Limits(daemon=Limit(tokens=100)), "daemon_per_day", "tokens"),
    ],
)
def test_the_call_that_would_go_over_is_refused(c: apsw.Connection, limits: Limits, scope: str, what: str) -> None:
    """A limit holds before the money is gone, and the refusal says which one it was."""
    assert ask(c, "a", limits=limits) is None, "up to the limit itself"
    before = spend.today(c, DAY)

    refused = ask(c, "b", limits=limits)

    size = CENT if what == "usd" else 100
    assert refused == Refusal(scope, what, size, size)  # type: ignore[arg-type]  # words of the parameters
    assert spend.today(c, DAY) == before, "nothing of it was set aside"
    assert not spend.settle(c, "b", 1, 1)
    spend.settle(c, "a", 0, 0)
    assert ask(c, "b", limits=limits) is None


def test_each_budget_sees_its_own(c: apsw.Connection) -> None:
    """A talkative watch must not take the money of the others, nor yesterday that of today."""
    ask(c, "a")
    ask(c, "b", run="r2", watch="mail")
    ask(c, "c", run="r3", day="2026-01-04")

    assert ask(c, "d", run="r4", watch="disk", limits=Limits(run=Limit(CENT), watch=Limit(CENT))) is None
    assert ask(c, "e", run="r4", limits=Limits(daemon=Limit(3 * CENT))) == Refusal(
        "daemon_per_day", "usd", 3 * CENT, 3 * CENT
    )
    assert ask(c, "f", run="r1", day="2026-01-06", limits=Limits(run=Limit(CENT))) == Refusal("run", "usd", CENT, CENT)


def test_a_call_is_settled_on_the_day_it_was_reserved(c: apsw.Connection) -> None:
    """Asked at 23:59, answered at 00:01: tomorrow's budget did not pay for it."""
    ask(c, "a", day="2026-01-05")
    ask(c, "b", day="2026-01-06")

    spend.settle(c, "a", 10, 1)

    assert spend.today(c, "2026-01-05") == Spent(1, 10, 1, 0)
    assert spend.today(c, "2026-01-06") == Spent(1, 100, CENT, 0)


def test_a_price_that_is_not_known_is_counted_as_unknown(c: apsw.Connection) -> None:
    """Unknown, never zero; and a limit of tokens holds what a limit of money cannot."""
    both = Limits(daemon=Limit(usd_nano=0, tokens=150))

    assert ask(c, "a", usd_nano=None, limits=both) is None
    assert ask(c, "b", usd_nano=None, limits=both) == Refusal("daemon_per_day", "tokens", 100, 150)
    assert spend.today(c, DAY) == Spent(1, 100, 0, 1)

    spend.settle(c, "a", 80, 5)
    assert spend.today(c, DAY) == Spent(1, 80, 5, 0), "then it was known after all"
    ask(c, "c")
    spend.settle(c, "c", 50, None)
    assert spend.today(c, DAY) == Spent(2, 130, 5 + CENT, 1), "what was set aside is the best that is known"


def test_what_costs_nothing_goes_over_no_limit_of_money(c: apsw.Connection) -> None:
    """The model on the own machine still works when the budget for the others is spent."""
    ask(c, "a")

    assert ask(c, "b", usd_nano=0, limits=Limits(run=Limit(usd_nano=1))) is None


def test_an_id_that_is_open_is_not_reserved_again(c: apsw.Connection) -> None:
    """One id for two calls would settle both for the price of one."""
    ask(c, "a")

    with pytest.raises(apsw.ConstraintError):
        ask(c, "a")


def test_open_reservations_are_bounded(c: apsw.Connection) -> None:
    """Of a run that settles nothing the rows go; the amounts stay."""
    for number in range(spend.MAX_OPEN + 5):
        ask(c, str(number), tokens=1)

    assert value(c.execute("SELECT count(*) FROM spend_open")) <= spend.MAX_OPEN
    assert spend.of_run(c, "r1").tokens == spend.MAX_OPEN + 5


def test_absurd_numbers_break_no_sum(c: apsw.Connection) -> None:
    """A provider that reports 10^30 tokens, or fewer than none, is wrong; the books must stay open."""
    for number in range(50):
        ask(c, f"a{number}", tokens=10**30, usd_nano=10**30)
        spend.settle(c, f"a{number}", 10**40, 10**40)
    ask(c, "b", run="r2", tokens=-5, usd_nano=-5)
    spend.settle(c, "b", -7, -7)

    assert spend.of_run(c, "r2") == Spent(1, 0, 0, 0)
    assert spend.today(c, DAY).usd_nano == 50 * 10**15


def test_the_books_can_be_read_by_day_watch_and_model(c: apsw.Connection) -> None:
    """Where the money went is the first question after where it is."""
    ask(c, "a", usd_nano=1)
    ask(c, "b", usd_nano=7, watch="mail", model="small", run="r2")
    ask(c, "c", usd_nano=3, day="2026-01-04", model="small")

    assert list(spend.days(c)) == ["2026-01-05", "2026-01-04"]
    assert {watch: each.usd_nano for watch, each in spend.by_watch(c, DAY).items()} == {"mail": 7, "shop": 1}
    assert list(spend.by_watch(c, DAY)) == ["mail", "shop"]
    assert {model: each.usd_nano for model, each in spend.by_model(c, day=DAY).items()} == {"small": 7, "large": 1}
    assert {model: each.usd_nano for model, each in spend.by_model(c, run="r1").items()} == {"small": 3, "large": 1}


def test_dollars_become_whole_billionths() -> None:
    """Rounded up, since a budget must not be passed by what was rounded off."""
    cases = [0.0, 0.0123, 1e-10, 1e-9, 0.1 + 0.2, -1.0, 1e30, math.inf, math.nan, None]
    expected = [0, 12_300_000, 1, 1, 300_000_000, 0, 10**15, 10**15, None, None]

    assert [spend.to_nano(usd) for usd in cases] == expected
    assert spend.from_nano(12_300_000) == 0.0123
    assert spend.from_nano(None) is None


def test_a_day_is_utc() -> None:
    """One budget a day, wherever the machine stands and whatever its summer time does."""
    assert spend.day_of(datetime(2026, 1, 5, 23, 30, tzinfo=timezone(-timedelta(hours=2)))) == "2026-01-06"


def test_old_days_go_and_a_wrong_clock_opens_no_budget(c: apsw.Connection) -> None:
    """Housekeeping at a clock that is a year ahead, then the clock is set back: today is as spent as it was."""
    for number in range(1, 21):
        ask(c, str(number), day=f"2026-01-{number:02}", run=f"r{number}")

    while spend.trim(c, "2026-12-06", "2027-01-05", limit=5) == 5:
        pass

    assert list(spend.days(c)) == [f"2026-01-{number:02}" for number in range(20, 12, -1)]
    assert spend.of_run(c, "r12") == Spent()
    assert spend.of_run(c, "r13") == Spent(1, 100, CENT, 0)
    assert spend.trim(c, "2026-01-18", "2026-01-20") == 0


def test_too_many_rows_cost_no_sum(c: apsw.Connection) -> None:
    """A hundred thousand runs a day must not fill the state file; what they cost stays known."""
    for number in range(30):
        ask(c, str(number), day="2026-01-05" if number < 20 else "2026-01-06", run=f"r{number}")

    assert spend.trim(c, "2025-12-01", "2026-01-06", max_rows=5) == 20

    assert spend.today(c, "2026-01-05").calls == 20
    assert spend.of_run(c, "r29").calls == 1


async def test_calls_at_once_never_share_the_last_cent(tmp_path: Path) -> None:
    """The store has one writer: whoever comes second sees what the first one took, group commit or not."""
    database = await Database.open(tmp_path / "state.db", migrations="state", durable=True)
    limits = Limits(daemon=Limit(usd_nano=10 * CENT))

    answers = await asyncio.gather(
        *(database.write(partial(ask, id=str(number), run=str(number), limits=limits)) for number in range(50))
    )

    assert answers.count(None) == 10
    assert await database.read(lambda c: spend.today(c, DAY)) == Spent(10, 1000, 10 * CENT, 0)
    await database.close()


_SPENDS = """
import asyncio, sys
from functools import partial
from pathlib import Path
from agentd.memory import spend
from agentd.memory.database import Database

async def main():
    database = await Database.open(Path(sys.argv[1]), migrations="state", durable=True)
    for number in range(10**6):
        id = f"c{number}"
        await database.write(partial(spend.reserve, id=id, day="2026-01-05", watch="w", run="r", model="m", tokens=10,
                                     usd_nano=10))
        print(f"asked {id}", flush=True)
        await database.write(partial(spend.settle, id=id, tokens=3, usd_nano=3))
        print(f"paid {id}", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kill_after", [3, 8, 15])
async def test_a_killed_process_has_spent_what_it_said(tmp_path: Path, kill_after: int) -> None:
    """What was told to be reserved is in the books, whatever came after; at most one step more is."""
    path = tmp_path / "state.db"
    with subprocess.Popen([sys.executable, "-c", _SPENDS, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().split() for _ in range(kill_after)]
        os.kill(child.pid, signal.SIGKILL)
        said += [line.split() for line in child.stdout]

    asked = sum(word == "asked" for word, _ in said)
    paid = sum(word == "paid" for word, _ in said)
    possible = {3 * paid + 10 * (asked - paid)}
    possible.add(3 * paid + 10 * (asked + 1 - paid) if asked == paid else 3 * (paid + 1))
    database = await Database.open(path, migrations="state", durable=True)
    assert (await database.read(lambda c: spend.of_run(c, "r"))).usd_nano in possible
    await database.close()


@dataclass
class Call:
    day: str
    watch: str
    run: str
    tokens: int
    usd_nano: int
    unknown: bool
    open: bool = True


NAMES = st.sampled_from(["a", "b"])
DAYS = st.sampled_from(["2026-01-04", "2026-01-05", "2026-01-06"])
AMOUNTS = st.integers(0, 60)
PRICES = st.none() | AMOUNTS
LIMIT = st.builds(Limit, PRICES, PRICES)


class Books(RuleBasedStateMachine):
    """The store beside a list of calls that is added up anew each time."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.c = opened()
        self.calls: dict[str, Call] = {}
        self.number = 0

    def teardown(self) -> None:
        self.c.close()

    def total(self, **which: str) -> Spent:
        found = [call for call in self.calls.values() if all(getattr(call, key) == of for key, of in which.items())]
        return Spent(
            len(found),
            sum(call.tokens for call in found),
            sum(call.usd_nano for call in found),
            sum(call.unknown for call in found),
        )

    def wanted(self, day: str, watch: str, run: str, tokens: int, usd: int | None, limits: Limits) -> Refusal | None:
        for scope, limit, spent in (
            ("run", limits.run, self.total(run=run)),
            ("watch_per_day", limits.watch, self.total(day=day, watch=watch)),
            ("daemon_per_day", limits.daemon, self.total(day=day)),
        ):
            if usd and limit.usd_nano is not None and spent.usd_nano + usd > limit.usd_nano:
                return Refusal(scope, "usd", spent.usd_nano, limit.usd_nano)  # type: ignore[arg-type]  # of the tuple
            if tokens and limit.tokens is not None and spent.tokens + tokens > limit.tokens:
                return Refusal(scope, "tokens", spent.tokens, limit.tokens)  # type: ignore[arg-type]  # of the tuple
        return None

    @rule(
        target=ids,
        day=DAYS,
        watch=NAMES,
        run=NAMES,
        tokens=AMOUNTS,
        usd=PRICES,
        limits=st.builds(Limits, LIMIT, LIMIT, LIMIT),
        crash=st.booleans(),
    )
    def reserve(
        self, day: str, watch: str, run: str, tokens: int, usd: int | None, limits: Limits, crash: bool
    ) -> object:
        self.number += 1
        id = f"c{self.number}"
        expected = self.wanted(day, watch, run, tokens, usd, limits)
        self.c.execute("BEGIN")
        refused = ask(self.c, id, day=day, watch=watch, run=run, tokens=tokens, usd_nano=usd, limits=limits)
        self.c.execute("ROLLBACK" if crash else "COMMIT")
        assert refused == expected
        if not crash and refused is None:
            self.calls[id] = Call(day, watch, run, tokens, usd or 0, usd is None)
        return id if not crash else multiple()

    @rule(id=ids, tokens=AMOUNTS, usd=PRICES, crash=st.booleans())
    def settle(self, id: str, tokens: int, usd: int | None, crash: bool) -> None:
        call = self.calls.get(id)
        is_open = call is not None and call.open
        self.c.execute("BEGIN")
        assert spend.settle(self.c, id, tokens, usd) is is_open
        self.c.execute("ROLLBACK" if crash else "COMMIT")
        if call is not None and is_open and not crash:
            call.open = False
            call.tokens, call.unknown = tokens, usd is None
            call.usd_nano = call.usd_nano if usd is None else usd

    @rule(run=NAMES)
    def the_run_ends(self, run: str) -> None:
        ended = [call for call in self.calls.values() if call.open and call.run == run]
        assert spend.close_run(self.c, run) == len(ended)
        for call in ended:
            call.open = False

    @rule()
    def the_daemon_starts_anew(self) -> None:
        assert spend.close_all(self.c) == sum(call.open for call in self.calls.values())
        for call in self.calls.values():
            call.open = False

    @rule(id=consumes(ids))
    def an_id_comes_again(self, id: str) -> None:
        call = self.calls.get(id)
        if call is not None and call.open:
            with pytest.raises(apsw.ConstraintError):
                ask(self.c, id)

    @rule()
    def housekeeping_takes_nothing_of_these_days(self) -> None:
        assert spend.trim(self.c, "2027-01-01", "2027-02-01") == 0

    @invariant()
    def the_books_are_right(self) -> None:
        for day in ("2026-01-04", "2026-01-05", "2026-01-06"):
            assert spend.today(self.c, day) == self.total(day=day)
            for watch in ("a", "b"):
                assert spend.of_watch(self.c, day, watch) == self.total(day=day, watch=watch)
        for run in ("a", "b"):
            assert spend.of_run(self.c, run) == self.total(run=run)


TestBooks = Books.TestCase
Books.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
