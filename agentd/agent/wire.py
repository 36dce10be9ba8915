"""
How the daemon and the agent host speak: frames of JSON on a unix stream socket, one connection for each run.

In and out: mappings. From the daemon: `run` (first, with the job), `control`, `answer`. From the host: `hello`,
`record`, `event`, `spans`, `ask`, and as its last `outcome`.
Promise: the end of a connection is the end of its run, on either side. A frame is bounded, one of the host by its kind,
for reading it holds up all else of the daemon; who sends a larger one, or rubbish, is hung up on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from agentd.errors import AgentdError

MAX_FRAME_BYTES = 16 * 2**20
FROM_HOST: Mapping[str, int] = {
    "hello": 4096,
    "record": 2 * 2**20,
    "event": 2**20,
    "spans": 2**20,
    "ask": 2**18,
    "outcome": 4 * 2**20,
}
"""What the host says, and bytes that a frame of it may take. The kind stands in front, to be known unread."""
MOST_UNSENT_BYTES = 32 * 2**20
_LENGTH_BYTES = 4
_KIND = re.compile(rb'\{"do":"([a-z]{1,20})"')
_write = json.JSONEncoder(default=str, separators=(",", ":")).encode


class BrokenWire(AgentdError):
    """The other side does not keep to the protocol."""


class TooLarge(BrokenWire):
    """What is to be sent is more than a frame of its kind takes."""


class Wire:
    """One connection. Owns the two streams; `close` lets go of them. read_bytes: of the last frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.dropped = 0
        self.read_bytes = 0

    async def read(self, most: Mapping[str, int] | None = None) -> dict[str, Any] | None:
        """The next frame; None at the end. most: bytes by kind, of those that may come. Raises BrokenWire."""
        allowed = MAX_FRAME_BYTES if most is None else max(most.values())
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES))
            if size > allowed:
                raise BrokenWire(f"a frame of {size} bytes was announced; {allowed} are allowed")
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.read_bytes = size
        kind = None if most is None else _kind_of(data, most)
        try:
            frame = json.loads(data)
        except ValueError as error:
            raise BrokenWire(f"a frame is no JSON: {error}") from error
        if not isinstance(frame, dict) or not isinstance(frame.get("do"), str) or frame["do"] != (kind or frame["do"]):
            raise BrokenWire("a frame is no mapping with `do`")
        return frame

    def send(self, do: str, **fields: Any) -> None:
        """Send without waiting; what can no longer be sent is lost with the connection. Raises TooLarge."""
        if self._writer.is_closing():
            return
        data = _write({"do": do, **fields}).encode()
        if len(data) > FROM_HOST.get(do, MAX_FRAME_BYTES):
            raise TooLarge(f"a {do} of {len(data)} bytes is more than a frame takes")
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES) + data)

    def show(self, do: str, **fields: Any) -> None:
        """The same for what is only shown: dropped and counted when too large, or while nobody reads fast enough."""
        if self._writer.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self.dropped += 1
            return
        try:
            self.send(do, **fields)
        except TooLarge:
            self.dropped += 1

    async def drain(self) -> None:
        """Wait until the other side has room again."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


def _kind_of(data: bytes, most: Mapping[str, int]) -> str:
    """What a frame says that it is, before it is read. Raises BrokenWire."""
    match = _KIND.match(data)
    kind = match[1].decode() if match else ""
    if kind not in most:
        raise BrokenWire(f"a frame begins with {data[:40]!r}; it is none of {', '.join(most)}")
    if len(data) > most[kind]:
        raise BrokenWire(f"a frame `{kind}` has {len(data)} bytes; {most[kind]} are allowed")
    return kind


def fields_of(frame: Mapping[str, Any]) -> dict[str, Any]:
    """The frame without its `do`."""
    return {key: value for key, value in frame.items() if key != "do"}
