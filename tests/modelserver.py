"""
A server of the OpenAI-compatible chat protocol on loopback, for tests: real HTTP, answers as told, keeps what it is
asked.

    async with ModelServer() as server:                       # with model_server() as server: from a plain thread
        server.answers(429, calls(call("http_get", url="http://x/")), "It is all well.")   # in turn, then `otherwise`
        server.otherwise = lambda asked: Reply(text=asked.last)                            # may be async, too
        ...                                                   # base_url: server.url
        assert server.requests[0].messages[0]["role"] == "system"
        await server.until(lambda: server.open == 0)          # the other side has closed its connections

It misbehaves on demand: statuses, cut and hanging streams, events as raw bytes, answers that are no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

USAGE: Mapping[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
JSON = "application/json"

Piece = Mapping[str, Any] | str | bytes | float | asyncio.Event
"""Of a scripted stream: an event's JSON, an event's text (`[DONE]`), raw bytes, seconds to wait, what to wait for."""


@dataclass(frozen=True)
class Call:
    """One call of a tool; arguments: JSON text, or whatever else to send in its place."""

    name: str
    arguments: Any
    id: str | None = None


@dataclass(frozen=True)
class Reply:
    """
    What the server does with one request.

    text, thinking, calls: of the answer, each in `pieces` deltas. usage: None: the stream says nothing of it; sent in
    a last chunk of its own if the request asked for it, as OpenAI does. finish: default by whether there are calls.
    stream: the events instead of all that. body: sent whole, not as a stream. raw: sent instead of any HTTP.
    delay_s: before the status, pause_s: between events; in the loop's time.
    cut_after, hang_after: close the connection, or say nothing more, after so many events. hang: never answer.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    thinking: str = ""
    pieces: int = 3
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    finish: str | None = None
    model: str | None = None
    stream: Sequence[Piece] | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | Sequence[Any] | str | bytes | None = None
    raw: bytes | None = None
    delay_s: float = 0.0
    pause_s: float = 0.0
    cut_after: int | None = None
    hang_after: int | None = None
    hang: bool = False


Script = Reply | str | int
"""A text alone is an answer, a number alone a status."""


def call(name: str, id: str | None = None, /, **arguments: Any) -> Call:
    return Call(name, json.dumps(arguments), id)


def calls(*of: Call, text: str = "", **more: Any) -> Reply:
    """An answer that calls these tools."""
    return Reply(text=text, calls=of, **more)


def failing(
    status: int, message: str = "it failed", code: str | None = None, type: str | None = None, **headers: str
) -> Reply:
    """An error as OpenAI words it. headers: `retry_after="3"` is Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, body={"error": {"message": message, "type": type, "code": code}})


@dataclass(frozen=True)
class Asked:
    """A request that arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json["messages"]
        return found

    @property
    def tools(self) -> list[str]:
        """Names of the tools that were offered."""
        return [tool["function"]["name"] for tool in self.json.get("tools") or ()]

    @property
    def last(self) -> str:
        """Content of the newest message."""
        return str(self.messages[-1].get("content") or "")


