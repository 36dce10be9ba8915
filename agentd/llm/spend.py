"""
Money and tokens are asked for before they are spent.

In: a `Quote` before each call, what it really took after it. Out: a `Reservation`, or `BudgetSpent`.
Promise: what was reserved and never settled counts as spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agentd.errors import AgentdError
from agentd.llm.port import Usage


@dataclass(frozen=True, slots=True)
class Quote:
    """
    What one call may take at most.

    id: of the call, unique over all runs. model: by its name in the config. tokens: of question and longest answer.
    usd: for these, None when no price is known (the budget then holds tokens alone).
    """

    id: str
    model: str
    tokens: int
    usd: float | None


class BudgetSpent(AgentdError):
    """
    The call would go over a budget, and is not made.

    scope: `run`, `watch_per_day` or `daemon_per_day`. The message says which limit, how much of it is spent.
    """

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class Purse(Protocol):
    async def reserve(self, quote: Quote) -> None:
        """Set the quote aside, durably. Raises BudgetSpent."""
        ...

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        """The call of this quote took so much. One that never began to be answered took nothing."""
        ...


class OpenPurse:
    """Spends without asking: for tests and replays."""

    async def reserve(self, quote: Quote) -> None:
        return None

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        return None
