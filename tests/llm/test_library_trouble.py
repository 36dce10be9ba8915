"""
Anthropic, Gemini and Bedrock through the library when things go wrong: refused, cut, hung, garbled, endless, cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from library_models import ANTHROPIC, BEDROCK, DIALECTS, EVENTSTREAM, GEMINI, Dialect, Setting, frame, setting, sse
from modelserver import Reply, call
from openai_models import HTTP_GET, asking

from agentd.llm.port import FailureKind, ModelFailure, TextDelta

K = FailureKind
each = pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.provider for dialect in DIALECTS])


@pytest.fixture
async def world() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


async def failure(world: Setting, dialect: Dialect, *script: Any, **settings: Any) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await world.events(dialect, *script, **settings)
    assert str(caught.value).startswith("model default ")
    assert "key-1" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value


A, G, B = ANTHROPIC, GEMINI, BEDROCK


@pytest.mark.parametrize(
    ("dialect", "status", "message", "code", "kind"),
    [
        (A, 401, "invalid x-api-key", "authentication_error", K.BAD_KEY),
        (A, 403, "Your API key does not have permission", "permission_error", K.BAD_KEY),
        (A, 429, "This request would exceed your rate limit", "rate_limit_error", K.RATE_LIMITED),
        (A, 529, "Overloaded", "overloaded_error", K.OVERLOADED),
        (A, 500, "Internal server error", "api_error", K.UNAVAILABLE),
        (A, 400, "prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error", K.CONTEXT_OVERFLOW),
        (
            A,
            400,
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            "invalid_request_error",
            K.CONTEXT_OVERFLOW,
        ),
        (A, 413, "Request exceeds the maximum size", "request_too_large", K.CONTEXT_OVERFLOW),
        (
            A,
            400,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing",
            "invalid_request_error",
            K.QUOTA,
        ),
        (A, 400, "messages: at least one message is required", "invalid_request_error", K.BAD_REQUEST),
        (A, 404, "model: claude-x", "not_found_error", K.BAD_REQUEST),
        (G, 400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", K.BAD_KEY),
        (G, 403, "Method doesn't allow unregistered callers", "PERMISSION_DENIED", K.BAD_KEY),
        (G, 429, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED", K.RATE_LIMITED),
        (G, 503, "The model is overloaded. Please try again later.", "UNAVAILABLE", K.OVERLOADED),
        (G, 500, "An internal error has occurred.", "INTERNAL", K.UNAVAILABLE),
        (G, 504, "Deadline expired before operation could complete.", "DEADLINE_EXCEEDED", K.UNAVAILABLE),
        (
            G,
            400,
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "INVALID_ARGUMENT",
            K.CONTEXT_OVERFLOW,
        ),
        (G, 404, "models/gemini-x is not found for API version v1beta", "NOT_FOUND", K.BAD_REQUEST),
        (B, 403, "The security token included in the request is invalid.", "UnrecognizedClientException", K.BAD_KEY),
        (B, 403, "The security token included in the request is expired", "ExpiredTokenException", K.BAD_KEY),
        (B, 429, "Too many tokens, please wait before trying again.", "ThrottlingException", K.RATE_LIMITED),
        (B, 503, "Bedrock is unable to process your request.", "ServiceUnavailableException", K.OVERLOADED),
        (B, 500, "The system encountered an unexpected error", "InternalServerException", K.UNAVAILABLE),
        (B, 408, "Model has timed out in processing the request.", "ModelTimeoutException", K.UNAVAILABLE),
        (B, 400, "Input is too long for requested model.", "ValidationException", K.CONTEXT_OVERFLOW),
        (B, 400, "The provided model identifier is invalid.", "ValidationException", K.BAD_REQUEST),
    ],
)
async def test_a_refusal_is_of_a_kind(
    world: Setting, dialect: Dialect, status: int, message: str, code: str, kind: FailureKind
) -> None:
    """What is done about it depends on the kind: wait, ask another, compact, or give up."""
    failed = await failure(world, dialect, dialect.error(status, message, code))

    assert (failed.kind, failed.status, failed.received) == (kind, status, False)
    assert len(world.server.requests) == 1


@each
async def test_the_wait_that_is_asked_for_is_told(world: Setting, dialect: Dialect) -> None:
    """Whoever comes before it comes in vain."""
    failed = await failure(world, dialect, dialect.error(429, "slow down", "rate_limit_error", retry_after="7"))

    assert failed.retry_after_s == 7


async def test_gemini_tells_the_wait_in_its_body(world: Setting) -> None:
    """It sends no Retry-After; and a rate per minute bears the same words as a bill that is not paid."""
    reply = GEMINI.error(429, "You exceeded your current quota. Please retry in 34.5s.", "RESOURCE_EXHAUSTED")
    assert isinstance(reply.body, dict)
    reply.body["error"]["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]

    failed = await failure(world, GEMINI, reply)

    assert (failed.kind, failed.retry_after_s) == (K.RATE_LIMITED, 34.5)


@pytest.mark.parametrize(
    ("dialect", "message", "code", "kind", "received"),
    [
        (A, "Overloaded", "overloaded_error", K.OVERLOADED, False),
        (A, "Internal server error", "api_error", K.UNAVAILABLE, False),
        (A, "You are too fast", "rate_limit_error", K.RATE_LIMITED, False),
        (G, "The model is overloaded.", "UNAVAILABLE", K.OVERLOADED, True),
        (B, "Too many tokens", "throttlingException", K.RATE_LIMITED, True),
        (B, "It broke", "modelStreamErrorException", K.UNAVAILABLE, True),
        (B, "It broke", "internalServerException", K.UNAVAILABLE, True),
        (B, "unable to process", "serviceUnavailableException", K.OVERLOADED, True),
        (B, "Input is too long for requested model.", "validationException", K.CONTEXT_OVERFLOW, True),
    ],
)
async def test_a_failure_told_in_the_midst_of_an_answer_is_of_a_kind(
    world: Setting, dialect: Dialect, message: str, code: str, kind: FailureKind, received: bool
) -> None:
    """The status was good, so only the words are left to go by."""
    failed = await failure(world, dialect, dialect.in_stream(message, code))

    assert (failed.kind, failed.received) == (kind, received)


@each
@pytest.mark.parametrize("how", ["cut", "ended"])
async def test_an_answer_without_its_end_was_cut(world: Setting, dialect: Dialect, how: str) -> None:
    """Half an answer must never pass for a whole one."""
    reply = dialect.reply("abcd")
    stream = list(reply.stream or ())
    begun = 1 + max(index for index, piece in enumerate(stream) if b"ab" in _raw(piece))
    reply = replace(reply, cut_after=begun) if how == "cut" else replace(reply, stream=stream[:begun])

    failed = await failure(world, dialect, reply)

    assert (failed.kind, failed.received) == (K.CUT, True)


@each
@pytest.mark.parametrize("cut_after", [0, None])
async def test_an_empty_answer_was_cut(world: Setting, dialect: Dialect, cut_after: int | None) -> None:
    """Nothing was received, so it may be asked again."""
    failed = await failure(world, dialect, replace(dialect.reply(), stream=[], cut_after=cut_after))

    assert (failed.kind, failed.received) == (K.CUT, False)


@pytest.mark.parametrize(
    ("dialect", "reply", "kind"),
    [
        (A, Reply(stream=[b"event: message_start\ndata: {nonsense\n\n"]), K.GARBAGE),
        (A, Reply(stream=[sse("message_start", message={"id": 5})]), K.GARBAGE),
        (A, Reply(stream=[sse("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})]), K.GARBAGE),
        (A, Reply(stream=[b"\xff\xfe\x00garbage\n\n"]), K.GARBAGE),
        (A, Reply(body={"ok": True}), K.CUT),
        (G, Reply(stream=["{nonsense"]), K.GARBAGE),
        (G, Reply(stream=[b"\xff\xfe\x00garbage\n\n"]), K.GARBAGE),
        (G, Reply(stream=[{"candidates": "none"}]), K.CUT),
        (G, Reply(stream=[{"candidates": [{"content": {"parts": [{"text": 5}]}}]}]), K.GARBAGE),
        (G, Reply(body={"ok": True}), K.CUT),
        (B, Reply(stream=[b"no frames at all, and long enough to be read as one"], headers=EVENTSTREAM), K.GARBAGE),
        (B, Reply(stream=[frame("messageStart", {})[:-1] + b"!"], headers=EVENTSTREAM), K.GARBAGE),
        (B, Reply(stream=[frame("contentBlockDelta", {"delta": 5})], headers=EVENTSTREAM), K.GARBAGE),
        (B, Reply(stream=[frame("contentBlockStart", {"start": {}})], headers=EVENTSTREAM), K.GARBAGE),
        (B, Reply(body={"ok": True}), K.GARBAGE),
        (A, Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), K.GARBAGE),
        (G, Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), K.GARBAGE),
        *[
            (dialect, reply, kind)
            for dialect in DIALECTS
            for reply, kind in (
                (Reply(body="<!doctype html>Sign in", headers={"Content-Type": "text/html"}), K.GARBAGE),
                (Reply(status=404, body="<html>nothing here", headers={"Content-Type": "text/html"}), K.BAD_REQUEST),
                (Reply(status=502, body="<html>bad gateway", headers={"Content-Type": "text/html"}), K.UNAVAILABLE),
                (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}, body=""), K.BAD_REQUEST),
                (Reply(raw=b""), K.UNAVAILABLE),
                (Reply(stream=[b"not gzip"], headers={"Content-Encoding": "gzip"}), K.GARBAGE),
            )
        ],
    ],
)
async def test_whatever_else_the_server_does_is_a_failure_of_a_kind(
    world: Setting, dialect: Dialect, reply: Reply, kind: FailureKind
) -> None:
    """A library raises a dozen kinds of exceptions at what it cannot read; the loop knows ours alone."""
    failed = await failure(world, dialect, reply)

    assert (failed.kind, failed.received) == (kind, False)


@each
async def test_nobody_there_is_an_outage(world: Setting, dialect: Dialect) -> None:
    """The next model may do."""
    failed = await failure(world, dialect, base_url="http://127.0.0.1:9")

    assert failed.kind is K.UNAVAILABLE


@pytest.mark.parametrize(
    ("dialect", "stop"),
    [(GEMINI, "MALFORMED_FUNCTION_CALL"), (GEMINI, "UNEXPECTED_TOOL_CALL"), (BEDROCK, "malformed_tool_use")],
)
async def test_an_answer_that_the_provider_could_not_read_itself_was_cut(
    world: Setting, dialect: Dialect, stop: str
) -> None:
    """The model wrote a call that is none; what came before it is no answer."""
    failed = await failure(world, dialect, dialect.reply("hm", stop=stop))

    assert failed.kind is K.CUT
    assert stop in str(failed)


async def test_a_question_that_gemini_blocks_is_a_filtered_answer(world: Setting) -> None:
    """It answers 200 and nothing."""
    done = await world.done(GEMINI, Reply(stream=[{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}]))

    assert done.stop_reason == "content_filter"


@each
async def test_an_answer_without_end_is_ended(
    world: Setting, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that repeats itself for ever must not fill the memory."""
    monkeypatch.setattr("agentd.llm.library.answer.MAX_CHARS", 50)

    failed = await failure(world, dialect, dialect.reply("again and " * 10))

    assert failed.kind is K.GARBAGE
    await world.server.until(lambda: world.server.answering == 0)


