"""
How it stands with agents, for `status`: runs under way, what they spent today, what they may.

In: the store's tables, the configuration. Out: plain JSON values.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import apsw

from agentd.config.models import Config
from agentd.memory import ledger, spend

Json = dict[str, Any]


def agents_view(
    c: apsw.Connection, config: Config | None, now: datetime, *, model: str | None, host_pid: int | None
) -> Json | None:
    """
    model: that is asked where nothing else is said. host_pid: of the process that agents work in, None while there is
    none. None when nobody asks agents here: nothing is configured for them, and none has run.
    """
    if not _is_wanted(config) and not ledger.runs(c, limit=1):
        return None
    day = spend.today(c, spend.day_of(now))
    limit = config.budgets.daemon_per_day if config else None
    return {
        "running": len(ledger.running(c)),
        "queued": ledger.waiting(c),
        "model": model,
        "today": {
            "usd": day.usd,
            "usd_limit": limit.usd if limit else None,
            "tokens": day.tokens,
            "tokens_limit": limit.tokens if limit else None,
            "calls": day.calls,
            "calls_of_unknown_price": day.unknown_calls,
        },
        "host_pid": host_pid,
    }


def _is_wanted(config: Config | None) -> bool:
    if config is None:
        return False
    asking = any(watch.goal is not None or watch.investigate is not None for watch in config.watches)
    return bool(config.models) or asking
