"""
Anthropic, Gemini and Bedrock as servers on loopback, each in its own protocol, and models that ask them through the
library, for the tests of `agentd.llm.library`.

Their streams are pieces for `modelserver.Reply`: events of the Messages API, chunks of streamGenerateContent, binary
frames of ConverseStream.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelserver import Call, ModelServer, Reply
from openai_models import asking

from agentd.clock import SystemClock
from agentd.llm.destination import Destination
from agentd.llm.library import open_library_model
from agentd.llm.library.model import LibraryModel
from agentd.llm.port import Done, ModelEvent, Request
from agentd.llm.settings import ModelSettings


class Dialect(Protocol):
    """
    How a provider speaks. provider, model: in the config. path: where it is asked.

    Of `reply`: thinking comes before the text with a signature, calls after it; usage as OpenAI's would be 100 tokens
    of input, 40 of them cached, and 7 of output.
    """

    provider: str
    model: str
    path: str

    def reply(
        self, text: str = "", *, calls: Sequence[Call] = (), thinking: str = "", stop: str | None = None, **more: Any
    ) -> Reply: ...

    def error(self, status: int, message: str, code: str, **headers: str) -> Reply: ...

    def in_stream(self, message: str, code: str) -> Reply:
        """An error in the midst of an answer."""
        ...


def sse(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


class Anthropic:
    provider = "anthropic"
    model = "claude-sonnet-4-6"
    path = "/v1/messages"

    def reply(
        self, text: str = "", *, calls: Sequence[Call] = (), thinking: str = "", stop: str | None = None, **more: Any
    ) -> Reply:
        blocks: list[list[bytes]] = []
        if thinking:
            blocks.append(
                self._block(
                    len(blocks),
                    {"type": "thinking", "thinking": "", "signature": ""},
                    {"type": "thinking_delta", "thinking": thinking},
                    {"type": "signature_delta", "signature": "c2lnbmVk"},
                )
            )
        if text:
            halves = [text[: len(text) // 2], text[len(text) // 2 :]]
            deltas = [{"type": "text_delta", "text": half} for half in halves]
            blocks.append(self._block(len(blocks), {"type": "text", "text": ""}, *deltas))
        for number, call in enumerate(calls):
            start = {"type": "tool_use", "id": call.id or f"toolu_{number}", "name": call.name, "input": {}}
            parts = [call.arguments[:5], call.arguments[5:]]
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
            blocks.append(self._block(len(blocks), start, *deltas))
        reason = stop or ("tool_use" if calls else "end_turn")
        end = [
            sse("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 7}),
            sse("message_stop"),
        ]
        return Reply(stream=[self.start(), sse("ping"), *[piece for block in blocks for piece in block], *end], **more)

    def start(self) -> bytes:
        usage = {
            "input_tokens": 50,
            "cache_read_input_tokens": 40,
            "cache_creation_input_tokens": 10,
            "output_tokens": 1,
        }
        message: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": f"{self.model}-20260101",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return sse("message_start", message=message)

    def error(self, status: int, message: str, code: str, **headers: str) -> Reply:
        return Reply(status=status, headers=_named(headers), body=self._error(message, code))

    def in_stream(self, message: str, code: str) -> Reply:
        return Reply(stream=[self.start(), sse("error", **self._error(message, code))])

    def _error(self, message: str, code: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": code, "message": message}, "request_id": "req_1"}

    def _block(self, index: int, start: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[bytes]:
        return [
            sse("content_block_start", index=index, content_block=start),
            *[sse("content_block_delta", index=index, delta=delta) for delta in deltas],
            sse("content_block_stop", index=index),
        ]


class Gemini:
    provider = "gemini"
    model = "gemini-2.5-flash"
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"

    def reply(
        self, text: str = "", *, calls: Sequence[Call] = (), thinking: str = "", stop: str | None = None, **more: Any
    ) -> Reply:
        parts: list[dict[str, Any]] = []
        if thinking:
            parts.append({"text": thinking, "thought": True})
        if text:
            parts += [{"text": half} for half in (text[: len(text) // 2], text[len(text) // 2 :])]
        for number, call in enumerate(calls):
            made: dict[str, Any] = {"functionCall": {"name": call.name, "args": json.loads(call.arguments)}}
            if call.id:
                made["functionCall"]["id"] = call.id
            if thinking and number == 0:
                made["thoughtSignature"] = base64.b64encode(b"signed").decode()
            parts.append(made)
        chunks = [self.chunk(part) for part in parts]
        return Reply(stream=[*chunks, self.chunk({"text": ""}, stop or "STOP")], **more)

    def chunk(self, part: Mapping[str, Any], stop: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if stop:
            candidate["finishReason"] = stop
        usage = {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 107,
        }
        return {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": f"{self.model}-001",
            "responseId": "r1",
        }

    def error(self, status: int, message: str, code: str, **headers: str) -> Reply:
        return Reply(status=status, headers=_named(headers), body=self._error(status, message, code))

    def in_stream(self, message: str, code: str) -> Reply:
        return Reply(stream=[self.chunk({"text": "so far"}), self._error(503, message, code)])

    def _error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": message, "status": code}}


class Bedrock:
    provider = "bedrock"
    model = "eu.anthropic.claude-sonnet-4-6-v1:0"
    path = "/model/eu.anthropic.claude-sonnet-4-6-v1%3A0/converse-stream"

    def reply(
        self, text: str = "", *, calls: Sequence[Call] = (), thinking: str = "", stop: str | None = None, **more: Any
    ) -> Reply:
        frames = [frame("messageStart", {"role": "assistant"})]
        index = 0
        if thinking:
            frames += [
                self._delta(index, {"reasoningContent": {"text": thinking}}),
                self._delta(index, {"reasoningContent": {"signature": "c2lnbmVk"}}),
            ]
            frames.append(frame("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        if text:
            frames += [self._delta(index, {"text": half}) for half in (text[: len(text) // 2], text[len(text) // 2 :])]
            frames.append(frame("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        for number, call in enumerate(calls):
            start = {"toolUse": {"toolUseId": call.id or f"tooluse_{number}", "name": call.name}}
            frames.append(frame("contentBlockStart", {"contentBlockIndex": index, "start": start}))
            for part in (call.arguments[:5], call.arguments[5:]):
                frames.append(self._delta(index, {"toolUse": {"input": part}}))
            frames.append(frame("contentBlockStop", {"contentBlockIndex": index}))
            index += 1
        frames.append(frame("messageStop", {"stopReason": stop or ("tool_use" if calls else "end_turn")}))
        usage = {
            "inputTokens": 60,
            "outputTokens": 7,
            "totalTokens": 107,
            "cacheReadInputTokens": 40,
            "cacheWriteInputTokens": 0,
        }
        frames.append(frame("metadata", {"usage": usage, "metrics": {"latencyMs": 5}}))
        return Reply(stream=frames, headers=EVENTSTREAM, **more)

    def error(self, status: int, message: str, code: str, **headers: str) -> Reply:
        return Reply(status=status, headers={"x-amzn-ErrorType": code, **_named(headers)}, body={"message": message})

    def in_stream(self, message: str, code: str) -> Reply:
        start = [frame("messageStart", {"role": "assistant"}), self._delta(0, {"text": "so far"})]
        return Reply(stream=[*start, frame(code, {"message": message}, kind="exception")], headers=EVENTSTREAM)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> bytes:
        return frame("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})


EVENTSTREAM = {"Content-Type": "application/vnd.amazon.eventstream"}


def frame(name: str, payload: Mapping[str, Any], *, kind: str = "event") -> bytes:
    """One message of AWS's binary event stream encoding."""
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for key, value in (
            (f":{kind}-type", name),
            (":content-type", "application/json"),
            (":message-type", kind),
        )
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack("!I", zlib.crc32(message))


