"""
What is kept of a run in history: its record, its outputs, notes, what worked; and no secret of ours.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent_run import Desk, call, final, job, says

from agentd.agent.job import Finding, Job, Outcome
from agentd.agent.port import Record
from agentd.agent.replay import replay
from agentd.clock import SystemClock
from agentd.daemon.runs.account import Account
from agentd.memory import notes, outputs, run_records, worked
from agentd.memory.store import Store
from agentd.telemetry.redact import forget_secrets, register_secret
from agentd.testing import ScriptedModel

JOB = Job(run="r1", goal="look", watch="shop", kind="investigate", fingerprint="f1")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state")
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def secret() -> Iterator[str]:
    register_secret("hunter2-of-the-webhook")
    yield "hunter2-of-the-webhook"
    forget_secrets()


def told(account: Account, output: object) -> None:
    account.take(Record(1, 0.0, "job", {"run": "r1"}))
    account.take(Record(2, 0.1, "steps", {"shape": "parallel-2", "tasks": []}))
    account.take(Record(3, 0.1, "task", {"id": "s1.1", "tool": "read_file", "kind": "io"}))
    account.take(Record(4, 0.2, "result", {"task": "s1.1", "tool": "read_file", "output": output, "error": None}))


async def test_a_run_is_found_again_by_its_words(store: Store) -> None:
    """The next run about the same alert begins with what this one learnt."""
    account = Account(JOB, store.history, SystemClock())
    told(account, {"text": "the pool is empty"})
    finding = Finding(status="problem", summary="The pool is empty.")
    account.close(Outcome(state="completed", finding=finding, models=("default",), usd=0.01), ok=True)
    await store.history.write(lambda c: None)

    found = await store.history.read(lambda c: notes.search(c, "pool"))
    (learnt,) = await store.history.read(worked.rows)

    assert {each.note.type for each in found} == {"final", "tool_result"}
    assert (learnt.shape, learnt.worker, learnt.successes) == ("parallel-2", "io", 1)


async def test_no_secret_of_the_daemon_is_kept(store: Store, secret: str) -> None:
    """The host does not know the webhooks' secrets; a file that it reads may hold one all the same."""
    account = Account(JOB, store.history, SystemClock())
    told(account, {"text": f"token={secret} in a file", secret: "as a key"})
    account.flush()
    await store.history.write(lambda c: None)  # what was posted before it is there

    lines = await store.history.read(lambda c: run_records.of(c, "r1"))
    output = await store.history.read(lambda c: outputs.get(c, "r1", "s1.1"))

    assert [line.kind for line in lines] == ["job", "steps", "task", "result"]
    assert secret not in repr(lines)
    assert output is not None
    assert secret not in output


async def test_what_looks_like_a_secret_is_not_kept_and_the_run_replays_without_it(store: Store) -> None:
    """People and models write down passwords that the daemon never knew: history is read by others, and for months."""
    a_secret = "password=hunter2secret"
    look = says(f"the file says {a_secret}")
    model = ScriptedModel(call("look", at=f"/x?{a_secret}"), final(f"the {a_secret} is it"))
    asked = job(f"check {a_secret}", tools=[look], kind="task")
    environment = {"environment": {"REGION": "hunter2secret"}}
    asked = asked.model_copy(update={"permissions": asked.permissions.model_copy(update=environment)})
    desk = Desk(model, look, asked=asked)
    account = Account(desk.job, store.history, SystemClock())

    outcome = await desk.run()
    for record in desk.keeper.records:
        account.take(record)
    account.close(outcome, ok=True)
    await store.history.write(lambda c: None)
    lines = await store.history.read(lambda c: run_records.of(c, "run-1"))
    found = await store.history.read(lambda c: notes.search(c, "password"))

    assert len(lines) == len(desk.keeper.records)
    assert "hunter2secret" not in repr(lines)
    assert "hunter2secret" not in repr(found)
    replayed = await replay([Record(line.seq, line.at_s, line.kind, line.data) for line in lines])
    assert [each.text for each in replayed.divergences] == []
    assert replayed.outcome.answer == "the password=*** is it"


async def test_what_history_cannot_keep_up_with_is_not_held_in_memory(store: Store) -> None:
    """A host may say more than a disk takes; a run's record may have gaps, the daemon's memory has an end."""
    account = Account(JOB, store.history, SystemClock())
    begun, go = threading.Event(), threading.Event()

    def slow(c: object) -> None:
        begun.set()
        go.wait(30)

    store.history.post(slow)
    await asyncio.to_thread(begun.wait, 30)
    for number in range(1, 101):
        account.take(Record(number, 0.0, "result", {"task": str(number), "output": "x"}), 2**20)
    go.set()
    await store.history.write(lambda c: None)

    lines = await store.history.read(lambda c: run_records.of(c, "r1"))
    assert [line.seq for line in lines] == list(range(1, 17))

    account.take(Record(101, 0.0, "result", {"task": "late", "output": "x"}), 2**20)
    await store.history.write(lambda c: None)
    assert await store.history.read(lambda c: run_records.count(c, "r1")) == 17
