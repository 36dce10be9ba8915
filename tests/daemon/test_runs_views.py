"""What people are shown of a run that has just ended, whose steps are written a moment later than its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agentd.agent.port import Record
from agentd.clock import SystemClock
from agentd.daemon.runs import tasks as module
from agentd.daemon.runs.tasks import Tasks
from agentd.memory import ledger, run_records
from agentd.memory.ledger import Run, RunState
from agentd.memory.store import Store

RESULT = Record(1, 0.1, "result", {"task": "s1.1", "tool": "read_file", "output": "x", "error": None})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state")
    yield opened
    await opened.close()


@pytest.fixture
async def late(store: Store) -> AsyncIterator[threading.Event]:
    """The run r1 has ended; its step is written once this is set."""
    now, written = SystemClock().now(), threading.Event()
    await store.state.write(lambda c: ledger.queue(c, Run("r1", "task", "api", now, kind="task", goal="Look.")))
    await store.state.write(lambda c: ledger.start(c, "r1", now))
    await store.state.write(lambda c: ledger.end(c, "r1", now, RunState.COMPLETED))

    def save(connection: Any) -> None:
        written.wait(20)
        run_records.save(connection, "r1", now, [RESULT])

    assert store.history.post(save)
    yield written
    written.set()


def tasks_of(store: Store) -> Tasks:
    return Tasks(cast(Any, None), store, SystemClock())


@pytest.mark.parametrize("of", ["task", "run"])
async def test_who_sees_the_end_sees_the_steps(store: Store, late: threading.Event, of: str) -> None:
    """Callers ask until a task has ended, and then no more."""
    waiting = store.history.pending
    asked = asyncio.create_task(tasks_of(store).task("r1") if of == "task" else tasks_of(store).run("r1"))
    while store.history.pending == waiting and not asked.done():
        await asyncio.sleep(0.01)
    late.set()

    view = await asked

    assert len(view["steps" if of == "task" else "record"]) == 1


async def test_a_store_that_does_not_come_to_it_holds_up_nobody_for_long(
    store: Store, late: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer itself stands elsewhere, and is what people wait for."""
    monkeypatch.setattr(module, "_WRITTEN_S", 0.01)

    view = await tasks_of(store).task("r1")

    assert (view["status"], view["steps"]) == ("completed", [])


async def test_of_a_run_that_ended_long_ago_nothing_is_waited_for(
    store: Store, late: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and pages of yesterday come at once, however busy the store is."""
    monkeypatch.setattr(module, "_JUST_ENDED", timedelta(0))

    assert (await tasks_of(store).task("r1"))["steps"] == []
