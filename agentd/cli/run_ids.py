"""
Which run is meant: its whole id, or so much of it as no other run begins with.

In: what a person typed, the runs that are kept. Out: a whole id, or what was typed where nothing begins so.
"""

from __future__ import annotations

import asyncio
import re

from agentd.cli.client import NoDaemon, call, read_store
from agentd.cli.errand import written
from agentd.cli.place import Place
from agentd.errors import AgentdError
from agentd.memory import ledger
from agentd.memory.store import Store

_NEWEST = 1000
_WHOLE = re.compile(r"run_[0-9a-f]{20}")
_SHOWN = 5


def whole_id(place: Place, typed: str) -> str:
    """Of the newest thousand runs. Raises AgentdError when several begin so, StoreError when nobody can be asked."""
    typed = written(typed)
    if _WHOLE.fullmatch(typed):
        return typed
    known = _ids(place, None, _NEWEST)
    if typed in known:
        return typed
    meant = [each for each in known if each.startswith((typed, f"run_{typed}"))] if typed else []
    if len(meant) > 1:
        more = ", …" if len(meant) > _SHOWN else ""
        raise AgentdError(
            f"{len(meant)} runs begin with {typed[:100]!r}: {', '.join(meant[:_SHOWN])}{more}; write more of it"
        )
    return meant[0] if meant else typed


def has_run(place: Place, watch: str) -> bool:
    """Whether any run of this watch is kept, in whatever state. Raises StoreError when nobody can be asked."""
    return bool(_ids(place, watch, 1))


def _ids(place: Place, watch: str | None, limit: int) -> list[str]:
    """Newest first."""

    async def stored(store: Store) -> list[str]:
        return [run.id for run in await store.state.read(lambda c: ledger.runs(c, watch=watch, limit=limit))]

    try:
        rows = call(place, "GET", "/api/v1/runs", None, watch=watch, limit=str(limit))["runs"]
    except NoDaemon:
        return asyncio.run(read_store(place.state_dir, stored))
    return [str(row["id"]) for row in rows]