@each
async def test_calls_without_end_are_ended(world: Setting, dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would be run."""
    monkeypatch.setattr("agentd.llm.library.answer.MAX_CALLS", 3)

    failed = await failure(
        world, dialect, dialect.reply(calls=[call("http_get")] * 4), request=asking(tools=[HTTP_GET])
    )

    assert failed.kind is K.GARBAGE


@each
@pytest.mark.parametrize("hang_after", [None, "begun"])
async def test_a_silent_provider_is_given_up_at_the_requests_time(
    world: Setting, dialect: Dialect, hang_after: str | None
) -> None:
    """A run has a deadline, and a library its own idea of one: ten minutes."""
    reply = _hanging(dialect) if hang_after else Reply(hang=True)
    model = world.model(dialect)
    world.server.answers(dialect.reply("ok"), reply)
    [_ async for _ in model.stream(asking())]  # what is loaded first takes longer than the time given below

    with pytest.raises(ModelFailure) as caught:
        [_ async for _ in model.stream(asking(timeout_s=0.3))]

    assert (caught.value.kind, caught.value.received) == (K.TIMEOUT, bool(hang_after))
    await world.server.until(lambda: world.server.answering == 0)


@each
@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling_closes_the_connection(world: Setting, dialect: Dialect, begun: bool) -> None:
    """What nobody reads any more must not go on and be paid for."""
    world.server.answers(_hanging(dialect) if begun else Reply(hang=True))
    heard = asyncio.Event()

    async def ask() -> None:
        async for _ in world.model(dialect).stream(asking()):
            heard.set()

    task = asyncio.create_task(ask())
    await world.server.wait_for(1)
    if begun:
        await heard.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert task.cancelled()
    await world.server.until(lambda: world.server.open == 0)
    assert world.server.abandoned == 1


@each
async def test_leaving_the_stream_closes_the_connection(world: Setting, dialect: Dialect) -> None:
    """The loop stops reading when it has seen enough."""
    world.server.answers(_hanging(dialect))

    async with contextlib.aclosing(world.model(dialect).stream(asking())) as events:
        assert await anext(events) == TextDelta("ab")

    await world.server.until(lambda: world.server.open == 0)


@each
async def test_a_connection_serves_again_after_an_answer(world: Setting, dialect: Dialect) -> None:
    """A handshake for each question costs more than the question."""
    model = world.model(dialect)
    world.server.answers(*[dialect.reply("ok")] * 3)

    for _ in range(3):
        [_ async for _ in model.stream(asking())]

    assert world.server.connections == 1


@each
async def test_many_questions_at_once_are_answered_apart(world: Setting, dialect: Dialect) -> None:
    """Bedrock's library holds a thread for each; no answer may land in another's stream."""
    model = world.model(dialect)
    world.server.otherwise = lambda asked: dialect.reply(f"echo {_number(asked.body)}", pause_s=0.002)

    async def ask(number: int) -> str:
        events = [event async for event in model.stream(asking(f"number {number:03}"))]
        return "".join(event.text for event in events if isinstance(event, TextDelta))

    answers = await asyncio.gather(*map(ask, range(30)))

    assert answers == [f"echo {number:03}" for number in range(30)]


def _number(body: bytes) -> str:
    return body.split(b"number ")[1][:3].decode()


def _hanging(dialect: Dialect) -> Reply:
    """An answer that stops after its first words."""
    reply = dialect.reply("abcd")
    begun = 1 + max(index for index, piece in enumerate(reply.stream or ()) if b"ab" in _raw(piece))
    return replace(reply, hang_after=begun)


def _raw(piece: Any) -> bytes:
    return piece if isinstance(piece, bytes) else str(piece).encode()
