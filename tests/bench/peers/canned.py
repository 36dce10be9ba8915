"""
A server of the OpenAI-compatible chat protocol that costs next to nothing: every answer is bytes made beforehand.

What it answers stands in the model's name: `steps-10-200` calls the tool `look` (`query_memory` where that is offered)
ten times, a call an answer, and then says that it is done, each answer after 200 ms; `text-50-1` says 50 pieces, 1 ms
between them, `text-50` all at once. Prints its port; on SIGUSR1 the most answers that were under way at once, and
forgets them.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from functools import cache
from typing import Any, cast

_MODEL = re.compile(rb'"model":\s?"(steps|text)-(\d+)(?:-(\d+))?"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"
_USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
SAID = "All is well. "


def _event(data: str) -> bytes:
    event = b"data: " + data.encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


@cache
def pieces(kind: str, count: int, before: int, tool: str = "look") -> tuple[bytes, ...]:
    """The events of an answer. before: calls that were answered already."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    finish = "stop"
    if kind == "steps" and before < count:
        finish = "tool_calls"
        arguments = json.dumps({"n": before} if tool == "look" else {"query": f"part {before}"})
        named = {"id": f"call_{before}", "type": "function", "function": {"name": tool, "arguments": ""}}
        deltas.append({"tool_calls": [{"index": 0, **named}]})
        parts = ({"index": 0, "function": {"arguments": part}} for part in (arguments[:3], arguments[3:]))
        deltas.extend({"tool_calls": [part]} for part in parts)
    else:
        deltas.extend({"content": SAID} for _ in range(count if kind == "text" else 1))
    shown: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    shown.append({"index": 0, "delta": {}, "finish_reason": finish})
    base: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": kind}
    chunks = [{**base, "choices": [choice]} for choice in shown] + [{**base, "choices": [], "usage": _USAGE}]
    return (_HEAD, *(_event(json.dumps(chunk)) for chunk in chunks), _event("[DONE]") + _END)


@cache
def whole(kind: str, count: int, before: int, tool: str) -> bytes:
    return b"".join(pieces(kind, count, before, tool))


class _Most:
    now = most = 0


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or (length := _LENGTH.search(self._buffer, 0, end)) is None:
            return
        size = end + 4 + int(length[1])
        if len(self._buffer) < size:
            return
        body = bytes(self._buffer[end + 4 : size])
        del self._buffer[:size]
        asked = _MODEL.search(body)
        assert asked is not None, body[:200]
        kind, count, ms = asked[1].decode(), int(asked[2]), int(asked[3] or 0)
        before = body.count(b'"role":"tool"') + body.count(b'"role": "tool"')
        tool = "query_memory" if b'"query_memory"' in body else "look"
        _Most.now += 1
        _Most.most = max(_Most.most, _Most.now)
        loop = asyncio.get_running_loop()
        if kind == "text" and ms:
            self._paced(loop, list(pieces(kind, count, before))[::-1], ms / 1000)
        elif ms:
            self._timer = loop.call_later(ms / 1000, self._write, whole(kind, count, before, tool))
        else:
            self._write(whole(kind, count, before, tool))

    def _paced(self, loop: asyncio.AbstractEventLoop, left: list[bytes], pause_s: float) -> None:
        assert self._transport is not None
        self._transport.write(left.pop())
        if left:
            self._timer = loop.call_later(pause_s, self._paced, loop, left, pause_s)
        else:
            _Most.now -= 1

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        _Most.now -= 1
        self._transport.write(data)


def _tell() -> None:
    print(_Most.most, flush=True)
    _Most.most = _Most.now


async def serve() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, _tell)
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
