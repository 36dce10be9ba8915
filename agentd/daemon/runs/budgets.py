"""
Budgets of a day that hold calls back: one alert for each, which ends with the day, or with the limit.

In: refusals, the configuration's limits. Out: alerts of agentd about itself.
Promise: none of them ends on a day whose budget holds calls back as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentd.clock import Clock
from agentd.config.agents import BudgetSettings
from agentd.daemon.runs.desk import show_refusal
from agentd.memory.spend import Refusal, day_of, to_nano
from agentd.pipeline.keeper import SELF
from agentd.pipeline.tending import Tending
from agentd.records import AlertStatus

BUDGET_RULE = "budget"


class BudgetAlerts:
    """budgets: gives those that hold now."""

    def __init__(self, keeper: Tending, clock: Clock, budgets: Callable[[], BudgetSettings]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._budgets = budgets
        self._last: dict[str, tuple[str, Refusal]] = {}  # the newest, by rule; a restart forgets it
        self._tasks: set[asyncio.Task[None]] = set()

    def refused(self, watch: str, refusal: Refusal) -> None:
        """A call of a run of this watch was held back."""
        if refusal.scope == "run":
            return  # that is what a run's own limit is for; its finding says so
        rule = BUDGET_RULE if refusal.scope == "daemon_per_day" else f"{BUDGET_RULE}:{watch}"
        self._last[rule] = day_of(self._clock.now()), refusal
        task = asyncio.create_task(self._keeper.report_self(rule, show_refusal(refusal)), name="budget")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def look(self) -> None:
        """A new day (UTC), or a limit that was raised: what held calls back holds them back no longer."""
        today = day_of(self._clock.now())
        for alert in list(self._keeper.alerts.values()):
            rule, since = alert.rule or "", alert.started_at
            about = alert.watch == SELF and rule.split(":")[0] == BUDGET_RULE and alert.status is AlertStatus.FIRING
            if not about or since is None:
                continue
            day, refusal = self._last.get(rule, (day_of(since), None))
            if day < today or (refusal is not None and self._is_raised(refusal)):
                await self._keeper.report_self(rule, None)
        self._last = {rule: last for rule, last in self._last.items() if last[0] == today}

    def _is_raised(self, refusal: Refusal) -> bool:
        budgets = self._budgets()
        budget = budgets.daemon_per_day if refusal.scope == "daemon_per_day" else budgets.watch_per_day
        limit = to_nano(budget.usd) if refusal.what == "usd" else budget.tokens
        return limit is None or limit > refusal.limit
