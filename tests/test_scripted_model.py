"""What ships for users' tests must behave as the real thing would: others trust it to find their mistakes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import httpx
import pytest

from agentd.deliver.signing import signed_headers
from agentd.llm.port import (
    ChatMessage,
    Done,
    FailureKind,
    Model,
    ModelEvent,
    ModelFailure,
    Request,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    collect,
    complete,
)
from agentd.testing import FakeClock, RecordingWebhook, ScriptedModel
from agentd.testing.model import ScriptExhausted

ASKED = Request("be brief", [ChatMessage("user", "is it up?")])
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "A" * 32
CALL = {"type": "ToolCall", "tool": "http_get", "input": {"url": "http://x/"}}


async def test_a_script_is_said_in_turn_and_its_requests_are_kept() -> None:
    """The plainest story: what was asked, what was answered, in order."""
    model: Model = ScriptedModel("first", CALL, ChatMessage("assistant", "third", thinking="hm"))

    said = [(await complete(model, "system", [ChatMessage("user", str(n))])).message for n in range(3)]

    assert said[0].content == "first"
    assert json.loads(said[1].content) == CALL
    assert (said[2].content, said[2].thinking) == ("third", "hm")
    assert isinstance(model, ScriptedModel)
    assert [request.messages[0].content for request in model.requests] == ["0", "1", "2"]


async def test_one_script_serves_native_models_too() -> None:
    """A test of both protocols must not be written twice."""
    model = ScriptedModel(
        {"type": "Parallel", "actions": [CALL, {"type": "Parallel", "actions": [CALL]}]},
        {"type": "Plan", "understanding": "look", "actions": [CALL]},
        {"type": "Graph", "tasks": [{"id": "a", "tool": "x", "input": {}}]},
        {"type": "Final", "answer": {"summary": "up"}},
        {"type": "Final", "answer": "it is up"},
        native_tools=True,
    )

    said = [(await collect(model, ASKED)) for _ in range(5)]

    called = [[call.name for call in done.message.tool_calls] for done in said]
    assert called == [["http_get", "http_get"], ["plan", "http_get"], ["run_graph"], ["finish"], []]
    assert [done.stop_reason for done in said] == ["tool_calls"] * 4 + ["stop"]
    assert said[4].message.content == "it is up"
    ids = [call.id for done in said for call in done.message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert json.loads(said[3].message.tool_calls[0].arguments) == {"summary": "up"}


async def test_a_failure_is_raised_afresh_each_time() -> None:
    """A raised exception keeps its traceback: one object raised a thousand times would grow."""
    failure = ModelFailure("busy", FailureKind.RATE_LIMITED, status=429, retry_after_s=7)
    model = ScriptedModel(otherwise=failure)

    raised = []
    for _ in range(2):
        with pytest.raises(ModelFailure) as caught:
            await collect(model, ASKED)
        raised.append(caught.value)

    assert (raised[0].kind, raised[0].status, raised[0].retry_after_s) == (FailureKind.RATE_LIMITED, 429, 7)
    assert raised[0] is not raised[1]
    assert not raised[0].received


async def test_an_answer_can_be_cut_in_its_middle() -> None:
    """A stream that breaks off is the loop's business, and must be testable."""
    model = ScriptedModel(["half an ans", ModelFailure("cut", FailureKind.CUT)])
    seen: list[ModelEvent] = []

    async def read() -> None:
        async for event in model.stream(ASKED):
            seen.append(event)  # noqa: PERF401  # what came before the error is what is asked for

    with pytest.raises(ModelFailure) as caught:
        await read()

    assert seen == [TextDelta("half an ans")]
    assert caught.value.received


async def test_a_function_sees_the_request() -> None:
    """Answers that depend on what was found make a story short."""

    async def slow(request: Request) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "Final", "answer": request.messages[-1].content}

    model = ScriptedModel(lambda request: request.system_prompt, slow)

    first, second = [(await collect(model, ASKED)).message.content for _ in range(2)]

    assert first == "be brief"
    assert json.loads(second) == {"type": "Final", "answer": "is it up?"}


async def test_chunks_put_together_are_the_answer() -> None:
    """Names and ids come with the first delta of a call only, as providers send them."""
    calls = [ToolCall("a", "x", '{"k": "väl"}'), ToolCall("b", "y", "")]
    model = ScriptedModel([ThinkingDelta("so, so"), "text of some length", *calls], chunk=3)

    events = [event async for event in model.stream(ASKED)]

    done = events[-1]
    assert isinstance(done, Done)
    assert done.message == ChatMessage("assistant", "text of some length", tool_calls=tuple(calls), thinking="so, so")
    deltas = [event for event in events if isinstance(event, ToolCallDelta) and event.index == 0]
    assert [delta.name for delta in deltas] == ["x", None, None, None]
    assert max(len(delta.arguments) for delta in deltas) == 3


async def test_a_gate_holds_the_answer_and_cancelling_is_seen() -> None:
    """Cancelling in the middle of a call is a promise of the loop; here one can look."""
    model = ScriptedModel("never read", "read", gate=asyncio.Event())
    assert model.gate is not None

    waiting = asyncio.create_task(collect(model, ASKED))
    await model.asked()
    assert model.under_way == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    model.gate.set()
    done = await collect(model, ASKED)

    assert (done.message.content, model.cancelled, model.under_way) == ("read", 1, 0)


