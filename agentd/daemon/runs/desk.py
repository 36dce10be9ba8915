"""
Who answers what a run asks of the daemon: money from the store's budgets, answers from its history.

In: quotes, what calls really took, questions of tools. Out: reservations and answers, or a refusal.
Promise: a budget is checked and the money set aside in one transaction, so that no two calls share a last dollar.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import apsw

from agentd.agent.job import Job
from agentd.agent.port import ToolFailure
from agentd.clock import Clock
from agentd.fleet.messages import ErrorKind
from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Quote
from agentd.memory import ledger, spend
from agentd.memory.database import Database
from agentd.memory.spend import NANO, Limit, Limits, Refusal, Scope

Ask = Callable[[Job, str, Mapping[str, Any]], Awaitable[Any]]


class Desk:
    """
    One run's purse and its questions.

    state: the state store. limits: the budgets that hold. refused: told of each refusal, for the alert.
    ask: answers a question of a run.
    """

    def __init__(
        self, job: Job, limits: Limits, *, state: Database, clock: Clock, refused: Callable[[Refusal], None], ask: Ask
    ) -> None:
        self._job = job
        self._limits = limits
        self._state = state
        self._clock = clock
        self._refused = refused
        self._ask = ask

    async def reserve(self, quote: Quote) -> None:
        job, day = self._job, spend.day_of(self._clock.now())
        if quote.usd is None and (scope := _by_dollars_alone(self._limits)) is not None:
            why = f"nobody knows what {quote.model} costs, and {_SCOPES[scope]} is limited in dollars alone"
            raise BudgetSpent(f"{why}; give the model a `price`, or the budget `tokens`", scope)

        def change(connection: apsw.Connection) -> Refusal | None:
            if not ledger.is_running(connection, job.run):
                # Whatever it would set aside nobody would settle, nor hear of what came of it.
                raise ToolFailure(f"run {job.run} has ended, and spends nothing more", ErrorKind.CANCELLED)
            return spend.reserve(
                connection,
                id=f"{job.run}/{quote.id}",
                day=day,
                watch=job.watch,
                run=job.run,
                model=quote.model,
                tokens=quote.tokens,
                usd_nano=spend.to_nano(quote.usd),
                limits=self._limits,
            )

        refusal = await self._state.write(change)
        if refusal is not None:
            self._refused(refusal)
            raise BudgetSpent(show_refusal(refusal, quote), refusal.scope)

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        identity = f"{self._job.run}/{quote.id}"
        await self._state.write(lambda c: spend.settle(c, identity, usage.total, spend.to_nano(usd)))

    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        return await self._ask(self._job, what, args)


def _by_dollars_alone(limits: Limits) -> Scope | None:
    """The first budget that could not hold a call of unknown price."""
    scopes: tuple[tuple[Scope, Limit], ...] = (
        ("run", limits.run),
        ("watch_per_day", limits.watch),
        ("daemon_per_day", limits.daemon),
    )
    return next((scope for scope, limit in scopes if limit.usd_nano is not None and limit.tokens is None), None)


_SCOPES = {"run": "this run", "watch_per_day": "this watch today (UTC)", "daemon_per_day": "today (UTC)"}


def show_refusal(refusal: Refusal, quote: Quote | None = None) -> str:
    """One line: what is spent of what, and what the next call might have taken."""
    if refusal.what == "usd":
        spent, limit = f"${refusal.spent / NANO:.4f}", f"${refusal.limit / NANO:.4f}"
        more = f"${quote.usd:.4f}" if quote is not None and quote.usd is not None else ""
    else:
        spent, limit = f"{refusal.spent:,} tokens", f"{refusal.limit:,}"
        more = f"{quote.tokens:,} tokens" if quote is not None else ""
    text = f"the budget of {_SCOPES[refusal.scope]} holds: {spent} of {limit} are spent or set aside"
    return f"{text}, and the next call may take {more}" if more else text