class ModelServer:
    """
    requests: all that arrived whole, in order; GET of the model list too. models: what that list says.
    connections: accepted in all. open: now. answering, most_at_once: answers under way now, and at most.
    answered: ended as scripted. abandoned: answers that the other side did not wait for.
    """

    def __init__(self, *, port: int = 0, models: Sequence[str] = ("test-model",)) -> None:
        self.requests: list[Asked] = []
        self.models = list(models)
        self.otherwise: Script | Callable[[Asked], Script | Awaitable[Script]] = "ok"
        self.connections = self.open = self.answering = self.most_at_once = self.answered = self.abandoned = 0
        self.port = port
        self._script: deque[Script | Callable[[Asked], Script | Awaitable[Script]]] = deque()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: set[_Connection] = set()
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        """What `base_url` is to be."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answers(self, *script: Script | Callable[[Asked], Script | Awaitable[Script]]) -> None:
        """The next requests get these, in turn; may be called from any thread."""
        self._script.extend(script)

    async def until(self, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait, on the server's loop. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def wait_for(self, count: int, within_s: float = 30.0) -> None:
        """Until so many requests have arrived. Raises TimeoutError."""
        await self.until(lambda: len(self.requests) >= count, within_s)

    def wait(self, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        """The same from another thread than the server's."""
        assert self._loop is not None, "the server is not started"
        asyncio.run_coroutine_threadsafe(self.until(holds, within_s), self._loop).result(within_s + 5)

    async def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Down: connections are cut, new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.abort()
        await self.until(lambda: not self._connections)

    async def __aenter__(self) -> ModelServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _came(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self.connections += 1
        self.open += 1
        self._news.set()

    def _went(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self.open -= 1
        self._news.set()

    async def _serve(self, asked: Asked, connection: _Connection) -> None:
        self.requests.append(asked)
        self.answering += 1
        self.most_at_once = max(self.most_at_once, self.answering)
        self._news.set()
        ended = False
        try:
            await connection.send(await self._reply(asked), asked, len(self.requests))
            ended = True
        finally:
            self.answering -= 1
            self.answered += ended
            self.abandoned += not ended
            self._news.set()

    async def _reply(self, asked: Asked) -> Reply:
        if asked.method == "GET" and asked.path.split("?")[0].endswith("/models") and not self._script:
            return Reply(body={"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        given = self._script.popleft() if self._script else self.otherwise
        if callable(given):
            made = given(asked)
            given = await made if inspect.isawaitable(made) else made
        if isinstance(given, int):
            return failing(given, f"status {given} as told")
        return Reply(text=given) if isinstance(given, str) else given


@contextlib.contextmanager
def model_server(*, port: int = 0, models: Sequence[str] = ("test-model",)) -> Iterator[ModelServer]:
    """A server on a thread of its own, for tests of another process; `server.wait` instead of `until`."""
    server = ModelServer(port=port, models=models)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="model-server", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class _Connection(asyncio.Protocol):
    """One connection, kept alive: a request is answered at a time."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._came(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._writable.set()
        self._server._went(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        if self._task is not None or (end := self._buffer.find(b"\r\n\r\n")) < 0:
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._buffer) < whole:
            return
        method, path, _ = first.split(" ")
        asked = Asked(method, path, headers, bytes(self._buffer[end + 4 : whole]), asyncio.get_running_loop().time())
        del self._buffer[:whole]
        self._task = asyncio.get_running_loop().create_task(self._server._serve(asked, self))
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.abort()
            if not isinstance(error, ConnectionError):
                asyncio.get_running_loop().call_exception_handler({"message": "model server", "exception": error})
        else:
            self._next()

    async def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("the other side is gone")
        self._transport.write(data)
        await self._writable.wait()

    async def send(self, reply: Reply, asked: Asked, number: int) -> None:
        """number: of the request, part of the ids of calls."""
        assert self._transport is not None
        await asyncio.sleep(reply.delay_s)
        if reply.hang:
            await asyncio.Event().wait()
        if reply.raw is not None:
            await self._write(reply.raw)
            self._transport.close()
            return
        whole = reply.body
        if whole is None and reply.stream is None and not _wants_stream(asked):
            whole = _whole(reply, asked, number)
        if whole is not None or (reply.status != 200 and reply.stream is None):
            body = _bytes(b"" if whole is None else whole)
            headers = {"Content-Type": JSON, **reply.headers, "Content-Length": str(len(body))}
            await self._write(_head(reply.status, headers) + body)
            return
        headers = {"Content-Type": "text/event-stream", **reply.headers, "Transfer-Encoding": "chunked"}
        await self._write(_head(reply.status, headers))
        for count, piece in enumerate(_events(reply, asked, number)):
            if reply.hang_after == count:
                await asyncio.Event().wait()
            if reply.cut_after == count:
                self._transport.close()
                return
            if reply.pause_s and count:
                await asyncio.sleep(reply.pause_s)
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, int | float):
                await asyncio.sleep(piece)
            else:
                data = piece if isinstance(piece, bytes) else b"data: " + _bytes(piece) + b"\n\n"
                await self._write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._write(b"0\r\n\r\n")


def _wants_stream(asked: Asked) -> bool:
    try:
        return bool(asked.json.get("stream"))
    except (ValueError, AttributeError):
        return False


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _split(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.calls else "stop")


def _call_json(id: str, each: Call, arguments: Any) -> dict[str, Any]:
    function = {"name": each.name, "arguments": arguments}
    return {"id": each.id or id, "type": "function", "function": function}


def _whole(reply: Reply, asked: Asked, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    if reply.calls:
        message["tool_calls"] = [
            _call_json(f"call_{number}_{index}", each, each.arguments) for index, each in enumerate(reply.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "choices": [choice]}
    return {**answer, "model": _model(reply, asked), **({"usage": reply.usage} if reply.usage else {})}


def _model(reply: Reply, asked: Asked) -> str:
    return reply.model or str(asked.json.get("model"))


def _events(reply: Reply, asked: Asked, number: int) -> Iterator[Piece]:
    if reply.stream is not None:
        yield from reply.stream
        return
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": _model(reply, asked)}
    for delta in _deltas(reply, number):
        yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]}
    if reply.usage is not None and (asked.json.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": reply.usage}
    yield "[DONE]"


def _deltas(reply: Reply, number: int) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for piece in _split(reply.thinking, reply.pieces):
        yield {"reasoning_content": piece}
    for piece in _split(reply.text, reply.pieces):
        yield {"content": piece}
    for index, each in enumerate(reply.calls):
        given = each.arguments
        begun, *rest = _split(given, reply.pieces) or [""] if isinstance(given, str) else [given]
        yield {"tool_calls": [{"index": index, **_call_json(f"call_{number}_{index}", each, begun)}]}
        for piece in rest:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