async def test_usage_and_cost_are_as_told_or_counted() -> None:
    """Budgets are tested by these numbers; what was not said must not look as if it had been."""
    told = await collect(ScriptedModel("x", usage=Usage(10, 5), usd=0.25), ASKED)
    counted = await collect(ScriptedModel("x" * 400), ASKED)
    unknown = await collect(ScriptedModel("x", usd=None), ASKED)

    assert (told.usage, told.usd) == (Usage(10, 5), 0.25)
    assert counted.usage.estimated
    assert counted.usage.output_tokens > 50
    assert unknown.usd is None


async def test_a_script_that_is_too_short_fails_with_a_reason() -> None:
    """A loop that asks once too often must not hang or be answered with nothing."""
    model = ScriptedModel("one")
    await collect(model, ASKED)

    with pytest.raises(ScriptExhausted, match="called 2 times"):
        await collect(model, ASKED)

    model.says("more")
    assert model.left == 1
    assert (await collect(model, ASKED)).message.content == "more"


async def _post(hook: RecordingWebhook, body: bytes, *, id: str = "msg_1", secret: str = SECRET, **more: Any) -> int:
    clock = more.pop("clock", None) or FakeClock()
    headers = signed_headers(id, clock.now(), body, [secret])
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(hook.url, content=more.pop("sent", body), headers=headers)).status_code


async def test_a_signed_message_is_taken_once_however_often_it_comes() -> None:
    """A sender may repeat itself under the same id; a test counts messages, not attempts."""
    async with RecordingWebhook(SECRET, clock=FakeClock()) as hook:
        hook.answers(503)
        body = json.dumps({"type": "alert.firing", "data": {"watch": "shop"}}).encode()
        statuses = [await _post(hook, body) for _ in range(3)]
        await hook.wait_for(1)

        assert statuses == [503, 200, 200]
        assert [(message.type, message.data) for message in hook.messages] == [("alert.firing", {"watch": "shop"})]
        assert len(hook.attempts) == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"secret": OTHER}, "no signature fits"),
        ({"sent": b"{}"}, "no signature fits"),
        ({"age": timedelta(minutes=6)}, "away from now"),
        ({"age": timedelta(minutes=-6)}, "away from now"),
    ],
)
async def test_what_is_not_signed_rightly_is_refused(change: dict[str, Any], problem: str) -> None:
    """A config that signs wrongly must be found by the test, not by the receiver in production."""
    clock = FakeClock()
    sender = FakeClock(clock.now() - change.pop("age", timedelta()))
    async with RecordingWebhook(SECRET, clock=clock) as hook:
        status = await _post(hook, b'{"type": "agentd.test"}', clock=sender, **change)

        assert status == 401
        assert problem in hook.attempts[0].problem
        assert hook.messages == []
        with pytest.raises(TimeoutError, match="401"):
            await hook.wait_for(1, within_s=0.01)


async def test_a_rotating_secret_fits_either_way() -> None:
    """While secrets rotate, both sides know two."""
    async with RecordingWebhook(OTHER, SECRET, clock=FakeClock()) as hook:
        assert await _post(hook, b"{}", secret=SECRET) == 200
        assert await _post(hook, b"{}", secret=OTHER, id="msg_2") == 200
        assert len(hook.messages) == 2


async def test_an_unsigned_request_is_taken_only_where_no_secret_is_known() -> None:
    """Provider formats such as Slack's are not signed."""
    async with RecordingWebhook() as open_hook, RecordingWebhook(SECRET) as closed, httpx.AsyncClient() as client:
        assert (await client.post(open_hook.url, content=b"{}")).status_code == 200
        assert (await client.post(closed.url, content=b"{}")).status_code == 401
        assert len(open_hook.messages) == 1


async def test_a_receiver_that_went_down_comes_back_on_its_port() -> None:
    """Outages are what delivery is tested for."""
    async with RecordingWebhook() as hook, httpx.AsyncClient() as client:
        url = hook.url
        await hook.stop()
        with pytest.raises(httpx.ConnectError):
            await client.post(url, content=b"")
        await hook.start()

        assert (await client.post(url, content=b"")).status_code == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
    ],
)
async def test_what_cannot_be_read_is_refused(head: bytes, status: bytes) -> None:
    """A misbehaving client must neither hang the receiver nor fill its memory."""
    async with RecordingWebhook() as hook:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(hook.url.rsplit(":", 1)[1].strip("/")))
        writer.write(head)
        answer = await reader.read()
        writer.close()

        assert status in answer
        assert not hook.attempts


def test_the_clock_alone_loads_nothing_else() -> None:
    """A user's test of a schedule must not pay for models and receivers."""
    code = (
        "import sys; from agentd.testing import FakeClock; FakeClock()\n"
        "heavy = ('agentd.llm', 'agentd.deliver', 'agentd.testing.', 'pydantic')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.strip() == "['agentd.testing.clock']"


def test_an_unknown_name_is_an_ordinary_error() -> None:
    """A lazy module must still say when it has not got something."""
    with pytest.raises(ImportError, match="Nonesuch"):
        from agentd.testing import Nonesuch  # noqa: F401  # that is the point
