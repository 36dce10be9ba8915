"""
The built-in adapter when things go wrong: cut, hung, garbled, endless, refused, cancelled.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from modelserver import Asked, Reply, failing
from openai_models import HTTP_GET, Setting, asking, call_delta, chunk, setting

from agentd.llm import chat_answer
from agentd.llm.port import Done, FailureKind, ModelFailure, TextDelta
from agentd.testing import FakeClock

K = FailureKind


@pytest.fixture
async def world() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


async def failure(world: Setting, *script: Any, **settings: Any) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await world.events(*script, **settings)
    return caught.value


@pytest.mark.parametrize(
    ("reply", "kind", "received"),
    [
        (Reply(text="abc", cut_after=2), K.CUT, True),
        (Reply(text="abc", cut_after=0), K.CUT, False),
        (Reply(stream=[chunk(content="hi")]), K.CUT, True),
        (Reply(stream=[]), K.CUT, False),
        (Reply(stream=[b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: {"cho']), K.CUT, True),
        (Reply(stream=[chunk(content="hi"), chunk("network_error"), "[DONE]"]), K.CUT, True),
        (Reply(stream=[chunk("insufficient_system_resource"), "[DONE]"]), K.OVERLOADED, False),
        (Reply(stream=[chunk(content="hi"), {"error": {"message": "boom", "code": 502}}]), K.UNAVAILABLE, True),
        (Reply(stream=[b'event: error\ndata: {"message": "Overloaded"}\n\n']), K.OVERLOADED, False),
        (Reply(stream=[{"object": "error", "message": "maximum context length is 9", "code": 400}]),
         K.CONTEXT_OVERFLOW, False),
        (Reply(body={"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}),
         K.RATE_LIMITED, False),
        (Reply(body="<!doctype html><title>Sign in</title>", headers={"Content-Type": "text/html"}), K.GARBAGE, False),
        (Reply(body="I am a teapot"), K.GARBAGE, False),
        (Reply(stream=["[DONE]"]), K.CUT, False),
        (Reply(stream=[b": keep-alive\n\n"]), K.CUT, False),
        (Reply(stream=["hello", "there"]), K.GARBAGE, False),
        (Reply(body={"ok": True}), K.GARBAGE, False),
        (Reply(body=[]), K.GARBAGE, False),
        (Reply(body=b""), K.CUT, False),
        (Reply(raw=b""), K.UNAVAILABLE, False),
        (Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), K.GARBAGE, False),
        (Reply(stream=[b"not gzip"], headers={"Content-Encoding": "gzip"}), K.GARBAGE, False),
        (Reply(stream=[b"data: " + b"x" * (9 << 20)]), K.GARBAGE, False),
        (Reply(stream=[b'data: {"choices": ' + b"[" * 100_000 + b"\n\n"]), K.GARBAGE, False),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}, body=""), K.BAD_REQUEST, False),
        (failing(429, "slow down", retry_after="7"), K.RATE_LIMITED, False),
        (500, K.UNAVAILABLE, False),
        (401, K.BAD_KEY, False),
        (Reply(status=503, body=b"x" * 500_000), K.OVERLOADED, False),
    ],
)  # fmt: skip
async def test_whatever_the_server_does_is_a_failure_of_a_kind(
    world: Setting, reply: Any, kind: FailureKind, received: bool
) -> None:
    """The loop acts on the kind: an answer half received may have been paid for, garbage is not asked for again."""
    failed = await failure(world, reply)

    assert (failed.kind, failed.received) == (kind, received)
    assert str(failed).startswith("model default ")
    assert len(str(failed)) < 400


async def test_nobody_there_is_a_failure_too(world: Setting) -> None:
    """The usual state of a local server after a reboot."""
    await world.server.stop()

    failed = await failure(world)

    assert failed.kind is K.UNAVAILABLE
    assert "refused" in str(failed).lower()
    assert "127.0.0.1" not in str(failed)


@pytest.mark.parametrize(
    "stream",
    [
        [chunk(content="hi"), chunk("stop")],
        [chunk(content="hi"), "[DONE]"],
        [chunk("stop", content="hi"), b"data: {"],
    ],
)
async def test_a_missing_end_is_forgiven_when_the_answer_is_whole(world: Setting, stream: list[Any]) -> None:
    """Small servers forget `[DONE]`, or the reason to finish; one of the two is enough."""
    done = await world.done(Reply(stream=stream))

    assert done.message.content == "hi"


async def test_a_connection_cut_after_the_reason_to_finish_loses_nothing(world: Setting) -> None:
    """Only the count of tokens was to come."""
    done = await world.done(Reply(stream=[chunk("stop", content="hi"), "x", "y"], cut_after=1))

    assert done.message.content == "hi"
    assert done.usage.estimated


@pytest.mark.parametrize("endless", ["text", "arguments", "calls"])
async def test_an_answer_without_end_is_let_go(world: Setting, monkeypatch: pytest.MonkeyPatch, endless: str) -> None:
    """A model that loops must fill neither memory nor purse."""
    monkeypatch.setattr(chat_answer, "MAX_CHARS", 10_000)
    monkeypatch.setattr(chat_answer, "MAX_CALLS", 50)
    makers: dict[str, Callable[[int], dict[str, Any]]] = {
        "text": lambda n: chunk(content="again " * 10),
        "arguments": lambda n: call_delta(0, "a", name="t", arguments="again " * 10),
        "calls": lambda n: call_delta(n, f"c{n}", name="t", arguments="{}"),
    }
    made = makers[endless]

    failed = await failure(world, Reply(stream=[made(n) for n in range(5000)]))

    assert (failed.kind, failed.received) == (K.GARBAGE, True)
    await world.server.until(lambda: world.server.open == 0)


def test_the_time_of_a_request_is_for_all_of_it() -> None:
    """A server that sends a letter now and then must not hold a run for ever."""
    clock = FakeClock()

    async def story() -> None:
        async with setting() as world:
            for script in (
                Reply(hang=True),
                Reply(text="abc", hang_after=2),
                Reply(text="a" * 90, pieces=90, pause_s=1),
            ):
                world.server.answers(script)
                task = asyncio.ensure_future(failure(world, request=asking(timeout_s=30)))
                await clock.advance(29.9)
                assert not task.done()
                await clock.advance(0.2)
                failed = await task
                assert failed.kind is K.TIMEOUT
                assert failed.received == (script.text != "")
                await clock.settle()
                assert world.server.open == 0

    clock.run(story())


def test_a_server_that_hangs_after_the_answer_is_not_waited_for() -> None:
    """The answer is whole; only the count of tokens is missing."""
    clock = FakeClock()

    async def story() -> None:
        async with setting() as world:
            task = asyncio.ensure_future(world.done(Reply(text="hi", pieces=1, usage=None, hang_after=3)))
            await clock.advance(11)
            done = await task
            assert done.message.content == "hi"
            assert world.server.open == 0

    clock.run(story())


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(text="abc", hang_after=2)])
async def test_who_is_cancelled_closes_the_connection(world: Setting, reply: Reply) -> None:
    """The server stops to compute, and the provider to charge, when it sees the connection go."""
    task = asyncio.ensure_future(world.events(reply))
    await world.server.wait_for(1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await world.server.until(lambda: world.server.open == 0)
    assert world.server.abandoned == 1


async def test_who_closes_the_stream_closes_the_connection(world: Setting) -> None:
    """Steering interrupts an answer that nobody wants any more."""
    world.server.answers(Reply(text="abc", hang_after=2))
    stream = world.model().stream(asking())
    assert await anext(stream) == TextDelta("a")

    await stream.aclose()  # type: ignore[attr-defined]  # an async generator behind the port's iterator

    await world.server.until(lambda: world.server.open == 0)


async def test_calls_at_once_do_not_wait_for_each_other(world: Setting) -> None:
    """Agents of several watches ask the same model."""
    gate = asyncio.Event()

    async def together(asked: Asked) -> str:
        await gate.wait()
        return asked.last

    world.server.otherwise = together
    model = world.model()

    async def ask(text: str) -> str:
        events = [event async for event in model.stream(asking(text))]
        done = events[-1]
        assert isinstance(done, Done)
        return done.message.content

    tasks = [asyncio.ensure_future(ask(str(number))) for number in range(20)]
    await world.server.wait_for(20)
    gate.set()

    assert await asyncio.gather(*tasks) == [str(number) for number in range(20)]


# What servers refuse by name.

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}


def picky(refused: str, words: str, status: int = 400) -> Any:
    """A server that refuses a field."""

    def answer(asked: Asked) -> Reply:
        return failing(status, words) if refused in asked.json else Reply(text="ok")

    return answer


@pytest.mark.parametrize(
    ("field", "words", "status", "settings"),
    [
        ("response_format", "This response_format type is unavailable now", 400, {}),
        ("response_format", "failed to parse grammar", 500, {}),
        ("response_format", "Bad Request", 400, {}),
        ("response_format", "'json_schema' is not supported with this model", 422, {}),
        ("stream_options", "Unrecognized request argument supplied: stream_options", 400, {}),
        ("stream_options", "stream_options: Extra inputs are not permitted", 422, {}),
        ("temperature", "Unsupported value: 'temperature' does not support 0.2 with this model.", 400, {}),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", 400, {}),
        ("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens", 400,
         {"provider": "openai"}),
    ],
)  # fmt: skip
async def test_what_a_server_refuses_is_left_out_from_then_on(
    world: Setting, field: str, words: str, status: int, settings: dict[str, Any]
) -> None:
    """No table knows what somebody's gateway takes; asked once, it need not be refused again for every step."""
    world.server.otherwise = picky(field, words, status)
    model = world.model(**settings)

    for _ in range(2):
        events = [event async for event in model.stream(asking(answer_schema=SCHEMA, temperature=0.2))]
        assert isinstance(events[-1], Done)

    assert [field in asked.json for asked in world.server.requests] == [True, False, False]
    others = {"response_format", "stream_options", "temperature"} - {field}
    assert all(others <= asked.json.keys() for asked in world.server.requests)
    assert model.grammar == (field != "response_format")


