"""
How the daemon and the agent host speak: frames of JSON on a unix stream socket, one connection for each run.

In and out: mappings. From the daemon: `run` (first, with the job), `control`, `answer`. From the host: `hello`,
`record`, `event`, `spans`, `ask`, and as its last `outcome`.
Promise: the end of a connection is the end of its run, on either side. A frame is bounded; who sends a larger one, or
rubbish, is hung up on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from agentd.errors import AgentdError

MAX_FRAME_BYTES = 16 * 2**20
MOST_UNSENT_BYTES = 32 * 2**20
_LENGTH_BYTES = 4
_write = json.JSONEncoder(default=str, separators=(",", ":")).encode


class BrokenWire(AgentdError):
    """The other side does not keep to the protocol."""


class Wire:
    """One connection. Owns the two streams; `close` lets go of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.dropped = 0

    async def read(self) -> dict[str, Any] | None:
        """The next frame; None at the end. Raises BrokenWire."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES))
            if size > MAX_FRAME_BYTES:
                raise BrokenWire(f"a frame of {size} bytes was announced; {MAX_FRAME_BYTES} are allowed")
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            frame = json.loads(data)
        except ValueError as error:
            raise BrokenWire(f"a frame is no JSON: {error}") from error
        if not isinstance(frame, dict) or not isinstance(frame.get("do"), str):
            raise BrokenWire("a frame is no mapping with `do`")
        return frame

    def send(self, do: str, **fields: Any) -> None:
        """Send without waiting; what can no longer be sent is lost with the connection."""
        if self._writer.is_closing():
            return
        data = _write({"do": do, **fields}).encode()
        if len(data) > MAX_FRAME_BYTES:
            raise BrokenWire(f"a {do} of {len(data)} bytes is more than a frame takes")
        self._writer.write(len(data).to_bytes(_LENGTH_BYTES) + data)

    def show(self, do: str, **fields: Any) -> None:
        """The same for what is only shown: dropped and counted while the other side reads too slowly."""
        if self._writer.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self.dropped += 1
        else:
            self.send(do, **fields)

    async def drain(self) -> None:
        """Wait until the other side has room again."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        self._writer.close()


def fields_of(frame: Mapping[str, Any]) -> dict[str, Any]:
    """The frame without its `do`."""
    return {key: value for key, value in frame.items() if key != "do"}
