"""
Anthropic, Gemini and Bedrock through the library, against servers that speak their protocols: answers, calls,
signatures, tokens, what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from library_models import ANTHROPIC, BEDROCK, DIALECTS, GEMINI, Dialect, Setting, setting
from modelserver import call
from openai_models import HTTP_GET, asking, user

from agentd.clock import SystemClock
from agentd.llm import prices
from agentd.llm.client import open_models
from agentd.llm.library import open_library_model
from agentd.llm.port import (
    ChatMessage,
    Done,
    FailureKind,
    ModelFailure,
    Request,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from agentd.llm.settings import ModelSettings
from agentd.llm.spend import Quote

each = pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.provider for dialect in DIALECTS])

CACHED = {"type": "ephemeral", "ttl": "5m"}
LOOK = ToolSpec(
    "server.look",
    "Look",
    {
        "type": "object",
        "properties": {"at": {"type": "string", "minLength": 1, "pattern": "^a"}, "n": {"type": ["integer", "null"]}},
        "required": ["at"],
    },
)


@pytest.fixture
async def world() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


@each
async def test_text_comes_as_it_is_written(world: Setting, dialect: Dialect) -> None:
    """Whoever watches a run sees the answer grow."""
    events = await world.events(dialect, dialect.reply("abcd"))

    done = events.pop()
    assert events == [TextDelta("ab"), TextDelta("cd")]
    assert isinstance(done, Done)
    assert done.message == ChatMessage("assistant", "abcd")
    assert (done.stop_reason, done.model, done.usd) == ("stop", "default", None)
    assert done.served_by.startswith(dialect.model)


@each
async def test_the_first_words_are_there_before_the_last_are_written(world: Setting, dialect: Dialect) -> None:
    """Streaming that waits for the end is none."""
    reply = dialect.reply("abcd")
    more = asyncio.Event()
    stream = list(reply.stream or ())
    last = max(index for index, piece in enumerate(stream) if b"cd" in _raw(piece))
    world.server.answers(replace(reply, stream=[*stream[:last], more, *stream[last:]]))

    async with contextlib.aclosing(world.model(dialect).stream(asking())) as events:
        first = await anext(events)
        more.set()
        rest = [event async for event in events]

    assert first == TextDelta("ab")
    assert rest[0] == TextDelta("cd")


@each
async def test_parallel_calls_come_whole_and_under_their_own_names(world: Setting, dialect: Dialect) -> None:
    """The loop acts on whole calls; a name with a dot, which no provider takes, is ours alone."""
    wanted = [call("server_look", "c1", at="a1"), call("http_get", "c2", url="http://x/"), call("server_look", at="a2")]

    events = await world.events(dialect, dialect.reply("Look.", calls=wanted), request=asking(tools=[LOOK, HTTP_GET]))

    done = events[-1]
    assert isinstance(done, Done)
    assert done.stop_reason == "tool_calls"
    calls = done.message.tool_calls
    assert [(made.name, json.loads(made.arguments)) for made in calls] == [
        ("server.look", {"at": "a1"}),
        ("http_get", {"url": "http://x/"}),
        ("server.look", {"at": "a2"}),
    ]
    assert [made.id for made in calls[:2]] == ["c1", "c2"]
    assert len({made.id for made in calls}) == 3
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [(delta.index, delta.id, delta.name) for delta in deltas if delta.id] == [
        (place, made.id, made.name) for place, made in enumerate(calls)
    ]
    assert "".join(delta.arguments for delta in deltas if delta.index == 1) == calls[1].arguments


@each
async def test_a_call_without_arguments_has_an_empty_object(world: Setting, dialect: Dialect) -> None:
    """Nothing at all is no JSON, and the loop would send the model back for it."""
    done = await world.done(dialect, dialect.reply(calls=[call("http_get")]), request=asking(tools=[HTTP_GET]))

    assert [json.loads(made.arguments) for made in done.message.tool_calls] == [{}]


@each
async def test_ids_that_were_there_before_are_made_new(world: Setting, dialect: Dialect) -> None:
    """Some gateways count calls from one in every answer; results would go to the wrong ones."""
    before = [
        user("hello"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "http_get", "{}"),)),
        ChatMessage("tool", "ok", name="http_get", tool_call_id="c1"),
    ]

    done = await world.done(
        dialect, dialect.reply(calls=[call("http_get", "c1")]), request=asking("on", *before, tools=[HTTP_GET])
    )

    assert done.message.tool_calls[0].id != "c1"


@each
async def test_tokens_are_those_that_the_provider_counted(world: Setting, dialect: Dialect) -> None:
    """Each provider counts what came from its cache in its own way; ours is one: among the tokens of the question."""
    done = await world.done(dialect, dialect.reply("hi"))

    kept = 10 if dialect is ANTHROPIC else 0
    assert done.usage == Usage(100, 7, cached_tokens=40, cache_written_tokens=kept)


@each
@pytest.mark.parametrize(
    ("words", "stop"),
    [
        (("max_tokens", "MAX_TOKENS", "max_tokens"), "length"),
        (("refusal", "SAFETY", "guardrail_intervened"), "content_filter"),
        (("never_heard_of", "OTHER", "never_heard_of"), "unknown"),
    ],
)
async def test_why_an_answer_ended_is_told_in_one_set_of_words(
    world: Setting, dialect: Dialect, words: tuple[str, str, str], stop: str
) -> None:
    """The loop goes on with an answer that was cut to length, and not with one that was filtered."""
    done = await world.done(dialect, dialect.reply("hi", stop=words[DIALECTS.index(dialect)]))

    assert done.stop_reason == stop


def _again(done: Done, *, tools: Any = (LOOK,)) -> Request:
    """The conversation goes on: results come in another order than the calls."""
    results = [
        ChatMessage("tool", f"result of {made.id}", name=made.name, tool_call_id=made.id)
        for made in done.message.tool_calls
    ]
    kept = json.loads(json.dumps(done.message.provider_data))
    message = replace(done.message, provider_data=kept)
    return Request("Be brief.", [user("what is up?"), message, *reversed(results), user("hurry")], tools)


@each
async def test_what_was_signed_goes_back_as_it_came(world: Setting, dialect: Dialect) -> None:
    """Without its signature a thought is refused, and with it the whole conversation."""
    calls = [call("server_look", "c1", at="a1"), call("server_look", "c2", at="a2")]
    first = dialect.reply("Look.", calls=calls, thinking="hm, hm")
    events = await world.events(dialect, first, request=asking(tools=[LOOK]))
    done = events[-1]
    assert isinstance(done, Done)

    await world.events(dialect, dialect.reply("well"), request=_again(done))

    assert [event.text for event in events if isinstance(event, ThinkingDelta)] == ["hm, hm"]
    assert done.message.thinking == "hm, hm"
    assert world.server.requests[1].json[_HISTORY[dialect.provider]] == _EXPECTED[dialect.provider]


_HISTORY = {"anthropic": "messages", "gemini": "contents", "bedrock": "messages"}
_EXPECTED: dict[str, Any] = {
    "anthropic": [
        {"role": "user", "content": [{"type": "text", "text": "what is up?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm, hm", "signature": "c2lnbmVk"},
                {"type": "text", "text": "Look."},
                {"type": "tool_use", "id": "c1", "name": "server_look", "input": {"at": "a1"}},
                {"type": "tool_use", "id": "c2", "name": "server_look", "input": {"at": "a2"}},
            ],
        },
        {
            "role": "user",
            "content": [
                *[
                    {
                        "type": "tool_result",
                        "tool_use_id": id,
                        "content": [{"type": "text", "text": f"result of {id}"}],
                        "is_error": False,
                    }
                    for id in ("c1", "c2")
                ],
                {"type": "text", "text": "hurry", "cache_control": CACHED},
            ],
        },
    ],
    "gemini": [
        {"role": "user", "parts": [{"text": "what is up?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "hm, hm", "thought": True},
                {"text": "Look."},
                {
                    "functionCall": {"id": "c1", "name": "server_look", "args": {"at": "a1"}},
                    "thoughtSignature": "c2lnbmVk",
                },
                {"functionCall": {"id": "c2", "name": "server_look", "args": {"at": "a2"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": id,
                        "name": "server_look",
                        "response": {"return_value": f"result of {id}"},
                    }
                }
                for id in ("c1", "c2")
            ],
        },
        {"role": "user", "parts": [{"text": "hurry"}]},
    ],
    "bedrock": [
        {"role": "user", "content": [{"text": "what is up?"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm, hm", "signature": "c2lnbmVk"}}},
                {"text": "Look."},
                {"toolUse": {"toolUseId": "c1", "name": "server_look", "input": {"at": "a1"}}},
                {"toolUse": {"toolUseId": "c2", "name": "server_look", "input": {"at": "a2"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                *[
                    {"toolResult": {"toolUseId": id, "content": [{"text": f"result of {id}"}], "status": "success"}}
                    for id in ("c1", "c2")
                ],
                {"text": "hurry"},
                {"cachePoint": {"type": "default"}},
            ],
        },
    ],
}


@each
@pytest.mark.parametrize(("content", "thinking"), [("Lo", "hm, hm"), ("Look.", "hm"), ("Look.", None)])
async def test_thoughts_that_were_shortened_since_are_left_out(
    world: Setting, dialect: Dialect, content: str, thinking: str | None
) -> None:
    """A signature of something else than what is sent is refused."""
    reply = dialect.reply("Look.", calls=[call("server_look", "c1", at="a1")], thinking="hm, hm")
    done = await world.done(dialect, reply, request=asking(tools=[LOOK]))
    shortened = replace(done, message=replace(done.message, content=content, thinking=thinking))

    await world.events(dialect, dialect.reply("well"), request=_again(shortened))

    sent = json.dumps(world.server.requests[1].json[_HISTORY[dialect.provider]])
    assert content in sent
    assert "hm" not in sent
    assert "c2lnbmVk" not in sent


@each
async def test_what_another_provider_signed_is_not_sent(world: Setting, dialect: Dialect) -> None:
    """A fallback goes on with the conversation of the model it stands in for."""
    other = DIALECTS[DIALECTS.index(dialect) - 1]
    reply = other.reply("Look.", calls=[call("server_look", "c1", at="a1")], thinking="hm, hm")
    done = await world.done(other, reply, request=asking(tools=[LOOK]))

    await world.events(dialect, dialect.reply("well"), request=_again(done))

    sent = json.dumps(world.server.requests[1].json[_HISTORY[dialect.provider]])
    assert "server_look" in sent
    assert "hm" not in sent
    assert "c2lnbmVk" not in sent


def _raw(piece: Any) -> bytes:
    return piece if isinstance(piece, bytes) else json.dumps(piece).encode()


@each
async def test_what_is_asked_is_what_the_protocol_says(world: Setting, dialect: Dialect) -> None:
    """The path holds the model, the body what the request says, and nobody adds words of his own to the prompt."""
    request = asking("hi", tools=[LOOK], max_tokens=99, temperature=0.5)

    await world.events(dialect, dialect.reply("ok"), request=request)

    asked = world.server.requests[0]
    assert asked.path == dialect.path
    assert asked.headers["accept-encoding"] == "identity"
    body = {name: value for name, value in asked.json.items() if name != _HISTORY[dialect.provider]}
    schema = dict(LOOK.input_schema)
    if dialect is ANTHROPIC:
        assert asked.headers["authorization"] == "Bearer key-1"
        assert body == {
            "model": "claude-sonnet-4-6",
            "max_tokens": 99,
            "temperature": 0.5,
            "stream": True,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}],
            "tools": [{"name": "server_look", "description": "Look", "input_schema": schema, "cache_control": CACHED}],
            "tool_choice": {"type": "auto"},
        }
        assert asked.json["messages"][-1]["content"][-1]["cache_control"] == CACHED
    elif dialect is GEMINI:
        assert asked.headers["x-goog-api-key"] == "key-1"
        assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
        assert body["generationConfig"]["maxOutputTokens"] == 99
        assert body["generationConfig"]["temperature"] == 0.5
        (declared,) = body["tools"][0]["functionDeclarations"]
        assert declared == {"name": "server_look", "description": "Look", "parameters_json_schema": schema}
    else:
        assert asked.headers["authorization"] == "Bearer key-1"
        assert body["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}]
        assert body["inferenceConfig"] == {"maxTokens": 99, "temperature": 0.5}
        tool, point = body["toolConfig"]["tools"]
        assert point == {"cachePoint": {"type": "default"}}
        assert tool["toolSpec"] == {"name": "server_look", "description": "Look", "inputSchema": {"json": schema}}


@pytest.mark.parametrize("dialect", [ANTHROPIC, BEDROCK], ids=["anthropic", "bedrock"])
async def test_what_is_asked_once_is_kept_in_no_cache(world: Setting, dialect: Dialect) -> None:
    """To keep it costs a quarter more, and nobody would read it."""
    await world.events(dialect, dialect.reply("ok"), request=asking("hi"))

    sent = json.dumps(world.server.requests[0].json)
    assert "cache" not in sent


ODD = [
    ChatMessage("assistant", "I begin."),
    ChatMessage("tool", "found late", name="server.look", tool_call_id="gone"),
    ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "server.look", "{broken"), ToolCall("c2", "gone", ""))),
    ChatMessage("tool", "", name="server.look", tool_call_id="c1"),
    ChatMessage("system", "a note \ud83d"),
    ChatMessage("assistant", "  "),
    user(" "),
]


@each
@pytest.mark.parametrize("tools", [(LOOK,), ()], ids=["with tools", "without"])
async def test_an_odd_conversation_can_be_gone_on_with(world: Setting, dialect: Dialect, tools: Any) -> None:
    """After a fallback, a compaction or a crash: open calls, lost calls, empty texts, halves of letters."""
    await world.events(dialect, dialect.reply("ok"), request=Request("", ODD, tools))

    sent = world.server.requests[0].json[_HISTORY[dialect.provider]]
    roles = [message["role"] for message in sent]
    assert roles[0] == roles[-1] == "user"
    assert not any(a == b == "model" or a == b == "assistant" for a, b in itertools.pairwise(roles))
    text = json.dumps(sent)
    assert "found late" in text
    assert "a note ?" in text or "a note \\ufffd" in text
    assert '""' not in text
    if tools:
        assert text.count('"c1"') == text.count('"c2"') == 2
        assert "no result" in text
        assert "{broken" in text
    else:
        assert '"c1"' not in text
        assert "ToolCall" in text


@each
async def test_the_key_is_read_anew_for_each_call(
    world: Setting, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rotated key works without a restart."""
    file = tmp_path / "key"
    file.write_text("one\n")
    model = world.model(dialect, api_key=f"${{file:{file}}}")
    world.server.answers(*[dialect.reply("ok")] * 3)

    for key in ("one", "two", "two"):
        file.write_text(f"{key}\n")
        [_ async for _ in model.stream(asking())]

    headers = [asked.headers for asked in world.server.requests]
    sent = [found.get("x-goog-api-key") or found["authorization"].removeprefix("Bearer ") for found in headers]
    assert sent == ["one", "two", "two"]