async def test_several_refusals_are_learned_in_one_call(world: Setting) -> None:
    """A strict gateway refuses one field after the other."""
    world.server.answers(failing(400, "unknown: stream_options"), failing(400, "unknown: response_format"))

    await world.events("ok", request=asking(answer_schema=SCHEMA))

    assert not {"stream_options", "response_format"} & world.server.requests[-1].json.keys()


async def test_learning_comes_to_an_end(world: Setting) -> None:
    """A server whose refusals contradict each other must not be asked for ever."""
    world.server.otherwise = lambda asked: failing(
        400,
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        if "max_tokens" in asked.json
        else "Unrecognized argument: max_completion_tokens",
    )

    failed = await failure(world)

    assert failed.kind is K.BAD_REQUEST
    assert len(world.server.requests) == 5


@pytest.mark.parametrize("words", ["messages: roles must alternate", "too many tokens"])
async def test_a_refusal_of_something_else_takes_nothing_away(world: Setting, words: str) -> None:
    """An overflow or a bad message says nothing about grammars."""
    model = world.model()
    world.server.otherwise = failing(400, words)

    with pytest.raises(ModelFailure):
        [event async for event in model.stream(asking(answer_schema=SCHEMA))]

    assert model.grammar
    assert len(world.server.requests) <= 2


