"""
The body of a streamed answer, cut anywhere and written oddly.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from agentd.llm.sse import DONE, MAX_LINE_BYTES, EventReader, Garbled


def read(*chunks: bytes) -> list[Any]:
    reader = EventReader()
    found = [value for chunk in chunks for value in reader.feed(chunk)]
    return [*found, *reader.end()]


A, B = {"a": 1}, {"b": "zwei — 二"}
EVENTS = f"data: {json.dumps(A)}\n\ndata: {json.dumps(B, ensure_ascii=False)}\n\ndata: [DONE]\n\n".encode()


@pytest.mark.parametrize(
    "body",
    [
        EVENTS,
        EVENTS.replace(b"data: ", b"data:"),
        EVENTS.replace(b"\n", b"\r\n"),
        EVENTS.replace(b"\n", b"\r"),
        EVENTS.replace(b"\n\n", b"\n"),
        EVENTS.removesuffix(b"\n\n"),
        b"\xef\xbb\xbf" + EVENTS,
        b": hello\n\n\n" + EVENTS.replace(b"\n\n", b"\n\n: keep-alive\n\n"),
        b"retry: 500\nid: 7\nevent: message\n" + EVENTS,
        EVENTS.replace(b'{"a": 1}', b'{"a":\ndata: 1}'),
        b"\n" + EVENTS.replace(b"data: ", b""),
    ],
    ids=["plain", "tight", "crlf", "cr", "dense", "no-end", "bom", "comments", "fields", "two-line", "bare"],
)
def test_events_are_read_however_they_are_written(body: bytes) -> None:
    """Each of these is sent by some server or proxy that people really have."""
    assert read(body) == [A, B, DONE]
    assert read(*(body[at : at + 1] for at in range(len(body)))) == [A, B, DONE]


def test_where_the_network_cuts_does_not_matter() -> None:
    """A packet may end within a letter of two bytes, or between CR and LF."""
    body = b"event: error\r\n" + EVENTS.replace(b"\n", b"\r\n")
    for seed in range(200):
        rng = random.Random(seed)
        cuts = sorted({0, len(body), *(rng.randrange(len(body)) for _ in range(6))})
        assert read(*(body[a:b] for a, b in itertools.pairwise(cuts))) == [{"error": A}, B, DONE]


def test_one_document_in_spite_of_stream_is_read() -> None:
    """Some gateways cannot stream and answer with the whole."""
    body = json.dumps({"choices": [{"message": {"content": "hi"}}]}, indent=2).encode()

    assert read(body[:20], body[20:]) == [json.loads(body)]


def test_an_error_in_a_field_of_its_own_is_read() -> None:
    """llama.cpp tells so that a question is too long: unread, the loop would not shorten it."""
    body = b'error: {"code": 400, "type": "exceed_context_size_error"}\n\n' + EVENTS

    assert read(body) == [{"error": {"code": 400, "type": "exceed_context_size_error"}}, A, B, DONE]


def test_a_plain_error_within_the_stream_is_read() -> None:
    """Some servers drop the `data:` when they fail."""
    assert read(b"data: {}\n\n", b'{"error": {"message": "x"}}\n') == [{}, {"error": {"message": "x"}}]


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><html>",
        b"\n\n  <html>",
        b"data: {}\n<html>\n",
        b"data: hello\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: {" + b"\ndata: x" * 500,
        b" " * (MAX_LINE_BYTES + 2),
        b"data: " + b"x" * MAX_LINE_BYTES,
        b"{" + b"x" * MAX_LINE_BYTES,
    ],
    ids=["html", "late-html", "mid-html", "text", "deep", "many", "space", "long", "long-document"],
)
def test_what_is_no_stream_is_said_to_be_none(body: bytes) -> None:
    """A login page of a proxy comes with status 200; and nothing a server sends may fill our memory."""
    with pytest.raises(Garbled):
        read(body)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    """A model may be cut within a letter; the rest of the answer is worth having."""
    assert read(b'data: {"a": "x\xc3"}\n\n') == [{"a": "x\ufffd"}]


def test_the_beginning_of_an_event_is_dropped_at_the_end() -> None:
    """That is a cut connection, which the adapter tells from garbage."""
    assert read(b'data: {"a": 1}\n\ndata: {"b": ') == [A]
