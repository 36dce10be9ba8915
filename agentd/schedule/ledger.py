"""
When each watch was last due and last done, kept in memory and written down now and then.

In: one call a check.  Out: the changed rows, in one write at most every 30 seconds and at stop.
Promise: a check costs a dictionary entry, never a write of its own. A crash forgets at most the last 30 seconds;
that is enough to tell which runs of a cron line were missed, and alerts do not depend on it. While the store refuses
(full disk), the rows wait here, one per watch, and go with the next write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from agentd.errors import StoreError
from agentd.memory.ledger import ProbeRow
from agentd.records import Verdict

log = logging.getLogger("agentd.schedule")

FLUSH_EVERY_S = 30.0


LastRun = ProbeRow
"""One watch's row, as the store keeps it."""

Save = Callable[[Sequence[LastRun]], Awaitable[object]]
"""Writes the rows in one transaction; raises StoreError when the store cannot take them now."""


class Ledger:
    """
    rows: as they were loaded at start. save: see `Save`.
    """

    def __init__(self, save: Save, rows: Mapping[str, LastRun] | None = None) -> None:
        self._save = save
        self._rows = dict(rows or {})
        self._changed: set[str] = set()
        self._saving = asyncio.Lock()
        self._refused = False

    def last(self, watch: str) -> LastRun:
        """What is known of a watch; empty for one that never ran."""
        return self._rows.get(watch) or LastRun(watch)

    def begun(self, watch: str, due: datetime) -> None:
        """A run for the moment `due` begins."""
        row = self._rows.get(watch)
        self._put(LastRun(watch, due, row.last_done, row.verdict) if row else LastRun(watch, due))

    def done(self, watch: str, at: datetime, verdict: Verdict | None = None) -> None:
        """A run ended."""
        row = self._rows.get(watch)
        self._put(LastRun(watch, row.last_due if row else None, at, verdict))

    def forget(self, watch: str) -> None:
        """The watch left the config; its stored row is the store's to sweep."""
        self._rows.pop(watch, None)
        self._changed.discard(watch)

    async def flush(self) -> bool:
        """Write what changed since the last flush. False when the store refused; nothing is lost then."""
        async with self._saving:
            changed, self._changed = self._changed, set()
            rows = [self._rows[watch] for watch in sorted(changed) if watch in self._rows]
            if not rows:
                return True
            try:
                await self._save(rows)
            except StoreError as error:
                self._changed |= changed
                if not self._refused:
                    log.warning("ledger_not_saved", extra={"rows": len(rows), "error": str(error)})
                self._refused = True
                return False
            except BaseException:
                self._changed |= changed
                raise
            self._refused = False
            return True

    async def keep(self) -> None:
        """Flush every 30 seconds until cancelled. The caller flushes once more when all runs have ended."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    def _put(self, row: LastRun) -> None:
        self._rows[row.watch] = row
        self._changed.add(row.watch)
