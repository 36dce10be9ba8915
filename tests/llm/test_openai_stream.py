"""
The built-in adapter against a real server: plain answers, calls of tools, tokens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from modelserver import Reply, call, calls
from openai_models import HTTP_GET, Setting, asking, call_delta, chunk, setting, user

from agentd.llm.port import ChatMessage, Done, TextDelta, ThinkingDelta, ToolCall, ToolCallDelta, ToolSpec, Usage


@pytest.fixture
async def world() -> AsyncIterator[Setting]:
    async with setting() as made:
        yield made


async def test_text_comes_as_it_is_written(world: Setting) -> None:
    """Whoever watches a run sees the answer grow."""
    events = await world.events(Reply(text="abcdef", pieces=3))

    assert events[:3] == [TextDelta("ab"), TextDelta("cd"), TextDelta("ef")]
    assert events[3:] == [
        Done(ChatMessage("assistant", "abcdef"), Usage(10, 5), "stop", model="default", served_by="m-1")
    ]


async def test_the_first_words_are_there_before_the_last_are_written(world: Setting) -> None:
    """Streaming that waits for the end is none."""
    more = asyncio.Event()
    world.server.answers(Reply(stream=[chunk(content="first"), more, chunk("stop", content=" last"), "[DONE]"]))

    stream = world.model().stream(asking())
    first = await anext(stream)
    more.set()
    rest = [event async for event in stream]

    assert first == TextDelta("first")
    assert rest[0] == TextDelta(" last")


async def test_calls_of_tools_come_whole_at_the_end_and_piece_by_piece_before(world: Setting) -> None:
    """The loop acts on whole calls; the page shows them as they are written."""
    script = calls(
        call("http_get", "a", url="http://x/"), call("http_get", "b", url="http://y/"), text="Look.", pieces=2
    )

    events = await world.events(script, request=asking(tools=[HTTP_GET]))

    done = events[-1]
    assert isinstance(done, Done)
    assert done.stop_reason == "tool_calls"
    assert done.message == ChatMessage(
        "assistant",
        "Look.",
        tool_calls=(
            ToolCall("a", "http_get", '{"url": "http://x/"}'),
            ToolCall("b", "http_get", '{"url": "http://y/"}'),
        ),
    )
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [(d.index, d.id, d.name) for d in deltas] == [
        (0, "a", "http_get"),
        (0, None, None),
        (1, "b", "http_get"),
        (1, None, None),
    ]
    assert "".join(d.arguments for d in deltas if d.index == 1) == '{"url": "http://y/"}'


async def test_what_is_asked_is_what_the_protocol_says(world: Setting) -> None:
    """The request is read by a dozen implementations; each field counts."""
    before = [
        user("hello"),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "http_get", '{"url":"http://x/"}'),)),
        ChatMessage("tool", "200 OK \ud83d", name="http_get", tool_call_id="c1"),
    ]

    await world.events("ok", request=asking("and?", *before, tools=[HTTP_GET], temperature=0.5, max_tokens=99))

    asked = world.server.requests[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer key-1"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "http_get", "arguments": '{"url":"http://x/"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "200 OK ?"},
            {"role": "user", "content": "and?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 99,
        "temperature": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "http_get",
                    "description": "Fetch a page",
                    "parameters": {"type": "object", "properties": {"url": {"type": "string"}}},
                },
            }
        ],
    }


async def test_a_talk_with_calls_goes_on_without_tools(world: Setting) -> None:
    """A weaker model steps in as fallback, or the last question offers no tools; neither may be refused for it."""
    before = [
        ChatMessage("assistant", "Look.", tool_calls=(ToolCall("c1", "http_get", '{"url": "http://x/"}'),)),
        ChatMessage("tool", "200 OK", name="http_get", tool_call_id="c1"),
        ChatMessage("assistant", ""),
    ]

    await world.events("ok", request=asking("and?", *before))

    assert [message["content"] for message in world.server.requests[0].messages[1:4]] == [
        'Look.\n{"type": "ToolCall", "tool": "http_get", "input": {"url": "http://x/"}}',
        "Result of http_get:\n200 OK",
        "(no answer)",
    ]
    assert [message["role"] for message in world.server.requests[0].messages[1:4]] == ["assistant", "user", "assistant"]


async def test_names_that_providers_refuse_are_mapped_there_and_back(world: Setting) -> None:
    """Tools of MCP servers are `server.tool`, which OpenAI answers with 400."""
    names = ["grafana.query", "grafana_query", "1st", "x" * 80, "x" * 81, "münze"]
    tools = [ToolSpec(name, "", {"type": "object"}) for name in names]
    world.server.otherwise = lambda asked: calls(*(call(name) for name in asked.tools))

    done = await world.done(request=asking(tools=tools))

    offered = world.server.requests[0].tools
    assert all(name.isascii() and name.replace("_", "").isalnum() and len(name) <= 64 for name in offered)
    assert not any(name[0].isdigit() for name in offered)
    assert len(set(offered)) == len(names)
    assert [call.name for call in done.message.tool_calls] == names


async def test_a_broken_call_is_sent_back_as_an_object(world: Setting) -> None:
    """Templates of local servers parse the arguments of earlier calls and fail at all else, for every later step."""
    before = [
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "http_get", '{"url": '), ToolCall("c2", "", ""))),
        ChatMessage("tool", "invalid", tool_call_id="c1"),
        ChatMessage("tool", "invalid", tool_call_id="c2"),
    ]

    await world.events("ok", request=asking("and?", *before, tools=[HTTP_GET]))

    sent = [each["function"] for each in world.server.requests[0].messages[1]["tool_calls"]]
    assert json.loads(sent[0]["arguments"]) == {"unreadable": '{"url": '}
    assert sent[1] == {"name": "unnamed", "arguments": "{}"}


async def test_connections_are_kept_for_the_next_call(world: Setting) -> None:
    """A handshake per step would be most of the time of a fast model."""
    model = world.model()
    for _ in range(5):
        assert [event async for event in model.stream(asking())]

    assert world.server.connections == 1


# What servers do oddly.

ODD_CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str]]]] = {
    "name in every delta": (
        [call_delta(0, "a", name="t", arguments='{"x"'), call_delta(0, "a", name="t", arguments=": 1}")],
        [("t", '{"x": 1}')],
    ),
    "name and a new id in every delta": (
        [call_delta(0, "a", name="t", arguments='{"x"'), call_delta(0, "b", name="t", arguments=": 1}")],
        [("t", '{"x": 1}')],
    ),
    "arguments as an object": ([call_delta(0, "a", name="t", arguments={"x": 1})], [("t", '{"x": 1}')]),
    "no arguments": ([call_delta(0, "a", name="t", arguments=None)], [("t", "")]),
    "no id": (
        [call_delta(0, name="t", arguments="{}"), call_delta(1, "", name="u", arguments="{}")],
        [("t", "{}"), ("u", "{}")],
    ),
    "no index": (
        [call_delta(None, "a", name="t", arguments="{}"), call_delta(None, "b", name="t", arguments="{}")],
        [("t", "{}"), ("t", "{}")],
    ),
    "neither id nor index, whole calls": (
        [call_delta(None, name="t", arguments="{}"), call_delta(None, name="t", arguments="{}")],
        [("t", "{}"), ("t", "{}")],
    ),
    "neither id nor index, in pieces": (
        [call_delta(None, name="t", arguments='{"x"'), call_delta(None, arguments=": 1}")],
        [("t", '{"x": 1}')],
    ),
    "id only at first, no index": (
        [call_delta(None, "a", name="t", arguments='{"x"'), call_delta(None, arguments=": 1}")],
        [("t", '{"x": 1}')],
    ),
    "all with index 0": (
        [call_delta(0, "a", name="t", arguments="{}"), call_delta(0, "b", name="u", arguments="{}")],
        [("t", "{}"), ("u", "{}")],
    ),
    "all with index 0, no ids": (
        [call_delta(0, name="t", arguments='{"x": 1}'), call_delta(0, name="t", arguments='{"x": 2}')],
        [("t", '{"x": 1}'), ("t", '{"x": 2}')],
    ),
    "all with index 0, no arguments": (
        [call_delta(0, "a", name="t", arguments=""), call_delta(0, "b", name="t", arguments="")],
        [("t", ""), ("t", "")],
    ),
    "one id for all": (
        [call_delta(0, "a", name="t", arguments="{}"), call_delta(1, "a", name="u", arguments="{}")],
        [("t", "{}"), ("u", "{}")],
    ),
    "interleaved": (
        [
            call_delta(0, "a", name="t", arguments='{"x"'),
            call_delta(1, "b", name="u", arguments='{"y"'),
            call_delta(0, arguments=": 1}"),
            call_delta(1, arguments=": 2}"),
        ],
        [("t", '{"x": 1}'), ("u", '{"y": 2}')],
    ),
    "name after the beginning": (
        [call_delta(0, "a", arguments=""), call_delta(0, name="t", arguments="{}")],
        [("t", "{}")],
    ),
    "an empty call at the end": (
        [call_delta(0, "a", name="t", arguments="{}"), call_delta(1, name="", arguments="")],
        [("t", "{}")],
    ),
    "the old function_call": (
        [chunk(function_call={"name": "t", "arguments": '{"x"'}), chunk(function_call={"arguments": ": 1}"})],
        [("t", '{"x": 1}')],
    ),
    "no deltas at all": (
        [{"choices": [{"message": {"tool_calls": [{"id": "a", "function": {"name": "t", "arguments": "{}"}}]}}]}],
        [("t", "{}")],
    ),
    "all of it again with each delta": (
        [
            call_delta(0, "a", name="t", arguments='{"x"'),
            call_delta(0, "a", name="t", arguments='{"x": 1'),
            call_delta(0, "a", name="t", arguments='{"x": 1}'),
            call_delta(0, "a", name="t", arguments='{"x": 1}'),
            call_delta(1, "b", name="t", arguments='{"y": 1}'),
        ],
        [("t", '{"x": 1}'), ("t", '{"y": 1}')],
    ),
    "pieces that look like all of it again": (
        [call_delta(0, "a", name="t", arguments='{"x":'), call_delta(0, arguments='{"x": 1}}')],
        [("t", '{"x":{"x": 1}}')],
    ),
    "nonsense between": (
        [chunk(tool_calls=["x", None, 3]), chunk(tool_calls="x"), call_delta(0, "a", name="t", arguments="{}")],
        [("t", "{}")],
    ),
}


@pytest.mark.parametrize("habit", ODD_CALLS)
async def test_calls_are_understood_however_they_are_streamed(world: Setting, habit: str) -> None:
    """Each of these is the habit of some server; taken wrong, a tool runs twice, or with half its input."""
    deltas, wanted = ODD_CALLS[habit]
    # An id of an earlier call must not come again: results are found by it.
    before = ChatMessage("assistant", "", tool_calls=(ToolCall("a", "t", "{}"),))

    events = await world.events(
        Reply(stream=[*deltas, chunk("stop"), "[DONE]"]), request=asking("go on", before, tools=[HTTP_GET])
    )

    done = events[-1]
    assert isinstance(done, Done)
    got = done.message.tool_calls
    assert [(each.name, each.arguments) for each in got] == wanted
    ids = [each.id for each in got]
    assert len(set(ids)) == len(ids)
    assert "a" not in ids
    assert all(ids)
    assert done.stop_reason == "tool_calls"
    begun = [event for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert [event.id for event in begun][: len(ids)] == ids
    named = [event.name for event in events if isinstance(event, ToolCallDelta) and event.name]
    assert named == [name for name, _ in wanted]


@pytest.mark.parametrize(
    ("chunks", "thinking", "text"),
    [
        ([chunk(reasoning_content="Hm."), chunk(content="Yes.")], "Hm.", "Yes."),
        ([chunk(reasoning="Hm."), chunk(content="Yes.")], "Hm.", "Yes."),
        ([chunk(content="<think>\nHm."), chunk(content="\n</think>\n\nYes.")], "\nHm.\n", "Yes."),
        ([chunk(content=c) for c in "<think>Hm.</think>\n\nYes."], "Hm.", "Yes."),
        ([chunk(content="<thin"), chunk(content="g> is it")], None, "<thing> is it"),
        ([chunk(content='{"answer": "</think>"}')], None, '{"answer": "</think>"}'),
        ([chunk(content="I quote <think>this</think>.")], None, "I quote <think>this</think>."),
        ([chunk(content="<think>Hm.</thi")], "Hm.</thi", ""),
        ([chunk(content="<th")], None, "<th"),
        (
            [chunk(content=[{"type": "thinking", "thinking": [{"text": "Hm."}]}, {"type": "text", "text": "Yes."}])],
            "Hm.",
            "Yes.",
        ),
    ],
)
async def test_thinking_and_answer_are_told_apart(
    world: Setting, chunks: list[dict[str, Any]], thinking: str | None, text: str
) -> None:
    """JSON is looked for in the answer alone; the thoughts of a local model are full of half-made actions."""
    events = await world.events(Reply(stream=[*chunks, chunk("stop"), "[DONE]"]))

    done = events[-1]
    assert isinstance(done, Done)
    assert (done.message.thinking, done.message.content) == (thinking, text)
    assert "".join(event.text for event in events if isinstance(event, ThinkingDelta)) == (thinking or "")
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text


async def test_a_tag_that_was_never_opened_ends_the_thinking(world: Setting) -> None:
    """Some templates write the opening tag into the question; by then the thoughts have gone out as text."""
    done = await world.done(Reply(text="Hm.\n</think>\n\nYes."))

    assert (done.message.thinking, done.message.content) == ("Hm.", "Yes.")


@pytest.mark.parametrize(
    ("provider", "sent"), [("deepseek", "Hm."), ("kimi", "Hm."), ("openai", None), ("openai-compatible", None)]
)
async def test_thinking_goes_back_to_those_who_demand_it(world: Setting, provider: str, sent: str | None) -> None:
    """DeepSeek and Kimi refuse the second step without it; OpenAI refuses the field."""
    before = [
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "http_get", "{}"),), thinking="Hm."),
        ChatMessage("tool", "200 OK", tool_call_id="c1"),
    ]

    await world.events("ok", request=asking("and?", *before, tools=[HTTP_GET]), provider=provider)

    assert world.server.requests[0].messages[1].get("reasoning_content") == sent


async def test_what_a_provider_must_get_back_unchanged_goes_back(world: Setting) -> None:
    """Gemini behind its OpenAI-compatible address refuses calls that lost their signature."""
    extra = {"google": {"thought_signature": "c2ln"}}
    delta = {"index": 0, "id": "a", "function": {"name": "http_get", "arguments": "{}"}, "extra_content": extra}
    done = await world.done(Reply(stream=[chunk("tool_calls", tool_calls=[delta])]), request=asking(tools=[HTTP_GET]))

    again = [done.message, ChatMessage("tool", "ok", tool_call_id="a")]
    await world.events("ok", request=asking("and?", *again, tools=[HTTP_GET]))

    assert world.server.requests[1].messages[1]["tool_calls"][0]["extra_content"] == extra


USAGE_10_5 = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ([chunk("stop", content="hi"), {"choices": [], "usage": USAGE_10_5}], Usage(10, 5)),
        ([chunk(content="hi"), {**chunk("stop"), "usage": USAGE_10_5}], Usage(10, 5)),
        ([chunk(content="hi", usage={"prompt_tokens": 10, "completion_tokens": 1}), chunk("stop", usage=USAGE_10_5)],
         Usage(10, 5)),
        ([chunk(content="hi"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE_10_5}]}],
         Usage(10, 5)),
        ([chunk("stop", usage={**USAGE_10_5, "prompt_tokens_details": {"cached_tokens": 7}})], Usage(10, 5, 7)),
        ([chunk("stop", usage={**USAGE_10_5, "prompt_cache_hit_tokens": 7})], Usage(10, 5, 7)),
        ([chunk("stop", usage={**USAGE_10_5, "cached_tokens": 7})], Usage(10, 5, 7)),
        ([chunk("stop", usage={**USAGE_10_5, "cached_tokens": 99})], Usage(10, 5, 10)),
        ([chunk("stop", usage={**USAGE_10_5, "prompt_tokens_details": None})], Usage(10, 5)),
        ([chunk("stop", usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115})], Usage(10, 105)),
        ([chunk("stop", usage={"input_tokens": 10, "output_tokens": 5})], Usage(10, 5)),
        ([chunk("stop", usage={"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 100,
                               "cache_creation_input_tokens": 20})], Usage(125, 2, 100)),
        ([chunk("stop", usage={"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 100,
                               "total_tokens": 107})], Usage(105, 2, 100)),
        ([chunk("stop", usage={**USAGE_10_5, "input_tokens": 3, "cache_read_input_tokens": 7})], Usage(10, 5, 7)),
    ],
)  # fmt: skip
async def test_tokens_are_found_wherever_they_are_told(world: Setting, stream: list[Any], wanted: Usage) -> None:
    """Tokens are money, and cached ones cost a tenth."""
    done = await world.done(Reply(stream=[*stream, "[DONE]"]))

    assert done.usage == wanted


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": -5, "completion_tokens": True}, "x", []],
)
async def test_tokens_that_are_not_told_are_estimated_and_marked(world: Setting, usage: Any) -> None:
    """Ollama and proxies leave them out; a budget must go down all the same."""
    done = await world.done(Reply(stream=[chunk(content="three short words"), chunk("stop", usage=usage), "[DONE]"]))

    assert done.usage.estimated
    assert 3 <= done.usage.output_tokens <= 20
    assert done.usage.input_tokens >= 3


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("tool_calls", "stop"),
        ("whatever", "unknown"),
        (None, "unknown"),
    ],
)
async def test_reasons_to_stop_are_told_in_five_words(world: Setting, told: str | None, wanted: str) -> None:
    """`tool_calls` without a call would make the loop wait for one."""
    done = await world.done(Reply(stream=[chunk(content="hi"), chunk(told), "[DONE]"]))

    assert done.stop_reason == wanted


async def test_of_several_answers_the_first_is_taken_wherever_it_stands(world: Setting) -> None:
    """Servers with `n` set by their operator put them in one event, in any order."""
    other, first = {"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}

    done = await world.done(Reply(stream=[{"choices": [other, first]}, chunk("stop"), "[DONE]"]))

    assert done.message.content == "yes"


async def test_a_letter_told_in_halves_is_put_together(world: Setting) -> None:
    """Cut between its halves a letter is neither UTF-8 nor storable."""
    raw = [rb'data: {"choices": [{"delta": {"content": "ok \ud83d"}}]}' + b"\n\n",
           rb'data: {"choices": [{"delta": {"content": "\ude00 \ud83d"}}]}' + b"\n\n"]  # fmt: skip

    done = await world.done(Reply(stream=[*raw, chunk("stop"), "[DONE]"]))

    assert done.message.content == "ok 😀 \ufffd"


async def test_an_answer_that_is_not_streamed_is_taken_as_well(world: Setting) -> None:
    """Gateways that cannot stream answer with the whole, whatever was asked."""
    message = {"role": "assistant", "content": "hi", "tool_calls": [{"id": "a", "function": {"name": "t"}}]}
    body = {"model": "m-9", "choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE_10_5}

    done = await world.done(Reply(body=body))

    assert done.message == ChatMessage("assistant", "hi", tool_calls=(ToolCall("a", "t", ""),))
    assert (done.usage, done.served_by) == (Usage(10, 5), "m-9")


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "", "application/octet-stream"])
async def test_the_content_type_is_not_believed(world: Setting, kind: str) -> None:
    """Half of the small servers send a stream as something else."""
    done = await world.done(Reply(text="hi", headers={"Content-Type": kind}))

    assert done.message.content == "hi"


async def test_a_packed_answer_is_unpacked(world: Setting) -> None:
    """Some proxies pack what nobody asked them to."""
    import gzip

    body = gzip.compress(
        b'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n'
    )

    done = await world.done(Reply(stream=[body], headers={"Content-Encoding": "gzip"}))

    assert done.message.content == "hi"
