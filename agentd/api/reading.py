"""
What the page and the API read beyond lists: one watch, one alert, what is public. A port, as `service.py` is.

Every method gives plain JSON values.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

Json = dict[str, Any]
Span = Literal["1h", "24h", "7d", "30d"]


class Reading(Protocol):
    async def watch(self, name: str) -> Json:
        """
        The watch's view with more: `settings` (its part of the configuration, secrets as stars), `check` (the last
        one: `at`, `verdict`, `summary`, `duration_ms`, `values`, `conditions` [{text, ok}]), `uptime` {"24h", "7d",
        "30d": share of known time that was ok, 0 to 1, or null}, `alerts` (views of its alerts that are current),
        `runs` (its last runs, as in a list of runs). Raises NotFound.
        """
        ...

    async def series(self, name: str, span: Span) -> Json:
        """
        What was measured: {"watch", "span", "from", "to", "step_s", "value": the name and unit of what is drawn,
        "points": [{"at", "ok", "failing", "blind" (counts), "min", "mean", "max" (ms, or null)}], "bars": 90 of
        "ok" | "failing" | "blind" | null}. From results for an hour, else from roll-ups. Raises NotFound.
        """
        ...

    async def history(
        self, *, watch: str | None, fingerprint: str | None, before: str | None, limit: int
    ) -> Json:
        """{"events": transitions, newest first, "next": what to pass as `before` for more, or null}."""
        ...

    async def alert(self, fingerprint: str) -> Json:
        """
        The alert's view with more: `history` (its transitions), `deliveries` (messages about it), `runs` (that looked
        into it), `evidence` (lines of a log rule), `silences` that mute it. Raises NotFound; a few first digits do.
        """
        ...

    async def public(self) -> Json:
        """
        What anybody may see: {"instance": …, "state": "ok" | "failing" | "unknown", "watches": [{"name", "state",
        "uptime_30d", "bars"}]} of watches with `public: true` only; nothing that a target said.
        """
        ...

    async def public_watch(self, name: str) -> Json:
        """One of those. Raises NotFound, the same whether it is private or not there."""
        ...
