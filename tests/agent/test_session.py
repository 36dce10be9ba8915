"""
The agent as people meet it: steered, followed up, cancelled, out of time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from agent_run import Desk, FunctionTool, Keeper, OneModel, call, final, hanging, job, says

from agentd.agent.events import AgentEnd, AgentStart, MessageEnd, MessageStart, ToolExecutionEnd, TurnEnd, TurnStart
from agentd.agent.inbox import MOST_WAITING, Inbox, InboxFull
from agentd.agent.port import ToolContext
from agentd.agent.registry import Registry
from agentd.agent.run import open_agent
from agentd.agent.session import Agent, AgentBusy
from agentd.llm.port import Model
from agentd.testing import FakeClock, ScriptedModel


def opened(model: Model, *tools: FunctionTool, **changes: Any) -> Any:
    """An agent of kind `session`."""
    asked = job(tools=tools, **{"kind": "session", **changes})
    return open_agent(asked, Keeper(), models=OneModel(model), registry=Registry(tools))


async def until_running(agent: Agent) -> None:
    async with asyncio.timeout(5):
        while not agent.state.calls:
            await asyncio.sleep(0)


async def test_steering_while_the_model_answers_is_the_next_thing_it_reads() -> None:
    """Who sees it go wrong need not wait for it to end."""
    model = ScriptedModel("never read", final("the database, then"), gate=asyncio.Event())
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("look at the shop"))
        await model.asked()

        agent.steer("look at the database")
        model.gate.set() if model.gate else None
        outcome = await working

    assert outcome.answer == "the database, then"
    assert model.requests[1].messages[-1].content == "look at the database"
    assert model.cancelled == 1


async def test_steering_while_tools_run_cancels_them_and_their_results_say_so() -> None:
    """The model must know what it has not seen."""
    model = ScriptedModel({"type": "Parallel", "actions": [call("hang"), call("look")]}, final("ok"))
    desk = Desk(model, hanging(), says("seen"))
    working = asyncio.create_task(desk.run())
    async with asyncio.timeout(5):
        while not desk.told(ToolExecutionEnd):
            await asyncio.sleep(0)

    assert desk.running.agent is not None
    desk.running.agent.steer("enough")
    outcome = await working

    assert desk.told(TurnEnd)[0].decision == "interrupted"
    errors = {event.tool: event.error for event in desk.told(ToolExecutionEnd)}
    assert errors == {"look": None, "hang": "cancelled"}
    assert [message.role for message in model.requests[1].messages][-2:] == ["user", "user"]
    assert model.requests[1].messages[-1].content == "enough"
    assert "seen" in model.requests[1].messages[-2].content
    assert outcome.state == "completed"


async def test_what_is_to_follow_follows_when_the_prompt_is_answered() -> None:
    """A follow-up disturbs nothing."""
    gate = asyncio.Event()
    model = ScriptedModel(final("first"), final("second"), gate=gate)
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("one"))
        await model.asked()
        agent.follow_up("two")
        gate.set()
        outcome = await working

    assert outcome.answer == "second"
    assert [message.content for message in model.requests[1].messages][-1] == "two"
    assert model.cancelled == 0


async def test_a_session_keeps_its_window_between_prompts() -> None:
    """What was said before counts."""
    model = ScriptedModel(final("Paris"), final("two million"))
    async with opened(model) as agent:
        await agent.handle("What is the capital of France?")
        outcome = await agent.handle("How many live there?")

    said = [message.content for message in model.requests[1].messages]
    assert "What is the capital of France?" in said[0]
    assert "Paris" in said[1]
    assert said[2] == "How many live there?"
    assert outcome.answer == "two million"


async def test_the_most_steps_count_anew_for_each_prompt() -> None:
    """A long conversation is no runaway."""
    model = ScriptedModel(otherwise=final("ok"))
    async with opened(model, limits={"max_steps": 1}) as agent:
        states = [(await agent.prompt(str(number))).state for number in range(3)]

    assert states == ["completed"] * 3


async def test_cancelling_ends_a_prompt_at_once_and_closes_the_answer() -> None:
    """Who cancels waits no longer, and pays no longer."""
    model = ScriptedModel("never", gate=asyncio.Event())
    desk = Desk(model)
    working = asyncio.create_task(desk.run())
    await model.asked()
    agent = desk.running.agent
    assert agent is not None

    begun = time.monotonic()
    agent.cancel("no longer needed")
    outcome = await working

    assert time.monotonic() - begun < 0.1
    assert (outcome.state, outcome.error) == ("cancelled", "no longer needed")
    assert model.cancelled == 1
    assert isinstance(desk.events[-1], AgentEnd)
    assert desk.told(TurnEnd)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_cancelling_while_tools_run_ends_each_event_that_began(stubborn: bool) -> None:
    """Also when a tool will not hear of it."""

    async def hang(input: Mapping[str, Any], context: ToolContext) -> Any:
        while True:
            try:
                await asyncio.sleep(1)
                return "at last"
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    desk = Desk(ScriptedModel(call("hang")), FunctionTool("hang", hang))
    working = asyncio.create_task(desk.run())
    async with asyncio.timeout(5):
        while desk.running.agent is None or not desk.running.agent.state.calls:
            await asyncio.sleep(0)

    begun = time.monotonic()
    desk.running.agent.cancel()
    while not desk.told(AgentEnd):
        await asyncio.sleep(0)
    took_s = time.monotonic() - begun
    outcome = await working

    assert took_s < 0.1
    assert outcome.state == "cancelled"
    for start, end in ((AgentStart, AgentEnd), (TurnStart, TurnEnd), (MessageStart, MessageEnd)):
        assert len(desk.told(start)) == len(desk.told(end))
    assert [event.error for event in desk.told(ToolExecutionEnd)] == ["cancelled"]


async def test_a_model_that_will_not_be_cancelled_is_given_up() -> None:
    """A connection that hangs in its close must not hang the run."""

    class Stubborn(ScriptedModel):
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            try:
                async for event in super().stream(request):
                    yield event
            finally:
                await asyncio.sleep(0.5)

    model = Stubborn("never", gate=asyncio.Event())
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("look"))
        await model.asked()
        begun = time.monotonic()
        agent.cancel()
        outcome = await working
        assert time.monotonic() - begun < 0.2

    assert outcome.state == "cancelled"


async def test_one_call_can_be_cancelled_alone() -> None:
    """The rest of the run goes on."""
    model = ScriptedModel(call("hang"), final("ok"))
    async with opened(model, hanging()) as agent:
        working = asyncio.create_task(agent.prompt("look"))
        await until_running(agent)
        agent.cancel_call(agent.state.calls[0])
        outcome = await working

    assert outcome.state == "completed"
    assert "cancelled" in model.requests[1].messages[-1].content


def test_a_run_out_of_time_stops_and_keeps_what_it_found() -> None:
    """Time is a limit like steps and money."""
    clock = FakeClock()

    async def story() -> None:
        model = ScriptedModel(call("look"), call("hang"))
        desk = Desk(model, says("seen"), hanging(), clock=clock, limits={"time_s": 60, "tool_timeout_s": 600})
        working = asyncio.create_task(desk.run())
        await clock.advance(59)
        assert not working.done()
        await clock.advance(2)
        outcome = await working

        assert (outcome.state, outcome.answer) == ("stopped", "Stopped: time limit reached")
        assert outcome.finding is not None
        assert outcome.finding.claims[0].evidence == ("e1",)

    clock.run(story())


async def test_two_prompts_at_once_are_refused() -> None:
    """One memory, one train of thought."""
    model = ScriptedModel("never", gate=asyncio.Event())
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("one"))
        await model.asked()
        with pytest.raises(AgentBusy, match="running"):
            await agent.prompt("two")
        agent.cancel()
        await working


async def test_a_cancelled_session_can_be_asked_again() -> None:
    """Cancelling ends what it does, not the agent."""
    gate = asyncio.Event()
    model = ScriptedModel("never", final("ok"), gate=gate)
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("one"))
        await model.asked()
        agent.cancel()
        assert (await working).state == "cancelled"
        gate.set()
        outcome = await agent.prompt("two")

    assert outcome.answer == "ok"
    with pytest.raises(AgentBusy, match="ended"):
        await agent.prompt("three")


async def test_the_state_says_what_it_is_doing() -> None:
    """For whoever draws it."""
    model = ScriptedModel(call("hang"), final("ok"))
    async with opened(model, hanging()) as agent:
        assert agent.state.status == "idle"
        working = asyncio.create_task(agent.prompt("look"))
        await until_running(agent)
        state = agent.state
        agent.steer("enough")
        await working
        assert agent.state.status == "idle"

    assert (state.status, state.turn, state.calls, state.model_calls) == ("running", 1, ("s1.1",), 1)
    assert state.messages == 2
    assert state.tokens > 0
    assert agent.state.status == "ended"


async def test_an_unsubscribed_listener_hears_no_more() -> None:
    """Who leaves is left alone."""
    heard: list[Any] = []
    async with opened(ScriptedModel(otherwise=final("ok"))) as agent:
        unsubscribe = agent.subscribe(heard.append)
        await agent.prompt("one")
        unsubscribe()
        count = len(heard)
        await agent.prompt("two")

    assert count == len(heard) > 0


async def test_whoever_cancels_the_task_itself_leaves_nothing_open() -> None:
    """A host that shuts down cancels tasks, and its listeners must know that all is over."""
    model = ScriptedModel("never", gate=asyncio.Event())
    desk = Desk(model)
    working = asyncio.create_task(desk.run())
    await model.asked()

    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert desk.told(AgentEnd)[0].state == "cancelled"
    assert len(desk.told(TurnStart)) == len(desk.told(TurnEnd)) == 1
    assert desk.keeper.of("outcome")[0]["state"] == "cancelled"


def test_an_inbox_takes_no_more_than_it_can_hold() -> None:
    """Every queue has a bound."""
    inbox = Inbox()
    for number in range(MOST_WAITING):
        inbox.follow_up(str(number))

    with pytest.raises(InboxFull, match="wait already"):
        inbox.follow_up("one more")


@pytest.mark.parametrize(("last", "prompts"), [(MessageEnd, 1), (AgentEnd, 2)])
async def test_steering_that_comes_as_it_ends_is_the_next_thing_it_does(last: type[Any], prompts: int) -> None:
    """Who speaks a moment too late is heard all the same."""
    model = ScriptedModel(final("too soon"), final("better"))
    desk = Desk(model)
    said: list[str] = []

    def speak(event: object) -> None:
        if isinstance(event, last) and not said:
            said.append("look again")
            assert desk.running.agent is not None
            desk.running.agent.steer("look again")

    desk.listeners.subscribe(speak)

    assert (await desk.run()).answer == "better"
    assert len(desk.told(AgentStart)) == prompts
    assert model.requests[1].messages[-1].content == "look again"


async def test_cancelling_forgets_what_was_to_follow() -> None:
    """Nobody wants the rest of what they have stopped."""
    gate = asyncio.Event()
    model = ScriptedModel("never", final("ok"), gate=gate)
    async with opened(model) as agent:
        working = asyncio.create_task(agent.prompt("one"))
        await model.asked()
        agent.follow_up("and then?")
        agent.cancel()
        await working
        gate.set()
        assert (await agent.prompt("two")).answer == "ok"

    assert len(model.requests) == 2


async def test_steering_an_idle_agent_follows_with_the_next_prompt() -> None:
    """There is nothing to interrupt, and nothing is lost."""
    model = ScriptedModel(final("one"), final("two"))
    async with opened(model) as agent:
        agent.steer("and then?")
        assert agent.state.waiting == 1
        assert (await agent.prompt("first")).answer == "two"
