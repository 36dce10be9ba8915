"""
The rule about templates never seen before: novel.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agentd.logs.port import Hit, Sighting
from agentd.logs.rules.base import RuleState
from agentd.logs.rules.keys import Clean, Window
from agentd.logs.rules.telling import Run, Words, message_of
from agentd.logs.settings import Rule

LEARN = timedelta(hours=1)
"""How long `novel` learns unless the rule says otherwise."""

_HOUR_S = 3600.0


class Novel(RuleState[Window]):
    """
    Every template that was not there before, once `learn` (default 1h) has passed since the rule first ran.

    At most `per_hour` within an hour are told; how many more there were stands in the next one. Without `by` all of
    them are one alert: a release that brings a hundred new lines is one message.
    """

    begins = True

    def __init__(self, rule: Rule, clean: Clean) -> None:
        super().__init__(rule, clean)
        self._learn = (LEARN if rule.learn is None else rule.learn).total_seconds()
        self._told_at: list[float] = []
        self._untold = 0

    def hit(self, hit: Hit, at: float) -> None:
        """Its news are sightings; hits are none."""

    def sighting(self, sighting: Sighting, groups: Mapping[str, str], at: float) -> None:
        self.counts.hits += 1
        if at < (self.began or at) + self._learn:
            return
        latest = max(at, self._told_at[-1]) if self._told_at else at
        self._told_at = [told for told in self._told_at if told > latest - _HOUR_S]
        if len(self._told_at) >= self.rule.per_hour:
            self._untold += 1
            return
        self._told_at.append(latest)
        entry = sighting.entry
        key = self.naming.key(groups, entry, self.windows)
        facts: dict[str, Any] = {"template": sighting.pattern, "template_id": sighting.template}
        if self._untold:
            facts["untold"] = self._untold
        self.note_fired(key, at)
        self.tell(key, at, 1 + self._untold, entry, groups, facts=facts)
        self._untold = 0

    def words(self, run: Run, key: str) -> Words:
        more = f" (and {run.count - 1} more)" if run.count > 1 else ""
        reason = (
            "a kind of line never seen before" if run.count == 1 else f"{run.count} kinds of lines never seen before"
        )
        line = message_of(run.entry) if run.entry is not None else ""
        return Words(f"new kind of line{more}{self.since(key)}", reason, line)

    def make(self) -> Window:
        return Window()

    def more_state(self) -> list[Any]:
        return [self._told_at, self._untold]

    def restore_more(self, state: list[Any]) -> None:
        told, untold = state
        self._told_at, self._untold = [float(at) for at in told], int(untold)
