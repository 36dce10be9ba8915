"""
The purse of one run, and one purse for many runs.

In: quotes before calls, what they took after them. Out: the same to the purse behind, or `BudgetSpent` of scope `run`.
Promise: a run's own limits hold before those of watch and day are asked; what was reserved and never settled counts as
spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Purse, Quote

_purse: ContextVar[Purse | None] = ContextVar("purse_of_the_run", default=None)


class RunPurse:
    """
    usd, tokens: of the whole run, None: no limit of its own. settled: told what each call took, answered or not.
    """

    def __init__(
        self,
        behind: Purse,
        *,
        usd: float | None,
        tokens: int | None,
        settled: Callable[[Usage, float | None], None] | None = None,
    ) -> None:
        self._behind = behind
        self._usd = usd
        self._tokens = tokens
        self._settled = settled
        self._open: dict[str, Quote] = {}
        self.spent_usd = 0.0
        self.spent_tokens = 0

    async def reserve(self, quote: Quote) -> None:
        """Raises BudgetSpent."""
        tokens = self.spent_tokens + sum(each.tokens for each in self._open.values()) + quote.tokens
        if self._tokens is not None and tokens > self._tokens:
            raise BudgetSpent(
                f"the run's {self._tokens} tokens do not suffice: {self.spent_tokens} are spent, the next call may "
                f"take {quote.tokens}; raise budgets.run.tokens",
                "run",
            )
        if quote.usd is None and self._usd is not None and self._tokens is None:
            raise BudgetSpent(
                f"nobody knows what {quote.model} costs, and the run is limited in dollars alone; give the model a "
                "`price`, or budgets.run `tokens`",
                "run",
            )
        usd = self.spent_usd + sum(each.usd or 0.0 for each in self._open.values()) + (quote.usd or 0.0)
        if self._usd is not None and usd > self._usd:
            raise BudgetSpent(
                f"the run's ${self._usd:g} do not suffice: ${self.spent_usd:.4f} are spent, the next call may take "
                f"${quote.usd or 0.0:.4f}; raise budgets.run.usd",
                "run",
            )
        self._open[quote.id] = quote
        try:
            await self._behind.reserve(quote)
        except BaseException:
            self._open.pop(quote.id, None)
            raise

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        if self._open.pop(quote.id, None) is not None:
            self.spent_tokens += usage.total
            # With no price known the quote had none either, and tokens alone are held.
            self.spent_usd += usd or 0.0
            if self._settled is not None:
                self._settled(usage, usd)
        await self._behind.settle(quote, usage, usd)


class PurseOfTheRun:
    """
    For models that many runs share: asks the purse of the run that makes the call.

    A call that no run makes is refused.
    """

    async def reserve(self, quote: Quote) -> None:
        purse = _purse.get()
        if purse is None:
            raise BudgetSpent("no run pays for this call; it is made outside of one", "run")
        await purse.reserve(quote)

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        purse = _purse.get()
        if purse is not None:
            await purse.settle(quote, usage, usd)


@contextmanager
def paid_from(purse: Purse) -> Iterator[None]:
    """Within, in this task and those it starts, `PurseOfTheRun` is this one."""
    token = _purse.set(purse)
    try:
        yield
    finally:
        _purse.reset(token)