@pytest.mark.parametrize("dialect", [ANTHROPIC, GEMINI], ids=["anthropic", "gemini"])
async def test_keys_that_come_and_go_leave_nothing_behind(world: Setting, dialect: Dialect, tmp_path: Path) -> None:
    """A key that changes every hour must not make each call of the next month slower."""
    file = tmp_path / "key"
    settings = world.settings(dialect, api_key=f"${{file:{file}}}")
    http = world.place.client("model default", settings)
    model = open_library_model("default", settings, http)
    world.server.otherwise = dialect.reply("ok")

    hooks = set()
    for number in range(3):
        file.write_text(f"key {number}")
        [_ async for _ in model.stream(asking())]
        hooks.add(len(http.over_httpx2().event_hooks["response"]))

    assert len(hooks) == 1


@pytest.mark.parametrize("dialect", [ANTHROPIC, GEMINI], ids=["anthropic", "gemini"])
async def test_without_a_key_nothing_is_asked(
    world: Setting, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with one that the SDK would find by itself."""
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "of somebody else")

    with pytest.raises(ModelFailure) as caught:
        await world.events(dialect, api_key=None)

    assert caught.value.kind is FailureKind.BAD_KEY
    assert world.server.requests == []


async def test_bedrock_has_keys_of_its_own(world: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go before those of AWS that happen to be there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "of its own")

    await world.events(BEDROCK, BEDROCK.reply("ok"), api_key=None)

    assert world.server.requests[0].headers["authorization"] == "Bearer of its own"


async def test_bedrock_is_asked_with_keys_of_aws(world: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role of the machine or a profile; what AWS's library signs must arrive as it was signed."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)

    await world.events(BEDROCK, BEDROCK.reply("ok"), api_key=None)

    asked = world.server.requests[0]
    said = asked.headers["authorization"]
    assert said.startswith("AWS4-HMAC-SHA256 Credential=AKIATEST/")
    assert "/eu-central-1/bedrock/aws4_request" in said
    signed = said.split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date"} <= set(signed) <= set(asked.headers)


@pytest.mark.parametrize(
    ("missing", "kind", "word"),
    [("region", FailureKind.BAD_REQUEST, "region"), ("key", FailureKind.BAD_KEY, "key")],
)
async def test_what_bedrock_lacks_is_said(
    world: Setting,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    missing: str,
    kind: FailureKind,
    word: str,
) -> None:
    """AWS's library says it late, and in words of its own."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(ModelFailure, match=f"^model default has no {word}") as caught:
        await world.events(BEDROCK, **{"region": None} if missing == "region" else {"api_key": None})

    assert caught.value.kind is kind


@each
async def test_a_schema_is_sent_only_where_the_config_says_so(world: Setting, dialect: Dialect) -> None:
    """These providers close every open object of a schema: tools could be called, but with nothing."""
    assert not world.model(dialect).grammar
    assert world.model(dialect, grammar=True).grammar
    assert world.model(dialect).native_tools
    assert not world.model(dialect, protocol="json").native_tools


class Pocket:
    """A purse without bottom."""

    def __init__(self) -> None:
        self.settled: list[tuple[Usage, float | None]] = []

    async def reserve(self, quote: Quote) -> None:
        pass

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        self.settled.append((usage, usd))


@each
async def test_among_all_models_it_is_retried_priced_and_paid_like_any_other(world: Setting, dialect: Dialect) -> None:
    """One policy and one purse for all providers; the library's own retries are off."""
    settings = world.settings(dialect, retries=1, price={"input": 1, "output": 10, "cached_input": 0.1})
    purse = Pocket()
    world.server.answers(dialect.error(503, "down", "unavailable", retry_after="0"), dialect.reply("there it is"))

    models = open_models({"default": settings}, purse=purse, clock=SystemClock())
    try:
        events = [event async for event in models.get("default").stream(asking())]
    finally:
        await models.close()

    done = events[-1]
    assert isinstance(done, Done)
    assert done.message.content == "there it is"
    assert len(world.server.requests) == 2
    assert done.usd == pytest.approx((60 * 1 + 40 * 0.1 + 7 * 10) / 1e6)
    assert purse.settled == [(done.usage, done.usd)]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-6"),
        ("gemini", "gemini-2.5-pro"),
        ("gemini", "gemini-2.5-flash"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("bedrock", "amazon.nova-lite-v1:0"),
    ],
)
def test_their_models_have_a_price(provider: str, model: str) -> None:
    """A model without one can be held by no budget in USD."""
    assert prices.known(ModelSettings.model_validate({"provider": provider, "model": model}))


def test_no_library_is_loaded_before_the_first_question() -> None:
    """A daemon that only might ask must stay small; an agent host must not stand still for seconds."""
    script = """
import sys
from agentd.clock import SystemClock
from agentd.llm.destination import Destination
from agentd.llm.providers import open_model
from agentd.llm.settings import ModelSettings
for provider in ("anthropic", "gemini", "bedrock"):
    settings = ModelSettings.model_validate({"provider": provider, "model": "m", "api_key": "k", "region": "r"})
    open_model("default", settings, Destination(SystemClock()).client("model default", settings))
loaded = {"pydantic_ai", "anthropic", "google.genai", "boto3", "botocore", "httpx2"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
