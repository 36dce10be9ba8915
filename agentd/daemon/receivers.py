"""
Webhooks that take nothing: whom we tell of them by way of the others, and whether any is left.

In: how each is doing in this process and what the store knows of it from before. Out: what is wrong with each.
Promise: a receiver that restarts is no news, and a restart of ours makes no failing one look mended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from agentd.deliver.outlet import OutletHealth
from agentd.memory.webhooks import Health

WEBHOOK_PATIENCE = timedelta(minutes=15)


class Receivers:
    """Remembers since when each webhook fails, in monotonic time: a clock that is set accuses nobody."""

    def __init__(self) -> None:
        self._failing_since_s: dict[str, float] = {}
        self._names: Collection[str] = ()
        self._wrong: dict[str, str | None] = {}

    def judge(
        self, health: Mapping[str, OutletHealth], stored: Mapping[str, Health], now_s: float
    ) -> dict[str, str | None]:
        """
        What is wrong with each webhook, None for nothing; one that fails for less than WEBHOOK_PATIENCE is left out.

        health: of every webhook of the configuration. stored: what the store knows. now_s: monotonic.
        """
        self._names = health.keys()
        self._failing_since_s = {
            name: self._failing_since_s.get(name, now_s)
            for name, found in health.items()
            if _is_failing(found, stored.get(name))
        }
        wrong: dict[str, str | None] = {}
        for name, found in health.items():
            known = stored.get(name)
            if known is not None and known.disabled_at is not None:
                wrong[name] = (
                    f"webhook {name} is disabled: {known.reason}; mend it, then `agentd webhook enable {name}`"
                )
            elif (since_s := self._failing_since_s.get(name)) is None:
                wrong[name] = None
            elif now_s - since_s >= WEBHOOK_PATIENCE.total_seconds():
                wrong[name] = f"webhook {name} takes no message: {found.last_error or 'as before the last start'}"
        self._wrong = wrong
        return wrong

    def none_works(self, told: Collection[str]) -> bool:
        """As last judged. told: webhooks whose alert fires, maybe since before the last start. False without any."""
        return bool(self._names) and all(
            self._wrong[name] is not None if name in self._wrong else name in told for name in self._names
        )


def _is_failing(found: OutletHealth, known: Health | None) -> bool:
    if found.delivered or found.failed or found.refused:
        return found.failures > 0
    # Nothing was tried since the start: what was true before it still is.
    return known is not None and known.failing_since is not None
