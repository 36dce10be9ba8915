"""How far behind a log is, in time."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from agentd.logs.port import Batch, Outcome
from agentd.logs.work import LogWork
from agentd.testing import FakeClock


def test_a_log_is_behind_since_its_end_was_out_of_reach() -> None:
    """Bytes say how much is unread; for how long people are told late, only this does."""
    clock = FakeClock()
    batches: list[Batch] = []
    source = SimpleNamespace(read=lambda most_bytes: batches.pop())
    engine = SimpleNamespace(unseen_before=lambda at: None, advance=lambda at: None, take=Outcome)
    times = SimpleNamespace(warnings=[])
    parts = cast(Any, SimpleNamespace())
    work = LogWork(cast(Any, source), parts, cast(Any, engine), cast(Any, times), parts, parts, clock=clock)

    def read(*, to_the_end: bool) -> None:
        batches.append(Batch(caught_up=clock.now() if to_the_end else None, more=not to_the_end))
        work.take()
        clock.jump(timedelta(seconds=10))

    read(to_the_end=True)
    assert work.unread_since is None
    began = clock.now()
    read(to_the_end=False)
    read(to_the_end=False)
    assert work.unread_since == began
    read(to_the_end=True)
    assert work.unread_since is None
