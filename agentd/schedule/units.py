"""
Units of systemd as a source of events: which went to failed since the last look?

In: names and globs, all asked about by one look every ten seconds. Out: (name or glob as written, unit) for each.
Promise: a unit that was failed already when it was first seen is no news, and neither is one that merely could not be
asked about in between.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from agentd.watch.systemd import SystemdProbe, SystemdSettings, full_name

LOOK_EVERY_S = 10.0


class Units:
    """The units that events are wanted of."""

    def __init__(self) -> None:
        self._failed: dict[str, set[str] | None] = {}
        self._probe: SystemdProbe | None = None

    def want(self, named: Collection[str]) -> None:
        """Look at these from now on; names as people write them, such as `nginx` or `postgresql*`."""
        if set(named) != set(self._failed):
            self._failed = {name: self._failed.get(name) for name in named}
            wanted = [full_name(name) for name in named]
            self._probe = SystemdProbe(SystemdSettings(units=wanted)) if wanted else None

    async def look(self, timeout_s: float) -> tuple[list[tuple[str, str]], str | None]:
        """The units that failed since the last look, by the name that asked for them; and why nobody could tell."""
        probe = self._probe
        if probe is None:
            return [], None
        seen = await probe.look(timeout_s)
        if probe is not self._probe:
            return [], None  # others are wanted by now, and they were not asked about
        if seen.blind is not None:
            return [], seen.blind
        return self.compare(seen.values["failed"]), None

    def compare(self, failed: Collection[str]) -> list[tuple[str, str]]:
        """The same, given the names of all that are failed now."""
        news = []
        for name, before in self._failed.items():
            pattern = full_name(name)
            now = {unit for unit in failed if unit == pattern or fnmatchcase(unit, pattern)}
            if before is not None:
                news += [(name, unit) for unit in sorted(now - before)]
            self._failed[name] = now
        return news
