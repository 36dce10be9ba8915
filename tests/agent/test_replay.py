"""
Running a run again from its records: the same again, and where today's code goes another way.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from agent_run import Desk, FunctionTool, call, final, hanging, says

from agentd.agent.events import (
    AgentEnd,
    MessageEnd,
    MessageStart,
    ToolExecutionEnd,
    ToolExecutionStart,
    TurnEnd,
    TurnStart,
)
from agentd.agent.job import Exhibit, Outcome, RunbookStep
from agentd.agent.observe import Observed
from agentd.agent.port import Record, ToolContext, ToolFailure
from agentd.agent.replay import CannotReplay, replay
from agentd.fleet.messages import Control, ErrorKind
from agentd.llm.port import FailureKind, ModelFailure, ToolCall
from agentd.testing import FakeClock, ScriptedModel

MOMENTS = [TurnStart, MessageStart, MessageEnd, ToolExecutionStart, ToolExecutionEnd, TurnEnd, AgentEnd]


def stored(desk: Desk) -> list[Record]:
    """The records as they come back from the store: through JSON."""
    return [replace(record, data=json.loads(json.dumps(record.data))) for record in desk.keeper.records]


async def replayed(desk: Desk, outcome: Outcome) -> list[str]:
    """What diverges, once the outcome was found to be the same."""
    again = await asyncio.wait_for(replay(stored(desk)), 10)
    assert again.outcome.model_copy(update={"duration_s": outcome.duration_s}) == outcome
    assert again.recorded == outcome
    return [divergence.text for divergence in again.divergences]


def refusing(input: Mapping[str, Any], context: ToolContext) -> str:
    raise ToolFailure("no such file")


async def test_a_run_replays_to_the_same_outcome_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided can be looked at again, without its world."""
    model = ScriptedModel(
        {"type": "Parallel", "actions": [call("look"), call("refuse"), call("nobody")]},
        "no JSON",
        ["cut", ModelFailure("cut off", FailureKind.CUT)],
        final({"status": "problem", "summary": "s", "claims": []}),
    )
    desk = Desk(model, says("seen"), FunctionTool("refuse", refusing), runbook=(RunbookStep(tool="look"),))
    outcome = await desk.run()

    def no_sockets(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay touches no network")

    monkeypatch.setattr(socket, "socket", no_sockets)

    assert await replayed(desk, outcome) == []


async def test_native_calls_replay() -> None:
    """Ids of calls, and who is answered by which message, are part of what was asked."""
    model = ScriptedModel(
        [ToolCall("a", "look", "{}"), ToolCall("b", "look", '{"at": "x"}')], "well", native_tools=True
    )
    desk = Desk(model, says("seen"))

    assert await replayed(desk, await desk.run()) == []


async def test_retries_replay_in_the_order_in_which_results_came() -> None:
    """The order is what the decisions were taken by."""
    tries: list[int] = []

    async def slow_once(input: Mapping[str, Any], context: ToolContext) -> str:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.get_running_loop().create_future()
        if len(tries) == 2:
            raise ToolFailure("too often", ErrorKind.RATE_LIMITED)
        return "there"

    both = {"type": "Parallel", "actions": [call("slow"), call("look")]}
    desk = Desk(
        ScriptedModel(both, final("ok")),
        FunctionTool("slow", slow_once),
        says("seen"),
        limits={"tool_timeout_s": 0.02, "retries": 0},
    )

    assert await replayed(desk, await desk.run()) == []
    assert [data["decision"] for data in desk.keeper.of("decision")] == ["retry", "reduce_concurrency", "continue"]


async def test_steering_replays_where_it_was_said() -> None:
    """In the middle of an answer, and in the middle of tools."""
    gate = asyncio.Event()
    model = ScriptedModel("never", call("hang"), final("ok"), gate=gate)
    desk = Desk(model, hanging())
    working = asyncio.create_task(desk.run())
    await model.asked()
    agent = desk.running.agent
    assert agent is not None
    agent.steer("use the tool")
    gate.set()
    async with asyncio.timeout(5):
        while not agent.state.calls:
            await asyncio.sleep(0)
    agent.steer("that is enough")

    assert await replayed(desk, await working) == []


@pytest.mark.parametrize("what", ["steer", "cancel", "follow_up"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_who_speaks_between_two_records_is_heard_at_the_same_place(moment: type[Any], what: str) -> None:
    """After the last result and before its decision, before a question, behind the last answer: all happen."""
    model = ScriptedModel(call("look"), call("look", at="db"), *[final("ok")] * 4)
    desk = Desk(model, says("seen"), kind="task")
    said: list[str] = []

    def speak(event: object) -> None:
        if isinstance(event, moment) and not said:
            agent = desk.running.agent
            assert agent is not None
            said.append(what)
            getattr(agent, what)("and the database?")

    desk.listeners.subscribe(speak)

    assert await replayed(desk, await desk.run()) == []


async def test_secrets_that_people_say_go_no_further() -> None:
    """A model's provider and whoever reads a record are others than the one they were told to."""
    secret = "hunter2secret"
    model = ScriptedModel(call("look", at="${s0.1}"), *[final("ok")] * 3)
    exhibits = (Exhibit(id="e1", title="Log", text=f"db password={secret}"),)
    desk = Desk(model, says("seen"), goal=f"log in with password={secret}", kind="task", exhibits=exhibits)
    said: list[str] = []

    def speak(event: object) -> None:
        agent = desk.running.agent
        if isinstance(event, MessageEnd) and not said and agent is not None:
            said.append("once")
            agent.steer(f"or with password={secret}")
            agent.follow_up(f"and then with password={secret}")

    desk.listeners.subscribe(speak)
    outcome = await desk.run()

    assert secret not in repr([request.messages for request in model.requests])
    assert secret not in repr(desk.keeper.records)
    assert secret not in repr(desk.events)
    assert await replayed(desk, outcome) == []


async def test_who_watches_sees_no_secret_in_the_input_of_a_call() -> None:
    """The record has none, either."""
    desk = Desk(ScriptedModel(call("look", at="password=hunter2secret"), final("ok")), says("seen"), kind="task")

    await desk.run()

    assert [start.input for start in desk.told(ToolExecutionStart)] == [{"at": "password=***"}]


async def test_cancelling_replays() -> None:
    """A run that people ended ends so again."""
    model = ScriptedModel("never", gate=asyncio.Event())
    desk = Desk(model)
    working = asyncio.create_task(desk.run())
    await model.asked()
    assert desk.running.agent is not None
    desk.running.agent.cancel("no longer needed")

    assert await replayed(desk, await working) == []


def test_the_end_of_its_time_replays_without_waiting() -> None:
    """A run of minutes replays in no time."""
    clock = FakeClock()

    async def story() -> tuple[Desk, Outcome]:
        desk = Desk(ScriptedModel(call("hang")), hanging(), clock=clock, limits={"time_s": 60, "tool_timeout_s": 600})
        working = asyncio.create_task(desk.run())
        await clock.advance(61)
        return desk, await working

    desk, outcome = clock.run(story())

    assert outcome.state == "stopped"
    assert asyncio.run(replayed(desk, outcome)) == []


async def test_an_overflow_and_its_summary_replay() -> None:
    """The summary was the model's, and comes from the record too."""
    full = ModelFailure("too long", FailureKind.CONTEXT_OVERFLOW)
    desk = Desk(ScriptedModel(call("look"), call("look", at="x"), full, "summary", final("ok")), says("seen"))

    assert await replayed(desk, await desk.run()) == []


async def test_a_run_without_a_model_replays() -> None:
    """Its evidence is recorded like any other."""
    desk = Desk(None, says("seen"), runbook=(RunbookStep(tool="look"),), why_no_model="budget spent")

    assert await replayed(desk, await desk.run()) == []


async def test_follow_ups_and_further_prompts_replay() -> None:
    """A session is one conversation."""
    model = ScriptedModel(final("one"), final("two"), final("three"))
    desk = Desk(model, kind="session")
    desk.running._inbox.follow_up("and then?")
    ran = asyncio.create_task(desk.run())
    await model.asked(2)
    while desk.running.agent is None or desk.running.agent.state.status != "idle":
        await asyncio.sleep(0)
    desk.running.control(Control("follow_up", "run-1", "and at last?"))
    await model.asked(3)
    desk.running.control(Control("end", "run-1"))
    outcome = await ran

    assert outcome.answer == "three"
    assert await replayed(desk, outcome) == []


async def test_another_prompt_is_named_with_the_place_where_it_differs() -> None:
    """Who changes a template sees which runs it changes."""
    desk = Desk(ScriptedModel(final("ok")))
    await desk.run()
    records = stored(desk)
    place = next(i for i, record in enumerate(records) if record.kind == "prompt")
    before = dict(records[place].data)
    records[place] = replace(records[place], data=before | {"sha256": "0", "text": "You were " + before["text"]})

    again = await replay(records)

    assert [divergence.what for divergence in again.divergences] == ["prompt"]
    assert again.divergences[0].then.startswith("You were")


async def test_other_observations_are_named_as_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that shows results in other words asks the model something else."""
    desk = Desk(ScriptedModel(call("look"), final("ok")), says("seen"))
    outcome = await desk.run()
    monkeypatch.setattr(Observed, "within", lambda self, limit_bytes: "in other words")

    again = await replay(stored(desk))

    assert again.outcome.state == outcome.state
    assert [(each.what, each.place) for each in again.divergences] == [("request", 2)]
    assert "seen" in again.divergences[0].then
    assert "in other words" in again.divergences[0].now


async def test_calls_that_were_not_made_then_have_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made up, and nothing is run."""
    desk = Desk(ScriptedModel(call("look"), final("ok")), says("seen"))
    await desk.run()
    records = [
        replace(r, data=json.loads(json.dumps(r.data).replace('\\"look\\"', '\\"stare\\"'))) if r.kind == "model" else r
        for r in stored(desk)
    ]

    again = await replay(records)

    assert "call" in {divergence.what for divergence in again.divergences}
    result = next(record for record in again.records if record.kind == "result")
    assert result.data["error"] == "cancelled"
    assert "not made then" in result.data["message"]


async def test_questions_beyond_the_record_end_the_replay_clearly() -> None:
    """A run whose host was killed has no end; its replay has one."""
    desk = Desk(ScriptedModel(call("look"), final("ok")), says("seen"))
    await desk.run()
    records = stored(desk)
    cut = records[: 1 + next(i for i, record in enumerate(records) if record.kind == "observation")]

    again = await replay(cut)

    assert again.recorded is None
    assert again.outcome.state == "failed"
    assert "the record ends here" in (again.outcome.error or "")


@pytest.mark.parametrize("native", [False, True])
async def test_a_record_that_was_cut_off_diverges_nowhere_by_its_end(native: bool) -> None:
    """A killed host leaves off anywhere; that today's code goes on from there is no difference."""
    first: Any = [ToolCall("a", "look", "{}"), ToolCall("b", "refuse", "{}")] if native else call("look")
    desk = Desk(ScriptedModel(first, final("ok"), native_tools=native), says("seen"), FunctionTool("refuse", refusing))
    await desk.run()
    records = stored(desk)
    beginning = 1 + next(place for place, record in enumerate(records) if record.kind == "prompt")

    for length in range(beginning, len(records) + 1):
        assert (await replay(records[:length])).divergences == (), records[length - 1]


async def test_what_differs_before_the_cut_is_still_said() -> None:
    """It is why one replays an interrupted run at all."""
    desk = Desk(ScriptedModel(call("look"), final("ok")), says("seen"))
    await desk.run()
    records = stored(desk)[: 1 + next(i for i, record in enumerate(stored(desk)) if record.kind == "observation")]
    changed = [
        replace(record, data=json.loads(json.dumps(record.data).replace('\\"look\\"', '\\"stare\\"')))
        if record.kind == "model"
        else record
        for record in records
    ]

    found = (await replay(changed)).divergences

    assert "call" in {each.what for each in found}
    assert all(mark not in each.text for each in found for mark in ("('", "[(", "None"))
    assert any("s1.1 look {}, and is now s1.1 stare {}" in each.text for each in found)


async def test_records_without_a_job_cannot_be_replayed() -> None:
    """Said, not guessed."""
    with pytest.raises(CannotReplay, match="no job"):
        await replay([])