async def test_a_grammar_that_is_configured_is_insisted_on(world: Setting) -> None:
    """Who says that the server takes it wants to hear when it does not."""
    world.server.otherwise = picky("response_format", "no response_format here")

    failed = await failure(world, request=asking(answer_schema=SCHEMA), grammar=True)

    assert "no response_format here" in str(failed)
    assert len(world.server.requests) == 1


@pytest.mark.parametrize(
    ("settings", "sent"),
    [({}, True), ({"grammar": False}, False), ({"provider": "deepseek"}, False), ({"provider": "zhipu"}, False)],
)
async def test_a_grammar_is_sent_where_it_may_be_taken(world: Setting, settings: dict[str, Any], sent: bool) -> None:
    """With it a weak model cannot answer but in JSON."""
    await world.events("ok", request=asking(answer_schema=SCHEMA), **settings)

    body = world.server.requests[0].json
    assert body.get("response_format") == (
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}} if sent else None
    )


async def test_tools_and_grammar_are_not_sent_together(world: Setting) -> None:
    """llama.cpp refuses both at once; elsewhere the grammar would forbid the call."""
    await world.events("ok", request=asking(tools=[HTTP_GET], answer_schema=SCHEMA))

    assert "response_format" not in world.server.requests[0].json


@pytest.mark.parametrize(
    "words",
    [
        "registry.ollama.ai/library/gemma:2b does not support tools",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "tools param requires --jinja flag",
    ],
)
async def test_a_model_without_tools_is_found_out(world: Setting, words: str) -> None:
    """The caller then words its question for JSON actions: so it must hear of it, and the model must say so."""
    world.server.otherwise = picky("tools", words)
    model = world.model()
    assert model.native_tools

    with pytest.raises(ModelFailure, match="takes no tools") as caught:
        [event async for event in model.stream(asking(tools=[HTTP_GET]))]

    assert caught.value.kind is K.BAD_REQUEST
    assert not model.native_tools


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("max_tokens is too large: 9000. This model supports at most 2048 completion tokens", 2048),
        ("Range of max_tokens should be [1, 8192]", 8192),
    ],
)
async def test_a_bound_of_the_answer_that_is_too_high_is_lowered(world: Setting, words: str, most: int) -> None:
    """The config's default must not make a small model unusable."""
    world.server.answers(failing(400, words))

    await world.events("ok", request=asking(max_tokens=9000))

    assert [asked.json["max_tokens"] for asked in world.server.requests] == [9000, most]


async def test_thinking_that_is_missed_is_sent(world: Setting) -> None:
    """Kimi refuses a talk whose calls lost their thoughts, as they do when another model began it."""
    from agentd.llm.port import ChatMessage, ToolCall

    before = [
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "http_get", "{}"),)),
        ChatMessage("tool", "200", tool_call_id="c1"),
    ]
    world.server.answers(failing(400, "reasoning_content is missing in assistant tool call message at index 1"))

    await world.events("ok", request=asking("and?", *before, tools=[HTTP_GET]), provider="kimi")

    assert world.server.requests[1].messages[1]["reasoning_content"] == " "


async def test_the_key_is_nowhere_but_in_its_header(world: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """Messages of failures end in alerts, logs and traces."""
    caplog.set_level(logging.DEBUG)
    key = "wonderful-key-77"
    told = f"you sent {key}"

    refused = await failure(world, failing(400, told), api_key=key)
    broken = await failure(world, Reply(stream=[{"error": {"message": told}}]), api_key=key)

    assert world.server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert "you sent ***" in str(refused)
    assert "you sent ***" in str(broken)
    assert key not in caplog.text
    assert key not in json.dumps(world.server.requests[0].json)
