"""Whatever a server sends is an answer or a failure, within the deadline, on any split of its bytes."""

from __future__ import annotations

import asyncio
import time

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loopback import LOOPS, plain, probe_tools, runner, serving

from agentd.net import NetFailure, Timings
from agentd.net.http import HttpConnection, Response, decoded
from agentd.watch.body import json_of, text_of
from agentd.watch.http import HTTP

DEADLINE_S = 2.0

LINES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 301 Moved\r\n", b"HTTP/9.9 999 ?\r\n"),
        *(b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Transfer-Encoding: gzip\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n"),
        *(
            b"Content-Type: text/html; charset=punycode\r\n",
            b"Location: //[::1\r\n",
            b"Location: http://${env:HOME}/\r\n",
        ),
        *(
            b"Connection: upgrade\r\nUpgrade: x\r\n",
            b"Connection: close\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"5\r\nhello\r\n",
        ),
        *(
            b"0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b'{"a": 1e999}',
            b"[" * 300,
            b"\x1f\x8b\x08",
            b"\x00\xff",
            b'"\\ud800"',
        ),
    ]
)
ANSWERS = st.one_of(
    st.binary(max_size=300), st.lists(st.one_of(LINES, st.binary(max_size=20)), max_size=12).map(b"".join)
)


class _Nowhere(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass


@given(st.lists(ANSWERS, max_size=5), st.booleans(), st.booleans())
@example([b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 50], False, False)
@example([plain(b"ok"), plain(b"ok")], False, True)
def test_any_bytes_in_any_pieces_end_in_an_answer_or_a_failure(
    pieces: list[bytes], head_only: bool, is_reset: bool
) -> None:
    """Straight into the protocol: thousands of servers a second."""

    async def story() -> Response:
        connection = HttpConnection()
        connection.connection_made(_Nowhere())
        talk = asyncio.ensure_future(
            connection.exchange(b"GET / HTTP/1.1\r\n\r\n", Timings(), head_only=head_only, max_body=40)
        )
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(ConnectionResetError() if is_reset else None)
        return await asyncio.wait_for(talk, DEADLINE_S)

    try:
        response = asyncio.run(story())
        assert len(response.body) <= 40
        text_of(response.body, response.headers.get("content-type", ""))
        body, _ = decoded(response, 40)
        assert len(body) <= 40
    except NetFailure:
        pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANSWERS, st.sampled_from(list(LOOPS)), st.booleans())
def test_a_look_at_any_server_is_an_observation(answer: bytes, loop: str, follow: bool) -> None:
    """Over real sockets, all variables wanted: never an exception, never past the deadline."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async def story() -> None:
        async with serving(script) as served:
            probe = HTTP.open(
                HTTP.settings.model_validate({"url": served.url, "follow_redirects": follow}), "w", probe_tools()
            )
            started = time.monotonic()
            observation = await probe.look(DEADLINE_S)
            assert time.monotonic() - started < DEADLINE_S + 1
            assert observation.blind is None
            assert observation.error is not None or isinstance(observation.values["status"], int)

    runner(loop)(story())


@given(st.text(alphabet='[]{}":,0123456789eE.-+ntfalsur\\dDN ', max_size=200))
@example("[" * 100_000)
@example('{"a":' * 5000 + "1" + "}" * 5000)
@example("[" * 250 + "]" * 250)
@example("9" * 5000)
@example("1e400")
@example("-Infinity")
@example('{"\\ud800": ["\\udfff"]}')
def test_any_text_is_usable_json_or_a_value_error(text: str) -> None:
    """What a condition, the store and the payload get must be encodable and within 64 bits."""
    try:
        value = json_of(text)
    except ValueError:
        return
    check(value)


def check(value: object, depth: int = 0) -> None:
    assert depth <= 200
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check(item, depth + 1)
    elif isinstance(value, float):
        assert abs(value) < float("inf")
    elif value is not None and not isinstance(value, bool):
        assert isinstance(value, int)
        assert -(2**63) <= value < 2**63
