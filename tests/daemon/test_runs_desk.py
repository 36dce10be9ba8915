"""
A run's purse at the daemon: what budgets hold, and what is said when they do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentd.agent.job import Job
from agentd.agent.port import ToolFailure
from agentd.clock import SystemClock
from agentd.daemon.runs.desk import Desk
from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Quote
from agentd.memory import ledger, spend
from agentd.memory.ledger import Run, RunState
from agentd.memory.spend import Limit, Limits, Refusal
from agentd.memory.store import Store

CENT = 10_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state")
    now = SystemClock().now()

    def begin(c: apsw.Connection) -> None:
        ledger.queue(c, Run("r1", "shop", "api", now))
        ledger.start(c, "r1", now)

    await opened.state.write(begin)
    yield opened
    await opened.close()


def desk(store: Store, limits: Limits, refused: list[Refusal]) -> Desk:
    async def ask(job: Job, what: str, args: Any) -> Any:
        return {"asked": what}

    job = Job(run="r1", goal="look", watch="shop")
    return Desk(job, limits, state=store.state, clock=SystemClock(), refused=refused.append, ask=ask)


async def test_what_is_settled_makes_room_again(store: Store) -> None:
    """A quote is the worst case; to count it for good would end the day's budget at noon."""
    told: list[Refusal] = []
    at = desk(store, Limits(daemon=Limit(usd_nano=CENT)), told)
    first = Quote("c1", "m", 1000, 0.008)
    await at.reserve(first)
    with pytest.raises(BudgetSpent, match=r"\$0\.0080 of \$0\.0100 are spent or set aside, and the next call may take"):
        await at.reserve(Quote("c2", "m", 1000, 0.008))

    await at.settle(first, Usage(10, 5), 0.001)
    await at.reserve(Quote("c3", "m", 1000, 0.008))

    assert [refusal.scope for refusal in told] == ["daemon_per_day"]
    day = spend.day_of(SystemClock().now())
    assert (await store.state.read(lambda c: spend.today(c, day))).usd == pytest.approx(0.009)


async def test_a_price_that_nobody_knows_is_not_free(store: Store) -> None:
    """Under a limit of dollars alone nothing would ever hold such a model."""
    told: list[Refusal] = []
    quote = Quote("c1", "m", 1000, None)

    with pytest.raises(BudgetSpent, match="nobody knows what m costs"):
        await desk(store, Limits(watch=Limit(usd_nano=CENT)), told).reserve(quote)
    await desk(store, Limits(watch=Limit(usd_nano=CENT, tokens=5000)), told).reserve(quote)

    assert told == []


async def test_questions_are_handed_on_with_the_run_that_asks(store: Store) -> None:
    """Tools of two runs ask at once."""
    assert await desk(store, Limits(), []).query("history", {}) == {"asked": "history"}


async def test_a_run_that_has_ended_spends_nothing_more(store: Store) -> None:
    """It was cancelled, and its host has not heard: nobody would settle what it sets aside."""
    at = desk(store, Limits(), [])
    await store.state.write(lambda c: ledger.end(c, "r1", SystemClock().now(), RunState.CANCELLED))

    with pytest.raises(ToolFailure, match="has ended"):
        await at.reserve(Quote("c1", "m", 1000, 0.008))

    assert (await store.state.read(lambda c: spend.of_run(c, "r1"))).tokens == 0
