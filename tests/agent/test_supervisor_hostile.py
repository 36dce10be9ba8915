"""
Whatever model and tools do, a run ends in an outcome, every event that began is ended, and its replay is the same.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent_run import Desk, FunctionTool, call, final
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.agent.events import MessageUpdate
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.replay import replay
from agentd.fleet.messages import ErrorKind
from agentd.llm.port import ChatMessage, Done, FailureKind, ModelFailure, ToolCall, Usage
from agentd.testing import ScriptedModel

NATIVE = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["a", "b", "c", ""]),
        st.sampled_from(["look", "fail", "hang", "nobody", "finish", "plan", "run_graph", ""]),
        st.one_of(
            st.just("{}"),
            st.just("{broken"),
            st.just('{"summary": "s", "status": "ok"}'),
            st.just('{"understanding": "u", "approach": "a"}'),
            st.just('{"tasks": [{"id": "x", "tool": "look", "input": {}}, {"id": "y", "tool": "fail", "input": {}}]}'),
            st.just('{"tasks": [{"id": "x", "tool": "look", "input": {}, "depends_on": ["y"]}]}'),
            st.text(max_size=20),
        ),
    ),
    max_size=4,
    unique_by=lambda each: each.id,
)
GRAPH = {
    "type": "Graph",
    "tasks": [
        {"id": "a", "tool": "look", "input": {"at": "${b}"}, "depends_on": ["b"]},
        {"id": "b", "tool": "fail", "input": {"at": "${c.no.such}"}},
    ],
}
WRITTEN = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            call("look"),
            call("fail"),
            call("hang"),
            call("nobody", x="../../etc/shadow"),
            GRAPH,
            {"type": "Parallel", "actions": [call("look"), {"type": "Parallel", "actions": [call("fail")] * 3}]},
            {"type": "Parallel", "actions": []},
            {"type": "Plan", "understanding": "u", "approach": 7, "estimated_steps": -3, "requirements": "r"},
            final({"status": ["ok"], "summary": {"a": 1}, "claims": [{"text": "t", "evidence": "e9", "quotes": 3}]}),
            final(""),
            final([1, 2, {"a": None}]),
            {"type": "Final"},
            {"tool": "look"},
        ]
    ).map(json.dumps),
)
FAILURES = st.sampled_from(list(FailureKind)).map(lambda kind: ModelFailure(f"it is {kind}", kind))
ANSWERS = st.one_of(
    WRITTEN,
    FAILURES,
    st.tuples(st.text(max_size=9), FAILURES).map(list),
    st.builds(lambda text, calls: ChatMessage("assistant", text, tool_calls=tuple(calls)), st.text(max_size=9), NATIVE),
    st.sampled_from(["stop", "length", "content_filter", "unknown"]).map(
        lambda reason: Done(ChatMessage("assistant", ""), Usage(), reason)  # type: ignore[arg-type]  # from the list
    ),
)


def failing(input: Mapping[str, Any], context: ToolContext) -> Any:
    kinds = [ErrorKind.TOOL_ERROR, ErrorKind.RATE_LIMITED, ErrorKind.DENIED]
    raise ToolFailure("it failed", kinds[len(str(input)) % len(kinds)])


async def hanging(input: Mapping[str, Any], context: ToolContext) -> Any:
    await asyncio.get_running_loop().create_future()


def desk_of(answers: list[Any], native: bool, kind: str, window: int) -> Desk:
    model = ScriptedModel(*answers, otherwise="no more", native_tools=native, context_tokens=window, chunk=7)
    tools = (
        FunctionTool("look", lambda input, context: {"lines": ["a\n" * 50, None], "n": float("nan")}),
        FunctionTool("fail", failing),
        FunctionTool("hang", hanging),
    )
    limits = {"max_steps": 6, "tool_timeout_s": 0.002, "retries": 1}
    return Desk(model, *tools, kind=kind, limits=limits)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ANSWERS, max_size=8),
    st.booleans(),
    st.sampled_from(["goal", "task", "investigate"]),
    st.sampled_from([512, 4000, 32768]),
)
def test_every_run_ends_whole_and_replays(answers: list[Any], native: bool, kind: str, window: int) -> None:
    """Models, tools and people are hostile or unlucky; the agent is neither."""

    async def story() -> None:
        desk = desk_of(answers, native, kind, window)
        outcome = await asyncio.wait_for(desk.run(), 20)

        assert "defect" not in (outcome.error or "")
        assert outcome.steps <= 6
        assert outcome.state in ("completed", "failed", "stopped")
        assert outcome.finding is not None or outcome.answer
        count = Counter(type(event).__name__ for event in desk.events if not isinstance(event, MessageUpdate))
        for thing in ("Agent", "Turn", "Message", "ToolExecution"):
            assert count[f"{thing}Start"] == count[f"{thing}End"]
        assert_each_call_is_answered(desk)
        records = [replace(each, data=json.loads(json.dumps(each.data))) for each in desk.keeper.records]
        again = await asyncio.wait_for(replay(records), 20)
        assert again.divergences == ()

    asyncio.run(story())


def assert_each_call_is_answered(desk: Desk) -> None:
    """In every request, a message's native calls are followed by their answers, each by its id."""
    assert desk.models is not None
    model: Any = desk.models.get("scripted")
    for request in model.requests:
        waiting: list[str] = []
        for message in request.messages:
            if message.role == "tool":
                waiting.remove(message.tool_call_id)
            else:
                assert not waiting
                waiting = [each.id for each in message.tool_calls]
        assert not waiting