ANTHROPIC, GEMINI, BEDROCK = Anthropic(), Gemini(), Bedrock()
DIALECTS: tuple[Dialect, ...] = (ANTHROPIC, GEMINI, BEDROCK)


@dataclass
class Setting:
    server: ModelServer
    place: Destination

    def settings(self, dialect: Dialect, **more: Any) -> ModelSettings:
        """Of a model of this server, asked in that dialect."""
        given = {
            "provider": dialect.provider,
            "model": dialect.model,
            "base_url": f"http://127.0.0.1:{self.server.port}",
            "api_key": "key-1",
            "retries": 0,
            "region": "eu-central-1" if dialect.provider == "bedrock" else None,
            **more,
        }
        return ModelSettings.model_validate(given)

    def model(self, dialect: Dialect, **settings: Any) -> LibraryModel:
        made = self.settings(dialect, **settings)
        return open_library_model("default", made, self.place.client("model default", made))

    async def events(
        self, dialect: Dialect, *script: Any, request: Request | None = None, **settings: Any
    ) -> list[ModelEvent]:
        """All events of one answer."""
        self.server.answers(*script)
        async with contextlib.aclosing(self.model(dialect, **settings).stream(request or asking())) as events:
            return [event async for event in events]

    async def done(self, dialect: Dialect, *script: Any, request: Request | None = None, **settings: Any) -> Done:
        last = (await self.events(dialect, *script, request=request, **settings))[-1]
        assert isinstance(last, Done)
        return last


@contextlib.asynccontextmanager
async def setting() -> AsyncIterator[Setting]:
    place = Destination(SystemClock())
    async with ModelServer() as server:
        try:
            yield Setting(server, place)
        finally:
            await place.close()


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
