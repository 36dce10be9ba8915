"""The run ledger: many checks, few writes, nothing forgotten while the disk is full."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from agentd.errors import StoreFull
from agentd.records import Verdict
from agentd.schedule.ledger import LastRun, Ledger
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Store:
    def __init__(self) -> None:
        self.writes: list[list[LastRun]] = []
        self.full = False

    async def save(self, rows: Sequence[LastRun]) -> None:
        if self.full:
            raise StoreFull("no room")
        self.writes.append(list(rows))


def test_a_minute_of_checks_is_two_writes() -> None:
    """A write per check would be most of the disk's work on an idle machine."""
    clock, store = FakeClock(), Store()

    async def story() -> None:
        ledger = Ledger(store.save)
        keeping = asyncio.create_task(ledger.keep())
        for _ in range(61):
            for watch in ("shop", "mx"):
                ledger.begun(watch, clock.now())
                ledger.done(watch, clock.now(), Verdict.OK)
            await clock.advance(1)
        keeping.cancel()

    clock.run(story())

    assert [[row.watch for row in rows] for rows in store.writes] == [["mx", "shop"]] * 2


def test_a_flush_with_nothing_new_writes_nothing() -> None:
    """An idle daemon lets the disk sleep."""
    store = Store()

    async def story() -> None:
        ledger = Ledger(store.save, {"shop": LastRun("shop", NOW)})
        await ledger.flush()
        ledger.done("shop", NOW + timedelta(seconds=1), Verdict.FAILING)
        await ledger.flush()
        await ledger.flush()

    asyncio.run(story())

    assert store.writes == [[LastRun("shop", NOW, NOW + timedelta(seconds=1), Verdict.FAILING)]]


def test_rows_refused_by_a_full_disk_go_with_the_next_write() -> None:
    """What a full disk refused must not be forgotten once there is room."""
    store = Store()

    async def story() -> tuple[bool, bool]:
        ledger = Ledger(store.save)
        ledger.begun("shop", NOW)
        store.full = True
        refused = await ledger.flush()
        ledger.begun("mx", NOW)
        store.full = False
        return refused, await ledger.flush()

    assert asyncio.run(story()) == (False, True)
    assert store.writes == [[LastRun("mx", NOW), LastRun("shop", NOW)]]


def test_a_watch_that_left_is_not_written_again() -> None:
    """Its row would come back after the store swept it."""
    store = Store()

    async def story() -> LastRun:
        ledger = Ledger(store.save)
        ledger.begun("gone", NOW)
        ledger.forget("gone")
        await ledger.flush()
        return ledger.last("gone")

    assert asyncio.run(story()) == LastRun("gone")
    assert store.writes == []
